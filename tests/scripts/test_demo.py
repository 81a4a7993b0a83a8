"""scripts/demo.sh --quick, killed while it trains, started again, and started once more when all is done."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def start(out, log):
    """The demo in a process group of its own, its output in ``log``."""
    return subprocess.Popen(
        [ROOT / "scripts" / "demo.sh", "--quick", "--updates", "80", "--out", out],
        env={**os.environ, "CONVTEXT_PYTHON": sys.executable},
        cwd=out.parent,  # it must work from anywhere
        stdout=log.open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def wait_for(path, process, seconds):
    """Until the file is there."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, "the demo ended before it saved a checkpoint"
        assert time.monotonic() < end, f"no {path.name} after {seconds} seconds"
        time.sleep(0.2)


def test_the_quick_demo_goes_on_after_a_kill_and_ends_with_scores(tmp_path):
    out, log = tmp_path / "demo", tmp_path / "log"
    killed = start(out, log)
    try:
        wait_for(out / "checkpoints" / "checkpoint_last.pt", killed, 400)
    finally:
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()

    assert start(out, log).wait(timeout=600) == 0, log.read_text()[-2000:]
    text = log.read_text()
    assert re.search(r"Loaded checkpoint .*checkpoint_last.pt \(epoch \d+ @ (?!0 )\d+ updates\)", text)
    assert re.search(r"^LibreOffice Help +500 +\d+\.\d\d +\d+\.\d\d", text, re.MULTILINE)
    assert re.search(r"^Ding sentences +500 +\d+\.\d\d +\d+\.\d\d", text, re.MULTILINE)
    assert len(re.findall(r"^  translation  \S", text, re.MULTILINE)) == 10
    losses = [float(loss) for loss in re.findall(r"valid on 'valid' subset \| loss ([\d.]+)", text)]
    assert 0 < losses[-1] < 9  # bits per token; a model that has learnt nothing has about 11

    before = time.monotonic()
    assert start(out, log).wait(timeout=120) == 0
    assert time.monotonic() - before < 60
    assert "fairseq-train" not in log.read_text()


@pytest.mark.parametrize(
    "arguments, message",
    [(["--fast"], "unknown argument --fast"), (["--out"], "--out needs"), (["--updates", "0"], "from 1 on; found 0")],
)
def test_wrong_arguments_are_named(arguments, message):
    result = subprocess.run([ROOT / "scripts" / "demo.sh", *arguments], capture_output=True, text=True)
    assert result.returncode == 2
    assert message in result.stderr
