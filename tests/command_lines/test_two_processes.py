"""scripts/launch_training.py: two processes are one training, and what goes wrong is said."""

import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.command_lines.conftest import ALIGNMENTS, TINY

SCRIPTS = Path(__file__).resolve().parent.parent.parent / "scripts"
LAUNCHER, RANK_PROGRAM = SCRIPTS / "launch_training.py", SCRIPTS / "lib" / "launch_rank.py"
# An epoch has 47 batches: for two processes the last update is of one batch and an empty one. So is validation.
FLAGS = [*TINY, *ALIGNMENTS["ctc"], "--task", "translation_convtext", "--save-interval-updates", 10]
FLAGS += ["--eval-bleu", "--eval-bleu-args", '{"beam": 1}', "--eval-bleu-detok", "space", "--batch-size-valid", 7]
FLAGS += ["--best-checkpoint-metric", "bleu", "--maximize-best-checkpoint-metric", "--no-progress-bar"]
UPDATES = ["--max-update", 40, "--total-num-update", 40]


def clean_environment(**more):
    """Ours, without what an outer torchrun or SLURM would have put there."""
    started_by = re.compile("SLURM|OMPI|RANK$|WORLD_SIZE$|LOCAL_|MASTER_|TORCHELASTIC")
    return {**{k: v for k, v in os.environ.items() if not started_by.search(k)}, "OMP_NUM_THREADS": "1", **more}


