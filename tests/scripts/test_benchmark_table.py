"""scripts/benchmark_table.py: every system with its scores, and the mean of those with several seeds."""

import re
import statistics
import sys
from pathlib import Path

import pytest
import sacrebleu
import torch

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))
import benchmark_table  # noqa: E402

REFERENCES = ["der Hund läuft schnell im Park .", "die Frau steht vor dem Haus .", "ein Kind spielt mit dem Ball ."]
OUTPUTS = {
    "ctc-20-seed1": ["der Hund läuft im Park .", *REFERENCES[1:]],
    "ctc-20-seed2": [*REFERENCES[:2], "das Kind spielt Ball ."],
    "transformer-8000-seed1": REFERENCES,
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "t.de").write_text("".join(f"{line}\n" for line in REFERENCES), encoding="utf-8")
    for system, hypotheses in OUTPUTS.items():
        (tmp_path / system / "greedy").mkdir(parents=True)
        (tmp_path / system / "checkpoints").mkdir()
        state = {"extra_state": {"previous_training_time": 120.0}}
        torch.save(state, tmp_path / system / "checkpoints" / "checkpoint_last.pt")
        (tmp_path / system / "train.log").write_text("num. shared model params: 3,130,000 (", encoding="utf-8")
        lines = [
            f"S-{i}\tx\nT-{i}\t{reference}\nH-{i}\t-0.5\t{hypothesis}\nD-{i}\t-0.5\t{hypothesis}\nP-{i}\t-0.5\n"
            for i, (hypothesis, reference) in enumerate(zip(hypotheses, REFERENCES))
        ]
        (tmp_path / system / "greedy" / "t.gen").write_text("".join(lines), encoding="utf-8")
    return tmp_path


def test_a_row_for_every_system_and_the_mean_over_seeds(folder, capsys):
    assert benchmark_table.main([str(folder), "--tests", "t"]) == 0
    output = capsys.readouterr().out
    scores = {system: sacrebleu.corpus_bleu(lines, [REFERENCES]).score for system, lines in OUTPUTS.items()}
    for system, score in scores.items():
        row, updates, seed = re.fullmatch(r"(.+)-(\d+)-seed(\d)", system).groups()
        assert re.search(rf"^{row} +raw +{seed} +{updates} +2 +3\.13 +greedy +{score:.2f} / ", output, re.MULTILINE)
    seeds = [scores["ctc-20-seed1"], scores["ctc-20-seed2"]]
    mean = rf"{statistics.mean(seeds):.2f} ± {statistics.stdev(seeds):.2f} / "
    assert re.search(rf"^ctc +raw +20 +greedy +2 +{mean}", output, re.MULTILINE)
    assert output.count("±") == 3  # BLEU, chrF and tokenised BLEU of one system on one set


def test_only_the_systems_that_are_named_have_rows_and_without_their_checkpoints_no_minutes(folder, capsys):
    (folder / "ctc-20-seed2" / "checkpoints" / "checkpoint_last.pt").unlink()
    assert benchmark_table.main([str(folder), "ctc-20-seed2", "--tests", "t"]) == 0
    output = capsys.readouterr().out
    assert re.search(r"^ctc +raw +2 +20 +[?] +3\.13 +greedy ", output, re.MULTILINE)
    assert "transformer" not in output and "±" not in output
    assert benchmark_table.main([str(folder), "ctc-20-seed2", "ctc-20-seed3", "--tests", "t"]) == 1
    assert f"error: {folder} holds no ctc-20-seed3/DECODING/t.gen" in capsys.readouterr().err


def test_a_system_is_told_from_its_data_even_if_that_has_a_seed_in_its_name():
    found = benchmark_table.SYSTEM.fullmatch("word-dropout-3600-seed1-self-trained-40000-seed2")
    assert found["row"] == "word-dropout" and found["updates"] == "3600"
    assert found["seed"] == "1" and found["data"] == "self-trained-40000-seed2"


def test_a_folder_without_translations_is_one_sentence(tmp_path, capsys):
    assert benchmark_table.main([str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_a_checkpoint_that_a_kill_cut_off_is_one_sentence(folder, capsys):
    path = folder / "ctc-20-seed1" / "checkpoints" / "checkpoint_last.pt"
    path.write_bytes(path.read_bytes()[:300])
    assert benchmark_table.main([str(folder), "--tests", "t"]) == 1
    assert f"error: {path} is no whole checkpoint" in capsys.readouterr().err
