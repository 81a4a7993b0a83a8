#!/usr/bin/env python3
"""The English-German corpus that ships with the project.

``demo_corpus.py build`` makes it from LibreOffice Help and the Ding dictionary (make_demo_corpus.sh fetches
both); ``demo_corpus.py unpack`` writes it as plain text for training. A split of a source is a file
``SOURCE.SPLIT.tsv.xz`` of lines ``English TAB German``.
"""

import argparse
import hashlib
import lzma
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Dict, Iterable, List, Optional, Sequence, Set

from demo_corpus_clean import Pair, clean_pairs, normalise, split_sentences
from demo_corpus_extract import ding_pairs, help_pairs
from demo_corpus_readme import readme

SOURCES = ("lohelp", "ding")
SPLITS = ("train", "valid", "test")
LANGUAGES = ("en", "de")
HELD_OUT = 500  # sentences in valid and in test, of each source
MAX_TOTAL_BYTES = 3_000_000
MIN_WORDS_OF_REPEATED_SENTENCE = 4

Corpus = Dict[str, Dict[str, List[Pair]]]  # source -> split -> pairs


class CorpusError(ValueError):
    """The corpus or an input of it cannot be used; the message is one sentence for the user."""


def sha1(text: str) -> str:
    return hashlib.sha1(text.encode("utf-8")).hexdigest()


def near_copy_keys(pair: Pair) -> Set[str]:
    """Return what must not occur in two splits: both lines, normalised, and the longer sentences in them."""
    keys = set()
    for language, line in zip(LANGUAGES, pair):
        keys.add(f"{language}:{normalise(line)}")
        for sentence in split_sentences(line):
            if len(sentence.split()) >= MIN_WORDS_OF_REPEATED_SENTENCE:
                keys.add(f"{language}:{normalise(sentence)}")
    return keys


def split_corpus(sources: Dict[str, Sequence[Pair]], held_out: int = HELD_OUT) -> Corpus:
    """Split every source into train, valid and test.

    A pair that has a near copy anywhere, in either language and in any source, goes to train with all its
    copies. Of the others, in the order of a hash of the normalised English sentence, the first ``held_out``
    are the test set and the next ``held_out`` the valid set, so that a newer version of a source keeps most
    of them. Train keeps the order of the source, which also compresses best.

    Raises:
        CorpusError: a source has too few pairs without near copies.
    """
    count = Counter(key for pairs in sources.values() for pair in pairs for key in near_copy_keys(pair))
    corpus: Corpus = {}
    for source, pairs in sources.items():
        unique = [pair for pair in pairs if all(count[key] == 1 for key in near_copy_keys(pair))]
        unique.sort(key=lambda pair: sha1(normalise(pair[0])))
        if len(unique) < 2 * held_out:
            raise CorpusError(
                f"{source} has {len(unique)} sentence pairs without near copies, but valid and test need "
                f"{2 * held_out}; check the input folders and files of build"
            )
        test, valid = unique[:held_out], unique[held_out : 2 * held_out]
        taken = set(test) | set(valid)
        train = [pair for pair in pairs if pair not in taken]
        corpus[source] = {"train": train, "valid": valid, "test": test}
    return corpus


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file by way of a temporary one, so that a file that exists is complete."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    write_bytes(path, "".join(line + "\n" for line in lines).encode("utf-8"))


def split_file(corpus_dir: Path, source: str, split: str) -> Path:
    return corpus_dir / f"{source}.{split}.tsv.xz"


def pack_pairs(pairs: Iterable[Pair]) -> bytes:
    """Return the compressed TSV text of some pairs; the same pairs give the same bytes."""
    text = "".join(f"{english}\t{german}\n" for english, german in pairs)
    return lzma.compress(text.encode("utf-8"), check=lzma.CHECK_CRC64, preset=9 | lzma.PRESET_EXTREME)


def read_pairs(path: Path) -> List[Pair]:
    """Read one file of the corpus.

    Raises:
        CorpusError: the file is missing, cut off, changed, or not lines of ``English TAB German``.
    """
    remedy = "restore it from the project's repository or run scripts/make_demo_corpus.sh"
    if not path.is_file():
        raise CorpusError(f"no such corpus file: {path}; {remedy}")
    try:
        text = lzma.decompress(path.read_bytes()).decode("utf-8")
    except (lzma.LZMAError, EOFError, UnicodeDecodeError) as error:
        raise CorpusError(f"corpus file {path} is damaged ({error}); {remedy}") from error
    if not text.endswith("\n"):
        raise CorpusError(f"corpus file {path} is damaged (empty or without a last line end); {remedy}")
    pairs = []
    for number, line in enumerate(text[:-1].split("\n"), start=1):
        columns = line.split("\t")
        if len(columns) != 2 or not all(column.strip() for column in columns):
            raise CorpusError(
                f"corpus file {path} is damaged (line {number} is not two filled columns); {remedy}"
            )
        pairs.append((columns[0], columns[1]))
    return pairs