def start(*arguments, program=LAUNCHER, **environment):
    """The program in a session of its own, so that a failing test leaves nothing behind."""
    return subprocess.Popen(
        [sys.executable, program, *map(str, arguments)],
        env=clean_environment(**environment), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def error_of(process, seconds=300):
    """The one sentence that the program ends with; its exit code is 1."""
    _, errors = process.communicate(timeout=seconds)
    assert process.returncode == 1, errors[-2000:]
    sentences = re.findall(r"^error: (.*)", errors, re.MULTILINE)
    assert len(sentences) == 1 and sentences[0].endswith(".") and "Traceback" not in errors, errors[-2000:]
    return sentences[0]


def wait_for(pattern, process):
    """Read the program's output up to a line with the pattern."""
    for line in process.stdout:
        if re.search(pattern, line):
            return
    raise AssertionError(f"no {pattern} in the output; {process.communicate()[1][-2000:]}")


def rank_processes(launcher):
    """The process ids of the launcher's children by rank."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    ranks = {}
    for child in children:
        found = re.search(r"\0RANK=(\d+)\0", Path(f"/proc/{child}/environ").read_text())
        if found:
            ranks[int(found.group(1))] = int(child)
    return ranks


def is_running(pid):
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


@pytest.fixture(scope="module")
def one_process(train, tmp_path_factory):
    """The save-dir of one process that takes two batches an update."""
    folder = tmp_path_factory.mktemp("one")
    train(folder, 40, *FLAGS, "--update-freq", 2)
    return folder


@pytest.fixture(scope="module")
def command(corpus, user_dir, tmp_path_factory):
    """The arguments of the launcher for two processes that take a batch each an update, and the save-dir."""
    folder = tmp_path_factory.mktemp("two")
    return ["--cpu", "--gpus", 2, corpus, "--user-dir", user_dir, "--save-dir", folder, *FLAGS, *UPDATES], folder


@pytest.fixture(scope="module")
def killed(command):
    """The training of two processes after the second was killed: the error, and the seconds until it came."""
    process = start(*command[0])
    wait_for("Saved checkpoint .*checkpoint_1_10.pt", process)
    before = time.monotonic()
    os.kill(rank_processes(process)[1], signal.SIGKILL)
    return error_of(process), time.monotonic() - before


def assert_same_training(one, other):
    """Same parameters, after training that moved them, and same BLEU on the validation set."""
    one, other = (torch.load(path, weights_only=False) for path in (one, other))
    assert one["optimizer_history"][-1]["num_updates"] == other["optimizer_history"][-1]["num_updates"]
    torch.testing.assert_close(other["model"], one["model"], rtol=1e-4, atol=1e-6)
    assert other["extra_state"]["val_loss"] == pytest.approx(one["extra_state"]["val_loss"], abs=1e-6)


def test_after_ten_updates_two_processes_have_the_parameters_of_one_with_twice_the_update_frequency(
    one_process, killed, command
):
    assert_same_training(one_process / "checkpoint_1_10.pt", command[1] / "checkpoint_1_10.pt")


def test_a_killed_process_ends_the_training_at_once_with_an_error(killed):
    message, seconds = killed
    assert "process 1 of 2 was killed by SIGKILL, and all others were ended; the same command goes on" in message
    assert seconds < 20


def test_the_same_command_goes_on_after_a_kill_and_ends_as_if_there_had_been_none(one_process, killed, command):
    process = start(*command[0])
    log, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-2000:]
    assert re.search(r"Loaded checkpoint .*/checkpoint_last.pt \(epoch \d @ [123]0 updates\)", log)
    assert re.search("training on 2 devices", log)
    assert_same_training(one_process / "checkpoint_last.pt", command[1] / "checkpoint_last.pt")


def test_a_second_training_in_the_folder_is_refused_and_none_outlives_its_launcher(corpus, user_dir, tmp_path):
    flags = ["--cpu", "--gpus", 2, corpus, "--user-dir", user_dir, "--save-dir", tmp_path, *FLAGS]
    flags += ["--max-update", 100000, "--total-num-update", 100000, "--no-save"]
    first = start(*flags)
    try:
        wait_for("begin training epoch", first)
        message = error_of(start(*flags))
        assert f"another training (process {first.pid} on {socket.gethostname()}) writes to {tmp_path}" in message
        ranks = rank_processes(first).values()
        assert len(ranks) == 2 and all(map(is_running, ranks))
    finally:
        first.kill()
        first.communicate()
    end = time.monotonic() + 10
    while any(map(is_running, ranks)):
        assert time.monotonic() < end
        time.sleep(0.1)


TORCHRUN = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}
SRUN = {"SLURM_JOB_ID": "7", "SLURM_NODEID": "0"}
MISTAKES = {
    "under torchrun": ("--gpus 2", TORCHRUN, "torchrun started this as process 1 of 2, .* leave torchrun out"),
    "under mpirun": ("--gpus 2", {"OMPI_COMM_WORLD_SIZE": "2"}, "mpirun started 2 copies"),
    "srun, a task for each GPU": (
        "--gpus 8 --nodes 2",
        {**SRUN, "SLURM_STEP_NUM_TASKS": "16", "SLURM_STEP_NUM_NODES": "2"},
        "srun started 16 tasks on 2 nodes for --nodes 2, .* --ntasks-per-node=1",
    ),
    "srun, nodes forgotten": (
        "--gpus 8",
        {**SRUN, "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "2"},
        "srun started 2 tasks on 2 nodes for --nodes 1",
    ),
    "sbatch without srun": ("--nodes 2", {**SRUN, "SLURM_NTASKS": "2"}, "needs one task on each of 2 nodes, .* one"),
    "no peers": ("--nodes 2", {}, "--nodes 2 needs --node-rank .* and --master HOST:PORT"),
    "no such peer": ("--nodes 2 --node-rank 2 --master a:1", {}, "--node-rank must be 0 to 1 .* found 2"),
    "no port": ("--nodes 2 --node-rank 1 --master a", {}, "--master must be HOST:PORT; found a"),
    "world size": ("--gpus 2 --distributed-world-size 2", {}, "--distributed-world-size is given to each process"),
    "spawn": ("--distributed-init-method=tcp://h:1", {}, "--distributed-init-method is given to each process"),
    "bf16": ("--bf16", {}, "--bf16 for training on a TPU .* --compute-dtype bfloat16"),
    "fp16": ("--fp16", {}, "--fp16 does not work with --cpu"),
    "backend": ("--gpus 2 --ddp-backend pytorch_ddp", {}, "must be legacy_ddp with --cpu, .* found pytorch_ddp"),
}


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_a_mistaken_launch_is_refused_before_anything_is_written(mistake, tmp_path):
    arguments, environment, message = MISTAKES[mistake]
    found = error_of(start("--cpu", "DATA", "--save-dir", tmp_path, *arguments.split(), **environment))
    assert re.search(message, found)
    assert not any(tmp_path.iterdir())


def test_under_slurm_each_task_is_the_machine_that_slurm_says(tmp_path):
    (tmp_path / "scontrol").write_text("#!/bin/sh\necho a; echo b\n")
    (tmp_path / "scontrol").chmod(0o755)
    step = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NODELIST": "[a-b]"}
    path = f"{tmp_path}:{os.environ['PATH']}"
    process = start("--cpu", "--check", "--nodes", 2, PATH=path, **{**SRUN, **step, "SLURM_NODEID": "1"})
    assert process.communicate() == ("1\n", "")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has GPUs")
def test_gpus_that_are_not_there_are_counted(tmp_path):
    assert re.search("--gpus 2 needs as many GPUs .* finds 0", error_of(start("DATA", "--gpus", 2)))


def test_a_machine_with_another_command_is_refused(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    place.update(WORLD_SIZE="2", LOCAL_RANK="0")
    flags = ["--cpu", "DATA", "--save-dir", tmp_path]
    first = start(*flags, "--seed", 1, program=RANK_PROGRAM, RANK="0", **place)
    try:
        message = error_of(start(*flags, "--seed", 2, program=RANK_PROGRAM, RANK="1", **place))
    finally:
        first.kill()
        first.communicate()
    assert "started with another command than machine 0 (2 here and 1 there)" in message


@pytest.fixture
def launch_rank():
    """The program of a single process as a module."""
    specification = importlib.util.spec_from_file_location("launch_rank", RANK_PROGRAM)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_a_machine_with_another_folder_is_refused(launch_rank, tmp_path, monkeypatch):
    monkeypatch.setattr(launch_rank, "FOLDER_PATIENCE", 0)
    (tmp_path / "launch.token").write_text("today's")
    launch_rank.check_folder(tmp_path, "today's")
    with pytest.raises(SystemExit, match="here is not the folder that machine 0 writes to: --save-dir must be on a"):
        launch_rank.check_folder(tmp_path, "another")


def test_a_training_that_trained_nothing_is_an_error(launch_rank, tmp_path, monkeypatch):
    # As fairseq does with the CPU and --distributed-init-method, with --stop-min-lr and with --max-epoch.
    monkeypatch.setattr("fairseq_cli.train.cli_main", lambda: None)
    monkeypatch.setattr(launch_rank, "die_with_parent", lambda: None)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    old = tmp_path / "checkpoint_last.pt"
    old.touch()
    os.utime(old, (1, 1))
    monkeypatch.setattr(sys, "argv", ["launch_rank.py", "DATA", "--save-dir", str(tmp_path)])
    with pytest.raises(SystemExit, match="fairseq ended without training anything: there is no new checkpoint in"):
        launch_rank.main()
