"""The script for Slurm runs as a job of submitit's local executor."""

from __future__ import annotations

import os
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
