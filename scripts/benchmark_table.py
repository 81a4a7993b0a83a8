#!/usr/bin/env python3
"""The table of scripts/benchmark_multi30k.sh: one row for each system and each way of decoding it, then mean and spread
over the seeds of those that have several.

  benchmark_table.py FOLDER [SYSTEM-UPDATES-seedN[-DATA] ...] [--tests valid,test_2016_flickr,test_2017_flickr]

FOLDER holds text/TEST.de and, for every system, SYSTEM-UPDATES-seedN[-DATA]/DECODING/TEST.gen. All systems, which takes
some seconds for each, if none is named. Minutes are those of the last checkpoint, which may be gone.
"""

import argparse
import functools
import pickle
import re
import statistics
import sys
from pathlib import Path
from typing import Dict, List, Optional, Tuple

import torch
from benchmark_report import table
from corpus_checks import InputError, read_lines
from protocols import measures_of, score_rows
from score import load_generated, remove_subwords
from tqdm import tqdm

SYSTEM = re.compile(r"(?P<row>.+?)-(?P<updates>\d+)-seed(?P<seed>\d+)(-(?P<data>.+))?")
PARAMETERS = re.compile(r"num\. shared model params: ([\d,]+)")


@functools.cache
def training_of(folder: Path) -> List[str]:
    """Minutes of training and parameters in millions, as the last checkpoint and the log have them."""
    counts = PARAMETERS.findall((folder / "train.log").read_text(encoding="utf-8"))
    size = f"{int(counts[-1].replace(',', '')) / 1e6:.2f}" if counts else "?"
    path = folder / "checkpoints" / "checkpoint_last.pt"
    if not path.exists():
        return ["?", size]
    try:
        state = torch.load(path, map_location="cpu", weights_only=False)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(
            f"{path} is no whole checkpoint: remove {path.with_name('finished')} and train that row once more"
        ) from error
    minutes = state["extra_state"]["previous_training_time"] / 60
    return [f"{minutes:.0f}", size]


def decodings_in(folder: Path, systems: List[str], test: str) -> List[Path]:
    """The folders with a translation of ``test``, of these systems or of all.

    Raises:
        InputError: there is none, or none of one of these systems.
    """
    found = []
    for system in systems or ["*-seed*"]:
        decodings = sorted(path.parent for path in folder.glob(f"{system}/*/{test}.gen"))
        if not decodings:
            raise InputError(f"{folder} holds no {system if systems else 'SYSTEM-UPDATES-seedN'}/DECODING/{test}.gen")
        found += decodings
    return found


def scores_of(generated: Path, reference: Path) -> List[float]:
    """Cased sacreBLEU, chrF and lower-cased tokenised BLEU."""
    corpus = load_generated(generated, reference, len(read_lines(reference)))
    hypotheses = remove_subwords(corpus.hypotheses, "auto")[0]
    rows = score_rows(measures_of("multi30k", "de", False, False), hypotheses, corpus.references)
    return [row["score"] for row in rows]


def over_seeds(scores: Dict[Tuple[str, ...], List[List[List[float]]]]) -> List[List[str]]:
    """A row for every system with several seeds: mean and standard deviation of each score on each set."""
    rows = []
    for system, seeds in scores.items():
        if len(seeds) > 1:
            cells = [
                " / ".join(f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}" for values in zip(*test))
                for test in zip(*seeds)
            ]
            rows.append([*system, str(len(seeds)), *cells])
    return rows


def main(arguments: Optional[List[str]] = None) -> int:
    """Command line; returns the exit code."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("folder", type=Path)
    parser.add_argument("systems", nargs="*", metavar="system", help="folders in it (default: all)")
    parser.add_argument("--tests", default="valid,test_2016_flickr,test_2017_flickr")
    options = parser.parse_args(arguments)
    tests = options.tests.split(",")
    scores: Dict[Tuple[str, ...], List[List[List[float]]]] = {}
    rows = [["system", "data", "seed", "updates", "minutes", "M parameters", "decoding", *tests]]
    try:
        decodings = decodings_in(options.folder, options.systems, tests[-1])
        for decoding in tqdm(decodings, desc="scores", unit="system", disable=None):
            system = SYSTEM.fullmatch(decoding.parent.name)
            if system is None:
                continue
            row = [system["row"], system["data"] or "raw", system["seed"], system["updates"]]
            row += [*training_of(decoding.parent), decoding.name]
            found = [scores_of(decoding / f"{test}.gen", options.folder / "text" / f"{test}.de") for test in tests]
            rows.append(row + [" / ".join(f"{score:.2f}" for score in scores) for scores in found])
            scores.setdefault((row[0], row[1], row[3], decoding.name), []).append(found)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table(rows))
    seeds = over_seeds(scores)
    if seeds:
        print("\nMean and standard deviation over seeds:\n")
        print(table([["system", "data", "updates", "decoding", "seeds", *tests], *seeds]))
    print("\nCased sacreBLEU / chrF / lower-cased tokenised BLEU on each set.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
