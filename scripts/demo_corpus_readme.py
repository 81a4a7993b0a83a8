"""The README that stands beside the demo corpus."""

from typing import Dict, Sequence

_TEXT = """\
# English-German demo corpus

Made by `scripts/make_demo_corpus.sh`; do not edit by hand. `scripts/demo_corpus.py unpack --out DIR`
writes it as plain text. Each file `SOURCE.SPLIT.tsv.xz` is UTF-8 text compressed with xz, one pair a line:
English, a tab, German.

| source | what it is | train | valid | test |
|---|---|---|---|---|
| `lohelp` | LibreOffice Help: sentences, headings and table cells | {lohelp} |
| `ding` | example sentences of the Ding dictionary: everyday language and proverbs | {ding} |

## Origin and licences

The licence of this project does not cover this folder. Its files are derived from these Debian packages:

| package | version | SHA-256 of the .deb file |
|---|---|---|
{packages}

- `lohelp.*` comes from LibreOffice Help, copyright 2000, 2010 Oracle and/or its affiliates and the
  LibreOffice contributors, under the Mozilla Public License 2.0 (`licences/MPL-2.0.txt`); some of its files
  include material under the Apache License 2.0 (`licences/Apache-2.0.txt`). Copyright files of the packages:
  `licences/libreoffice-help-en-us.copyright`, `licences/libreoffice-help-de.copyright`.
- `ding.*` comes from the Ding dictionary, copyright 1995-2023 Frank Richter, under the GNU General Public
  License, version 2 or later (`licences/GPL-2.txt`). Copyright file: `licences/trans-de-en.copyright`.

`lohelp.*` stays under MPL-2.0 and `ding.*` under GPL-2.0-or-later. What was changed is described below; the
originals are in the packages, `https://www.libreoffice.org` and `https://dict.tu-chemnitz.de`.

## How it was made

1. Help: paragraphs and headings have the same id in the English and the German page; they are joined by page
   and id. Where a phrase has variants for several systems the default one is taken. Paragraphs are split into
   sentences where both sides have as many, of similar length, with the same numbers and names in each.
2. Ding: only entries that are sentences on both sides, from capital to full stop, `!` or `?`. Labels and
   optional words in brackets are removed, of several alternatives the first is taken; entries with `a/b`
   choices, ellipses or place holders (`sb.`, `etw.`) are left out.
3. Both: white space, apostrophes and English double quotes are made uniform; left out are empty,
   untranslated, repeated and overlong pairs, odd length ratios, other scripts, and lines that are mostly
   digits and symbols.
4. Split: two lines are near copies when their letters are the same, whatever the case, accents, digits,
   punctuation and blanks. A pair goes to train if its English or German line, or a sentence of four words or
   more in it, has a near copy in any other pair of either source. Of the rest, in the order of the SHA-1 of
   the letters of the English line, the first 500 of a source are test and the next 500 valid.
"""


def readme(counts: Dict[str, Dict[str, int]], packages: Sequence[Sequence[str]]) -> str:
    """Return the text; ``counts`` is pairs by source and split, ``packages`` rows of name, version, hash."""
    rows = {
        source: " | ".join(f"{splits[split]:,}" for split in ("train", "valid", "test"))
        for source, splits in counts.items()
    }
    listed = "\n".join(f"| `{name}` | `{version}` | `{digest}` |" for name, version, digest in packages)
    return _TEXT.format(packages=listed or "| not given | | |", **rows)
