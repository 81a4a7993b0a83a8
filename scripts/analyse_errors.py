#!/usr/bin/env python3
"""What goes wrong in translations: broken words, repeats, missing words, length; and examples of two systems.

  analyse_errors.py --reference test.de --train train.de greedy=a.gen search=b.gen [--examples 5]

Every output is what fairseq-generate printed, or plain text, and may be given as NAME=FILE. Counted on Moses tokens:
  broken    words that stand in neither the training text nor the reference, in per cent of the words: most are
            subwords that do not belong together
  repeats   words, of at least two letters, that stand twice in a row, per 100 sentences
  missing   words of the reference that the translation lacks, in per cent (1 - recall)
  wrong     words of the translation that the reference lacks, in per cent (1 - precision)
  length    words of the translation to those of the reference
The examples are those sentences on which the last system gains most over the first one by sentence chrF, and as many
on which it loses most.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import List, Optional, Set

from benchmark_report import table
from compare import System, load_all
from corpus_checks import InputError, read_lines
from protocols import moses_tokens
from sacrebleu.metrics import CHRF


def words(lines: List[str], language: str) -> List[List[str]]:
    """Moses tokens of every line, in lower case."""
    return [line.lower().split() for line in moses_tokens(lines, language)]


def counts(system: List[List[str]], reference: List[List[str]], known: Set[str]) -> List[str]:
    """The row of one system, see the head of the file."""
    total, wanted = sum(map(len, system)), sum(map(len, reference))
    if not total or not wanted:
        raise InputError("the output of a system or the reference holds no word")
    broken = sum(word not in known and any(map(str.isalpha, word)) for line in system for word in line)
    repeats = sum(a == b and len(a) > 1 for line in system for a, b in zip(line, line[1:]))
    common = sum(sum((Counter(a) & Counter(b)).values()) for a, b in zip(system, reference))
    return [
        f"{100 * broken / total:.2f}",
        f"{100 * repeats / len(system):.1f}",
        f"{100 * (1 - common / wanted):.1f}",
        f"{100 * (1 - common / total):.1f}",
        f"{total / wanted:.3f}",
    ]


def print_examples(first: System, last: System, count: int) -> None:
    """The largest gains and the largest losses of the last system over the first."""
    metric = CHRF()
    gains = [
        metric.sentence_score(b, [r]).score - metric.sentence_score(a, [r]).score
        for a, b, r in zip(first.corpus.hypotheses, last.corpus.hypotheses, first.corpus.references)
    ]
    order = sorted(range(len(gains)), key=gains.__getitem__)
    for title, chosen in (("gains", order[::-1][:count]), ("losses", order[:count])):
        print(f"\nlargest {title} of {last.name} over {first.name}, in chrF of the sentence")
        for row in chosen:
            print(f"  {row + 1:5} {gains[row]:+6.1f}  reference  {first.corpus.references[row]}")
            for system in (first, last):
                print(f"                {system.name:9}  {system.corpus.hypotheses[row]}")


def main(arguments: Optional[List[str]] = None) -> int:
    """Command line; returns the exit code."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("systems", nargs="+", metavar="[NAME=]FILE", help="outputs")
    parser.add_argument("--reference", type=Path, required=True, help="plain text")
    parser.add_argument("--train", type=Path, required=True, help="plain text that the systems were trained on")
    parser.add_argument("--target-lang", default="de", help="language of the Moses tokeniser (default: de)")
    parser.add_argument("--examples", type=int, default=5, help="of gains and of losses (default: 5)")
    options = parser.parse_args(arguments)
    options.remove_subwords, options.detokenise = "auto", False
    try:
        systems = load_all(options)
        language = options.target_lang
        reference = words(systems[0].corpus.references, language)
        known = {word for line in words(read_lines(options.train), language) + reference for word in line}
        rows = [["system", "broken %", "repeats", "missing %", "wrong %", "length"]]
        for system in systems:
            rows.append([system.name, *counts(words(system.corpus.hypotheses, language), reference, known)])
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table(rows))
    if options.examples and len(systems) > 1:
        print_examples(systems[0], systems[-1], options.examples)
    return 0


if __name__ == "__main__":
    sys.exit(main())
