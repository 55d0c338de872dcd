"""The command that starts the ranks, from the runtime and from Slurm's variables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from speed.backends.runtime.torchrun import first_host, torchrun
from speed.core.errors import UserError
from speed.runtime import Runtime

SLURM = {"SLURM_JOB_ID": "77", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "gpu[07-08]"}


def command(environment: dict[str, str], processes: int = 1, **runtime: Any) -> list[str]:
    return torchrun("speed.worker", Path("/shared/out/processes"), Runtime(**runtime), processes, environment)


def test_one_machine_needs_no_rendezvous_even_inside_a_slurm_job() -> None:
    for environment in ({}, SLURM):
        argv = command(environment, processes=8)
        assert argv[1:3] == ["-m", "torch.distributed.run"]
        assert {"--nnodes=1", "--nproc-per-node=8", "--standalone"} <= set(argv)
        assert argv[-3:] == ["-m", "speed.worker", "/shared/out/processes"]


def test_a_slurm_job_starts_one_torchrun_a_node_that_meet_on_the_first() -> None:
    argv = command(SLURM | {"SLURM_CPUS_PER_TASK": "12"}, processes=16, nodes=2)
    assert argv[:6] == ["srun", "--nodes=2", "--ntasks=2", "--ntasks-per-node=1", "--overlap", "--kill-on-bad-exit=1"]
    assert argv[6] == "--cpus-per-task=12"
    assert {"--nnodes=2", "--nproc-per-node=8", "--rdzv-backend=c10d"} <= set(argv)
    (endpoint,) = [part for part in argv if part.startswith("--rdzv-endpoint=gpu07:")]
    assert 20_000 <= int(endpoint.rpartition(":")[2]) < 40_000
    assert command(SLURM, processes=16, nodes=2) == command(SLURM, processes=16, nodes=2)
    other = torchrun("speed.worker", Path("/shared/other"), Runtime(nodes=2), 16, SLURM)
    assert endpoint not in other, "trainings side by side must not meet"


def test_machines_without_slurm_meet_where_the_runtime_says() -> None:
    argv = command({}, processes=4, nodes=2, rendezvous="first:29400")
    assert argv[1:3] == ["-m", "torch.distributed.run"]
    assert {"--nnodes=2", "--nproc-per-node=2", "--rdzv-endpoint=first:29400"} <= set(argv)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu7", "gpu7"),
        ("a1,b2", "a1"),
        ("gpu[03-05,9],x1", "gpu03"),
        ("n[1,3]-ib", "n1-ib"),
        ("login-2,n3", "login-2"),
    ],
)
def test_first_of_slurms_lists(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


@pytest.mark.parametrize(
    ("environment", "runtime", "says"),
    [
        ({}, {"processes": 3, "nodes": 2}, "3 processes cannot be divided evenly among runtime.nodes=2"),
        ({}, {"processes": 1, "nodes": 2}, "as many nodes as have the same GPUs"),
        (SLURM, {"processes": 4, "nodes": 4}, "runtime.nodes=4, and this Slurm job has 2"),
    ],
)
def test_what_cannot_be_started_is_refused(environment: dict[str, str], runtime: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        command(environment, **runtime)
