#!/usr/bin/env python3
"""Of several translations of each sentence, the one that a translator and other models together find the best.

  rerank.py DATA --subset train --candidates nbest --judges CHECKPOINT [CHECKPOINT ...] --out FILE

The candidates are lines `id TAB score TAB subwords` as in the H- lines of fairseq-generate --nbest N without subwords
removed, with the length-normalised score in bits; the output has a line `id TAB subwords` for each id, in their order.
Models that translate differently make different mistakes: a Transformer and convolutional models agree on a better
translation than either finds. A judge needs one pass for all candidates of a sentence.
"""

import argparse
import logging
import math
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional

import torch
from benchmark_report import positive
from corpus_checks import InputError, iter_lines
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

if __name__ == "__main__":  # what fairseq logs while it is imported is no part of a report
    logging.getLogger("fairseq").setLevel(logging.WARNING)
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from fairseq import utils  # noqa: E402

from fairseq_convtext.decoding.rescoring import Judge, translation_log_probs  # noqa: E402
from fairseq_convtext.errors import ConvTextError  # noqa: E402
from fairseq_convtext.modules.precision import COMPUTE_DTYPES  # noqa: E402
from fairseq_convtext.tasks.judges import load_judges  # noqa: E402
from fairseq_convtext.tasks.translation_convtext import (  # noqa: E402
    TranslationConvtextConfig,
    TranslationConvtextTask,
)


class Candidate(NamedTuple):
    """A translation as subwords, and its log-probability in nats by the model that made it."""

    text: str
    log_prob: float


def read_candidates(path: Path) -> Dict[int, List[Candidate]]:
    """Sentence ids to their candidates."""
    found: Dict[int, List[Candidate]] = defaultdict(list)
    for number, line in enumerate(iter_lines(path), start=1):
        try:
            key, score, text = line.split("\t")
            # fairseq divides by the length with EOS and gives bits.
            log_prob = float(score) * (len(text.split()) + 1) * math.log(2)
            found[int(key)].append(Candidate(text, log_prob))
        except ValueError as error:
            raise InputError(f"line {number} of {path} is not `id TAB score TAB subwords`: {line!r}") from error
    if not found:
        raise InputError(f"{path} holds no candidates")
    return found


def data_task(options: argparse.Namespace) -> TranslationConvtextTask:
    """The task of data that fairseq-preprocess made."""
    if not list(options.data.glob("*.*-*.*.idx")):
        raise InputError(f"{options.data} holds no data of fairseq-preprocess")
    # What the command line of fairseq fills in from its other options.
    rest = {"train_subset": "train", "dataset_impl": None, "required_seq_len_multiple": 1}
    languages = {"source_lang": options.source_lang, "target_lang": options.target_lang}
    return TranslationConvtextTask.setup_task(TranslationConvtextConfig(data=str(options.data), **languages, **rest))


def judge(model: Judge, task: Any, candidates: Dict[int, List[Candidate]], options: argparse.Namespace) -> Dict:
    """log p(candidate | source) of every candidate by one model."""
    dictionary, dataset = task.target_dictionary, task.dataset(options.subset)
    order = [key for key in dataset.ordered_indices().tolist() if key in candidates]
    parts = [order[start : start + options.batch_size] for start in range(0, len(order), options.batch_size)]
    found = {}
    for part in tqdm(parts, unit="batch", disable=None):
        batch = dataset.collater([dataset[key] for key in part])
        keys = batch["id"].tolist()
        tokens = [
            dictionary.encode_line(candidate.text, append_eos=False, add_if_not_exist=False).long()
            for key in keys
            for candidate in candidates[key]
        ]
        rows = torch.tensor([row for row, key in enumerate(keys) for _ in candidates[key]])
        scores = translation_log_probs(
            model,
            batch["net_input"],
            rows,
            pad_sequence(tokens, batch_first=True, padding_value=dictionary.pad()),
            torch.tensor([len(ids) for ids in tokens]),
        )
        rest = iter(scores.tolist())
        for key in keys:
            found[key] = [next(rest) for _ in candidates[key]]
    return found


def best(candidates: List[Candidate], judgements: List[List[float]], weight: float, exponent: float) -> str:
    """The candidate with the highest score per length, by its translator and the mean of the judges."""

    def score(place: int) -> float:
        mean = sum(judgement[place] for judgement in judgements) / len(judgements)
        text, log_prob = candidates[place]
        return (log_prob + weight * mean) / (len(text.split()) + 1) ** exponent

    return candidates[max(range(len(candidates)), key=score)].text


def main(arguments: Optional[List[str]] = None) -> int:
    """Command line; returns the exit code."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("data", type=Path, help="folder that fairseq-preprocess made, with the source sentences")
    parser.add_argument("--subset", default="train", help="of DATA (default: train)")
    parser.add_argument("--source-lang", help="(default: as the files of DATA are called)")
    parser.add_argument("--target-lang")
    parser.add_argument("--candidates", type=Path, help="file of translations")
    parser.add_argument("--judges", type=Path, nargs="+", required=True, help="checkpoints, see --ctc-judges")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--check", action="store_true", help="only see whether the judges fit DATA")
    parser.add_argument("--weight", type=float, default=0.7, help="of the judges; the translator has 1 (default: 0.7)")
    parser.add_argument("--length-exponent", type=float, default=1.5, help="of the length divided by (default: 1.5)")
    parser.add_argument("--batch-size", type=positive, default=32, help="sentences (default: 32)")
    parser.add_argument("--dtype", choices=COMPUTE_DTYPES, default="float32", help="of the judges")
    options = parser.parse_args(arguments)
    if not options.check and None in (options.candidates, options.out):
        parser.error("--candidates and --out are needed, unless it is to --check only")
    try:
        utils.import_user_module(argparse.Namespace(user_dir=str(ROOT / "fairseq_convtext")))
        task = data_task(options)
        models = load_judges(options.judges, task, torch.device("cpu"), options.dtype)
        if options.check:
            return 0
        if not options.out.parent.is_dir():
            raise InputError(f"no folder {options.out.parent} (--out)")
        candidates = read_candidates(options.candidates)
        task.load_dataset(options.subset)
        count = len(task.dataset(options.subset))
        if max(candidates) >= count:
            raise InputError(
                f"{options.candidates} has a sentence {max(candidates)}, counted from 0, and {options.subset} of "
                f"{options.data} only {count}"
            )
        judgements = [judge(model, task, candidates, options) for model in models]
        part = options.out.parent / f"{options.out.name}.part"
        with part.open("w", encoding="utf-8", newline="\n") as stream:
            for key, those in sorted(candidates.items()):
                chosen = best(those, [found[key] for found in judgements], options.weight, options.length_exponent)
                stream.write(f"{key}\t{chosen}\n")
        part.replace(options.out)
    except (InputError, ConvTextError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
