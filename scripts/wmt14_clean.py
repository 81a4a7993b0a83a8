#!/usr/bin/env python3
"""Clean and de-duplicate training text in parallel, and write held-out text in the same form.

  wmt14_clean.py train --source NAME=PREFIX ... --route raw --shards FOLDER --out PREFIX --counts FILE
  wmt14_clean.py heldout --route raw FROM-PREFIX TO-PREFIX REFERENCE-PREFIX

Files are PREFIX.en and PREFIX.de. Training text is worked on in shards of a fixed number of pairs, so that the
result does not depend on the number of workers. A shard's counts appear last and by renaming: a run that was killed
goes on with the shards that have none. In memory are one shard for each worker and 8 bytes a pair for the duplicates.
"""

import argparse
import hashlib
import json
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Dict, List, Optional, Tuple

import numpy
from corpus_checks import InputError, iter_lines
from tqdm import tqdm
from wmt14_text import ROUTES, clean_line, fault, length_fault, tokeniser

LANGUAGES = ("en", "de")


@dataclass(frozen=True)
class Shard:
    """``pairs`` lines of PREFIX.en and PREFIX.de from the byte ``starts``; its results are files ``out.*``."""

    source: str
    prefix: str
    starts: Tuple[int, int]
    pairs: int
    out: Path
    route: str

    def file(self, kind: str) -> Path:
        return self.out.parent / f"{self.out.name}.{kind}"


def line_starts(path: str, step: int) -> Tuple[List[int], int]:
    """Byte offset of every ``step``-th line, and the number of lines."""
    starts, position, lines = [], 0, 0
    try:
        with open(path, "rb") as stream:
            for line in stream:
                if lines % step == 0:
                    starts.append(position)
                position += len(line)
                lines += 1
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    return starts, lines


def parallel_starts(prefix: str, step: int) -> Tuple[List[Tuple[int, int]], int]:
    """``line_starts`` of both sides.

    Raises:
        InputError: a side is missing or empty, or the two have unequal numbers of lines.
    """
    english, lines = line_starts(f"{prefix}.en", step)
    german, german_lines = line_starts(f"{prefix}.de", step)
    if lines != german_lines or not lines:
        raise InputError(
            f"{prefix}.en has {lines} lines and {prefix}.de has {german_lines}: line i of one must be the translation "
            f"of line i of the other, so the counts must be equal and above 0"
        )
    return list(zip(english, german)), lines


def shards_of(source: str, prefix: str, size: int, folder: Path, route: str) -> List[Shard]:
    """Cut a corpus into shards; raises as ``parallel_starts``."""
    starts, lines = parallel_starts(prefix, size)
    return [
        Shard(source, prefix, start, min(size, lines - number * size), folder / f"{source}.{number:04d}", route)
        for number, start in enumerate(starts)
    ]


def clean_shard(shard: Shard) -> None:
    """Write what passes to ``.en`` and ``.de``, its hashes to ``.npy`` and the counts to ``.json``."""
    writers = {language: shard.file(language).open("w", encoding="utf-8", newline="\n") for language in LANGUAGES}
    readers = [open(f"{shard.prefix}.{language}", "rb") for language in LANGUAGES]
    change = [clean_line, clean_line]
    if shard.route == "tokenised":
        change = [tokeniser(language, normalise=True) for language in LANGUAGES]
    removed: Dict[str, int] = {}
    hashes = []
    for reader, start in zip(readers, shard.starts):
        reader.seek(start)
    for lines in islice(zip(*readers), shard.pairs):
        try:
            english, german = (function(line.decode("utf-8")) for function, line in zip(change, lines))
            problem = fault(english, german)
        except UnicodeDecodeError:
            problem = "encoding"
        if not problem and shard.route == "raw":
            problem = length_fault(english, german)
        if problem:
            removed[problem] = removed.get(problem, 0) + 1
            continue
        writers["en"].write(english + "\n")
        writers["de"].write(german + "\n")
        hashes.append(hashlib.blake2b(f"{english}\t{german}".encode(), digest_size=8).digest())
    for stream in (*writers.values(), *readers):
        stream.close()
    numpy.save(shard.file("npy"), numpy.frombuffer(b"".join(hashes), dtype="<u8"))
    part = shard.file("json.part")
    part.write_text(json.dumps(removed), encoding="utf-8")
    part.replace(shard.file("json"))


