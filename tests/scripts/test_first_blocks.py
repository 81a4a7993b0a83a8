"""scripts/first_blocks.py: what it writes is the model without its last blocks, and nothing else."""

import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

pytest.importorskip("fairseq")
sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))
import first_blocks as script  # noqa: E402
from fairseq.checkpoint_utils import load_model_ensemble  # noqa: E402

from fairseq_convtext.models.bytenet_deconv_config import BytenetDeconvConfig  # noqa: E402
from tests.models.test_bytenet import make_model as make_autoregressive  # noqa: E402
from tests.small_model import SMALL, make_batch, make_model, make_task  # noqa: E402


def write(path, model, **options):
    """A checkpoint of a small model, which has 3 encoder blocks and 2 in each stage of its decoder."""
    cfg = asdict(BytenetDeconvConfig(**{**SMALL, **options}))
    state = {
        "args": None,
        "cfg": {
            "checkpoint": {},
            "common": {"user_dir": "none"},
            "task": {"_name": "translation"},
            "model": {**cfg, "_name": "bytenet_deconv"},
        },
        "model": model.state_dict(),
        "criterion": None,
        "optimizer_history": [{"num_updates": 7, "lr_scheduler_state": {}}],
        "extra_state": {},
        "last_optimizer_state": {"state": {}},
    }
    torch.save(state, path)
    return path


def run(path, output, encoder=2, decoder=1):
    arguments = [path, "--encoder-layers", encoder, "--decoder-layers", decoder, "--output", output]
    return script.main([str(argument) for argument in arguments])


@pytest.mark.parametrize("encoder, decoder", [(2, 1), (3, 2), (1, 2)])
@pytest.mark.parametrize("strides", [[2], [3, 2]])
def test_it_writes_the_model_without_its_last_blocks(tmp_path, encoder, decoder, strides):
    torch.manual_seed(0)
    whole = make_model(upsample_strides=strides).eval()
    path = write(tmp_path / "whole.pt", whole, upsample_strides=strides)
    assert run(path, tmp_path / "some.pt", encoder, decoder) == 0
    state = torch.load(tmp_path / "some.pt")
    options = state["cfg"]["model"]
    assert (options["encoder_layers"], options["decoder_layers"]) == (encoder, decoder)
    assert "last_optimizer_state" not in state

    (some,), _ = load_model_ensemble([str(tmp_path / "some.pt")], task=make_task())
    some.eval()
    del whole.encoder.network.stack.blocks[encoder:]
    for stack in whole.decoder.upsampler.stacks:
        del stack.blocks[decoder:]
    batch = make_batch([[5, 6, 7, 8], [9, 10]], [[5], [6]])["net_input"]
    with torch.no_grad():
        assert torch.equal(some(**batch)[0], whole(**batch)[0])


@torch.no_grad()
def test_an_autoregressive_model_has_such_blocks_too(tmp_path):
    torch.manual_seed(0)
    whole = make_autoregressive().eval()
    assert run(write(tmp_path / "whole.pt", whole), tmp_path / "some.pt") == 0
    some = make_autoregressive(encoder_layers=2, decoder_layers=1).eval()
    some.load_state_dict(torch.load(tmp_path / "some.pt")["model"])
    del whole.encoder.network.stack.blocks[2:], whole.decoder.stack.blocks[1:]
    batch = make_batch([[5, 6, 7, 8], [9, 10]], [[5], [6]])["net_input"]
    assert torch.equal(some(**batch)[0], whole(**batch)[0])


@pytest.mark.parametrize(
    "options, arguments, said",
    [
        ({}, {"encoder": 4}, "has 3 encoder blocks; found --encoder-layers 4"),
        ({}, {"decoder": 3}, "has 2 decoder blocks; found --decoder-layers 3"),
        ({"connectivity": "dense"}, {}, "has --connectivity dense: its encoder needs all 3 blocks"),
        (
            {"intermediate_ctc_layers": [2], "target_alignment": "ctc"},
            {},
            "is read after blocks [2]; found --decoder-layers 1",
        ),
    ],
)
def test_a_model_that_does_not_do_without_its_last_blocks_is_one_sentence(tmp_path, capsys, options, arguments, said):
    path = write(tmp_path / "whole.pt", make_model(**options), **options)
    assert run(path, tmp_path / "some.pt", **arguments) == 1
    assert said in capsys.readouterr().err and not (tmp_path / "some.pt").exists()


def test_files_that_are_no_such_model_and_places_that_are_not_there_are_one_sentence(tmp_path, capsys):
    path = write(tmp_path / "whole.pt", make_model())
    assert run(path, path) == 1
    assert "is the checkpoint itself" in capsys.readouterr().err
    assert run(path, tmp_path / "none" / "some.pt") == 1
    assert "no such folder" in capsys.readouterr().err
    state = torch.load(path)
    torch.save({**state, "cfg": {**state["cfg"], "model": {"dropout": 0.1}}}, tmp_path / "other.pt")
    assert run(tmp_path / "other.pt", tmp_path / "some.pt") == 1
    assert "other.pt is not a checkpoint of bytenet_deconv or bytenet" in capsys.readouterr().err
    assert run(tmp_path / "gone.pt", tmp_path / "some.pt") == 1
    assert "no such checkpoint" in capsys.readouterr().err
