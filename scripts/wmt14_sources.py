#!/usr/bin/env python3
"""Download, check and unpack the WMT14 English-German data; the addresses stand in wmt14_archives.py.

  wmt14_sources.py list                              every archive: file, bytes, digest, pairs
  wmt14_sources.py names [--news-commentary v12]     names of the training sources, in order
  wmt14_sources.py disk ...                          is there room for the whole preparation?
  wmt14_sources.py fetch ...                         download, check and unpack to RAW/NAME.en and RAW/NAME.de

A download is FILE.part until its size and digest are right; the same command goes on where it stopped.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import zlib
from pathlib import Path
from typing import BinaryIO, Dict, Iterable, List, Optional

from corpus_checks import InputError
from wmt14_archives import ARCHIVES, LANGUAGES, Archive, chosen, listing, read_expected

MAX_ATTEMPTS = 5
PAUSE_SECONDS = 10
# Measured on 25,213 pairs of this training set: 273 bytes of text a pair.
BYTES_PER_PAIR = 300
# Raw text, shards, text, pieces and bin/; the tokenised route keeps one more copy of text and pieces for a while.
COPIES_OF_TEXT = {"raw": 5, "tokenised": 8}


def digest_of(path: Path, kind: str) -> str:
    """``kind:hex`` of a file; kind is sha256 or md5."""
    state = hashlib.new(kind)
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            state.update(block)
    return f"{kind}:{state.hexdigest()}"


def check_archive(path: Path, archive: Archive) -> None:
    """Raises InputError unless size and digest are as expected, as far as they are known."""
    size = path.stat().st_size if path.exists() else 0
    if archive.size is not None and size < archive.size:
        raise InputError(
            f"{path} is truncated: found {size:,} bytes, expected {archive.size:,}; run the same command again to go "
            f"on with the download, and where that does not help check the address or --mirror it came from"
        )
    if archive.size is not None and size > archive.size:
        raise InputError(
            f"{path} is another file than {archive.address}: found {size:,} bytes, expected {archive.size:,}; "
            f"delete it, or describe it with --expected"
        )
    if archive.digest is not None:
        found = digest_of(path, archive.digest.split(":")[0])
        if found != archive.digest:
            raise InputError(
                f"{path} is damaged: found {found}, expected {archive.digest}; delete it and run the same command again"
            )


def download(archive: Archive, folder: Path, mirror: Optional[str]) -> Path:
    """The checked archive in ``folder``, from where the last attempt stopped.

    Raises:
        InputError: the download fails, or what came is not what was expected.
    """
    target = folder / archive.file
    part = folder / f"{archive.file}.part"
    if target.exists():
        if archive.size is None or target.stat().st_size >= archive.size:
            check_archive(target, archive)
            return target
        target.replace(part)
    address = f"{mirror.rstrip('/')}/{archive.file}" if mirror else archive.address
    folder.mkdir(parents=True, exist_ok=True)
    if archive.size is None:  # without the size nobody knows where a started download ends
        part.unlink(missing_ok=True)
    # A server that stalls is left after a minute.
    command = ["curl", "--fail", "--location", "--speed-limit", "1000", "--speed-time", "60", "--show-error"]
    command += ["--progress-bar" if sys.stderr.isatty() else "--silent", "--continue-at", "-"]
    code = 0
    for attempt in range(1 if address.startswith("file:") else MAX_ATTEMPTS):
        if archive.size is not None and part.exists() and part.stat().st_size >= archive.size:
            break
        if attempt:
            time.sleep(PAUSE_SECONDS)
        print(f"downloading {address}", file=sys.stderr)
        code = subprocess.run([*command, "--output", str(part), address]).returncode
        if code == 0:
            break
    if not part.exists() or (code and archive.size is None):
        raise InputError(f"cannot download {address} (curl ended with {code}); run the same command again, "
                         f"name another place with --mirror, or put the file into {folder}")  # fmt: skip
    check_archive(part, archive)
    part.replace(target)
    return target


def sentences(stream: BinaryIO, is_sgm: bool) -> Iterable[bytes]:
    """Lines without line feed; of an sgm file the text of each segment, as sacrebleu reads it."""
    if not is_sgm:
        for line in stream:
            yield line.rstrip(b"\n")
        return
    for match in re.finditer(rb"<seg\b[^>]*>(.*?)</seg>", stream.read(), re.DOTALL | re.IGNORECASE):
        yield b" ".join(match.group(1).split())


def unpack(path: Path, archive: Archive, raw: Path, source: str) -> None:
    """``raw/NAME.en`` and ``raw/NAME.de`` from the archive; ``source`` is the source language.

    Raises:
        InputError: the archive ends early, lacks a file, or has another number of pairs than expected.
    """
    wanted = {}
    for language in LANGUAGES:
        side = "src" if language == source else "ref"
        wanted[archive.member.format(language=language, side=side)] = language
    counts: Dict[str, int] = {}
    raw.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(path, "r|gz") as tar:
            for member in tar:  # to the end, so that an archive that ends early is found
                language = wanted.get(re.sub(r"^\./", "", member.name))
                if language is None or not member.isfile():
                    continue
                with (raw / f"{archive.name}.{language}.part").open("wb") as out:
                    counts[language] = 0
                    for sentence in sentences(tar.extractfile(member), member.name.endswith(".sgm")):
                        out.write(sentence + b"\n")
                        counts[language] += 1
    except (EOFError, tarfile.TarError, zlib.error, OSError) as error:
        raise InputError(
            f"{path} cannot be unpacked, it is truncated or damaged ({error}): found {path.stat().st_size:,} bytes, "
            f"expected {archive.size or 'a whole archive'}; delete it and run the same command again"
        ) from error
    missing = [name for name, language in wanted.items() if language not in counts]
    if missing:
        raise InputError(f"{path} has no {' and no '.join(missing)}: it is another release; delete it")
    expected = archive.pairs if archive.pairs is not None else counts["en"]
    if counts["en"] != expected or counts["de"] != expected:
        raise InputError(
            f"{path} has {counts['en']:,} English and {counts['de']:,} German lines of {archive.name}, expected "
            f"{expected:,} each: it is another release; delete it, or describe it with --expected"
        )
    for language in LANGUAGES:
        (raw / f"{archive.name}.{language}.part").replace(raw / f"{archive.name}.{language}")


def fetch(archives: List[Archive], downloads: Path, raw: Path, source: str, mirror: Optional[str]) -> None:
    """Every source as plain text; what is there already is kept, and then its archive is not needed."""
    for archive in archives:
        if all((raw / f"{archive.name}.{language}").exists() for language in LANGUAGES):
            print(f"{raw / archive.name}.* exist and are kept", file=sys.stderr)
            continue
        path = download(archive, downloads, mirror)
        print(f"unpacking {path}", file=sys.stderr)
        unpack(path, archive, raw, source)


def bytes_under(folder: Path) -> int:
    """Sum of the sizes of the files in a folder, links left out."""
    files = (Path(top) / name for top, _, names in os.walk(folder) for name in names)
    return sum(path.stat().st_size for path in files if not path.is_symlink())


def check_disk(out: Path, downloads: Path, archive_bytes: int, text_bytes: int, route: str) -> str:
    """One line that says what is needed and free; what a former run has written counts as there.

    Raises:
        InputError: the disk of ``out`` or of ``downloads`` is too small.
    """
    needs = [(out, text_bytes * COPIES_OF_TEXT[route]), (downloads, archive_bytes)]
    free: Dict[int, int] = {}
    names: Dict[int, List[str]] = {}
    missing: Dict[int, int] = {}
    for folder, bytes_needed in needs:
        folder.mkdir(parents=True, exist_ok=True)
        disk = folder.stat().st_dev
        free[disk] = shutil.disk_usage(folder).free
        names.setdefault(disk, []).append(str(folder))
        missing[disk] = missing.get(disk, 0) + max(0, bytes_needed - bytes_under(folder))
    need = sum(bytes_needed for _, bytes_needed in needs)
    for disk, still in missing.items():
        if still > free[disk]:
            raise InputError(
                f"the disk is too small: found {free[disk] / 1e9:.1f} GB free for {' and '.join(names[disk])}, "
                f"expected at least {still / 1e9:.1f} GB; make room, name another disk by --out and --downloads, or "
                "pass --no-disk-check"
            )
    return f"disk: about {need / 1e9:.1f} GB in all, {sum(missing.values()) / 1e9:.1f} GB still to be written"


def parse_options(arguments: Optional[List[str]]) -> argparse.Namespace:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("command", choices=("list", "names", "disk", "fetch"))
    parser.add_argument("--news-commentary", choices=("v9", "v12"), default="v9")
    parser.add_argument("--expected", type=Path, help="file of the form that list prints; replaces what it names")
    parser.add_argument("--mirror", help="folder or address that holds the archives by their file names")
    parser.add_argument("--downloads", type=Path, help="folder for the archives")
    parser.add_argument("--raw", type=Path, help="folder for the text")
    parser.add_argument("--out", type=Path, help="folder of the whole preparation, for disk")
    parser.add_argument("--route", choices=tuple(COPIES_OF_TEXT), default="raw")
    parser.add_argument("--source-language", choices=LANGUAGES, default="en")
    parser.add_argument("--corpus", help="PREFIX of a local corpus, for disk")
    return parser.parse_args(arguments)


def main(arguments: Optional[List[str]] = None) -> int:
    """Command line; returns the exit code."""
    options = parse_options(arguments)
    try:
        archives = chosen(options.news_commentary)
        if options.expected:
            archives = read_expected(options.expected, archives)
        mirror = Path(options.mirror).resolve().as_uri() if os.path.isdir(options.mirror or "") else options.mirror
        if options.command == "list":
            print(listing(ARCHIVES))
        elif options.command == "names":
            print("\n".join(archive.name for archive in archives if archive.role == "train"))
        elif options.command == "disk" and options.corpus:
            text = sum(os.path.getsize(f"{options.corpus}.{language}") for language in LANGUAGES)
            print(check_disk(options.out, options.downloads, 0, text, options.route))
        elif options.command == "disk":
            text = BYTES_PER_PAIR * sum(archive.pairs or 300_000 for archive in archives)
            total = sum(archive.size or 0 for archive in archives)
            print(check_disk(options.out, options.downloads, total, text, options.route))
        else:
            if not shutil.which("curl"):
                raise InputError("curl is needed for downloads and was not found; install it")
            fetch(archives, options.downloads, options.raw, options.source_language, mirror)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
