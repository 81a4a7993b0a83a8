#!/usr/bin/env python3
"""The table of a finished preparation: pairs per source, what each filter removed, tokens, length bound.

  wmt14_report.py OUT SOURCE TARGET          reads OUT/counts.json and OUT/pieces
"""

import argparse
import json
import sys
from pathlib import Path
from typing import List, Optional

from corpus_checks import InputError
from length_bound_coverage import coverage, ctc_positions, token_counts

REASONS = ("encoding", "empty", "script", "language", "length", "ratio", "duplicate")
SPLITS = ("train", "valid", "test")


def sources_table(sources: List[dict]) -> str:
    """Pairs found, removed by each filter and kept, a row a source and one for all."""
    total = {
        "source": "all",
        "pairs": sum(row["pairs"] for row in sources),
        "kept": sum(row["kept"] for row in sources),
        "removed": {name: sum(row["removed"].get(name, 0) for row in sources) for name in REASONS},
    }
    rows = [f"{'training source':<20}{'pairs':>11}" + "".join(f"{name:>10}" for name in REASONS) + f"{'kept':>11}"]
    for row in [*sources, total]:
        removed = "".join(f"{row['removed'].get(name, 0):>10,}" for name in REASONS)
        rows.append(f"{row['source']:<20}{row['pairs']:>11,}{removed}{row['kept']:>11,}")
    return "\n".join(rows)


def splits_table(pieces: Path, source: str, target: str, a: float, b: float, limit: int) -> str:
    """Pairs, subwords and the share of targets beyond the length bound, a row a split."""
    title = f"targets that L = min(ceil({a:g}*S + {b:g}), {limit}) cannot hold, per cent"
    rows = [f"{'':<8}{'pairs':>11}{source + ' tokens':>14}{target + ' tokens':>14}{'position':>11}{'ctc':>9}   {title}"]
    for split in SPLITS:
        lengths = token_counts(pieces / f"{split}.{source}", str.split)
        tokens = token_counts(pieces / f"{split}.{target}", str.split)
        needed = tokens + 1, ctc_positions(pieces / f"{split}.{target}", str.split)
        beyond = [100 - coverage(lengths + 1, positions, a, b, limit) for positions in needed]
        rows.append(
            f"{split:<8}{len(tokens):>11,}{lengths.sum():>14,}{tokens.sum():>14,}{beyond[0]:>11.3f}{beyond[1]:>9.3f}"
        )
    return "\n".join(rows)


def main(arguments: Optional[List[str]] = None) -> int:
    """Command line; returns the exit code."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("out", type=Path, help="folder of the preparation")
    parser.add_argument("source", help="source language")
    parser.add_argument("target", help="target language")
    # The defaults of bytenet_deconv.
    parser.add_argument("--a", type=float, default=2.0, help="--length-bound-a of the model (default: 2)")
    parser.add_argument("--b", type=float, default=4.0, help="--length-bound-b of the model (default: 4)")
    parser.add_argument("--limit", type=int, default=1024, help="--max-target-positions (default: 1024)")
    options = parser.parse_args(arguments)
    try:
        sources = json.loads((options.out / "counts.json").read_text(encoding="utf-8"))
        bound = (options.a, options.b, options.limit)
        print(sources_table(sources))
        print("\n" + splits_table(options.out / "pieces", options.source, options.target, *bound))
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
