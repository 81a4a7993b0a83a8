import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent.parent / "scripts" / "distill_multi30k.sh"


def texts_of_multi30k(folder):
    """One sentence for each set."""
    for split in ("train", "val", "test_2016_flickr", "test_2017_flickr"):
        for language in ("en", "de"):
            (folder / f"{split}.{language}").write_text("a sentence\n")


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        ([], 2, "KIND must be distilled-more or self-trained; found ''."),
        (["distilled"], 2, "KIND must be distilled-more or self-trained; found 'distilled'."),
        (["self-trained", "--workers"], 2, "--workers needs a value"),
        (["self-trained", "--sentences", "many"], 2, "--sentences must be a number from 1 on; found many"),
        (["self-trained", "--workers", "many"], 2, "--workers must be a number from 1 on; found many"),
        (["self-trained", "--seed", "-1"], 2, "--seed must be a number; found -1."),
        (["self-trained", "--judges", "a.pt"], 2, "--judges is for distilled-more"),
        (
            ["distilled-more", "--no-judges"],
            2,
            "--no-judges is for self-trained; in distilled-more judges always choose",
        ),
        (["distilled-more", "--out", "{out}", "--teacher", "lstm-9-seed8"], 1, "no file {out}/lstm-9-seed8/average.pt"),
        (["distilled-more", "--judges", "{out}/a.pt"], 1, "no checkpoint {out}/a.pt (--judges)."),
        (["self-trained", "--out", "{out}"], 1, "no file {out}/ctc-2400-seed1/average.pt: run scripts/bench"),
        (["self-trained", "--out", "{out}", "--teacher", "best-9-seed8"], 1, "no file {out}/best-9-seed8/average.pt"),
        (["distilled-more", "--out", "{out}"], 1, "no file {out}/transformer-8000-seed1/average.pt"),
    ],
)
def test_what_is_missing_is_said_before_any_work(tmp_path, arguments, code, message):
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    out.mkdir()
    texts_of_multi30k(data)
    command = [SCRIPT, data, *(argument.format(out=out) for argument in arguments)]
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env={**os.environ, "CONVTEXT_PYTHON": sys.executable}
    )
    assert done.returncode == code and f"error: {message.format(out=out)}" in done.stderr
    assert not any(out.iterdir())


@pytest.mark.parametrize(
    "flags, decoding", [([], "averaged-search-lm-judged"), (["--no-judges"], "averaged-search-lm")]
)
def test_judges_that_the_teacher_was_translated_with_choose_unless_none_shall(tmp_path, flags, decoding):
    texts_of_multi30k(tmp_path)
    (tmp_path / "spm.model").write_text("is there already\n")
    for name in ("averaged-search-lm", "averaged-search-lm-judged"):
        (tmp_path / "ctc-1-seed1" / name).mkdir(parents=True)
        (tmp_path / "ctc-1-seed1" / name / "flags").write_text(f"--ctc-beam=30\n--made-by={name}\n")
    (tmp_path / "ctc-1-seed1" / "average.pt").write_text("is there already\n")
    more = tmp_path / "more-3" / "pieces" / "more.en"
    more.parent.mkdir(parents=True)
    for file in (more.parent.parent / "more.en", more):
        file.write_text("sampled already\n")
    made_of_those_before = tmp_path / "train.en", tmp_path / "spm.model", more.parent.parent / "more.en", more
    for second, file in enumerate(made_of_those_before):
        os.utime(file, (second, second))
    command = [
        SCRIPT,
        tmp_path,
        "self-trained",
        "--out",
        tmp_path,
        "--teacher",
        "ctc-1-seed1",
        "--sentences",
        "3",
        *flags,
    ]
    environment = {**os.environ, "CONVTEXT_PYTHON": sys.executable}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)
    assert done.returncode != 0  # no data to translate
    (started,) = [line for line in done.stderr.splitlines() if line.startswith("+ ") and "distill.sh" in line]
    assert f"--made-by={decoding} " in started and ("--ctc-judged 5 " in started) == (not flags)
