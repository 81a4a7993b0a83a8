#!/usr/bin/env python3
"""Check a parallel corpus before any tool reads it: ``corpus_checks.py PREFIX SRC TGT``.

The files are ``PREFIX.SRC`` and ``PREFIX.TGT``, one sentence a line. The first problem found stops the
program with one sentence and exit code 1: a file that is missing, empty or not UTF-8, a carriage return
inside a line, or unequal line counts. Empty lines are allowed and counted, because fairseq keeps them.

Only a line feed ends a line here. ``str.splitlines`` would also split at U+2028, U+0085 and others, which
stand inside sentences of real corpora; one such split shifts every later pair.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, List, Optional, Tuple, Union


class InputError(ValueError):
    """A file or option of the user cannot be used; the message is one sentence that says how to mend it."""


@dataclass(frozen=True)
class FileReport:
    """What ``check_file`` counted.

    Attributes:
        path: the file.
        lines: number of lines; a last line without line feed counts.
        empty_lines: how many of them hold nothing but white space.
        first_empty: number of the first of these, from 1, or 0.
    """

    path: Path
    lines: int
    empty_lines: int
    first_empty: int


def iter_lines(path: Union[str, Path]) -> Iterator[str]:
    """Yield the lines of a UTF-8 text file without their ends (LF or CR LF).

    Raises:
        InputError: no such file, not a file, not readable, or not UTF-8.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"no such file: {path}")
    if not path.is_file():
        raise InputError(f"not a file: {path}")
    try:
        with path.open("rb") as stream:
            for number, raw in enumerate(stream, start=1):
                raw = raw[:-1] if raw.endswith(b"\n") else raw
                raw = raw[:-1] if raw.endswith(b"\r") else raw
                yield _decode(raw, path, number)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def _decode(raw: bytes, path: Path, number: int) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8: line {number} has the byte 0x{raw[error.start]:02X} as its byte number "
            f"{error.start + 1}; convert the file to UTF-8, for example with iconv"
        ) from error


def read_lines(path: Union[str, Path]) -> List[str]:
    """All lines of a UTF-8 text file; see ``iter_lines``."""
    return list(iter_lines(path))


def check_file(path: Union[str, Path]) -> FileReport:
    """Read one side of a corpus and count its lines.

    Raises:
        InputError: as ``iter_lines``; or the file holds no text; or a carriage return stands inside a line.
    """
    path = Path(path)
    lines = empty = first_empty = 0
    for lines, line in enumerate(iter_lines(path), start=1):
        # fairseq-preprocess opens files with universal newlines: it would see two lines where we count one.
        if "\r" in line:
            raise InputError(
                f"{path} has a carriage return inside line {lines}, a line end to fairseq; remove it"
            )
        if not line.strip():
            empty += 1
            first_empty = first_empty or lines
    if lines == empty:
        raise InputError(f"{path} is empty: expected one sentence a line, found {lines} lines without text")
    return FileReport(path, lines, empty, first_empty)


def check_parallel(prefix: Union[str, Path], source: str, target: str) -> Tuple[FileReport, FileReport]:
    """Check ``prefix.source`` and ``prefix.target``; see ``check_parallel_files``."""
    return check_parallel_files(f"{prefix}.{source}", f"{prefix}.{target}")


def check_parallel_files(source: Union[str, Path], target: Union[str, Path]) -> Tuple[FileReport, FileReport]:
    """Check the two sides of a corpus.

    Raises:
        InputError: as ``check_file`` for either side; or the line counts differ.
    """
    for path in (source, target):  # a missing file is reported before minutes are spent on the other one
        if not Path(path).exists():
            raise InputError(f"no such file: {path}")
    reports = check_file(source), check_file(target)
    if reports[0].lines != reports[1].lines:
        raise InputError(
            f"{source} has {reports[0].lines} lines and {target} has {reports[1].lines}: "
            f"line i of one must be the translation of line i of the other, so the counts must be equal"
        )
    return reports


def main(arguments: Optional[List[str]] = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Check a parallel corpus, one sentence a line, UTF-8.")
    parser.add_argument("prefix", help="path of both files without the language, e.g. data/train")
    parser.add_argument("source", help="source language, e.g. en: the file is PREFIX.en")
    parser.add_argument("target", help="target language, e.g. de: the file is PREFIX.de")
    options = parser.parse_args(arguments)
    try:
        reports = check_parallel(options.prefix, options.source, options.target)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for report in reports:
        if report.empty_lines:
            where = f"{report.path}, the first is line {report.first_empty}"
            print(f"warning: {report.empty_lines} empty lines in {where}", file=sys.stderr)
    print(f"{options.prefix}: {reports[0].lines} pairs {options.source}-{options.target}, UTF-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
