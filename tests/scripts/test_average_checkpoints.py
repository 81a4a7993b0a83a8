"""scripts/average_checkpoints.py: the mean is exact, and the right files go into it."""

import argparse
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("fairseq")
sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))
import average_checkpoints as script  # noqa: E402


def write(path, updates, value=None, metric="bleu", larger=True, model=None):
    """A checkpoint with the entries that fairseq stores."""
    options = {"best_checkpoint_metric": metric, "maximize_best_checkpoint_metric": larger}
    state = {
        "args": None,
        "cfg": {"checkpoint": options, "model": argparse.Namespace(arch="transformer", dropout=0.1)},
        "model": make_model(updates) if model is None else model,
        "criterion": None,
        "optimizer_history": [{"num_updates": updates, "optimizer_name": "FairseqAdam"}],
        "task_state": {},
        "extra_state": {"train_iterator": {"epoch": 1}, "val_loss": value, "best": 1e9, "metrics": {}},
        "last_optimizer_state": {"state": {0: {"exp_avg": torch.ones(1000)}}},
    }
    torch.save(state, path)
    return path


def make_model(seed):
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(5, 3, generator=generator)
    double = torch.randn(4, generator=generator).double()
    return {
        "embed": shared,
        "project": shared,
        "half": torch.randn(40, generator=generator).half(),
        "double": double,
        "double tied": double,
        "count": torch.tensor(seed),
        "mask": torch.tensor([True, False]),
    }


def run(*arguments):
    return script.main([str(argument) for argument in arguments])


def averaged(folder, *arguments):
    assert run(*arguments, "--output", folder / "out.pt") == 0
    return torch.load(folder / "out.pt")


def names(state):
    return state["extra_state"]["averaged"]


def test_the_average_of_one_is_itself(tmp_path):
    path = write(tmp_path / "checkpoint1.pt", 7)
    model = averaged(tmp_path, path)["model"]
    for name, tensor in make_model(7).items():
        assert model[name].dtype == tensor.dtype and torch.equal(model[name], tensor)


def test_the_average_is_the_mean_and_what_is_no_float_is_the_last(tmp_path):
    paths = [write(tmp_path / f"{updates}.pt", updates) for updates in (30, 10, 20)]
    model, models = averaged(tmp_path, *paths)["model"], [make_model(updates) for updates in (10, 20, 30)]
    for name in ("embed", "project", "double", "double tied", "half"):
        mean = torch.stack([m[name].double() for m in models]).mean(dim=0)
        tolerance = 1e-3 if name == "half" else 1e-7
        assert torch.allclose(model[name].double(), mean, atol=tolerance, rtol=tolerance)
        assert model[name].dtype == models[0][name].dtype
    assert int(model["count"]) == 30 and model["mask"].tolist() == [True, False]


def test_tensors_that_were_one_stay_one(tmp_path):
    paths = [write(tmp_path / f"{updates}.pt", updates) for updates in (1, 2)]
    model = averaged(tmp_path, *paths)["model"]
    assert model["embed"].data_ptr() == model["project"].data_ptr()


def test_tensors_that_were_one_in_the_last_file_only_keep_their_means(tmp_path):
    apart = {**make_model(1), "project": torch.zeros(5, 3)}
    paths = [write(tmp_path / "1.pt", 1, model=apart), write(tmp_path / "2.pt", 2)]
    model = averaged(tmp_path, *paths)["model"]
    assert torch.allclose(model["project"], make_model(2)["project"] / 2)
    assert not torch.equal(model["embed"], model["project"])


def test_the_output_loads_by_default_and_has_no_optimizer_state(tmp_path):
    state = averaged(tmp_path, write(tmp_path / "checkpoint1.pt", 7))
    assert "last_optimizer_state" not in state and state["optimizer_history"][-1]["num_updates"] == 7
    assert "metrics" not in state["extra_state"] and "val_loss" not in state["extra_state"]
    assert state["cfg"]["model"] == {"arch": "transformer", "dropout": 0.1}
    if hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"):
        assert torch.serialization.get_unsafe_globals_in_checkpoint(tmp_path / "out.pt") == []


def make_folder(folder, values, **options):
    """Checkpoints of 100, 200, ... updates with these validation values, and fairseq's copies."""
    for number, value in enumerate(values, start=1):
        write(folder / f"checkpoint_1_{100 * number}.pt", 100 * number, value, **options)
    (folder / "checkpoint_best.pt").write_bytes((folder / "checkpoint_1_100.pt").read_bytes())
    (folder / "checkpoint_last.pt").write_bytes((folder / f"checkpoint_1_{100 * len(values)}.pt").read_bytes())
    return folder


