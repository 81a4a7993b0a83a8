import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
import analyse_errors as script  # noqa: E402

TRAIN = ["Ein Hund läuft .", "Eine Katze schläft ."]
REFERENCE = ["Ein Hund läuft.", "Eine Katze schläft auf dem Sofa."]


@pytest.fixture
def report(tmp_path, capsys):
    """The table of systems given as name and lines, by name, and the text after it."""

    def call(*flags, **systems):
        for name, lines in {"train": TRAIN, "reference": REFERENCE, **systems}.items():
            (tmp_path / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        arguments = ["--reference", tmp_path / "reference", "--train", tmp_path / "train", *flags]
        arguments += [f"{name}={tmp_path / name}" for name in systems]
        assert script.main([str(argument) for argument in arguments]) == 0
        lines = capsys.readouterr().out.splitlines()
        found = {}
        for row in (line.split() for line in lines[1 : 1 + len(systems)]):
            found[row[0]] = dict(zip(["broken", "repeats", "missing", "wrong", "length"], map(float, row[1:])))
        return found, lines

    return call


def test_the_reference_itself_has_no_errors(report):
    table, _ = report(perfect=REFERENCE)
    assert table["perfect"] == {"broken": 0, "repeats": 0, "missing": 0, "wrong": 0, "length": 1}


def test_each_kind_of_error_is_counted_as_what_it_is(report):
    # Eleven words in the reference, full stops among them.
    broken, _ = report(broken=["Ein Hutze läuft.", REFERENCE[1]])
    assert broken["broken"] == {"broken": 9.09, "repeats": 0, "missing": 9.1, "wrong": 9.1, "length": 1}
    repeats, _ = report(repeats=["Ein Hund Hund läuft.", REFERENCE[1]])
    assert repeats["repeats"] == {"broken": 0, "repeats": 50, "missing": 0, "wrong": 8.3, "length": 1.091}
    missing, _ = report(missing=[REFERENCE[0], "Eine Katze schläft."])
    assert missing["missing"] == {"broken": 0, "repeats": 0, "missing": 27.3, "wrong": 0, "length": 0.727}


def test_examples_are_the_largest_gains_and_losses(report):
    bad = "Sofa dem auf"
    _, lines = report("--examples", 1, first=[REFERENCE[0], bad], last=[bad, REFERENCE[1]])
    gains, losses = (index for index, line in enumerate(lines) if line.startswith("largest"))
    assert REFERENCE[1] in lines[gains + 1] and REFERENCE[0] in lines[losses + 1]


def test_files_of_other_lengths_are_one_sentence(tmp_path, capsys):
    for name, lines in (("train", TRAIN), ("reference", REFERENCE), ("short", REFERENCE[:1])):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    arguments = ["--reference", str(tmp_path / "reference"), "--train", str(tmp_path / "train")]
    assert script.main([*arguments, str(tmp_path / "short")]) == 1
    assert "error:" in capsys.readouterr().err
