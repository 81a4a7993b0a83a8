#!/usr/bin/env python3
"""The training sentences of a binarised corpus, counted, or with more source sentences after them.

A step of scripts/distill.sh:

  more_sources.py BIN/train.en-de.en
  more_sources.py BIN/train.en-de.en --more more.en --dictionary BIN/dict.en.txt --out FOLDER/train.en-de.en
      [--copies 2 --targets BIN/train.en-de.de --target-dictionary BIN/dict.de.txt --target-text FILE]

The text has the subwords of BIN, separated by spaces, one sentence a line. Written are OUT.bin and OUT.idx, and with
--targets as many copies of the targets as text. What goes to standard output is the number of sentences of OUT, or of
BIN without --out.
"""

import argparse
import logging
import sys
from pathlib import Path
from typing import List, Optional, Sequence

import torch
from corpus_checks import InputError, check_file, iter_lines

if __name__ == "__main__":  # what fairseq logs while it is imported is no part of a report
    logging.getLogger("fairseq").setLevel(logging.WARNING)
from fairseq.data import Dictionary, indexed_dataset  # noqa: E402

# A text with more unknown tokens is not in the subwords of the dictionary.
MOST_UNKNOWN = 0.1


def read(prefix: Path) -> Sequence[torch.Tensor]:
    """The sentences of PREFIX.bin and PREFIX.idx, with EOS."""
    return indexed_dataset.make_dataset(str(prefix), indexed_dataset.infer_dataset_impl(str(prefix)))


def encode(text: Path, dictionary: Dictionary, name: Path) -> List[torch.Tensor]:
    """The lines of a text, with EOS.

    Raises:
        InputError: a line is empty, or more than a tenth of the tokens are not in the dictionary, of the file ``name``.
    """
    empty = check_file(text).first_empty
    if empty:
        raise InputError(f"line {empty} of {text} is empty: every line must be a sentence")
    found = [dictionary.encode_line(line, add_if_not_exist=False).long() for line in iter_lines(text)]
    tokens, unknown = sum(map(len, found)), sum(int(ids.eq(dictionary.unk()).sum()) for ids in found)
    if unknown > MOST_UNKNOWN * tokens:
        raise InputError(
            f"{unknown} of {tokens} tokens of {text} are not in {name}: give the text in the subwords of that corpus"
        )
    print(f"{text}: {len(found)} sentences, {unknown} of their tokens unknown", file=sys.stderr)
    return found


def main(arguments: Optional[List[str]] = None) -> int:
    """Command line; returns the exit code."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("prefix", type=Path, help="the binarised training source, without .bin and .idx")
    parser.add_argument("--more", type=Path, help="text of more sentences, as subwords")
    parser.add_argument("--dictionary", type=Path, help="of the binarised source")
    parser.add_argument("--out", type=Path, help="as prefix")
    parser.add_argument("--copies", type=int, default=1, help="of the training source, before the text (default: 1)")
    parser.add_argument("--targets", type=Path, help="as prefix: the binarised training targets")
    parser.add_argument("--target-dictionary", type=Path)
    parser.add_argument("--target-text", type=Path, help="file for the targets as subwords")
    options = parser.parse_args(arguments)
    if options.out and None in (options.more, options.dictionary):
        parser.error("--out needs --more and --dictionary")
    if options.targets and None in (options.target_dictionary, options.target_text):
        parser.error("--targets needs --target-dictionary and --target-text")
    try:
        sentences = read(options.prefix)
        if options.out:
            dictionary = Dictionary.load(str(options.dictionary))
            sentences = [*sentences] * options.copies + encode(options.more, dictionary, options.dictionary)
            builder = indexed_dataset.make_builder(f"{options.out}.bin", "mmap", vocab_size=len(dictionary))
            for ids in sentences:
                builder.add_item(ids)
            builder.finalize(f"{options.out}.idx")
        if options.targets:
            dictionary = Dictionary.load(str(options.target_dictionary))
            lines = [dictionary.string(ids) for ids in read(options.targets)]
            with options.target_text.open("w", encoding="utf-8", newline="\n") as stream:
                stream.writelines(f"{line}\n" for line in lines * options.copies)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(len(sentences))
    return 0


if __name__ == "__main__":
    sys.exit(main())
