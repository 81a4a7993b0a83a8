#!/usr/bin/env python3
"""Keep the training pairs whose subwords are of fitting number: 1 to 250 on each side, ratio at most 1.5.

  wmt14_lengths.py --text PREFIX --pieces PREFIX --counts FILE --out FOLDER

Reads PREFIX.en and PREFIX.de of both, line by line in step, and the counts that wmt14_clean.py wrote; writes
OUT/text/train.*, OUT/pieces/train.* and, last, OUT/counts.json.
"""

import argparse
import json
import sys
from contextlib import ExitStack
from itertools import islice, zip_longest
from pathlib import Path
from typing import List, Optional

from corpus_checks import InputError, iter_lines
from wmt14_text import subword_fault

LANGUAGES = ("en", "de")


def filter_lengths(text: str, pieces: str, counts: Path, out: Path) -> List[dict]:
    """The counts of each source, with what was removed here."""
    sources = json.loads(counts.read_text(encoding="utf-8"))
    inputs = [f"{prefix}.{language}" for prefix in (text, pieces) for language in LANGUAGES]
    outputs = [out / folder / f"train.{language}" for folder in ("text", "pieces") for language in LANGUAGES]
    parts = [path.parent / f"{path.name}.part" for path in outputs]
    with ExitStack() as stack:
        for path in parts:
            path.parent.mkdir(parents=True, exist_ok=True)
        writers = [stack.enter_context(path.open("w", encoding="utf-8", newline="\n")) for path in parts]
        rows = zip_longest(*map(iter_lines, inputs))
        for source in sources:
            for lines in islice(rows, source["kept"]):
                if None in lines:
                    raise InputError(f"{text}.* and {pieces}.* are of unequal length; delete {out} and start anew")
                problem = subword_fault(len(lines[2].split()), len(lines[3].split()))
                if problem:
                    source["kept"] -= 1
                    source["removed"][problem] = source["removed"].get(problem, 0) + 1
                    continue
                for writer, line in zip(writers, lines):
                    writer.write(line + "\n")
    if not any(source["kept"] for source in sources):
        raise InputError("not one training pair passed the length filters: look at the text, or use --route raw")
    for part, path in zip(parts, outputs):
        part.replace(path)
    part = out / "counts.json.part"
    part.write_text(json.dumps(sources, indent=1), encoding="utf-8")
    part.replace(out / "counts.json")
    return sources


def main(arguments: Optional[List[str]] = None) -> int:
    """Command line; returns the exit code."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--text", required=True, help="PREFIX of the text")
    parser.add_argument("--pieces", required=True, help="PREFIX of the same text in subwords")
    parser.add_argument("--counts", type=Path, required=True, help="counts of wmt14_clean.py")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        sources = filter_lengths(options.text, options.pieces, options.counts, options.out)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.out}/pieces/train.*: {sum(source['kept'] for source in sources):,} pairs kept")
    return 0


if __name__ == "__main__":
    sys.exit(main())
