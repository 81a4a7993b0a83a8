"""scripts/distill.sh: every training sentence gets the teacher's translation, in its place, whatever was killed."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from fairseq.data import Dictionary, indexed_dataset

from tests.command_lines.commands import lines, run
from tests.command_lines.conftest import ALIGNMENTS, make_corpus

SCRIPT = Path(__file__).resolve().parent.parent.parent / "scripts" / "distill.sh"
# Enough for several batches in each of two shards.
SENTENCES = {"train": 300, "valid": 61, "test": 20}
# Besides those of the training data, the first of the validation set.
MORE = 7


def start(*arguments):
    """The script in a process group of its own."""
    return subprocess.Popen(
        [SCRIPT, *map(str, arguments)],
        env={**os.environ, "CONVTEXT_PYTHON": sys.executable, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # as at a terminal, wherever the tests run
    )  # fmt: skip


def finish(process):
    """The exit code and what the script wrote to standard error."""
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors


@pytest.fixture(scope="module")
def small(corpus, tmp_path_factory):
    """A smaller one with the dictionaries of that from which the teacher learns."""
    dictionaries = ["--srcdict", corpus / "dict.d.txt", "--tgtdict", corpus / "dict.l.txt"]
    return make_corpus(tmp_path_factory.mktemp("small"), SENTENCES, *dictionaries)


@pytest.fixture(scope="module")
def teacher(train, tmp_path_factory):
    """A checkpoint that has learnt enough to say different things of different sentences."""
    folder = tmp_path_factory.mktemp("teacher")
    train(folder, 40, *ALIGNMENTS["position"])
    return folder / "checkpoint_last.pt"


@pytest.fixture(scope="module")
def command(small, teacher, tmp_path_factory):
    """The script's arguments, and the folder that it writes to."""
    out, more = tmp_path_factory.mktemp("distilled"), tmp_path_factory.mktemp("more") / "more.d"
    more.write_text("".join((small.parent / "valid.d").read_text().splitlines(keepends=True)[:MORE]))
    arguments = ["--data", small, "--path", teacher, "--out", out, "--shards", 2, "--beam", 2, "--max-tokens", 700]
    return [*arguments, "--more-source", more, "--cpu"], out


@pytest.fixture(scope="module")
def distilled(command):
    """The folder after a run that was killed when a shard was done, and a second run; the age of that shard."""
    arguments, out = command
    process, first = start(*arguments), out / "shards" / "0"
    try:
        end = time.monotonic() + 300
        while not first.exists():
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.05)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert not (out / "bin").exists() and not (out / "shards" / "1").exists()
    before = first.stat().st_mtime_ns
    code, errors = finish(start(*arguments, "--workers", 2))
    assert code == 0, errors[-2000:]
    assert first.stat().st_mtime_ns == before  # not done again
    return out


def test_every_training_target_is_the_teachers_translation_in_the_order_of_the_sources(
    distilled, small, teacher, user_dir
):
    def translations(subset):
        found = run(
            "generate", small, "--user-dir", user_dir, "--path", teacher, "--gen-subset", subset, "--beam", 2,
            "--max-tokens", 700, "--required-batch-size-multiple", 1, "--num-workers", 0, "--max-len-a", 1.5,
            "--max-len-b", 10,
        )  # fmt: skip
        best = {key: hypotheses[0].split("\t")[1] for key, hypotheses in lines(found, "H").items()}
        assert sorted(best) == list(range(SENTENCES[subset]))
        return [best[key] for key in range(SENTENCES[subset])]

    text = translations("train") + translations("valid")[:MORE]
    assert len(set(text)) > 50
    assert (distilled / "train.l").read_text().splitlines() == text
    dictionary = Dictionary.load(str(distilled / "bin" / "dict.l.txt"))
    targets = indexed_dataset.make_dataset(str(distilled / "bin" / "train.d-l.l"), "mmap")
    assert [dictionary.string(target) for target in targets] == text


def test_more_sources_follow_the_others_and_all_else_is_as_it_was(distilled, small):
    made, kept, more = (
        indexed_dataset.make_dataset(str(folder / f"{split}.d-l.d"), "mmap")
        for folder, split in ((distilled / "bin", "train"), (small, "train"), (small, "valid"))
    )
    expected = [*kept, *(more[number] for number in range(MORE))]
    assert len(made) == len(expected) and all(map(torch.equal, made, expected))
    for file in small.iterdir():
        if file.suffix in (".bin", ".idx", ".txt"):
            same = file.read_bytes() == (distilled / "bin" / file.name).read_bytes()
            assert same == (not file.name.startswith("train.")), file.name
    assert not (small / "DISTILLED").exists()


def test_the_folder_says_what_it_is_and_is_not_distilled_again(distilled, teacher, tmp_path):
    note = (distilled / "bin" / "DISTILLED").read_text()
    assert str(teacher) in note and f"{SENTENCES['train'] + MORE} sentences, beam 2" in note
    code, errors = finish(start("--data", distilled / "bin", "--path", teacher, "--out", tmp_path / "again"))
    assert code == 1 and re.search("^error: .* is distilled already, see .*/DISTILLED.$", errors, re.MULTILINE)


