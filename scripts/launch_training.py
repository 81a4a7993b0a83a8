#!/usr/bin/env python3
"""fairseq-train in one process or in many, on one machine or on many; run it once on each machine.

  launch_training.py --gpus 8 DATA --user-dir fairseq_convtext --save-dir FOLDER ...

On many machines that share the folder, for example four with eight GPUs each, under SLURM:

  srun --nodes=4 --ntasks-per-node=1 --gpus-per-node=8 --kill-on-bad-exit=1 \\
      scripts/launch_training.py --nodes 4 --gpus 8 DATA ...

and without it, on machine 0, 1, 2 and 3, the first of which has the address HOST:

  launch_training.py --nodes 4 --node-rank 0 --master HOST:29500 --gpus 8 DATA ...

Everything else goes to fairseq-train. The processes are torchrun's; each is told its rank in a way that fairseq
understands on GPUs and on CPUs (--cpu). What fairseq would pass over in silence, such as N independent trainings
into one folder, is an error here. When one process ends, all end, and the exit code is 1.
"""

import argparse
import fcntl
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import List, Mapping, Optional, TextIO, Tuple

from corpus_checks import InputError

RANK_PROGRAM = Path(__file__).resolve().parent / "lib" / "launch_rank.py"


def check_environment(environ: Mapping[str, str], nodes: int) -> None:
    """See that this process is the only one of the launch on its machine.

    Raises:
        InputError: torchrun, srun or mpirun started several copies, or srun fewer than ``nodes``.
    """
    if "RANK" in environ or "LOCAL_RANK" in environ:
        raise InputError(
            f"torchrun started this as process {environ.get('RANK', '?')} of {environ.get('WORLD_SIZE', '?')}, and "
            "each would start a training of its own: leave torchrun out and give --gpus (and --nodes), which starts it"
        )
    if int(environ.get("OMPI_COMM_WORLD_SIZE", 1)) > nodes:
        raise InputError(
            f"mpirun started {environ['OMPI_COMM_WORLD_SIZE']} copies, each of which would be a training of its own: "
            "start one on each machine, and give --nodes and --gpus"
        )
    # Of a job step only: sbatch sets SLURM_NTASKS for its script too, of which there is but one copy.
    tasks, step_nodes = int(environ.get("SLURM_STEP_NUM_TASKS", 1)), int(environ.get("SLURM_STEP_NUM_NODES", 1))
    if tasks > 1 and (tasks != nodes or step_nodes != nodes):
        raise InputError(
            f"srun started {tasks} tasks on {step_nodes} nodes for --nodes {nodes}, and each would be a launch of its "
            "own: use srun --ntasks-per-node=1 with as many nodes as --nodes says"
        )
    if tasks == 1 < nodes and "SLURM_JOB_ID" in environ:
        raise InputError(
            f"--nodes {nodes} needs one task on each of {nodes} nodes, and this SLURM job started one: use "
            f"srun --nodes={nodes} --ntasks-per-node=1"
        )


def find_peers(options: argparse.Namespace, environ: Mapping[str, str]) -> Tuple[int, str]:
    """The number of this machine, from 0, and the ``host:port`` where the machines meet ("" for one machine).

    Raises:
        InputError: several machines, and neither SLURM nor the options say which this one is.
    """
    if options.nodes == 1:
        return 0, ""
    node_rank, master = options.node_rank, options.master
    if "SLURM_JOB_ID" in environ:
        if node_rank is None:
            node_rank = int(environ["SLURM_NODEID"])
        if not master:
            hosts = subprocess.run(
                ["scontrol", "show", "hostnames", environ["SLURM_STEP_NODELIST"]],
                check=True, capture_output=True, text=True,
            ).stdout.split()  # fmt: skip
            # Two jobs on one machine must not meet.
            master = f"{hosts[0]}:{20000 + int(environ['SLURM_JOB_ID']) % 10000}"
    if node_rank is None or not master:
        raise InputError(
            f"--nodes {options.nodes} needs --node-rank (0 to {options.nodes - 1}, another on each machine) and "
            "--master HOST:PORT (the same on all: an address of machine 0)"
        )
    if not 0 <= node_rank < options.nodes:
        raise InputError(f"--node-rank must be 0 to {options.nodes - 1} for --nodes {options.nodes}; found {node_rank}")
    if not master.rpartition(":")[0] or not master.rpartition(":")[2].isdigit():
        raise InputError(f"--master must be HOST:PORT; found {master}")
    return node_rank, master


def check_devices(gpus: int, cpu: bool) -> None:
    """See that every process gets a GPU of its own; fairseq would train on the CPU where it finds none.

    Raises:
        InputError: fewer GPUs than ``gpus``, without ``--cpu``.
    """
    if cpu:
        return
    import torch

    found = torch.cuda.device_count()
    if found < gpus:
        raise InputError(
            f"--gpus {gpus} needs as many GPUs on this machine, and torch finds {found}: give --gpus as many as there "
            "are, or train on the CPU with --cpu"
        )


