"""A training that was stopped goes on; what a checkpoint holds loads again."""

import re
import signal

import pytest
import torch
from fairseq import checkpoint_utils

from tests.command_lines.commands import lines, run
from tests.command_lines.conftest import ALIGNMENTS, SENTENCES, TINY
from tests.command_lines.processes import start


def load(checkpoint):
    """As fairseq's commands do; from torch 2.6 on with ``weights_only``."""
    return checkpoint_utils.load_checkpoint_to_cpu(str(checkpoint))


def updates_of(checkpoint):
    return load(checkpoint)["optimizer_history"][-1]["num_updates"]


def valid_loss_of(checkpoint):
    return load(checkpoint)["extra_state"]["val_loss"]


def test_a_killed_training_goes_on_as_if_it_had_not_been_killed(corpus, user_dir, tmp_path):
    # Dropout, so that the random state counts too. An epoch has 47 updates; fairseq restores the order of the
    # sentences only when it resumes in the first.
    flags = [corpus, "--user-dir", user_dir, *TINY, *ALIGNMENTS["ctc"], "--dropout", 0.1]
    flags += ["--max-update", 70, "--total-num-update", 70, "--save-interval-updates", 20]

    process = start("train", *flags, "--save-dir", tmp_path / "killed", folder=tmp_path)
    for line in process.stdout:
        if re.search(r"Saved checkpoint .*@ 20 updates", line):
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    saved = updates_of(tmp_path / "killed" / "checkpoint_last.pt")
    assert 20 <= saved <= 40

    process = start("train", *flags, "--save-dir", tmp_path / "killed", folder=tmp_path)
    log, _ = process.communicate()
    assert process.returncode == 0
    assert re.search(rf"Loaded checkpoint .*/checkpoint_last.pt \(epoch 1 @ {saved} updates\)", log)

    run("train", *flags, "--save-dir", tmp_path / "whole")
    resumed, whole = (tmp_path / folder / "checkpoint_last.pt" for folder in ("killed", "whole"))
    assert updates_of(resumed) == updates_of(whole) == 70
    assert valid_loss_of(resumed) == pytest.approx(valid_loss_of(whole), abs=2e-3)


@pytest.fixture
def strict_loading(monkeypatch):
    """Nobody has told torch.load to read everything."""
    monkeypatch.delenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", raising=False)


@pytest.mark.parametrize(
    "alignment, task, remove_bpe",
    [
        ("position", "translation", []),
        ("position", "translation_convtext", []),
        ("ctc", "translation", ["--eval-bleu-remove-bpe"]),
        ("ctc", "translation_convtext", ["--eval-bleu-remove-bpe"]),
    ],
)
def test_a_checkpoint_with_bleu_loads_again(
    corpus, user_dir, train, tmp_path, caplog, strict_loading, alignment, task, remove_bpe
):
    flags = [*ALIGNMENTS[alignment], "--task", task, "--eval-bleu", "--eval-bleu-args", '{"beam": 1}']
    flags += ["--eval-bleu-detok", "space", *remove_bpe, "--best-checkpoint-metric", "bleu"]
    flags += ["--maximize-best-checkpoint-metric", "--validate-interval-updates", 2]
    caplog.set_level("INFO")
    train(tmp_path, 2, *flags)
    assert re.search(r"valid on .* bleu \d", caplog.text)
    caplog.clear()
    train(tmp_path, 3, *flags)
    assert "@ 2 updates" in caplog.text
    last = tmp_path / "checkpoint_last.pt"
    assert updates_of(last) == 3
    output = run(
        "generate", corpus, "--user-dir", user_dir, "--path", last, "--task", task, "--beam", 1, "--batch-size", 100,
        "--gen-subset", "valid", "--num-workers", 0, "--required-batch-size-multiple", 1,
    )  # fmt: skip
    assert len(lines(output, "H")) == SENTENCES["valid"]


@pytest.fixture
def no_safe_globals():
    """torch.load as it is without the plugin's additions."""
    serialization = torch.serialization
    if not hasattr(serialization, "get_unsafe_globals_in_checkpoint"):
        pytest.skip("this torch cannot list the classes in a checkpoint")
    added = serialization.get_safe_globals()
    serialization.clear_safe_globals()
    yield
    serialization.add_safe_globals(added)


def test_a_checkpoint_without_bleu_holds_nothing_that_torch_load_refuses(train, alignment, tmp_path, no_safe_globals):
    train(tmp_path, 1, *ALIGNMENTS[alignment])
    assert torch.serialization.get_unsafe_globals_in_checkpoint(tmp_path / "checkpoint_last.pt") == []
