#!/usr/bin/env python3
"""Find the weights of the search with a language model: BLEU on the validation set for a grid.

  tune_search.py DATA --path checkpoint_best.pt --reference valid.de --lm lm.de.pt [--beam 10]

The network runs once with the language model and once without; only the search is repeated. Standard output is the
flags of the best setting, one a line, as fairseq-generate --task translation_convtext takes them; the table goes to
standard error.
"""

import argparse
import functools
import logging
import sys
from pathlib import Path
from typing import List, Optional

if __name__ == "__main__":  # what fairseq logs, from its import on, is no part of a report
    logging.disable(logging.INFO)
import torch
from canvases import Canvas, add_arguments, read_canvases
from corpus_checks import InputError
from tqdm import tqdm

from fairseq_convtext.decoding.ngram import NgramModel
from fairseq_convtext.decoding.path_beam import beam_search
from fairseq_convtext.decoding.prefix_beam import SearchOptions
from fairseq_convtext.errors import ConvTextError


def hypotheses(canvas: Canvas, search: SearchOptions, eos: int) -> List[torch.Tensor]:
    """The best tokens of every sentence of a batch."""
    best = beam_search(canvas.symbols, canvas.bound, search, eos)
    return [tokens[:length] for tokens, length in zip(best.tokens[:, 0], best.lengths[:, 0])]


def main(arguments: Optional[List[str]] = None) -> int:
    """Command line; returns the exit code."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    add_arguments(parser)
    parser.add_argument("--lm", type=Path, required=True, help="model of scripts/train_ngram.py")
    parser.add_argument("--beam", type=int, default=10)
    parser.add_argument("--weights", type=float, nargs="+", default=[0.0, 0.1, 0.2, 0.3, 0.4])
    parser.add_argument("--bonuses", type=float, nargs="+", default=[0.5, 1.0, 1.5, 2.0, 2.5, 3.0])
    options = parser.parse_args(arguments)
    if options.beam < 2:
        parser.error(f"--beam must be at least 2, for 1 is no search; found {options.beam}")
    if min(options.weights) < 0:
        parser.error(f"--weights must not be negative; found {min(options.weights)}")
    try:
        lm = NgramModel.load(str(options.lm))
        scores = {}
        grid = [(weight, bonus) for weight in sorted(options.weights) for bonus in sorted(options.bonuses)]
        canvases = {}
        for weight, bonus in tqdm(grid, desc="search", unit="setting", disable=None):
            used = lm if weight else None
            search = SearchOptions(options.beam, lm=used, lm_weight=weight, token_bonus=bonus)
            # The model's weight does not matter for what is tried at a position, but whether there is a model.
            if used not in canvases:
                canvases[used] = read_canvases(options, search)
            read = functools.partial(hypotheses, search=search, eos=canvases[used].eos)
            result = canvases[used].bleu(read)
            scores[weight, bonus] = round(result.score, 2)
            tqdm.write(
                f"weight {weight:4.2f}  bonus {bonus:4.2f}  sacreBLEU {result.score:6.2f}  "
                f"brevity penalty {result.bp:5.3f}", file=sys.stderr,
            )
    except (InputError, ConvTextError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    # Ties go to the smaller weight and bonus.
    weight, bonus = max(scores, key=lambda setting: (scores[setting], [-value for value in setting]))
    flags = [f"--ctc-beam={options.beam}", f"--ctc-token-bonus={bonus}"]
    if weight:
        flags += [f"--ctc-lm={options.lm}", f"--ctc-lm-weight={weight}"]
    print("\n".join(flags))
    return 0


if __name__ == "__main__":
    sys.exit(main())