def test_copies_count_once(tmp_path):
    folder = make_folder(tmp_path, [3.0, 2.0, 1.0])
    assert names(averaged(folder, folder, "--last", 2)) == ["checkpoint_1_200.pt", "checkpoint_1_300.pt"]
    assert len(names(averaged(folder, folder, "--last", 3))) == 3
    files = [folder / "checkpoint_best.pt", folder / "checkpoint_1_100.pt", folder / "checkpoint_1_200.pt"]
    assert names(averaged(folder, *files)) == ["checkpoint_1_100.pt", "checkpoint_1_200.pt"]


def test_other_parameters_at_the_same_update_are_no_copy(tmp_path):
    paths = [write(tmp_path / "a.pt", 1), write(tmp_path / "b.pt", 1, model=make_model(2))]
    assert names(averaged(tmp_path, *paths)) == ["a.pt", "b.pt"]


def test_a_best_checkpoint_whose_original_is_gone_is_used(tmp_path):
    folder = make_folder(tmp_path, [3.0, 2.0, 1.0])
    (folder / "checkpoint_1_100.pt").unlink()
    assert names(averaged(folder, folder, "--best", 2)) == ["checkpoint_best.pt", "checkpoint_1_200.pt"]


@pytest.mark.parametrize(("metric", "larger", "chosen"), [("bleu", True, [200, 500]), ("loss", False, [300, 400])])
def test_best_goes_by_the_metric_of_the_training_in_its_direction(tmp_path, metric, larger, chosen):
    folder = make_folder(tmp_path, [2.0, 9.0, 1.0, 1.5, 8.0, None, float("nan")], metric=metric, larger=larger)
    assert names(averaged(folder, folder, "--best", 2)) == [f"checkpoint_1_{number}.pt" for number in chosen]


def test_an_output_in_the_folder_is_no_checkpoint_of_the_next_call(tmp_path):
    folder = make_folder(tmp_path, [1.0, 2.0])
    for _ in range(2):
        assert names(averaged(folder, folder, "--last", 2)) == ["checkpoint_1_100.pt", "checkpoint_1_200.pt"]
    assert not list(folder.glob("*.part"))


def sentence(capsys):
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and "Traceback" not in error
    return error


def test_other_models_are_one_sentence(tmp_path, capsys):
    paths = [write(tmp_path / "a.pt", 1), write(tmp_path / "b.pt", 2, model={**make_model(2), "half": torch.ones(3)})]
    assert run(*paths, "--output", tmp_path / "out.pt") == 1
    error = sentence(capsys)
    assert "half is (40,) in the first and (3,) in the second" in error and "1 parameters differ" in error
    write(paths[1], 2, model={**make_model(2), "more": torch.ones(3)})
    assert run(*paths, "--output", tmp_path / "out.pt") == 1
    assert "more is missing in the first" in sentence(capsys)
    assert not (tmp_path / "out.pt").exists()


def test_what_cannot_be_averaged_is_one_sentence(tmp_path, capsys):
    folder, out = make_folder(tmp_path, [1.0, 2.0]), tmp_path / "out.pt"
    whole = (folder / "checkpoint_last.pt").read_bytes()
    (folder / "cut.pt").write_bytes(whole[: len(whole) // 2])
    torch.save({"weights": 1}, folder / "other.pt")
    cases = [
        ([folder, "--last", 3], "found 2"),
        ([folder, "--best", 3], "with a validation value and found 2"),
        ([folder], "--last K or --best K"),
        ([folder / "cut.pt"], "cannot be read as a checkpoint"),
        ([folder / "other.pt"], "is not a checkpoint of fairseq-train"),
        ([folder / "absent.pt"], "no such checkpoint"),
        ([folder / "checkpoint_1_100.pt", "--last", 1], "take one folder"),
    ]
    for arguments, expected in cases:
        assert run(*arguments, "--output", out) == 1
        assert expected in sentence(capsys)
    assert run(folder / "checkpoint_last.pt", "--output", folder / "checkpoint_last.pt") == 1
    assert "--output" in sentence(capsys) and not out.exists()
    write(folder / "checkpoint_1_300.pt", 300, 1.0, metric="loss", larger=False)
    assert run(folder, "--best", 2, "--output", out) == 1
    assert "cannot compare bleu with loss" in sentence(capsys)


def test_a_place_that_cannot_be_written_to_is_one_sentence_and_leaves_nothing(tmp_path, capsys, monkeypatch):
    path, out = write(tmp_path / "checkpoint1.pt", 7), tmp_path / "out.pt"

    def full(state, part):
        part.write_bytes(b"some of it")
        raise RuntimeError("[enforce fail] . unexpected pos\nmore of it")

    monkeypatch.setattr(script.torch, "save", full)
    assert run(path, "--output", out) == 1
    assert "out.pt cannot be written: [enforce fail] . unexpected pos (--output)" in sentence(capsys)
    assert list(tmp_path.iterdir()) == [path]
