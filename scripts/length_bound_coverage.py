#!/usr/bin/env python3
"""Which share of a corpus fits the length bound ``L = min(ceil(a * S + b), limit)``, for a grid of a and b.

  length_bound_coverage.py PREFIX SRC TGT [--spm MODEL]       files PREFIX.SRC and PREFIX.TGT
  length_bound_coverage.py --source FILE --target FILE

The text must be what the model reads: subwords, separated by spaces, or plain text with --spm. S counts the
source tokens with EOS, as the model does. A target of U tokens fits
  position   if L >= U + 1 (EOS is written too),
  ctc        if L >= U + number of adjacent equal tokens (a blank must stand between them),
  dag        if L >= U + 2 (the start and the end are positions too) and L <= (U + 1) * longest jump + 1.
"""

import argparse
import logging
import sys
from pathlib import Path
from typing import Callable, Dict, List, Optional

import torch
from corpus_checks import InputError, check_parallel_files, iter_lines
from torch import Tensor

if __name__ == "__main__":  # what fairseq logs while it is imported is no part of a report
    logging.getLogger("fairseq").setLevel(logging.WARNING)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from fairseq_convtext.losses.ctc import required_positions  # noqa: E402
from fairseq_convtext.modules.length_bound import length_bound  # noqa: E402

Cell = Callable[[float, float], str]
Segment = Callable[[str], List[str]]
CORNER = "a \\ b"


def token_counts(path: Path, segment: Segment) -> Tensor:
    """``(sentences,)`` tokens of every line, without EOS."""
    return torch.tensor([len(segment(line)) for line in iter_lines(path)])


def ctc_positions(path: Path, segment: Segment) -> Tensor:
    """``(sentences,)`` canvas positions that CTC needs for every line."""
    numbers: Dict[str, int] = {}
    needed = []
    for line in iter_lines(path):
        target = torch.tensor([[numbers.setdefault(token, len(numbers)) for token in segment(line)]]).long()
        needed.append(required_positions(target, torch.tensor([target.size(1)])).item())
    return torch.tensor(needed)


def coverage(
    lengths: Tensor, needed: Tensor, a: float, b: float, limit: int, most: Optional[Tensor] = None
) -> float:
    """Share of sentences whose bound reaches what they need, in per cent.

    Args:
        lengths: ``(sentences,)`` source tokens S, EOS included.
        needed: ``(sentences,)`` positions that the target needs.
        a, b, limit: the bound.
        most: ``(sentences,)`` positions that the target must not have more of; None for no such limit.
    """
    bound = length_bound(lengths, a, b, limit)
    fits = bound >= needed if most is None else (bound >= needed) & (bound <= most)
    return 100.0 * fits.double().mean().item()


def table(title: str, a_values: List[float], b_values: List[float], cell: Cell) -> str:
    """A grid as text, a downwards and b across."""
    rows = [title, f"{CORNER:>8}" + "".join(f"{b:>9g}" for b in b_values)]
    rows += [f"{a:>8g}" + "".join(f"{cell(a, b):>9}" for b in b_values) for a in a_values]
    return "\n".join(rows)


def percent(value: float) -> str:
    """Three decimals; ``all`` only where not a single sentence is lost."""
    return "all" if value == 100.0 else f"{min(value, 99.999):.3f}"


def summary(name: str, values: Tensor) -> str:
    quantiles = torch.quantile(values.double(), torch.tensor([0.5, 0.99], dtype=torch.double)).tolist()
    return (
        f"{name}: mean {values.double().mean():.1f}, median {quantiles[0]:.0f}, "
        f"99 % up to {quantiles[1]:.0f}, longest {values.max()}"
    )


def report(source: Path, target: Path, segment: Segment, options: argparse.Namespace) -> None:
    """Print the tables: what fits by each alignment, and what each bound costs."""
    pairs = check_parallel_files(source, target)[0].lines
    lengths = token_counts(source, segment) + 1
    tokens = token_counts(target, segment)
    needed = {"position": tokens + 1, "ctc": ctc_positions(target, segment), "dag": tokens + 2}
    farthest = {"position": None, "ctc": None, "dag": (tokens + 1) * options.longest_jump + 1}
    print(f"{pairs} pairs, {source} to {target}, L = min(ceil(a*S + b), {options.limit})")
    print(summary("source tokens with EOS", lengths))
    print(summary("target tokens", tokens))
    print(summary("extra positions for equal neighbours in CTC", needed["ctc"] - tokens))

    for alignment in needed:

        def share(a: float, b: float, alignment: str = alignment) -> str:
            return percent(coverage(lengths, needed[alignment], a, b, options.limit, farthest[alignment]))

        jumps = f", jumps of up to {options.longest_jump}" if alignment == "dag" else ""
        print(table(f"\n{alignment}: targets that fit{jumps}, per cent", options.a, options.b, share))

    def cost(a: float, b: float) -> str:
        return f"{length_bound(lengths, a, b, options.limit).sum().item() / max(tokens.sum().item(), 1):.2f}"

    print(table("\ncost: canvas positions per target token", options.a, options.b, cost))


def numbers(text: str) -> List[float]:
    """``1.0,1.5`` to a list, for argparse."""
    return [float(part) for part in text.split(",")]


def parse_options(arguments: Optional[List[str]]) -> argparse.Namespace:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("corpus", nargs="*", metavar="PREFIX SRC TGT", help="files PREFIX.SRC, PREFIX.TGT")
    parser.add_argument("--source", type=Path, help="source file, instead of PREFIX SRC TGT")
    parser.add_argument("--target", type=Path, help="target file")
    parser.add_argument("--spm", type=Path, help="sentencepiece model to segment both sides with")
    parser.add_argument("--a", type=numbers, default=[1.0, 1.2, 1.5, 2.0, 3.0], help="values of a, by commas")
    parser.add_argument("--b", type=numbers, default=[0, 4, 8, 16, 32], help="values of b, by commas")
    parser.add_argument("--longest-jump", type=int, default=12, help="of the model, for dag")
    parser.add_argument("--limit", type=int, default=1024, help="max_target_positions of the model")
    options = parser.parse_args(arguments)
    if len(options.corpus) == 3 and not options.source and not options.target:
        prefix, source, target = options.corpus
        options.source, options.target = Path(f"{prefix}.{source}"), Path(f"{prefix}.{target}")
    elif options.corpus or not options.source or not options.target:
        parser.error("give either PREFIX SRC TGT or --source FILE --target FILE")
    return options


def load_segmenter(spm: Optional[Path]) -> Segment:
    """Split at spaces as fairseq does, or segment with a sentencepiece model."""
    if spm is None:
        return str.split
    from sentencepiece import SentencePieceProcessor

    if not spm.is_file():
        raise InputError(f"no such sentencepiece model: {spm} (--spm)")
    try:
        model = SentencePieceProcessor(model_file=str(spm))
    except (RuntimeError, OSError) as error:
        raise InputError(f"{spm} is not a sentencepiece model (--spm)") from error
    return lambda line: model.encode(line, out_type=str)


def main(arguments: Optional[List[str]] = None) -> int:
    """Command line; returns the exit code."""
    options = parse_options(arguments)
    try:
        segment = load_segmenter(options.spm)
        report(options.source, options.target, segment, options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
