"""A training in several processes: a resolved `job.json`, torchrun, and what comes back (DESIGN D9).

Ranks never see a configuration language: they read the job, train, and report. Rank 0 writes events line by line, which
the parent passes on while it waits; every rank's output is kept under `logs/`; the first failure is what is raised.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from speed.core.context import Context, Runtime
from speed.core.errors import UserError
from speed.core.spec import Json, Spec
from speed.ports import Completion, Dpo, Preference, Sft

JOB, EVENTS, RESULT = "job.json", "events.jsonl", "result.json"


class Job(Spec):
    """One training as the ranks read it."""

    kind: Literal["sft", "dpo"]
    trainer: dict[str, Json]
    """Fields of the trainer."""
    source: str
    """Base reference, or payload folder."""
    sft: Sft | None = None
    dpo: Dpo | None = None
    completions: tuple[Completion, ...] = ()
    preferences: tuple[Preference, ...] = ()
    out: str
    runtime: Runtime
    parent: int
    """Process that waits for the result; ranks end when it is gone."""


class Failure(Spec):
    """What a rank reports before it dies."""

    rank: int
    at: float
    user_error: bool
    message: str


def run_in_processes(job: Job, ctx: Context) -> None:
    """Carry out the job with `runtime.processes` ranks on this machine.

    Raises:
        UserError: what a rank raised as one.
        RuntimeError: any other failure, with the end of the failing rank's output.
    """
    folder = Path(job.out) / "processes"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / JOB).write_text(job.model_dump_json())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nnodes=1"]
    command += [f"--nproc-per-node={job.runtime.processes}", f"--log-dir={folder / 'logs'}", "--redirects=3"]
    command += ["-m", "speed.backends.training_worker", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": str(job.runtime.threads), "TOKENIZERS_PARALLELISM": "false"}
    with (folder / "torchrun.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            _pass_on(process, folder, ctx)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if process.returncode != 0:
        raise _explained(folder, process.returncode)
    result = json.loads((folder / RESULT).read_text())
    if result["world_size"] != job.runtime.processes:
        raise RuntimeError(f"{job.runtime.processes} processes were asked for and {result['world_size']} trained")
    ctx.tally.rejected.update(result["rejected"])
    ctx.tally.metrics.update(result["metrics"])
    shutil.rmtree(folder)


def _pass_on(process: subprocess.Popen[bytes], folder: Path, ctx: Context) -> None:
    """Send rank 0's events on until the launcher ends."""
    events = folder / EVENTS
    events.touch()
    with events.open() as lines:
        running = True
        while running:
            running = process.poll() is None
            kept = ""
            for line in lines:
                kept += line
                if kept.endswith("\n"):
                    ctx.send(json.loads(kept))
                    kept = ""
            if kept:  # half a line: the rank is writing it
                lines.seek(lines.tell() - len(kept.encode()))
            if running:
                time.sleep(0.1)


def _explained(folder: Path, code: int) -> Exception:
    """The first failure among the ranks."""
    found = [Failure.model_validate_json(file.read_text()) for file in folder.glob("failure-*.json")]
    if not found:
        tail = (folder / "torchrun.log").read_text(errors="replace")[-2000:]
        return RuntimeError(f"the training processes ended with code {code}; logs: {folder}\n{tail}")
    first = min(found, key=lambda failure: failure.at)
    if first.user_error:
        return UserError(first.message)
    return RuntimeError(f"rank {first.rank} failed; logs of all ranks: {folder / 'logs'}\n{first.message}")


def report_failure(folder: Path, rank: int, error: BaseException, trace: Sequence[str]) -> None:
    """Leave a rank's failure for the parent to read."""
    known = isinstance(error, UserError)
    message = str(error) if known else "".join(trace)[-4000:]
    failure = Failure(rank=rank, at=time.time(), user_error=known, message=message)
    (folder / f"failure-{rank}.json").write_text(failure.model_dump_json())
