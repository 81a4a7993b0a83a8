"""scripts/train_wmt14_en_de.sh: the same number of tokens in every update, and the best checkpoints averaged."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).resolve().parent.parent.parent / "scripts" / "train_wmt14_en_de.sh"


def call(*arguments):
    """The script's result."""
    return subprocess.run(
        [SCRIPT, *map(str, arguments)],
        env={**os.environ, "CONVTEXT_PYTHON": sys.executable, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def flags_of(*arguments):
    """fairseq's flags that the script would use, with their values."""
    result = call(*arguments, "--dry-run")
    assert result.returncode == 0, result.stderr
    return dict(re.findall(r"(--[\w-]+) ([^-\s]\S*)?", result.stdout))


@pytest.mark.parametrize("gpus, nodes, per_gpu, update_freq", [(1, 1, 4000, 16), (8, 4, 1000, 2)])
def test_the_tokens_of_an_update_do_not_depend_on_the_number_of_processes(
    corpus, tmp_path, gpus, nodes, per_gpu, update_freq
):
    arguments = ["--row", "transformer", "--data", corpus, "--out", tmp_path, "--tokens-per-gpu", per_gpu]
    flags = flags_of(*arguments, "--gpus", gpus, "--nodes", nodes)
    assert (flags["--max-tokens"], flags["--update-freq"]) == (str(per_gpu), str(update_freq))
    assert gpus * nodes * per_gpu * update_freq == 64000


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("--gpus 3", "not a multiple of --tokens-per-gpu 4000 times 3 .*: give all rows --tokens-per-update 60000"),
        ("--gpus 32", "times 32 .*: choose a --tokens-per-gpu that divides 2000, or .* --tokens-per-update 128000"),
        ("--gpus 0", "--gpus must be a number from 1 on; found 0"),
        ("--updates", "--updates needs a value"),
        ("-- --update-freq 3", "--update-freq after -- would undo"),
    ],
)
def test_what_would_give_updates_of_another_size_is_refused(corpus, tmp_path, arguments, message):
    result = call("--row", "fconv", "--data", corpus, "--out", tmp_path / "out", *arguments.split())
    assert result.returncode in (1, 2) and not (tmp_path / "out").exists()
    assert re.search(f"^error: .*{message}", result.stderr, re.MULTILINE)


def test_a_training_ends_with_the_average_of_its_best_checkpoints_and_is_not_repeated(corpus, tmp_path):
    command = ["--row", "bytenet_deconv", "--arch", "bytenet_deconv_tiny", "--data", corpus, "--out", tmp_path, "--cpu"]
    command += ["--updates", 12, "--save-every", 2, "--tokens-per-update", 1000, "--tokens-per-gpu", 500, "--"]
    command += ["--encoder-channels", 16, "--encoder-layers", 1, "--decoder-layers", 1, "--valid-subset", "valid"]
    result = call(*command)
    assert result.returncode == 0, result.stderr[-2000:]
    average = torch.load(tmp_path / "checkpoint_average.pt", weights_only=False)
    kept = len(list((tmp_path / "checkpoints").glob("checkpoint.best_bleu_*")))
    states = [torch.load(path, weights_only=False) for path in (tmp_path / "checkpoints").glob("*.pt")]
    assert all(state["cfg"]["checkpoint"]["best_checkpoint_metric"] == "bleu" for state in states)
    # Decided once: every process, and a run that goes on, would decide anew for "auto".
    precision = (tmp_path / "precision").read_text().strip()
    assert precision in ("float32", "bfloat16")
    assert all(state["cfg"]["model"]["compute_dtype"] == precision for state in states)
    # Each once, best BLEU first; of equal ones the later, which a model as small as this one often has.
    by_value = {(x["extra_state"]["val_loss"], x["optimizer_history"][-1]["num_updates"]): x for x in states}
    best = [by_value[key] for key in sorted(by_value, reverse=True)][:kept]
    assert 1 <= len(best) <= 5
    for name, value in average["model"].items():
        mean = torch.stack([state["model"][name].double() for state in best]).mean(dim=0)
        torch.testing.assert_close(value.double(), mean, rtol=1e-5, atol=1e-6)
    age = (tmp_path / "checkpoints" / "checkpoint_last.pt").stat().st_mtime_ns
    assert call(*command).returncode == 0
    assert (tmp_path / "checkpoints" / "checkpoint_last.pt").stat().st_mtime_ns == age
