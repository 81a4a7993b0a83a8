"""A synthetic language whose translation is known: digits in, letters out, one of them doubled."""

import fcntl
import logging
import os
import random
from pathlib import Path
from typing import Callable, Dict, List

import pytest

from tests.command_lines.commands import run

LETTERS = dict(zip("0123456789", "abcdefghij"))
SENTENCES = {"train": 3000, "valid": 61, "test": 317}


def translate(source: str) -> str:
    """The right translation: every digit's letter, and that of 0 twice."""
    return " ".join(LETTERS[d] + (f" {LETTERS[d]}" if d == "0" else "") for d in source.split())


def make_sentences(count: int, seed: int) -> List[str]:
    generator = random.Random(seed)
    return [" ".join(generator.choices("0123456789", k=generator.randint(1, 7))) for _ in range(count)]


def make_corpus(folder: Path, sentences: Dict[str, int], *flags: object) -> Path:
    """The folder that fairseq-preprocess made, with its flags, of as many sentences of each split."""
    for seed, (split, count) in enumerate(sentences.items()):
        sources = make_sentences(count, seed)
        (folder / f"{split}.d").write_text("".join(f"{s}\n" for s in sources), encoding="utf-8")
        (folder / f"{split}.l").write_text("".join(f"{translate(s)}\n" for s in sources), encoding="utf-8")
    prefixes = [f"--{split}pref={folder / split}" for split in sentences]
    run("preprocess", "--source-lang", "d", "--target-lang", "l", *prefixes, "--destdir", folder / "bin", *flags)
    return folder / "bin"


@pytest.fixture(scope="module", autouse=True)
def logs_are_on() -> None:
    """fairseq's INFO lines are written, as in a process of its own, whatever other tests did to the root logger."""
    logging.disable(logging.NOTSET)
    logging.getLogger().setLevel(logging.INFO)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("corpus"), SENTENCES)


TINY = """
    --arch bytenet_deconv_tiny --encoder-channels 64 --encoder-layers 3 --decoder-layers 3 --dilations 1,2
    --dropout 0 --spatial-dropout 0
    --optimizer adam --lr 3e-3 --lr-scheduler polynomial_decay --warmup-updates 40 --clip-norm 0.2
    --batch-size 64 --required-batch-size-multiple 1
    --num-workers 0 --seed 1 --log-format simple --log-interval 50 --no-epoch-checkpoints
""".split()
ALIGNMENTS: Dict[str, List[str]] = {
    "ctc": ["--target-alignment", "ctc", "--criterion", "convtext_ctc"],
    "dag": ["--target-alignment", "dag", "--criterion", "convtext_dag", "--longest-jump", "8"],
    "position": ["--target-alignment", "position", "--criterion", "cross_entropy"],
}


@pytest.fixture(scope="session")
def train(corpus: Path, user_dir: Path) -> Callable[..., str]:
    """``fairseq-train`` on the corpus: ``train(save_dir, updates, *flags)`` gives the log."""

    def call(save_dir: Path, updates: int, *flags: object) -> str:
        return run(
            "train", corpus, "--user-dir", user_dir, "--save-dir", save_dir, *TINY,
            "--max-update", updates, "--total-num-update", updates, *flags,
        )  # fmt: skip

    return call


SIBLING: List[str] = ["--arch", "bytenet_tiny", "--dilations", "1,2,4", "--criterion", "cross_entropy"]
# fairseq's BLEU of the sibling, by beam search, takes its time.
KINDS: Dict[str, List[str]] = {
    **ALIGNMENTS,
    "autoregressive": [
        *SIBLING, "--eval-bleu", "--eval-bleu-args", '{"beam": 2}', "--validate-interval", "5", "--save-interval", "5",
    ],
}  # fmt: skip


# What graphs do otherwise than CTC is in test_search.py.
@pytest.fixture(scope="session", params=["ctc", "position"])
def alignment(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def checkpoints(train: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The checkpoint of a model that has learnt the language, of one of KINDS, beside its log; trained once, where it
    is needed first."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # each process has a folder of its own within that of the session
        shared = shared.parent

    def get(kind: str) -> Path:
        folder = shared / f"checkpoints-{kind}"
        with (shared / f"{folder.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / "checkpoint_best.pt").exists():
                folder.mkdir(exist_ok=True)
                train(folder, 400, *KINDS[kind], "--log-file", folder / "log")
        return folder / "checkpoint_best.pt"

    return get
