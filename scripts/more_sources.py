#!/usr/bin/env python3
"""The training source of a binarised corpus with more sentences at its end; a step of scripts/distill.sh.

  more_sources.py BIN/train.en-de.en --dictionary BIN/dict.en.txt --out FOLDER/train.en-de.en more.en

The text has the subwords of BIN, separated by spaces, one sentence a line. Written are OUT.bin and OUT.idx.
"""

import argparse
import logging
import sys
from pathlib import Path
from typing import List, Optional

from corpus_checks import InputError, check_file, iter_lines

if __name__ == "__main__":  # what fairseq logs while it is imported is no part of a report
    logging.getLogger("fairseq").setLevel(logging.WARNING)
from fairseq.data import Dictionary, indexed_dataset  # noqa: E402

# A text with more unknown tokens is not in the subwords of the dictionary.
MOST_UNKNOWN = 0.1


def main(arguments: Optional[List[str]] = None) -> int:
    """Command line; returns the exit code."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("prefix", type=Path, help="the binarised training source, without .bin and .idx")
    parser.add_argument("text", type=Path, help="more sentences, as subwords")
    parser.add_argument("--dictionary", type=Path, required=True, help="of the binarised source")
    parser.add_argument("--out", type=Path, required=True, help="as prefix")
    parser.add_argument("--copies", type=int, default=1, help="of the training source, before the text (default: 1)")
    options = parser.parse_args(arguments)
    try:
        empty = check_file(options.text).first_empty
        if empty:
            raise InputError(f"line {empty} of {options.text} is empty: every line must be a sentence")
        dictionary = Dictionary.load(str(options.dictionary))
        found = [
            dictionary.encode_line(line, add_if_not_exist=False).long() for line in iter_lines(options.text)
        ]
        tokens, unknown = sum(map(len, found)), sum(int(ids.eq(dictionary.unk()).sum()) for ids in found)
        if unknown > MOST_UNKNOWN * tokens:
            raise InputError(
                f"{unknown} of {tokens} tokens of {options.text} are not in {options.dictionary}: give the text in the "
                "subwords of that corpus"
            )
        known = indexed_dataset.make_dataset(
            str(options.prefix), indexed_dataset.infer_dataset_impl(str(options.prefix))
        )
        builder = indexed_dataset.make_builder(f"{options.out}.bin", "mmap", vocab_size=len(dictionary))
        for ids in [*known] * options.copies + found:
            builder.add_item(ids)
        builder.finalize(f"{options.out}.idx")
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    total = options.copies * len(known)
    print(f"{options.out}: {total} sentences and {len(found)} more, {unknown} of their tokens unknown")
    return 0


if __name__ == "__main__":
    sys.exit(main())
