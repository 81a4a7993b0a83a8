"""scripts/benchmark_ctc_loss.py: a small run from end to end, and errors of a loss show."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fairseq")
SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.append(str(SCRIPTS))
import benchmark_ctc_loss as script  # noqa: E402

from fairseq_convtext.losses import ctc  # noqa: E402

SMALL = ["--batch", "8", "--canvas", "20", "--vocabulary", "8000", "--repetitions", "2", "--threads", "1"]


def row(output: str, name: str) -> list:
    """The numbers of the first table line that begins with the name."""
    found = re.search(rf"^{name}  +(\d.*)$", output, re.MULTILINE)
    assert found, output
    return [float(cell) for cell in found.group(1).split()]


def test_a_small_run_gives_times_memory_and_differences():
    # As a program: in this process the peak of memory is that of all tests before.
    command = [sys.executable, str(SCRIPTS / "benchmark_ctc_loss.py"), *SMALL]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "reference, repetition 2 of 2" in done.stderr
    assert ", 1 thread, torch " in done.stdout and "the scores take 4.9 MiB" in done.stdout
    ours, theirs = row(done.stdout, "gathered"), row(done.stdout, "reference")
    assert len(ours) == len(theirs) == 5
    # Each makes at least the gradient, as large as the scores; the reference holds three more of that size.
    assert 0.9 < ours[4] < theirs[4] and 3.5 < theirs[4] < 5
    ratios = row(done.stdout, "reference / gathered")
    assert ratios[3] == pytest.approx(theirs[3] / ours[3], rel=0.01)
    for pair in ("gathered, reference", "gathered, float64", "reference, float64"):
        value, gradient = row(done.stdout, pair)
        assert value < 1e-3 and gradient < 1e-3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_loss_that_is_one_per_cent_off_shows(monkeypatch, dtype):
    options = script.parse_options(["--batch", "3", "--canvas", "8", "--vocabulary", "20", "--dtype", dtype])
    before = script.compare(options)["pairs"]
    loss = ctc.ctc_loss
    monkeypatch.setattr(ctc, "ctc_loss", lambda *arguments: 1.01 * loss(*arguments))
    after = script.compare(options)
    for pair in ("gathered, reference", "gathered, float64"):
        (value_before, gradient_before), (value, gradient) = before[pair], after["pairs"][pair]
        assert value_before < 1e-4 and value == pytest.approx(0.01 * after["largest"], rel=0.01)
        # The largest entry of the gradient is between 0.5 and 1, which bfloat16 rounds by 0.002 at most.
        assert gradient_before < 0.003 < gradient < 0.013
    assert after["pairs"]["reference, float64"] == before["reference, float64"]


def test_every_target_fits_its_canvas():
    for canvas in (1, 2, 3, 80):
        options = script.parse_options(["--canvas", str(canvas), "--batch", "50", "--vocabulary", "2"])
        targets, lengths, target_lengths, blank = script.random_targets(options)
        assert int(lengths.max()) == canvas and blank not in targets
        assert bool((ctc.required_positions(targets, target_lengths) <= lengths).all())


@pytest.mark.parametrize("flags", [["--batch", "0"], ["--vocabulary", "1"], ["--dtype", "int8"]])
def test_options_that_make_no_sense_are_usage_errors(flags, capsys):
    with pytest.raises(SystemExit) as stopped:
        script.main(flags)
    assert stopped.value.code == 2 and flags[0] in capsys.readouterr().err