def test_a_lost_sentence_is_an_error(distilled, command):
    shard = distilled / "shards" / "1"
    whole = shard.read_text()
    shard.write_text("".join(whole.splitlines(keepends=True)[1:]))
    (distilled / "bin").rename(distilled / "away")
    code, errors = finish(start(*command[0]))
    (distilled / "away").rename(distilled / "bin")
    shard.write_text(whole)
    assert code == 1
    assert "error: the shards have 306 sentences, of which 306 are different, and" in errors


def test_ctrl_c_stops_the_work_in_the_background_too(command, tmp_path):
    arguments = [tmp_path if argument == command[1] else argument for argument in command[0]]
    process, end = start(*arguments), time.monotonic() + 60
    while not (tmp_path / "shards" / "0.log").exists():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    finish(process)  # when all have closed their ends of the pipes
    assert process.returncode != 0 and not (tmp_path / "shards" / "0").exists()


def test_without_more_sources_it_is_the_same_and_a_text_that_has_changed_is_not_mixed_with_it(
    distilled, small, teacher, tmp_path
):
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(small, data)
    arguments = ["--data", data, "--path", teacher, "--out", out, "--shards", 1, "--beam", 2, "--max-tokens", 700]
    arguments.append("--cpu")
    code, errors = finish(start(*arguments))
    assert code == 0, errors[-2000:]
    assert (out / "train.l").read_text().splitlines() == (distilled / "train.l").read_text().splitlines()[:-MORE]
    for suffix in ("bin", "idx"):
        assert (out / "bin" / f"train.d-l.d.{suffix}").read_bytes() == (small / f"train.d-l.d.{suffix}").read_bytes()
    with (data / "train.d-l.d.bin").open("ab") as stream:
        stream.write(b"0")
    code, errors = finish(start(*arguments))
    assert code == 1 and "was made with other settings" in errors


def test_data_that_a_student_would_add_as_they_are_are_refused(small, teacher, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(small, data)
    shutil.copy(data / "train.d-l.d.idx", data / "train1.d-l.d.idx")
    code, errors = finish(start("--data", data, "--path", teacher, "--out", tmp_path / "out", "--cpu"))
    assert code == 1 and "has more training data, train1.d-l.d.idx" in errors
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--path", "x", "--out", "y"], "--data is missing"),
        (["--data", "a", "--path", "x", "--out", "y", "--judge", "z", "--nbest", "9"], "--nbest 9 asks for more"),
        (["--shards", "0"], "--shards must be a number from 1 on; found 0"),
        (["--data", "a", "--path", "x", "--out", "y", "--references", "1"], "give --more-source too"),
        (["--data", "a", "--path", "x", "--out", "y", "--", "--remove-bpe"], "--remove-bpe after -- would lose"),
        (["--data", "a", "--path", "x", "--out", "y", "--judge", "z", "--", "--lenpen=0"], "--lenpen after -- would"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    code, errors = finish(start(*arguments))
    assert code == 2 and message in errors


def test_references_stay_judges_choose_for_the_rest_and_no_shard_is_without_a_sentence(
    small, teacher, checkpoints, tmp_path
):
    dictionary = Dictionary.load(str(small / "dict.d.txt"))
    (tmp_path / "more.d").write_text("0 1 2\n5 5 6 7\n")
    arguments = ["--data", small, "--path", teacher, "--out", tmp_path, "--cpu", "--shards", 3, "--references", 2]
    arguments += ["--more-source", tmp_path / "more.d", "--nbest", 3, "--judge"]
    (tmp_path / "broken.pt").write_text("no checkpoint")
    code, errors = finish(start(*arguments, tmp_path / "broken.pt"))
    assert code == 1 and "broken.pt is no checkpoint of fairseq" in errors and not (tmp_path / "shards").exists()
    arguments.append(checkpoints("ctc"))
    code, errors = finish(start(*arguments))
    assert code == 0, errors[-2000:]
    count, made = SENTENCES["train"], {}
    for language in "dl":
        made[language] = list(indexed_dataset.make_dataset(str(tmp_path / "bin" / f"train.d-l.{language}"), "mmap"))
        kept = list(indexed_dataset.make_dataset(str(small / f"train.d-l.{language}"), "mmap"))
        assert len(made[language]) == 2 * count + 2
        assert all(torch.equal(ids, kept[n % count]) for n, ids in enumerate(made[language][: 2 * count]))
    assert [dictionary.string(ids) for ids in made["d"][-2:]] == ["0 1 2", "5 5 6 7"]
    assert sorted(file.name for file in (tmp_path / "shards").iterdir() if not file.suffix) == ["0", "1"]
    shards = [(tmp_path / "shards" / f"{number}.nbest").read_text() for number in (0, 1)]
    offered = [line.split("\t") for shard in shards for line in shard.splitlines()]
    assert len(offered) == 6
    targets = Dictionary.load(str(small / "dict.l.txt"))
    for number, ids in enumerate(made["l"][-2:]):
        assert targets.string(ids) in [text for key, _, text in offered if int(key) == number]
    (tmp_path / "bin").rename(tmp_path / "away")
    code, errors = finish(start(*arguments, "--nbest", 2))
    assert code == 1 and "was made with other settings" in errors  # than an --nbest of 3
    (tmp_path / "away").rename(tmp_path / "bin")
    assert "references, 2 times each" in (tmp_path / "bin" / "DISTILLED").read_text()
