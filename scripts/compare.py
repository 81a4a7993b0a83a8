#!/usr/bin/env python3
"""Is one system better than another, or is it chance? Paired bootstrap resampling of BLEU and chrF.

  compare.py --reference test.de base.gen better.gen other.txt     against the first, the baseline
  compare.py --reference test.de --spread seed1.gen seed2.gen      mean and standard deviation over seeds

Each file is one system: an output of fairseq-generate or plain text, one translation a line; NAME=FILE gives it a
name. Without --reference the T- lines are the references. The test is that of sacrebleu (Koehn 2004): the test set
is drawn anew from its own sentences, the same draws for both systems. p is the probability of a difference at least
as large as the one found if the systems were equally good; it says nothing about other seeds of the same system.
"""

import argparse
import json
import os
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional

import score
from benchmark_report import positive, table
from corpus_checks import InputError, iter_lines

LEVEL = 0.05


@dataclass
class System:
    """A name and what score.py reads from its file."""

    name: str
    corpus: score.Corpus


def is_generated(path: Path) -> bool:
    """Whether a file is an output of fairseq-generate or fairseq-interactive."""
    return any(line.startswith("H-") and score.LABELLED_LINE.fullmatch(line) for line in iter_lines(path))


def load(specification: str, options: argparse.Namespace) -> System:
    """The translations of ``FILE`` or ``NAME=FILE``; for the errors see score.py."""
    name, found, file = specification.partition("=")
    if not found or Path(specification).exists():
        name = file = specification
    if not (name and file):
        raise InputError(f"expected FILE or NAME=FILE, found {specification!r}")
    generated = is_generated(Path(file))
    if not generated and options.reference is None:
        raise InputError(f"{file} is not an output of fairseq-generate: give the references with --reference FILE")
    arguments = ["--generated" if generated else "--hypothesis", file, "--target-lang", options.target_lang]
    arguments += ["--reference", str(options.reference)] if options.reference else []
    arguments += ["--detokenise"] if options.detokenise else []
    return System(name, score.prepare(score.parse_options(arguments)))


def load_all(options: argparse.Namespace) -> List[System]:
    """All systems, which must have the same references, line by line."""
    systems = [load(specification, options) for specification in options.systems]
    first = systems[0]
    for other in systems[1:]:
        found, expected = len(other.corpus.references), len(first.corpus.references)
        if found != expected:
            raise InputError(f"{other.name} has {found} sentences and {first.name} has {expected}: another test set?")
        pairs = enumerate(zip(first.corpus.references, other.corpus.references))
        differing = next((number for number, (one, two) in pairs if one != two), None)
        if differing is not None:
            raise InputError(
                f"{other.name} and {first.name} have other references (the first that differ: T-{differing}): "
                f"give the references with --reference FILE"
            )
    names = [system.name for system in systems]
    if len(set(names)) != len(names):
        raise InputError(f"{max(names, key=names.count)} is given twice: name the systems with NAME=FILE")
    return systems


def metrics(lowercase: bool) -> Dict[str, object]:
    """BLEU and chrF as score.py has them by default."""
    from sacrebleu.metrics import BLEU, CHRF

    return {"BLEU": BLEU(lowercase=lowercase, force=True), "chrF": CHRF(lowercase=lowercase)}


def compare(systems: List[System], options: argparse.Namespace) -> List[dict]:
    """For each system a row ``system`` and for each metric ``score``, ``mean``, ``interval``, ``p``, ``signature``.

    ``interval`` is half the width of the 95 % confidence interval around ``mean``; ``p`` of the baseline is None.
    """
    from sacrebleu.significance import PairedTest

    os.environ["SACREBLEU_SEED"] = str(options.seed)  # the only way to tell sacrebleu
    named = [(system.name, system.corpus.hypotheses) for system in systems]
    rows = [{"system": system.name} for system in systems]
    for name, metric in metrics(options.lowercase).items():
        references = [systems[0].corpus.references]
        test = PairedTest(named, {name: metric}, references, test_type="bs", n_samples=options.samples)
        signatures, results = test()
        (column,) = signatures
        for row, result in zip(rows, results[column]):
            # Of two equal scores sacrebleu says that no draw differed more, which reads as significant.
            equal = result.p_value is not None and result.score == results[column][0].score
            row[name] = {
                "score": float(result.score),
                "mean": float(result.mean),
                "interval": float(result.ci),
                "p": 1.0 if equal else result.p_value,
                "signature": str(signatures[column]),
            }
    return rows


