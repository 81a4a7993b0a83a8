"""scripts/benchmark_decoding.py: it decodes as fairseq-generate does, and tells when outputs differ."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fairseq_convtext.tasks.parallel_generator import ParallelGenerator
from tests.command_lines.commands import lines, run

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))
import benchmark_decoding as script  # noqa: E402

FEW = ["--sentences", 13, "--batch-sizes", "1,6", "--repetitions", 2]


def table(capsys, *arguments) -> list:
    """The rows of a run that must succeed: generator, M parameters, batch size, sentences, seconds, ..."""
    assert script.main([str(argument) for argument in arguments]) == 0
    output = capsys.readouterr().out.split("\n")
    assert "thread" in output[0] and "fairseq" in output[0]
    return [line.split("  ") for line in output[4:] if line]


def cells(rows: list) -> list:
    return [[cell.strip() for cell in row if cell.strip()] for row in rows]


def test_one_row_for_every_setting_and_both_generators_agree(corpus, checkpoints, alignment, capsys):
    rows = cells(table(capsys, corpus, "--path", checkpoints(alignment), "--labels", alignment, *FEW))
    generators = ["stock, beam 1", "stock, beam 5", "parallel"]
    assert [row[:2] for row in rows] == [[alignment, name] for name in generators] * 2
    assert [row[3:5] for row in rows] == [["1", "13"]] * 3 + [["6", "13"]] * 3
    assert [row[7:] for row in rows] == [[], [], ["identical"]] * 2
    for row in rows:
        seconds, rate = float(row[5]), float(row[6])  # printed with three decimals and with one
        assert 13 / (seconds + 0.00051) - 0.051 <= rate <= 13 / max(seconds - 0.00051, 1e-9) + 0.051


def test_the_hypotheses_are_those_of_fairseq_generate(corpus, user_dir, checkpoints):
    options = script.parse_options([str(corpus), "--path", str(checkpoints("ctc")), "--batch-sizes", "100"])
    options.sentences = 10**6
    for setting in script.settings_of("ctc", options.path[0], options):
        script.run(setting, "cpu")
        beam = 5 if setting.name.endswith("5") else 1
        name = "translation_convtext" if setting.name == "parallel" else "translation"
        output = run(
            "generate", corpus, "--user-dir", user_dir, "--path", options.path[0], "--task", name,
            "--beam", beam, "--batch-size", 100, "--required-batch-size-multiple", 1, "--num-workers", 0,
        )  # fmt: skip
        for kind, number in (("H", 0), ("P", 1)):
            wanted = {key: f"{kind}-{key}\t{found[0]}" for key, found in lines(output, kind).items()}
            assert {key: found[number] for key, found in setting.lines.items()} == wanted


def test_a_difference_of_one_hypothesis_is_told(corpus, checkpoints, capsys, monkeypatch):
    hypotheses = ParallelGenerator.hypotheses

    def last_digit_of_the_first(self, *arguments):
        found = hypotheses(self, *arguments)
        found[0]["positional_scores"] = found[0]["positional_scores"] + 1e-3
        return found

    monkeypatch.setattr(ParallelGenerator, "hypotheses", last_digit_of_the_first)
    flags = ["--sentences", 13, "--batch-sizes", "13", "--repetitions", 1]
    rows = cells(table(capsys, corpus, "--path", checkpoints("ctc"), *flags))
    assert rows[-1][-1] == "DIFFER in 1 of 13"


def test_a_model_of_fairseq_has_the_rows_of_the_stock_generator(corpus, checkpoints, tmp_path, capsys):
    run(
        "train", corpus, "--save-dir", tmp_path, "--arch", "fconv", "--encoder-layers", "[(16, 3)]",
        "--decoder-layers", "[(16, 3)]", "--encoder-embed-dim", 16, "--decoder-embed-dim", 16,
        "--decoder-out-embed-dim", 16, "--optimizer", "adam",
        "--batch-size", 16, "--max-update", 1, "--disable-validation", "--no-epoch-checkpoints",
        "--num-workers", 0,
    )  # fmt: skip
    flags = ["--sentences", 5, "--batch-sizes", 5, "--repetitions", 1]
    paths = [checkpoints("ctc"), tmp_path / "checkpoint_last.pt"]
    dtypes = ["--generation-dtype", "float32,bfloat16"]
    rows = cells(table(capsys, corpus, "--path", *paths, "--labels", "ours", "theirs", *flags, *dtypes))
    assert [row[1] for row in rows if row[0] == "theirs"] == ["stock, beam 1", "stock, beam 5"]
    assert [row[7:] for row in rows if row[0] == "theirs"] == [[], []]
    assert [row[0] for row in rows if row[1] == "parallel"] == ["ours, float32", "ours, bfloat16"]


def test_rows_of_all_models_take_turns(monkeypatch):
    def row(label):
        task = SimpleNamespace(inference_step=lambda *arguments: None)
        return script.Setting(label, torch.nn.Linear(1, 1), task, None, "stock, beam 1", 1, [{}])

    order = []

    def run_once(setting, device):
        order.append(setting.label)
        setting.seconds.append(1.0)

    monkeypatch.setattr(script, "run", run_once)
    options = script.parse_options(["data", "--path", "a", "b", "--repetitions", "2"])
    script.benchmark([row("a"), row("b")], options)
    assert order == ["a", "b", "a", "b"]


def test_a_type_that_there_is_not_is_told(capsys):
    with pytest.raises(SystemExit):
        script.parse_options(["data", "--path", "a", "--generation-dtype", "float32,float16"])
    assert "must be of float32, bfloat16, auto, int8; found 'float16'" in capsys.readouterr().err


def test_a_search_and_its_judges_have_rows_of_their_own(corpus, checkpoints, capsys):
    flags = ["--sentences", 5, "--batch-sizes", 5, "--repetitions", 1, "--beams", 1, "--ctc-beam", 3]
    rows = cells(table(capsys, corpus, "--path", checkpoints("ctc"), *flags, "--ctc-judges", checkpoints("ctc")))
    assert [row[1] for row in rows if row[0].endswith(".pt")] == [
        "stock, beam 1", "parallel", "search 3", "search 3, judged"
    ]  # fmt: skip


def test_faults_are_one_sentence(corpus, checkpoints, tmp_path, capsys):
    checkpoint, broken = checkpoints("ctc"), tmp_path / "broken.pt"
    broken.write_text("no checkpoint", encoding="utf-8")
    faults = {
        "no such folder": [tmp_path / "absent", "--path", checkpoint],
        "holds no binarised": [tmp_path, "--path", checkpoint],
        "another --gen-subset": [corpus, "--path", checkpoint, "--gen-subset", "test7"],
        "no such checkpoint": [corpus, "--path", tmp_path / "absent.pt"],
        "cannot load": [corpus, "--path", broken],
        "--labels must name every checkpoint": [corpus, "--path", checkpoint, "--labels", "a", "b"],
    }
    for message, arguments in faults.items():
        assert script.main([str(argument) for argument in arguments]) == 1
        errors = [line for line in capsys.readouterr().err.split("\n") if line.startswith("error: ")]
        assert len(errors) == 1 and message in errors[0]