def build(help_en: Path, help_de: Path, ding: Path, out: Path, packages: Sequence[Sequence[str]]) -> None:
    """Extract, clean, split and write the corpus and its README to the folder ``out``."""
    for folder in (help_en, help_de):
        if not folder.is_dir():
            raise CorpusError(f"no such folder: {folder}; give the folder of LibreOffice Help pages")
    if not ding.is_file():
        raise CorpusError(f"no such file: {ding}; give the Ding dictionary (usr/share/trans/de-en)")
    with ding.open(encoding="utf-8") as lines:
        sources = {
            "lohelp": list(clean_pairs(help_pairs(help_en, help_de))),
            "ding": list(clean_pairs(ding_pairs(lines))),
        }
    corpus = split_corpus(sources)
    packed = {
        (source, split): pack_pairs(corpus[source][split]) for source in SOURCES for split in SPLITS
    }
    total = sum(len(data) for data in packed.values())
    if total > MAX_TOTAL_BYTES:
        raise CorpusError(f"the corpus has {total} bytes, but at most {MAX_TOTAL_BYTES} may ship")
    out.mkdir(parents=True, exist_ok=True)
    for (source, split), data in packed.items():
        write_bytes(split_file(out, source, split), data)
        print(f"{split_file(out, source, split)}: {len(corpus[source][split])} pairs, {len(data)} bytes")
    counts = {source: {split: len(corpus[source][split]) for split in SPLITS} for source in SOURCES}
    write_bytes(out / "README.md", readme(counts, packages).encode("utf-8"))
    print(f"{total} bytes in all")


def unpack(corpus_dir: Path, out: Path, limit_train: Optional[int] = None) -> None:
    """Write the corpus as plain text files of one sentence a line, English and German line by line.

    ``SOURCE.{valid,test}.{en,de}`` hold one source each, ``valid.{en,de}`` both, and ``train.{en,de}`` both
    in a mixed order that is always the same; ``limit_train`` keeps the first so many of these.
    """
    if not corpus_dir.is_dir():
        raise CorpusError(f"no such corpus folder: {corpus_dir}; give it with --corpus")
    corpus = {
        source: {split: read_pairs(split_file(corpus_dir, source, split)) for split in SPLITS}
        for source in SOURCES
    }
    train = [pair for source in SOURCES for pair in corpus[source]["train"]]
    train.sort(key=lambda pair: sha1("\t".join(pair)))
    outputs = {
        f"{source}.{split}": corpus[source][split] for source in SOURCES for split in ("valid", "test")
    }
    outputs["train"] = train[:limit_train]
    outputs["valid"] = [pair for source in SOURCES for pair in corpus[source]["valid"]]
    out.mkdir(parents=True, exist_ok=True)
    for name, pairs in outputs.items():
        for column, language in enumerate(LANGUAGES):
            write_lines(out / f"{name}.{language}", (pair[column] for pair in pairs))
        print(f"{out / name}.{{{','.join(LANGUAGES)}}}: {len(pairs)} lines")


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not 1 or more")
    return value


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Build or unpack the English-German demo corpus.")
    commands = parser.add_subparsers(dest="command", required=True)
    default = Path(__file__).resolve().parent.parent / "data-bin" / "demo"
    shipped = "default: data-bin/demo of the project"

    command = commands.add_parser("build", help="make the corpus from its sources")
    command.add_argument("--help-en", type=Path, required=True, metavar="DIR", help="English Help pages")
    command.add_argument("--help-de", type=Path, required=True, metavar="DIR", help="German Help pages")
    command.add_argument("--ding", type=Path, required=True, metavar="FILE", help="Ding dictionary de-en")
    command.add_argument("--out", type=Path, default=default, metavar="DIR", help=shipped)
    command.add_argument(
        "--package", nargs=3, action="append", default=[], metavar=("NAME", "VERSION", "SHA256"),
        help="a package the sources were taken from, for the README; repeat for each",
    )

    command = commands.add_parser("unpack", help="write the corpus as plain text")
    command.add_argument("--corpus", type=Path, default=default, metavar="DIR", help=shipped)
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the text files")
    command.add_argument(
        "--limit-train", type=positive, metavar="N", help="write only the first N training pairs"
    )
    return parser


def main(arguments: Optional[List[str]] = None) -> int:
    options = get_parser().parse_args(arguments)
    try:
        if options.command == "build":
            build(options.help_en, options.help_de, options.ding, options.out, options.package)
        else:
            unpack(options.corpus, options.out, options.limit_train)
    except (CorpusError, OSError) as error:
        print(f"demo_corpus.py: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
