#!/usr/bin/env python3
"""Train the n-gram language model that --ctc-lm takes, on the target side of the training data.

  train_ngram.py --dictionary BIN/dict.de.txt --out lm.de.pt pieces/train.de [more subword text ...]
  train_ngram.py ... --perplexity pieces/valid.de      prints how well it predicts held-out text

The text is what fairseq-preprocess read: subwords, separated by spaces. The model is interpolated Kneser-Ney.
"""

import argparse
import logging
import math
import sys
from pathlib import Path
from typing import Iterator, List, Optional

import torch
from corpus_checks import InputError, check_file, iter_lines
from tqdm import tqdm

if __name__ == "__main__":  # what fairseq logs while it is imported is no part of a report
    logging.getLogger("fairseq").setLevel(logging.WARNING)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from fairseq.data import Dictionary  # noqa: E402

from fairseq_convtext.decoding.ngram import NgramModel, digest, train_ngram  # noqa: E402
from fairseq_convtext.errors import ConvTextError  # noqa: E402


def sentences(paths: List[Path], dictionary: Dictionary) -> Iterator[List[int]]:
    """The ids of every line, without EOS."""
    for path in paths:
        for line in tqdm(iter_lines(path), desc=path.name, unit="line", disable=None):
            yield [dictionary.index(token) for token in line.split()]


def perplexity(model: NgramModel, path: Path, dictionary: Dictionary) -> float:
    """Per token, EOS counted."""
    total, count = 0.0, 0
    for ids in sentences([path], dictionary):
        padded = torch.tensor([model.start] * (model.order - 1) + [*ids, dictionary.eos()])
        windows = padded.unfold(0, model.order, 1)
        total += float(model.score(windows[:, :-1], windows[:, -1:]).sum())
        count += len(windows)
    return math.exp(-total / count)


def main(arguments: Optional[List[str]] = None) -> int:
    """Command line; returns the exit code."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("texts", nargs="+", type=Path, help="subword text of the target language")
    parser.add_argument("--dictionary", type=Path, required=True, help="the target dictionary of the binarised data")
    parser.add_argument("--out", type=Path, required=True, help="file of the model")
    parser.add_argument("--order", type=int, default=4, help="longest n-gram (default: 4)")
    parser.add_argument("--perplexity", type=Path, help="subword text to measure the model on")
    options = parser.parse_args(arguments)
    try:
        for path in [*options.texts, options.dictionary, *([options.perplexity] if options.perplexity else [])]:
            check_file(path)
        if not options.out.parent.is_dir():
            raise InputError(f"no folder {options.out.parent} (--out)")
        try:
            dictionary = Dictionary.load(str(options.dictionary))
        except (ValueError, RuntimeError) as error:
            raise InputError(f"{options.dictionary} is not a dictionary of fairseq-preprocess ({error})") from error
        text = sentences(options.texts, dictionary)
        model = train_ngram(text, options.order, len(dictionary), dictionary.bos(), dictionary.eos())
        model.symbols = digest(dictionary.symbols)
        part = options.out.parent / f"{options.out.name}.part"
        torch.save(model.state_dict(), part)
        part.replace(options.out)
        counts = ", ".join(f"{len(keys):,}" for keys in model.keys)
        print(f"{options.out}: {counts} n-grams of orders 1 to {model.order}")
        if options.perplexity:
            print(f"perplexity on {options.perplexity}: {perplexity(model, options.perplexity, dictionary):.2f}")
    except (InputError, ConvTextError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
