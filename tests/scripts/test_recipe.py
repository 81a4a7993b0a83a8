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


def recipe(script, *arguments, **environment):
    """Run lines of bash as a recipe would, and return what became of them."""
    script = f'set -euo pipefail; source "$0"; convtext_fail() {{ echo "error: $*" >&2; exit 1; }}; {script}'
    command = ["bash", "-c", script, ROOT / "scripts" / "lib" / "recipe.sh", *arguments]
    environment = {**os.environ, "PYTHON": sys.executable, "ROOT": str(ROOT), **environment}
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)


def mend(folder, path=None):
    """Call convtext_mend_checkpoints as the recipes do; programs in the folder ``path`` come before others."""
    script = 'set -euo pipefail; source "$0"; convtext_mend_checkpoints "$1"'
    command = ["bash", "-c", script, ROOT / "scripts" / "lib" / "recipe.sh", folder]
    programs = f"{path}:{os.environ['PATH']}" if path else os.environ["PATH"]
    subprocess.run(command, check=True, env={**os.environ, "PYTHON": sys.executable, "PATH": programs})


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


def test_a_kill_while_a_checkpoint_is_replaced_leaves_one_to_be_replaced(checkpoints, tmp_path_factory):
    broken = checkpoints / "checkpoint_last.pt"
    broken.write_bytes(b"cut off")
    stub = tmp_path_factory.mktemp("bin") / "cp"
    stub.write_text("#!/bin/sh\nkill -9 $PPID\n")
    stub.chmod(0o755)
    with pytest.raises(subprocess.CalledProcessError):
        mend(checkpoints, path=stub.parent)
    assert broken.exists()
    mend(checkpoints)
    assert torch.load(broken)["update"] == 200


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


def test_texts_that_have_changed_are_refused_and_other_files_do_not_matter(tmp_path):
    texts, out = tmp_path / "texts", tmp_path / "out"
    texts.mkdir()
    for split in ("train", "val", "test_2016_flickr", "test_2017_flickr"):
        for language in ("en", "de"):
            (texts / f"{split}.{language}").write_text("1\n")

    def again():
        return recipe('convtext_multi30k_settings "$@"', out, texts)

    assert again().returncode == 0
    (texts / "test_2018_flickr.de").write_text("3\n")
    assert again().returncode == 0
    (texts / "train.de").write_text("2\n")
    refused = again()
    assert refused.returncode == 1 and "was made with other settings" in refused.stderr


def test_a_training_goes_on_in_the_type_that_it_began_with(tmp_path):
    script = 'convtext_bfloat16_is_faster() {{ {}; }}; convtext_precision "$1"'
    assert recipe(script.format("return 1"), tmp_path / "a").stdout == "float32\n"
    assert recipe(script.format("return 0"), tmp_path / "a").stdout == "float32\n"
    assert recipe(script.format("return 0"), tmp_path / "b").stdout == "bfloat16\n"


def test_who_says_what_to_compute_in_is_obeyed_and_a_training_that_has_begun_stays_as_it_is(tmp_path):
    script = 'convtext_bfloat16_is_faster() { return 0; }; convtext_precision "$1"'
    assert recipe(script, tmp_path / "a", CONVTEXT_PRECISION="float32").stdout == "float32\n"
    assert recipe(script, tmp_path / "a", CONVTEXT_PRECISION="bfloat16").stdout == "float32\n"
    wrong = recipe(script, tmp_path / "b", CONVTEXT_PRECISION="fp16")
    assert wrong.returncode == 1 and "CONVTEXT_PRECISION must be float32 or bfloat16; found fp16." in wrong.stderr


@pytest.mark.skipif(shutil.which("flock") is None, reason="flock, which keeps two commands apart, is not installed")
def test_two_that_make_the_same_do_so_in_turn(tmp_path):
    slow = 'work() { echo begin >>"$1"; sleep 0.3; echo end >>"$1"; }; '
    script = slow + 'convtext_in_turn "$2" work "$1" & convtext_in_turn "$2" work "$1"; wait'
    assert recipe(script, tmp_path / "said", tmp_path / "lock").returncode == 0
    assert (tmp_path / "said").read_text().split() == ["begin", "end"] * 2


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
