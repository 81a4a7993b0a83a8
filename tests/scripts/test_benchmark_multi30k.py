import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent.parent / "scripts" / "benchmark_multi30k.sh"


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (["--rows"], 2, "--rows needs a value."),
        (["--row", "ctc"], 2, "unknown argument --row"),
        (["--updates", "2k"], 2, "--updates must be a number from 1 on; found 2k."),
        (["--seed", "0"], 2, "--seed must be a number from 1 on; found 0."),
        (["--distilled", "{out}"], 1, "{out} was not made by scripts/distill.sh."),
        (["--judges", "{out}/a.pt"], 1, "no checkpoint {out}/a.pt (--judges)."),
        (["--from", "{out}/a.pt"], 2, "--from needs --distilled"),
        (["--from", "{out}/a.pt", "--distilled", "{data}"], 1, "no checkpoint {out}/a.pt (--from)."),
        (["--lr", "fast"], 2, "--lr must be a number such as 1e-3; found fast."),
        (["--average", "11"], 2, "--average must be from 1 to 10, as many as are kept; found 11."),
        (["--rows", "lstm", "--average", "1"], 1, "--lr and --average are for the rows of this project; found lstm"),
        (["--teacher", "{out}/a.pt"], 1, "no checkpoint {out}/a.pt (--teacher)."),
        (
            ["--rows", "ctc,dag", "--teacher", "{data}/DISTILLED"],
            1,
            "--teacher is for the rows of CTC; found dag in --rows.",
        ),
        (["--rows", "ctc,transformers"], 1, "--rows has an unknown row transformers"),
        (
            ["--rows", "ctc,lstm", "--from", "{data}/DISTILLED", "--distilled", "{data}"],
            1,
            "--from is for the rows of CTC and graphs and for autoregressive; found lstm in --rows.",
        ),
    ],
)
def test_a_wrong_command_is_refused_before_any_work(tmp_path, arguments, code, message):
    folders = {name: tmp_path / name for name in ("data", "out")}
    for folder in folders.values():
        folder.mkdir()
    (folders["data"] / "DISTILLED").write_text("made by hand\n")
    for split in ("train", "val", "test_2016_flickr", "test_2017_flickr"):
        for language in ("en", "de"):
            (folders["data"] / f"{split}.{language}").write_text("1\n")
    arguments = ["--out", "{out}", *arguments]  # whatever gets through writes there
    command = [str(SCRIPT), str(folders["data"]), *(argument.format(**folders) for argument in arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "CONVTEXT_PYTHON": sys.executable}
    )
    assert done.returncode == code and f"error: {message.format(**folders)}" in done.stderr
    assert not any(folders["out"].iterdir())


def test_distilled_data_of_another_dictionary_are_refused(tmp_path):
    for split in ("train", "val", "test_2016_flickr", "test_2017_flickr"):
        for language in ("en", "de"):
            (tmp_path / f"{split}.{language}").write_text("1\n")
    for folder, text in (("bin", "a 1\n"), ("other/bin", "b 1\n")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "dict.de.txt").write_text(text)
    (tmp_path / "other/bin/DISTILLED").write_text("made by hand\n")
    (tmp_path / "lm.de.pt").write_text("is there already\n")
    command = [SCRIPT, tmp_path, "--out", tmp_path, "--rows", "ctc", "--distilled", tmp_path / "other/bin"]
    environment = {**os.environ, "CONVTEXT_PYTHON": sys.executable}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)
    said = f"error: {tmp_path}/other/bin has another dictionary than {tmp_path}/bin"
    assert done.returncode == 1 and said in done.stderr
    assert not (tmp_path / "ctc-2400-seed1-other").exists()


def test_a_row_that_was_made_otherwise_is_told_before_any_row_is_trained(tmp_path):
    for split in ("train", "val", "test_2016_flickr", "test_2017_flickr"):
        for language in ("en", "de"):
            (tmp_path / f"{split}.{language}").write_text("1\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "lm.de.pt").write_text("is there already\n")
    (tmp_path / "bytenet-2400-seed1").mkdir()
    (tmp_path / "bytenet-2400-seed1" / "settings").write_text("other flags\n")
    command = [SCRIPT, tmp_path, "--out", tmp_path, "--rows", "ctc,bytenet"]
    environment = {**os.environ, "CONVTEXT_PYTHON": sys.executable}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)
    said = f"error: {tmp_path}/bytenet-2400-seed1 was made with other settings (other flags; now "
    assert done.returncode == 1 and said in done.stderr
    assert not (tmp_path / "ctc-2400-seed1").exists()


def test_every_file_is_looked_for_before_any_work(tmp_path):
    (tmp_path / "train.en").write_text("1\n")
    done = subprocess.run([str(SCRIPT), str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == f"error: no file {tmp_path}/train.de.\n"


def test_what_teaches_at_what_rate_and_what_is_gone_on_from_reach_the_training(tmp_path):
    for split in ("train", "val", "test_2016_flickr", "test_2017_flickr"):
        for language in ("en", "de"):
            (tmp_path / f"{split}.{language}").write_text("1\n")
    for folder in ("bin", "better/bin"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "dict.de.txt").write_text("a 1\n")
    for name in ("lm.de.pt", "better/bin/DISTILLED", "better/bin/train.en-de.en.bin", "whole.pt", "first.pt"):
        (tmp_path / name).write_text("is there already\n")
    command = [SCRIPT, tmp_path, "--out", tmp_path, "--rows", "shallow", "--distilled", tmp_path / "better/bin"]
    command += ["--teacher", tmp_path / "whole.pt", "--from", tmp_path / "first.pt", "--lr", "3e-3", "--seed", "2"]
    environment = {**os.environ, "CONVTEXT_PYTHON": sys.executable}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)
    assert done.returncode != 0  # there are no data in these files
    (training,) = [line for line in done.stderr.splitlines() if line.startswith("+ fairseq-train ")]
    words = training.split()
    assert f"--canvas-teacher {tmp_path}/whole.pt" in training
    assert f"--finetune-from-model {tmp_path}/first.pt" in training
    assert [words[at + 1] for at, word in enumerate(words) if word == "--lr"][-1] == "3e-3"
    assert "--encoder-layers 5 --decoder-layers 3" in training and "--seed 2" in training
    assert (tmp_path / "shallow-2400-seed2-better-taught").is_dir()
