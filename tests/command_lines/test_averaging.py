"""scripts/average_checkpoints.py: fairseq-generate translates with what it writes."""

import sys
from pathlib import Path

import pytest
import torch

from tests.command_lines.commands import lines, run
from tests.command_lines.conftest import SENTENCES
from tests.command_lines.processes import start

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))
import average_checkpoints as script  # noqa: E402


def test_the_average_of_two_that_differ_by_opposite_noise_translates_as_their_middle(
    corpus, user_dir, checkpoints, alignment, tmp_path
):
    path = checkpoints(alignment)
    state = torch.load(path)
    torch.manual_seed(1)
    noise = {name: tensor.std() * torch.randn_like(tensor) for name, tensor in state["model"].items()}
    for sign in (1, -1):
        model = {name: tensor + sign * noise[name] for name, tensor in state["model"].items()}
        torch.save({**state, "model": model}, tmp_path / f"{sign}.pt")
    average = tmp_path / "average.pt"
    assert script.main([str(tmp_path / "1.pt"), str(tmp_path / "-1.pt"), "--output", str(average)]) == 0
    flags = ["--user-dir", user_dir, "--task", "translation_convtext", "--gen-subset", "valid", "--num-workers", 0]

    def hypotheses(checkpoint):
        output = run("generate", corpus, "--path", checkpoint, "--batch-size", 100, *flags)
        return {key: found[0].split("\t")[1] for key, found in lines(output, "H").items()}

    wanted = hypotheses(path)
    assert hypotheses(average) == wanted and len(wanted) == SENTENCES["valid"]
    assert hypotheses(tmp_path / "1.pt") != wanted


@pytest.mark.parametrize("arch", ["fconv", "transformer"])
def test_models_of_fairseq_translate_by_their_average_without_the_plugin(corpus, arch, tmp_path):
    if arch == "transformer" and not hasattr(torch.serialization, "add_safe_globals"):
        pytest.skip("with fairseq 0.12.2 no transformer translates under torch 2.1: Mask Type should be defined")
    small = {
        "fconv": ["--encoder-layers", "[(16, 3)]", "--decoder-layers", "[(16, 3)]", "--decoder-out-embed-dim", 16],
        "transformer": ["--encoder-layers", 1, "--decoder-layers", 1, "--encoder-ffn-embed-dim", 32],
    }[arch]
    run(
        "train", corpus, "--save-dir", tmp_path, "--arch", arch, *small, "--encoder-embed-dim", 16,
        "--decoder-embed-dim", 16, "--optimizer", "adam", "--batch-size", 16, "--max-update", 3, "--num-workers", 0,
        "--save-interval-updates", 1, "--disable-validation",
    )  # fmt: skip
    average = tmp_path / "average.pt"
    assert script.main([str(tmp_path), "--last", "3", "--output", str(average)]) == 0
    flags = ["--path", average, "--gen-subset", "valid", "--batch-size", 64, "--num-workers", 0, "--beam", 1]
    process = start("generate", corpus, *flags, "--required-batch-size-multiple", 1, "--max-len-b", 5, folder=tmp_path)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert len(lines(output, "H")) == SENTENCES["valid"]
