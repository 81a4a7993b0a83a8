import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent.parent / "scripts" / "distill_multi30k.sh"


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
        (["distilled-more", "--teacher", "best"], 2, "--teacher is for self-trained; distilled-more takes the row tr"),
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
    for split in ("train", "val", "test_2016_flickr", "test_2017_flickr"):
        for language in ("en", "de"):
            (data / f"{split}.{language}").write_text("a sentence\n")
    command = [SCRIPT, data, *(argument.format(out=out) for argument in arguments)]
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env={**os.environ, "CONVTEXT_PYTHON": sys.executable}
    )
    assert done.returncode == code and f"error: {message.format(out=out)}" in done.stderr
    assert not any(out.iterdir())
