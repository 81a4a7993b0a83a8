"""The archives of the WMT14 English-German data: addresses, sizes, digests and numbers of pairs, in one place."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Dict, Iterable, List, Optional

from corpus_checks import InputError

STATMT = "https://www.statmt.org"
LANGUAGES = ("en", "de")


@dataclass(frozen=True)
class Archive:
    """One archive and the parallel text in it.

    Attributes:
        name: short name of the source; its text becomes NAME.en and NAME.de.
        role: train, valid or test.
        address: official address.
        member: file inside, with ``{language}`` and, for test sets, ``{side}`` (src or ref).
        size: bytes, or None where no published figure was found.
        digest: ``sha256:...`` or ``md5:...``, or None.
        pairs: lines of each side, or None.
    """

    name: str
    role: str
    address: str
    member: str
    size: Optional[int]
    digest: Optional[str]
    pairs: Optional[int]

    @property
    def file(self) -> str:
        return self.address.rsplit("/", 1)[1]


# Sizes and sha256: the published checksum lists of TensorFlow Datasets (wmt14_translate, wmt17_translate).
# md5 of test-full.tgz: sacrebleu (wmt14/full); md5 of dev.tgz: Sockeye's list of raw files.
# Sizes of dev.tgz and test-full.tgz and all pairs: counted by others who downloaded them.
# Nothing here has been downloaded by the authors of this file. The pairs of v12 are left out on purpose:
# published counts disagree (270,769 and 268,328); its sha256 is checked all the same.
ARCHIVES = (
    Archive(
        "europarl-v7", "train", f"{STATMT}/wmt13/training-parallel-europarl-v7.tgz",
        "training/europarl-v7.de-en.{language}", 657_632_379,
        "sha256:0224c7c710c8a063dfd893b0cc0830202d61f4c75c17eb8e31836103d27d96e7", 1_920_209,
    ),
    Archive(
        "commoncrawl", "train", f"{STATMT}/wmt13/training-parallel-commoncrawl.tgz",
        "commoncrawl.de-en.{language}", 918_311_367,
        "sha256:c7a74e2ea01ac6c920123108627e35278d4ccb5701e15428ffa34de86fa3a9e5", 2_399_123,
    ),
    Archive(
        "news-commentary-v9", "train", f"{STATMT}/wmt14/training-parallel-nc-v9.tgz",
        "training/news-commentary-v9.de-en.{language}", 80_418_416,
        "sha256:cb8953f292298e6877ae433c98912b927cb0766b303f4540512ddd286c748485", 201_288,
    ),
    Archive(
        "news-commentary-v12", "train",
        "https://data.statmt.org/wmt17/translation-task/training-parallel-nc-v12.tgz",
        "training/news-commentary-v12.de-en.{language}", 168_591_139,
        "sha256:2b45f30ef1d550d302fd17dd3a5cbe19134ccc4c2cf50c2dae534aee600101a2", None,
    ),
    Archive(
        "newstest2013", "valid", f"{STATMT}/wmt14/dev.tgz", "dev/newstest2013.{language}",
        17_742_707, "md5:88ba3fc60b2278d59277122e1c7dd6e7", 3_000,
    ),
    Archive(
        "newstest2014", "test", f"{STATMT}/wmt14/test-full.tgz",
        "test-full/newstest2014-deen-{side}.{language}.sgm",
        3_255_445, "md5:a8cd784e006feb32ac6f3d9ec7eb389a", 3_003,
    ),
)  # fmt: skip


def chosen(news_commentary: str) -> List[Archive]:
    """The archives of one preparation: one News Commentary, v9 or v12, and all the rest."""
    other = {"v9": "news-commentary-v12", "v12": "news-commentary-v9"}[news_commentary]
    return [archive for archive in ARCHIVES if archive.name != other]


def listing(archives: Iterable[Archive]) -> str:
    """The form that ``read_expected`` reads."""
    rows = ["# file bytes digest pairs; - is: not known, not checked"]
    rows += [f"{a.file} {a.size or '-'} {a.digest or '-'} {a.pairs or '-'}" for a in archives]
    return "\n".join(rows)


def read_expected(path: Path, archives: List[Archive]) -> List[Archive]:
    """``archives`` with the sizes, digests and pairs of the file in place of the official ones.

    Raises:
        InputError: the file cannot be read, or a line has not the four columns.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise InputError(f"cannot read {path} (--expected): {error.strerror}") from error
    rows: Dict[str, List[str]] = {}
    for number, line in enumerate(lines, start=1):
        columns = line.split("#")[0].split()
        if columns and not (len(columns) == 4 and all(re.fullmatch(r"\d+|-", columns[i]) for i in (1, 3))):
            raise InputError(f"{path} (--expected), line {number}: expected FILE BYTES DIGEST PAIRS, found {line!r}")
        if columns:
            rows[columns[0]] = columns[1:]

    def known(text: str) -> Optional[str]:
        return None if text == "-" else text

    def updated(archive: Archive) -> Archive:
        if archive.file not in rows:
            return archive
        size, digest, pairs = map(known, rows[archive.file])
        return replace(archive, size=size and int(size), digest=digest, pairs=pairs and int(pairs))

    return [updated(archive) for archive in archives]
