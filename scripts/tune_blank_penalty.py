#!/usr/bin/env python3
"""Find the blank penalty of a CTC model: BLEU on the validation set for several values.

  tune_blank_penalty.py DATA --path checkpoint_best.pt --reference valid.de

The network runs once; only the reading of its canvases is repeated. Standard output is the best value alone, so
that a script can use it; the table goes to standard error. Ties go to the smaller penalty.
"""

import argparse
import logging
import sys
from typing import List, Optional

if __name__ == "__main__":  # what fairseq logs, from its import on, is no part of a report
    logging.disable(logging.INFO)
import torch
from canvases import Canvas, add_arguments, read_canvases
from corpus_checks import InputError

from fairseq_convtext.decoding.one_pass import read_ctc
from fairseq_convtext.errors import ConvTextError


def main(arguments: Optional[List[str]] = None) -> int:
    """Command line; returns the exit code."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    add_arguments(parser)
    parser.add_argument("--penalties", type=float, nargs="+", default=[0.25 * n for n in range(9)])
    options = parser.parse_args(arguments)
    try:
        canvases = read_canvases(options)
        print("penalty  sacreBLEU  brevity penalty", file=sys.stderr)
        scores = {}
        for penalty in sorted(options.penalties):

            def read(canvas: Canvas, penalty: float = penalty) -> List[torch.Tensor]:
                best = read_ctc(canvas.symbols, canvas.bound, canvases.blank, canvases.eos, penalty)
                return [tokens[:length] for tokens, length in zip(best.tokens, best.lengths)]

            result = canvases.bleu(read)
            scores[penalty] = round(result.score, 2)
            print(f"{penalty:7.2f}  {result.score:9.2f}  {result.bp:15.3f}", file=sys.stderr)
    except (InputError, ConvTextError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(max(scores, key=lambda penalty: (scores[penalty], -penalty)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