def check_flags(flags: List[str], cpu: bool) -> None:
    """See that fairseq's flags go with a launch from here.

    Raises:
        InputError: a flag that this program gives itself, or one that cannot work.
    """
    given = {flag.partition("=")[0]: flag.partition("=")[2] for flag in flags if flag.startswith("--")}
    for flag, following in zip(flags, [*flags[1:], ""]):
        if flag in given and not given[flag]:
            given[flag] = following
    for flag in given:
        if flag.startswith("--distributed-") or flag in ("--device-id", "--local_rank", "--local-rank"):
            raise InputError(
                f"{flag} is given to each process by this program: leave it out, and use --gpus and --nodes"
            )
    if "--bf16" in given or "--memory-efficient-bf16" in given:
        raise InputError(
            "fairseq-train takes --bf16 for training on a TPU and fails without one: use --compute-dtype bfloat16 "
            "with this project's models, --fp16 with others"
        )
    if cpu:
        for flag in ("--fp16", "--memory-efficient-fp16", "--amp"):
            if flag in given:
                raise InputError(f"{flag} does not work with --cpu: leave one of them out")
        if given.get("--ddp-backend", "legacy_ddp") not in ("legacy_ddp", "no_c10d"):
            raise InputError(
                f"--ddp-backend must be legacy_ddp with --cpu, for fairseq's others need GPUs; found "
                f"{given['--ddp-backend']}: leave it out"
            )


def lock(save_dir: Path) -> TextIO:
    """The lock that a training holds on its folder as long as this process lives.

    Raises:
        InputError: another training holds it.
    """
    save_dir.mkdir(parents=True, exist_ok=True)
    stream = (save_dir / "training.lock").open("a+")
    try:
        # A lock of the process, not of the open file: processes that inherit the file do not hold it.
        fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        stream.seek(0)
        raise InputError(
            f"another training ({stream.read().strip()}) writes to {save_dir}: wait until it ends, stop it, or "
            "choose another folder"
        ) from None
    stream.truncate(0)
    stream.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    stream.flush()
    return stream


def run_one(flags: List[str]) -> None:
    """Train in one process.

    Raises:
        InputError: it failed, after a message of its own.
    """
    code = subprocess.run([sys.executable, str(RANK_PROGRAM), *flags]).returncode
    if code:
        raise InputError(f"the training {how_it_ended(code)}; the same command goes on from the last checkpoint")


def run_many(options: argparse.Namespace, node_rank: int, master: str, flags: List[str]) -> None:
    """Train in ``options.gpus`` processes on this machine, by torchrun.

    Raises:
        InputError: one of them failed; the others have been ended.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Its own account of a failure is thirty lines of which ours below is the sum.
    os.environ.setdefault("TORCHELASTIC_LOG_LEVEL", "CRITICAL")
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    place = ["--standalone"]
    if master:
        host, _, port = master.rpartition(":")
        place = ["--nnodes", str(options.nodes), "--node-rank", str(node_rank), "--master-addr", host]
        place += ["--master-port", port]
    try:
        run.main([*place, "--nproc-per-node", str(options.gpus), str(RANK_PROGRAM), *flags])
    except SignalException as error:
        raise InputError(f"{error.sigval.name} ended all processes; the same command goes on") from None
    except ChildFailedError as error:
        # torchrun ends the rest by SIGTERM, and those that lost the connection to one that was killed end with 1.
        rank, failure = min(
            error.failures.items(),
            key=lambda item: (item[1].exitcode == -signal.SIGTERM, item[1].exitcode > 0, item[1].timestamp),
        )
        raise InputError(
            f"process {rank} of {options.nodes * options.gpus} {how_it_ended(failure.exitcode)}, and all others were "
            "ended; the same command goes on from the last checkpoint"
        ) from None


def how_it_ended(code: int) -> str:
    """What an exit code other than 0 means; negative for a signal."""
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}, for the reason above"


def positive(text: str) -> int:
    """A number of at least 1, for argparse."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a number from 1 on; found {text}")
    return int(text)


def main(arguments: Optional[List[str]] = None) -> int:
    """Command line; returns the exit code."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout, allow_abbrev=False)
    parser.add_argument("--gpus", type=positive, default=1, help="processes on this machine, a GPU each (default: 1)")
    parser.add_argument("--nodes", type=positive, default=1, help="machines (default: 1)")
    parser.add_argument("--node-rank", type=int, help="number of this machine, from 0; SLURM says it itself")
    parser.add_argument("--master", default="", help="HOST:PORT of machine 0; SLURM says it itself")
    parser.add_argument("--cpu", action="store_true", help="processes without GPUs, which talk through gloo")
    parser.add_argument("--save-dir", type=Path, default=Path("checkpoints"), help="fairseq's (default: checkpoints)")
    parser.add_argument("--check", action="store_true", help="print the number of this machine, and start nothing")
    options, flags = parser.parse_known_args(arguments)
    try:
        check_environment(os.environ, options.nodes)
        node_rank, master = find_peers(options, os.environ)
        check_devices(options.gpus, options.cpu)
        check_flags(flags, options.cpu)
        if options.check:
            print(node_rank)
            return 0
        # Held until this process ends, and so is open.
        held = lock(options.save_dir) if node_rank == 0 else None
        flags += ["--save-dir", str(options.save_dir), *(["--cpu"] if options.cpu else [])]
        if options.nodes * options.gpus == 1:
            run_one(flags)
        else:
            run_many(options, node_rank, master, flags)
        if held is not None:
            held.close()
    except KeyboardInterrupt:
        return 130
    except (InputError, OSError) as error:
        print(f"error: {error}.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
