"""One process of a training, started by launch_training.py: fairseq-train with the rank that torchrun gave it."""

import argparse
import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import List

# How long a file written on one machine may take to be seen on another, in seconds: network file systems cache.
FOLDER_PATIENCE = 60


def fail(message: str) -> None:
    """End this process with one sentence and exit code 1."""
    sys.exit(f"error: {message}.")


def die_with_parent() -> None:
    """Linux ends this process when its parent ends: killing the launcher leaves no training behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG


def distributed_flags(cpu: bool) -> List[str]:
    """What fairseq must be told so that the processes are one training.

    Left to itself it takes one process for the whole, ends without training where there is no GPU, or divides by
    their number.
    """
    flags = [
        "--distributed-world-size", os.environ["WORLD_SIZE"], "--distributed-rank", os.environ["RANK"],
        "--distributed-init-method", "env://", "--distributed-no-spawn", "--device-id", os.environ["LOCAL_RANK"],
        "--distributed-backend", "gloo" if cpu else "nccl",
        # The first would send it to the others by a pickle that torch >= 2.6 refuses to read.
        "--load-checkpoint-on-all-dp-ranks",
    ]  # fmt: skip
    return flags + (["--ddp-backend", "legacy_ddp"] if cpu else [])


def agree(flags: List[str], save_dir: Path) -> object:
    """See that all machines were given the same command and share the folder; returns what must be kept alive.

    Otherwise the processes would train different models in step, or the others miss the checkpoint to resume from.
    """
    from torch.distributed import rendezvous

    store, rank, _ = next(rendezvous("env://"))
    if rank == 0:
        token = f"{os.getpid()} {time.time()}"
        save_dir.mkdir(parents=True, exist_ok=True)
        (save_dir / "launch.token").write_text(token)
        store.set("convtext/launch", json.dumps([flags, token]))
        return store
    first_flags, token = json.loads(store.get("convtext/launch"))
    if first_flags != flags:
        different = [f"{here} here and {there} there" for here, there in zip(flags, first_flags) if here != there]
        count = f"{len(flags)} arguments here and {len(first_flags)} there"
        fail(
            "this machine was started with another command than machine 0 "
            f"({different[0] if different else count}): give all the same"
        )
    check_folder(save_dir, token)
    return store


def check_folder(save_dir: Path, token: str) -> None:
    """See that this is the folder into which the first process wrote ``token``."""
    file = save_dir / "launch.token"
    end = time.monotonic() + FOLDER_PATIENCE
    while not (file.exists() and file.read_text() == token):
        if time.monotonic() > end:
            fail(
                f"{save_dir} here is not the folder that machine 0 writes to: --save-dir must be on a file system "
                "that all machines share"
            )
        time.sleep(1)


def trained(save_dir: Path, start: float) -> bool:
    """Whether a checkpoint was written since."""
    return any(path.stat().st_mtime >= start - 2 for path in save_dir.glob("checkpoint*.pt"))


def main() -> None:
    """As fairseq-train, with the same arguments."""
    die_with_parent()
    flags = sys.argv[1:]
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--save-dir", type=Path)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--no-save", action="store_true")
    options, _ = parser.parse_known_args(flags)
    many = "WORLD_SIZE" in os.environ
    # On a machine with more GPUs than the one that was asked for, fairseq would use all.
    added, store = ["--distributed-world-size", "1"], None
    if many:
        store = agree(flags, options.save_dir)
        added = distributed_flags(options.cpu)
    start = time.time()
    # The name by which the project's package knows that user errors are to be one line.
    sys.argv = ["fairseq-train", *flags, *added]
    from fairseq_cli.train import cli_main

    try:
        cli_main()
    except RuntimeError as error:
        if "gloo/transport" not in str(error):
            raise
        # Forty lines of traceback would hide what the launcher says of the process that did end.
        sys.exit(f"process {os.environ['RANK']} of {os.environ['WORLD_SIZE']} lost its connection to another one.")
    del store
    if os.environ.get("RANK", "0") == "0" and not options.no_save and not trained(options.save_dir, start):
        fail(f"fairseq ended without training anything: there is no new checkpoint in {options.save_dir}")


if __name__ == "__main__":
    main()
