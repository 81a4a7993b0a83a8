"""scripts/lib/recipe.sh: what a kill leaves behind."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent.parent


def mend(folder):
    """Call convtext_mend_checkpoints as the recipes do."""
    script = 'set -euo pipefail; source "$0"; convtext_mend_checkpoints "$1"'
    command = ["bash", "-c", script, ROOT / "scripts" / "lib" / "recipe.sh", folder]
    subprocess.run(command, check=True, env={**os.environ, "PYTHON": sys.executable})


@pytest.fixture
def checkpoints(tmp_path):
    """Two checkpoints of updates 100 and 200, the second the younger one."""
    for update in (100, 200):
        path = tmp_path / f"checkpoint_1_{update}.pt"
        torch.save({"update": update}, path)
        os.utime(path, (update, update))
    return tmp_path


@pytest.mark.parametrize("name", ["checkpoint_best.pt", "checkpoint_last.pt"])
def test_a_whole_checkpoint_is_left_alone(checkpoints, name):
    torch.save({"update": 150}, checkpoints / name)
    mend(checkpoints)
    assert torch.load(checkpoints / name)["update"] == 150


@pytest.mark.parametrize("name", ["checkpoint_best.pt", "checkpoint_last.pt"])
def test_a_checkpoint_that_was_cut_off_is_replaced_by_the_newest_whole_one(checkpoints, name):
    whole = (checkpoints / "checkpoint_1_200.pt").read_bytes()
    (checkpoints / name).write_bytes(whole[: len(whole) // 2])
    mend(checkpoints)
    assert torch.load(checkpoints / name)["update"] == 200


def test_without_any_checkpoint_training_starts_anew(tmp_path):
    mend(tmp_path)
    (tmp_path / "checkpoint_last.pt").write_bytes(b"cut off")
    mend(tmp_path)
    assert not (tmp_path / "checkpoint_last.pt").exists()


def test_a_folder_made_with_other_settings_is_refused(tmp_path):
    script = 'source "$0"; convtext_fail() { echo "error: $*" >&2; exit 1; }; convtext_settings "$@"'
    command = ["bash", "-c", script, ROOT / "scripts" / "lib" / "recipe.sh", tmp_path / "out"]
    for settings, code in ((["updates=3"], 0), (["updates=3"], 0), (["updates=4"], 1)):
        result = subprocess.run([*command, *settings], capture_output=True, text=True)
        assert result.returncode == code
    assert "updates=3; now updates=4" in result.stderr


@pytest.mark.skipif(shutil.which("flock") is None, reason="flock, which keeps two trainings apart, is not installed")
def test_a_second_training_in_the_same_folder_is_refused_and_a_finished_one_is_not_begun_again(tmp_path):
    stub = tmp_path / "fairseq-train"
    stub.write_text('#!/bin/sh\nwhile [ "$1" != --save-dir ]; do shift; done\nmkdir -p "$2"\necho >>"$2/trained"\n')
    stub.chmod(0o755)
    script = 'set -e; source "$0"; convtext_fail() { echo "error: $*" >&2; exit 1; }; convtext_fit bin "$1" 3'
    command = ["bash", "-c", script, ROOT / "scripts" / "lib" / "recipe.sh", tmp_path / "out"]
    environment = {**os.environ, "PYTHON": sys.executable, "ROOT": str(ROOT)}
    environment["PATH"] = f"{tmp_path}:{environment['PATH']}"
    (tmp_path / "out").mkdir()
    with (tmp_path / "out" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert refused.returncode == 1 and f"is at work in {tmp_path / 'out'}: stop it first" in refused.stderr
    assert not (tmp_path / "out" / "checkpoints").exists()
    for _ in range(2):
        assert subprocess.run(command, env=environment).returncode == 0
        assert (tmp_path / "out" / "checkpoints" / "finished").exists()
        assert (tmp_path / "out" / "checkpoints" / "trained").read_text() == "\n"  # once
