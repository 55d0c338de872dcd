"""The script for Slurm runs as a job of submitit's local executor."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import HANG, ROOT


def test_the_script_for_slurm_is_a_job_of_one_command(tmp_path: Path) -> None:
    submitit = pytest.importorskip("submitit")
    command = ["bash", str(ROOT / "experiments" / "slurm.sh"), "+experiment=smoke", "plan=true"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {"SPEED_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT), "PATH": path}
    executor = submitit.LocalExecutor(folder=tmp_path / "jobs")
    executor.update_parameters(timeout_min=HANG // 60 + 1)
    said = executor.submit(submitit.helpers.CommandFunction(command, cwd=ROOT, env=environment, verbose=False)).result()
    assert "synthesis" in said
    assert "embedder" in said
    assert not (tmp_path / "home").exists(), "a plan builds nothing"


@pytest.mark.parametrize("joins", [True, False])
def test_the_script_for_slurm_starts_ray_on_the_other_nodes(joins: bool, tmp_path: Path) -> None:
    """With stand-ins for Slurm and Ray, which say how they were called."""
    nodes = "echo ' 1 node_a'; echo ' 1 node_b'" if joins else "echo ' 1 node_a'"
    stand_ins = {
        "ray": f'[ "$1" = status ] && {{ {nodes}; }}; exit 0',
        "srun": f'echo "srun $*" >> {tmp_path}/called; exit {0 if joins else 1}',
        "python": f'echo "python $*" >> {tmp_path}/called',
        "hostname": "echo head.example.org",
    }
    for name, body in stand_ins.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "8", "SLURMD_NODENAME": "head"}
    environment = os.environ | slurm | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    script = [str(ROOT / "experiments" / "slurm.sh"), "preset=paper"]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=HANG, check=False)
    called = (tmp_path / "called").read_text()
    assert "--exclude=head " in called
    assert "--cpus-per-task=8 " in called
    ours = "python -m speed.run runtime.cluster=ray runtime.address=head.example.org:6379 preset=paper"
    assert (ours in called) == joins
    assert (done.returncode, "cannot join Ray" in done.stderr) == ((0, False) if joins else (1, True))