def run_shards(shards: List[Shard], workers: int) -> None:
    """Clean all shards that are not done yet.

    Raises:
        InputError: a worker was killed, most often for want of memory.
    """
    waiting = [shard for shard in shards if not shard.file("json").exists()]
    pool = ProcessPoolExecutor(max_workers=workers)
    try:
        futures = [pool.submit(clean_shard, shard) for shard in waiting]
        for future in tqdm(as_completed(futures), total=len(futures), desc="cleaning", unit="shard", disable=None):
            future.result()
    except BrokenProcessPool as error:
        raise InputError(
            f"one of {workers} workers was killed, most often for want of memory; run the same command again with "
            f"fewer --workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def first_of_each(shards: List[Shard]) -> "numpy.ndarray":
    """``(pairs,)`` True where a pair stands for the first time, over all shards in order."""
    hashes = numpy.concatenate([numpy.load(shard.file("npy")) for shard in shards])
    keep = numpy.zeros(len(hashes), dtype=bool)
    keep[numpy.unique(hashes, return_index=True)[1]] = True
    return keep


def merge(shards: List[Shard], out: Path, counts: Path) -> List[dict]:
    """Join the shards without duplicates to ``out.en`` and ``out.de``; the counts of each source, written last."""
    keep = first_of_each(shards)
    position = 0
    sources: Dict[str, dict] = {}
    parts = {language: Path(f"{out}.{language}.part") for language in LANGUAGES}
    writers = {language: part.open("wb") for language, part in parts.items()}
    for shard in shards:
        row = sources.setdefault(shard.source, {"source": shard.source, "pairs": 0, "kept": 0, "removed": {}})
        removed = json.loads(shard.file("json").read_text(encoding="utf-8"))
        mask = keep[position : position + shard.pairs - sum(removed.values())]
        position += len(mask)
        removed["duplicate"] = int((~mask).sum())
        row["pairs"] += shard.pairs
        row["kept"] += int(mask.sum())
        for reason, number in removed.items():
            row["removed"][reason] = row["removed"].get(reason, 0) + number
        for language, writer in writers.items():
            with shard.file(language).open("rb") as reader:
                writer.writelines(line for line, is_first in zip(reader, mask) if is_first)
    for language, writer in writers.items():
        writer.close()
        parts[language].replace(f"{out}.{language}")
    part = counts.parent / f"{counts.name}.part"
    part.write_text(json.dumps(list(sources.values()), indent=1), encoding="utf-8")
    part.replace(counts)
    return list(sources.values())


def clean_training(options: argparse.Namespace) -> None:
    if options.counts.exists():
        print(f"{options.out}.* exist and are kept")
        shutil.rmtree(options.shards, ignore_errors=True)
        return
    options.shards.mkdir(parents=True, exist_ok=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    shards = []
    for source in options.source:
        name, _, prefix = source.partition("=")
        shards += shards_of(name, prefix, options.shard_pairs, options.shards, options.route)
    run_shards(shards, options.workers)
    sources = merge(shards, options.out, options.counts)
    shutil.rmtree(options.shards)
    kept, pairs = (sum(row[key] for row in sources) for key in ("kept", "pairs"))
    if not kept:
        raise InputError(f"not one of {pairs} training pairs passed the filters, see {options.counts} for the reasons")
    print(f"{options.out}.*: {kept:,} of {pairs:,} pairs kept")


def copy_heldout(source: str, target: str, reference: str, route: str) -> None:
    """The same form as training text, without normalisation and filters, and the references: no line is lost.

    References are what scores are of, so only their white space is folded, as sacrebleu does it.
    """
    parallel_starts(source, 1_000_000)
    for language in LANGUAGES:
        change = tokeniser(language, normalise=False) if route == "tokenised" else clean_line
        for prefix, form in ((target, change), (reference, lambda line: " ".join(line.split()))):
            Path(prefix).parent.mkdir(parents=True, exist_ok=True)
            part = Path(f"{prefix}.{language}.part")
            with part.open("w", encoding="utf-8", newline="\n") as stream:
                stream.writelines(form(line) + "\n" for line in iter_lines(f"{source}.{language}"))
            part.replace(f"{prefix}.{language}")


def main(arguments: Optional[List[str]] = None) -> int:
    """Command line; returns the exit code."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train")
    train.add_argument("--source", action="append", required=True, metavar="NAME=PREFIX")
    train.add_argument("--shards", type=Path, required=True, help="folder for shards; removed in the end")
    train.add_argument("--out", type=Path, required=True, help="PREFIX of the result")
    train.add_argument("--counts", type=Path, required=True, help="file for the counts")
    train.add_argument("--workers", type=int, default=1)
    train.add_argument("--shard-pairs", type=int, default=100_000, help="pairs in a shard (default: 100000)")
    heldout = commands.add_parser("heldout")
    heldout.add_argument("source", help="PREFIX of the text")
    heldout.add_argument("target", help="PREFIX of the result")
    heldout.add_argument("reference", help="PREFIX of the references")
    for command in (train, heldout):
        command.add_argument("--route", choices=ROUTES, default="raw")
    options = parser.parse_args(arguments)
    try:
        if options.command == "train":
            clean_training(options)
        else:
            copy_heldout(options.source, options.target, options.reference, options.route)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
