#!/usr/bin/env python3
"""Scores of several test sets in one table, and some sentences side by side.

  translation_report.py NAME=gen.out:reference.de ... [--examples 10]

Each gen.out is what fairseq-generate printed, the reference plain text.
"""

import argparse
import sys
from pathlib import Path
from typing import List, Optional, Tuple

from corpus_checks import InputError, read_lines
from score import Corpus, compute, load_generated, parse_generated, remove_subwords


def load(specification: str) -> Tuple[str, Corpus, List[str]]:
    """Name, hypotheses with references, and sources of ``NAME=gen.out:reference``."""
    name, found, files = specification.partition("=")
    generated, colon, reference = files.rpartition(":")
    if not (found and colon):
        raise InputError(f"expected NAME=gen.out:reference, found {specification!r}")
    corpus = load_generated(Path(generated), Path(reference), len(read_lines(reference)))
    corpus.hypotheses = remove_subwords(corpus.hypotheses, "auto")[0]
    sources = parse_generated(Path(generated)).texts["S"]
    return name, corpus, remove_subwords([sources[key] for key in sorted(sources)], "auto")[0]


def print_scores(corpora: List[Tuple[str, Corpus, List[str]]], language: str) -> None:
    width = max(len("test set"), *(len(name) for name, _, _ in corpora))
    print(f"{'test set':{width}}  sentences  sacreBLEU   chrF  tokenised BLEU")
    for name, corpus, _ in corpora:
        bleu, chrf, tokenised = (row["score"] for row in compute(corpus, False, False, language))
        print(f"{name:{width}}  {len(corpus.hypotheses):9}  {bleu:9.2f}  {chrf:5.2f}  {tokenised:14.2f}")


def print_examples(corpora: List[Tuple[str, Corpus, List[str]]], count: int) -> None:
    """Evenly spaced sentences of every test set, not chosen by quality."""
    for index, (name, corpus, sources) in enumerate(corpora):
        share = count // len(corpora) + (index < count % len(corpora))
        for number in range(share):
            row = (2 * number + 1) * len(sources) // (2 * share)
            print(f"\n{name} {row + 1}")
            print(f"  source       {sources[row]}")
            print(f"  reference    {corpus.references[row]}")
            print(f"  translation  {corpus.hypotheses[row]}")


def main(arguments: Optional[List[str]] = None) -> int:
    """Command line; returns the exit code."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("tests", nargs="+", metavar="NAME=GEN:REF", help="a test set")
    parser.add_argument("--examples", type=int, default=10, help="sentences to show (default: 10)")
    parser.add_argument("--target-lang", default="de", help="language of the Moses tokeniser (default: de)")
    options = parser.parse_args(arguments)
    try:
        corpora = [load(test) for test in options.tests]
        print_scores(corpora, options.target_lang)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print_examples(corpora, options.examples)
    return 0


if __name__ == "__main__":
    sys.exit(main())
