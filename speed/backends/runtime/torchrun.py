"""The command that starts the ranks: torchrun on this machine, on a Slurm job's nodes, or on machines started by hand.

It depends on the runtime and on environment variables only. All nodes must see the folder of the job (a shared file
system). The rendezvous is on the first node.
"""

from __future__ import annotations

import hashlib
import re
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from speed.core.errors import UserError
from speed.runtime import Runtime

FIRST_HOST = re.compile(r"([^\[,]+)(?:\[(\d+)[^\]]*\]([^\[,]*))?")
PORTS = range(20_000, 40_000)
"""Ports of a rendezvous, unless `runtime.rendezvous` names one: below those that systems assign themselves."""


def torchrun(worker: str, folder: Path, runtime: Runtime, processes: int, environment: Mapping[str, str]) -> list[str]:
    """Arguments that start `processes` ranks of the module `worker` on `runtime.nodes` nodes.

    Raises:
        UserError: when the nodes cannot share the processes evenly, or the Slurm job has fewer nodes.
    """
    each, rest = divmod(processes, runtime.nodes)
    if rest or not each:
        raise UserError(
            f"{processes} processes cannot be divided evenly among runtime.nodes={runtime.nodes}\n"
            "  take as many nodes as have the same GPUs"
        )
    command = [sys.executable, "-m", "torch.distributed.run", f"--nnodes={runtime.nodes}", f"--nproc-per-node={each}"]
    command += [f"--log-dir={folder / 'logs'}", "--redirects=3"]
    if runtime.nodes == 1:
        return [*command, "--standalone", "-m", worker, str(folder)]
    number = digest_of(folder)
    command += [
        "--rdzv-backend=c10d",
        f"--rdzv-id={number}",
        f"--rdzv-endpoint={endpoint(number, runtime, environment)}",
    ]
    command += ["-m", worker, str(folder)]
    return [*srun(runtime.nodes, environment), *command] if "SLURM_JOB_ID" in environment else command


def srun(nodes: int, environment: Mapping[str, str]) -> list[str]:
    """One torchrun on each of the Slurm job's first nodes.

    Raises:
        UserError: when the job has fewer.
    """
    given = int(environment.get("SLURM_JOB_NUM_NODES") or environment.get("SLURM_NNODES") or 1)
    if given < nodes:
        raise UserError(
            f"runtime.nodes={nodes}, and this Slurm job has {given}\n  ask for more: sbatch --nodes={nodes}"
        )
    cores = environment.get("SLURM_CPUS_PER_TASK")
    command = ["srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1"]
    return [*command, "--overlap", "--kill-on-bad-exit=1", *([f"--cpus-per-task={cores}"] if cores else [])]


def endpoint(number: int, runtime: Runtime, environment: Mapping[str, str]) -> str:
    """HOST:PORT of the rendezvous: the runtime's, or the first node and a port that depends on the number."""
    if runtime.rendezvous is not None:
        return runtime.rendezvous
    nodes = environment.get("SLURM_JOB_NODELIST") or environment.get("SLURM_NODELIST")
    host = first_host(nodes) if nodes else socket.gethostname()
    return f"{host}:{PORTS[number % len(PORTS)]}"


def first_host(nodes: str) -> str:
    """The first host of a Slurm list: `gpu03` of `gpu[03-05,9],other1`."""
    match = FIRST_HOST.match(nodes)
    if match is None:
        raise UserError(f"SLURM_JOB_NODELIST={nodes!r} cannot be read\n  set runtime.rendezvous=HOST:PORT")
    return "".join(part or "" for part in match.groups())


def digest_of(folder: Path) -> int:
    """A number for a job's folder, so that two jobs of one run use different ports."""
    return int.from_bytes(hashlib.sha256(str(folder).encode()).digest()[:6], "big")
