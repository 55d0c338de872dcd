"""Run a job in several processes: write `job.json`, start torchrun, pass on its events and result. The parent's side.

Ranks know no configuration language: they read the job, work, and report (`rank`). Rank 0 writes events line by line,
which the parent passes on while it waits. The output of every rank is kept, under `logs/` while it works and in the
parent's own log at the end. Of several failures the first one is raised.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from pydantic import Field

from speed.backends.runtime.at_once import DoesNotFit
from speed.backends.runtime.device import device_of
from speed.backends.runtime.stopping import Stop
from speed.backends.runtime.torchrun import torchrun
from speed.core.allocation import Grant
from speed.core.errors import UserError
from speed.core.spec import Json, Spec
from speed.runtime import Context, Runtime

FOLDER, JOB, EVENTS, RESULT, STOP = "processes", "job.json", "events.jsonl", "result.json", "stop"
ROOT_CAUSE = re.compile(r"Root Cause.*?rank\s*: (\d+).*?exitcode\s*: (-?\d+)", re.DOTALL)
"""How torchrun names the first rank that died; a negative code is a signal."""
STOPPED_BY_TORCHRUN = (-15, -2)
"""Signals that torchrun sends to the other ranks when one has failed."""


class Job(Spec):
    """What every job states; a trainer's own job adds its data."""

    runtime: Runtime
    grant: Grant
    out: str
    """Folder of the result; the job's own files are in `processes/` below it while it runs."""
    parent: int = Field(default_factory=os.getpid)
    """Process that waits for the result; ranks on its machine end when it has ended."""
    host: str = Field(default_factory=socket.gethostname)


class Failure(Spec):
    """What a rank reports before it dies."""

    rank: int
    at: float
    user_error: bool
    message: str
    again: bool = False
    """Whether it did not fit into memory and can be begun again with less at once."""


def several(ctx: Context) -> bool:
    """Whether a training needs ranks of torchrun. ZeRO-3 needs them even in one process."""
    return ctx.grant.processes > 1 or ctx.runtime.nodes > 1 or ctx.runtime.strategy == "zero3"


def run_in_processes(job: Job, worker: str, ctx: Context) -> None:
    """Run the job in `grant.processes` ranks of the module `worker`, whose `__main__` calls `rank.main`.

    Counts, rejections and metrics of rank 0 are added to `ctx.tally`.

    Raises:
        UserError: what a rank raised as one, or a part that is not installed.
        DoesNotFit: when a rank has lowered what it takes at once.
        RuntimeError: any other failure, with the end of the failing rank's output.
    """
    folder = Path(job.out).resolve() / FOLDER
    command = torchrun(worker, folder, job.runtime, job.grant.processes, os.environ)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / JOB).write_text(job.model_dump_json())
    if job.runtime.nodes > 1 and command[0] != "srun":
        ctx.say(f"waiting for {job.runtime.nodes - 1} more machine(s); run on each of them: {shlex.join(command)}")
    with (folder / "torchrun.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment_of_ranks(ctx), stdout=log, stderr=subprocess.STDOUT)
        try:
            with Stop(folder / STOP).listening():
                _pass_on_events(process, folder, ctx)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
            _keep_logs(folder)
    if process.returncode != 0:
        raise _first_failure(folder, process.returncode)
    _add_result(json.loads((folder / RESULT).read_text()), job.grant.processes, ctx)
    shutil.rmtree(folder)


def environment_of_ranks(ctx: Context) -> dict[str, str]:
    """This process's environment, with the threads that were granted and the accelerator."""
    environment = os.environ | {"OMP_NUM_THREADS": str(ctx.grant.threads), "TOKENIZERS_PARALLELISM": "false"}
    return environment | ({"DS_ACCELERATOR": "cpu"} if device_of(ctx) == "cpu" else {})


def _add_result(result: dict[str, Json], processes: int, ctx: Context) -> None:
    if result["world_size"] != processes:
        raise RuntimeError(f"{processes} processes were started, and {result['world_size']} worked")
    ctx.tally.counts.update(result["counts"])
    ctx.tally.rejected.update(result["rejected"])
    ctx.tally.metrics.update(result["metrics"])


def _pass_on_events(process: subprocess.Popen[bytes], folder: Path, ctx: Context) -> None:
    """Send rank 0's events on until torchrun ends."""
    events = folder / EVENTS
    events.touch()
    with events.open() as lines:
        running = True
        while running:
            running = process.poll() is None
            read = ""
            for line in lines:
                read += line
                if read.endswith("\n"):
                    ctx.send(json.loads(read))
                    read = ""
            if read:  # half a line, which the rank is still writing
                lines.seek(lines.tell() - len(read.encode()))
            if running:
                time.sleep(0.1)


def _keep_logs(folder: Path) -> None:
    """Copy the output of torchrun and of the ranks to this process's stderr, the stage's log in the run's folder."""
    for file in (folder / "torchrun.log", *sorted((folder / "logs").rglob("*.log"))):
        text = file.read_text(errors="replace") if file.is_file() else ""
        if text.strip():
            print(f"== {file.relative_to(folder)}\n{text}", file=sys.stderr, flush=True)


def _first_failure(folder: Path, code: int) -> Exception:
    failures = [Failure.model_validate_json(file.read_text()) for file in folder.glob("failure-*.json")]
    said = (folder / "torchrun.log").read_text(errors="replace")
    if cause := ROOT_CAUSE.search(said):
        rank, exit_code = int(cause[1]), int(cause[2])
        if exit_code < 0 and exit_code not in STOPPED_BY_TORCHRUN:  # the other ranks only report that it was lost
            often = "; the machine may have run out of memory" if exit_code == -9 else ""
            return RuntimeError(
                f"rank {rank} was killed by signal {-exit_code}{often}; logs of all ranks: {folder / 'logs'}"
            )
    if not failures:
        return RuntimeError(f"the processes ended with code {code}; logs: {folder}\n{said[-2000:]}")
    if tried := next((failure for failure in failures if failure.again), None):  # whatever it did to the other ranks
        return DoesNotFit(tried.message)
    first = min(failures, key=lambda failure: failure.at)
    if first.user_error:
        return UserError(first.message)
    return RuntimeError(f"rank {first.rank} failed; logs of all ranks: {folder / 'logs'}\n{first.message}")
