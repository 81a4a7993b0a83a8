#!/usr/bin/env python3
"""New sentences that are put together from the n-grams of a text, for a teacher to translate (scripts/distill.sh).

  sample_sentences.py --count 116000 --out more.en train.en

Each word is drawn among those that follow the last words somewhere in the text: the last three, or, to leave a
sentence once begun more often, the last two with the probability --freedom. What the text has already, what was drawn
before and what is too long or has fewer than four words is thrown away. Such sentences are locally fluent and
often absurd; what a student learns from them is how its teacher translates, on more text than there are translations
of (Zhou and Keung 2020, arXiv 2005.00932, with a model in the place of collected text).
"""

import argparse
import random
import sys
from collections import defaultdict
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Tuple

from corpus_checks import InputError, check_file, iter_lines
from tqdm import tqdm

BEGIN, END = "<s>", "</s>"
LONG, SHORT = 3, 2
FEWEST_WORDS = 4
# Draws in a row that may give nothing new before the text counts as too small.
PATIENCE = 10_000

Followers = Dict[Tuple[str, ...], List[str]]


def followers(sentences: List[List[str]], size: int) -> Followers:
    """Every run of ``size`` words to the words that follow it, as often as they do."""
    found: Followers = defaultdict(list)
    for words in sentences:
        padded = [BEGIN] * size + words + [END]
        for at in range(size, len(padded)):
            found[tuple(padded[at - size : at])].append(padded[at])
    return found


def draw(after_long: Followers, after_short: Followers, longest: int, freedom: float, dice: random.Random) -> List[str]:
    """One sentence, END included unless it grew too long."""
    words = [BEGIN] * LONG
    while words[-1] != END and len(words) - LONG <= longest:
        short = dice.random() >= 1 - freedom and len(words) >= LONG + SHORT
        words.append(dice.choice(after_short[tuple(words[-SHORT:])] if short else after_long[tuple(words[-LONG:])]))
    return words[LONG:]


def sample(text: List[str], count: int, freedom: float, longest: Optional[int], seed: int) -> Iterator[str]:
    """``count`` different sentences that are not in ``text``; InputError when the text does not have so many.

    ``longest`` is a number of words, None that of the longest sentence in ``text``.
    """
    sentences = [line.split() for line in text if line.strip()]
    known = {" ".join(words) for words in sentences}
    longest = longest or max(map(len, sentences), default=0)
    after_long, after_short = followers(sentences, LONG), followers(sentences, SHORT)
    dice = random.Random(seed)
    made = failures = 0
    while made < count:
        words = draw(after_long, after_short, longest, freedom, dice)
        sentence = " ".join(words[:-1])
        if words[-1] != END or len(words) - 1 < FEWEST_WORDS or sentence in known:
            failures += 1
            if failures == PATIENCE:
                raise InputError(
                    f"the text has too few n-grams in common for --count {count}: after {made} sentences {PATIENCE} "
                    "draws in a row gave nothing new; ask for fewer, or raise --freedom"
                )
            continue
        known.add(sentence)
        made, failures = made + 1, 0
        yield sentence


def main(arguments: Optional[List[str]] = None) -> int:
    """Command line; returns the exit code."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("text", type=Path, help="sentences in plain text, one a line: the training source")
    parser.add_argument("--count", type=int, required=True, help="how many sentences to make")
    parser.add_argument("--out", type=Path, required=True, help="file to write them to")
    parser.add_argument("--freedom", type=float, default=0.4, help="how often two words decide alone (default: 0.4)")
    parser.add_argument("--longest", type=int, help="words of a sentence at most (default: as many as in the text)")
    parser.add_argument("--seed", type=int, default=1, help="of the draws (default: 1)")
    options = parser.parse_args(arguments)
    try:
        if options.count < 1:
            raise InputError(f"--count must be positive; found {options.count}")
        if options.longest is not None and options.longest < FEWEST_WORDS:
            raise InputError(f"--longest must be at least {FEWEST_WORDS}, the fewest words; found {options.longest}")
        if not 0 <= options.freedom <= 1:
            raise InputError(f"--freedom is a probability, from 0 to 1; found {options.freedom}")
        check_file(options.text)
        if not options.out.parent.is_dir():
            raise InputError(f"no folder {options.out.parent} (--out)")
        found = sample(list(iter_lines(options.text)), options.count, options.freedom, options.longest, options.seed)
        part = options.out.parent / f"{options.out.name}.part"
        with part.open("w", encoding="utf-8", newline="\n") as stream:
            for sentence in tqdm(found, total=options.count, unit="sentence", desc=options.out.name, disable=None):
                stream.write(f"{sentence}\n")
        part.replace(options.out)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