def verdict(row: dict, baseline: dict) -> str:
    """One plain sentence on a system and the baseline."""
    parts = []
    for metric in list(row)[1:]:
        difference, p = row[metric]["score"] - baseline[metric]["score"], row[metric]["p"]
        where = "above" if difference > 0 else "below"
        significant = "significant" if p < LEVEL else "not significant"
        found = f"{abs(difference):.2f} {metric} {where} it (p = {p:.3f}, {significant} at {LEVEL})"
        parts.append(found if difference else f"the same {metric}")
    return f"{row['system']} against {baseline['system']}: {' and '.join(parts)}."


def print_comparison(rows: List[dict]) -> None:
    names = list(rows[0])[1:]
    heading = ["system"]
    for name in names:
        heading += [name, "mean, 95 % interval", "p"]
    cells = [heading]
    for row in rows:
        line = [row["system"]]
        for name in names:
            result = row[name]
            p = "baseline" if result["p"] is None else f"{result['p']:.4f}"
            line += [f"{result['score']:.2f}", f"{result['mean']:.2f} +- {result['interval']:.2f}", p]
        cells.append(line)
    print(table(cells))
    for name in names:
        print(f"{name}: {rows[0][name]['signature']}")
    for row in rows[1:]:
        print(verdict(row, rows[0]))
    if len(rows) > 2:
        print("note: p is not corrected for comparing several systems")


def spread(systems: List[System], lowercase: bool) -> List[dict]:
    """For each system a row ``system``, ``BLEU``, ``chrF``; then their means and sample standard deviations."""
    rows = []
    for system in systems:
        row = {"system": system.name}
        for name, metric in metrics(lowercase).items():
            row[name] = metric.corpus_score(system.corpus.hypotheses, [system.corpus.references]).score
        rows.append(row)
    for label, function in (("mean", statistics.mean), ("standard deviation", statistics.stdev)):
        numbers = {name: function([row[name] for row in rows[: len(systems)]]) for name in metrics(lowercase)}
        rows.append({"system": label, **numbers})
    return rows


def parse_options(arguments: Optional[List[str]]) -> argparse.Namespace:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("systems", nargs="+", metavar="[NAME=]FILE", help="a system; the first is the baseline")
    parser.add_argument("--reference", type=Path, help="references in plain text, instead of the T- lines")
    parser.add_argument("--samples", type=positive, default=1000, help="bootstrap samples (default: 1000)")
    # Not 0: sacrebleu takes that for no seed.
    parser.add_argument("--seed", type=positive, default=12345, help="for the samples, from 1 (default: 12345)")
    parser.add_argument("--spread", action="store_true", help="no test: mean and standard deviation of the files")
    parser.add_argument("--lowercase", action="store_true", help="ignore case")
    parser.add_argument("--detokenise", action="store_true", help="the translations are Moses tokens")
    parser.add_argument("--target-lang", default="de", help="language for --detokenise (default: de)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    options = parser.parse_args(arguments)
    if len(options.systems) < 2:
        parser.error("give at least two systems, the baseline first")
    if options.detokenise and not options.reference:
        parser.error("--detokenise needs --reference, the plain text of the references")
    return options


def main(arguments: Optional[List[str]] = None) -> int:
    """Command line; returns the exit code."""
    options = parse_options(arguments)
    try:
        systems = load_all(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    rows = spread(systems, options.lowercase) if options.spread else compare(systems, options)
    notes = [f"{system.name}: {note}" for system in systems for note in system.corpus.notes]
    if options.json:
        print(json.dumps({"sentences": len(systems[0].corpus.references), "rows": rows, "notes": notes}, indent=2))
        return 0
    if options.spread:
        numbers = [[row["system"], *(f"{row[name]:.2f}" for name in list(row)[1:])] for row in rows]
        print(table([list(rows[0]), *numbers]))
    else:
        print_comparison(rows)
    print(f"{len(systems[0].corpus.references)} sentences")
    for note in notes:
        print(f"note: {note}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
