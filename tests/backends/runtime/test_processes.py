"""Several processes: results come back, logs are kept, and the first failure is raised."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small_worker import SmallJob
from tiny_generator import context

from speed.backends.alignment.trainer import TrlTrainer
from speed.backends.runtime import rank
from speed.backends.runtime.processes import FOLDER, JOB, Failure, run_in_processes
from speed.core.errors import UserError
from speed.data.trainings import Sft
from speed.runtime import Context, Runtime

SRUN = """#!{python}
import subprocess, sys
command = sys.argv[1:]
nodes = next(int(word.partition("=")[2]) for word in command if word.startswith("--ntasks="))
while command[0].startswith("--"):
    command.pop(0)
sys.exit(max(process.wait() for process in [subprocess.Popen(command) for _ in range(nodes)]))
"""
"""Stands for Slurm's srun: starts the command once a node. Here all nodes are this machine."""


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    here = str(Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])]))


def launched(kind: str, out: Path, **runtime: Any) -> Context:
    ctx = context(out, processes=2, **runtime)
    run_in_processes(SmallJob(kind=kind, out=str(out), runtime=ctx.runtime, grant=ctx.grant), "small_worker", ctx)
    return ctx


def came_back(ctx: Context) -> None:
    assert ctx.tally.metrics == {"total": 3}
    assert ctx.tally.rejected == {"odd": 1}
    assert {"event": "metric", "step": 1, "figures": {"total": 3.0}} in ctx.events  # type: ignore[attr-defined]


def test_what_ranks_did_comes_back_and_their_logs_are_kept(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    came_back(launched("sum", tmp_path))
    said = capfd.readouterr().err
    assert "rank 0 is here" in said
    assert "rank 1 is here" in said
    assert not (tmp_path / FOLDER).exists()


@pytest.mark.slow
def test_a_killed_rank_is_named_and_not_those_that_missed_it(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="rank 1 was killed by signal 9"):
        launched("killed", tmp_path)
    logs = [file.read_text() for file in (tmp_path / FOLDER / "logs").rglob("stdout.log")]
    assert sorted(logs) == ["rank 0 is here\n", "rank 1 is here\n"]


@pytest.mark.slow
def test_the_error_that_is_shown_is_the_first_and_not_that_of_ranks_that_waited(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"rank 1 failed; logs of all ranks: (.|\n)*a number of rank 1 is odd"):
        launched("raises", tmp_path)
    assert len(list((tmp_path / FOLDER / "logs").rglob("stderr.log"))) == 2


@pytest.mark.slow
def test_two_nodes_of_a_slurm_job_work_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text(SRUN.format(python=sys.executable))
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{srun.parent}{os.pathsep}{os.environ['PATH']}")
    variables = {"SLURM_JOB_ID": "1", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "localhost"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    came_back(launched("sum", tmp_path / "out", nodes=2))


def test_a_launcher_that_starts_fewer_processes_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`accelerate launch --cpu --num_processes 2` starts one process, without an error."""
    ctx = context(tmp_path, processes=2)
    job = SmallJob(kind="sum", out=str(tmp_path), runtime=ctx.runtime, grant=ctx.grant)
    (tmp_path / JOB).write_text(job.model_dump_json())
    monkeypatch.setattr(sys, "argv", ["small_worker", str(tmp_path)])
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(RuntimeError, match="world size 1, and the job is for 2"):
        rank.main(SmallJob, lambda job, ctx: None)
    assert "world size 1" in json.loads((tmp_path / "failure-0.json").read_text())["message"]


def test_a_full_disk_of_a_rank_is_told_as_anywhere_else(tmp_path: Path) -> None:
    for rank_of, error in enumerate((OSError(errno.ENOSPC, "no space", "file"), OSError(errno.EBADF, "bad"))):
        rank.report_failure(tmp_path, rank_of, error, ["Traceback"])
    told = [Failure.model_validate_json((tmp_path / f"failure-{place}.json").read_text()) for place in (0, 1)]
    assert told[0].user_error
    assert "the disk is full" in told[0].message
    assert not told[1].user_error
    assert told[1].message == "Traceback"


@pytest.mark.parametrize("runtime", [{"processes": 2}, {"strategy": "zero3"}])
def test_an_engine_that_was_asked_for_and_is_not_there_is_an_error(runtime: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="was asked for, and 1 train with engine none"):
        rank.assert_engine(torch.nn.Linear(2, 2), context(tmp_path, **runtime))
    rank.assert_engine(torch.nn.Linear(2, 2), context(tmp_path))


def test_zero3_without_deepspeed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    trainer = TrlTrainer(method="lora", precision="fp32", prompt_format="plain")
    config = Sft(learning_rate=1e-4, batch_size=4, epochs=1, max_length=64)
    with pytest.raises(UserError, match=r"pip install 'speed-embedding\[deepspeed\]'"):
        trainer.check(config, Runtime(strategy="zero3"))
    trainer.check(config, Runtime())
