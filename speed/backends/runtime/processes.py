"""Work in several processes: a resolved `job.json`, torchrun, and what comes back (DESIGN D9). The parent's side.

Ranks never see a configuration language: they read the job, work, and report (`rank`). Rank 0 writes events line by
line, which the parent passes on while it waits. Every rank's output is kept: under `logs/` while it works, at the end
in the parent's own log. The first failure is what is raised.
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

from speed.backends.runtime.device import device_of
from speed.backends.runtime.stopping import Stop
from speed.backends.runtime.torchrun import torchrun
from speed.core.errors import UserError
from speed.core.spec import Json, Spec
from speed.runtime import Context, Runtime

FOLDER, JOB, EVENTS, RESULT, STOP = "processes", "job.json", "events.jsonl", "result.json", "stop"
ROOT_CAUSE = re.compile(r"Root Cause.*?rank\s*: (\d+).*?exitcode\s*: (-?\d+)", re.DOTALL)
"""How torchrun names the first rank that died; a negative code is a signal."""
STOPPED_BY_US = (-15, -2)


class Job(Spec):
    """What every job says; a trainer's own adds its data."""

    runtime: Runtime
    out: str
    """Where the result goes; the job's own files stand in `processes/` below it while it lasts."""
    parent: int = Field(default_factory=os.getpid)
    """Process that waits for the result; ranks on its machine end when it is gone."""
    host: str = Field(default_factory=socket.gethostname)


class Failure(Spec):
    """What a rank reports before it dies."""

    rank: int
    at: float
    user_error: bool
    message: str


def several(runtime: Runtime) -> bool:
    """Whether the runtime asks for ranks of their own; ZeRO-3 does even for one: it is never left out in silence."""
    return runtime.processes > 1 or runtime.nodes > 1 or runtime.strategy == "zero3"


def run_in_processes(job: Job, worker: str, ctx: Context) -> None:
    """Carry out the job with `runtime.processes` ranks of the module `worker`, a `__main__` that calls `rank.main`.

    Counts, rejections and metrics of rank 0 are added to `ctx.tally`.

    Raises:
        UserError: what a rank raised as one, or a part that is not installed.
        RuntimeError: any other failure, with the end of the failing rank's output.
    """
    folder = Path(job.out).resolve() / FOLDER
    command = torchrun(worker, folder, job.runtime, os.environ)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / JOB).write_text(job.model_dump_json())
    if job.runtime.nodes > 1 and command[0] != "srun":
        ctx.say(f"waits for {job.runtime.nodes - 1} more machine(s); type on each of them: {shlex.join(command)}")
    with (folder / "torchrun.log").open("wb") as log:
        process = subprocess.Popen(command, env=surroundings(ctx), stdout=log, stderr=subprocess.STDOUT)
        try:
            with Stop(folder / STOP).listening():
                _pass_on(process, folder, ctx)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
            _keep_logs(folder)
    if process.returncode != 0:
        raise _explained(folder, process.returncode)
    _take_over(json.loads((folder / RESULT).read_text()), job.runtime, ctx)
    shutil.rmtree(folder)


def surroundings(ctx: Context) -> dict[str, str]:
    """Environment of the ranks."""
    found = os.environ | {"OMP_NUM_THREADS": str(ctx.runtime.threads), "TOKENIZERS_PARALLELISM": "false"}
    if device_of(ctx) == "cpu":
        return found | {"DS_ACCELERATOR": "cpu"}
    ctx.gpus = ctx.runtime.processes
    return found


def _take_over(result: dict[str, Json], runtime: Runtime, ctx: Context) -> None:
    if result["world_size"] != runtime.processes:
        raise RuntimeError(f"{runtime.processes} processes were asked for and {result['world_size']} worked")
    ctx.tally.counts.update(result["counts"])
    ctx.tally.rejected.update(result["rejected"])
    ctx.tally.metrics.update(result["metrics"])


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


def _keep_logs(folder: Path) -> None:
    """Copy what the launcher and the ranks wrote to where this process writes: the stage's log in the run's folder."""
    for file in (folder / "torchrun.log", *sorted((folder / "logs").rglob("*.log"))):
        text = file.read_text(errors="replace") if file.is_file() else ""
        if text.strip():
            print(f"== {file.relative_to(folder)}\n{text}", file=sys.stderr, flush=True)


def _explained(folder: Path, code: int) -> Exception:
    """The first failure among the ranks."""
    found = [Failure.model_validate_json(file.read_text()) for file in folder.glob("failure-*.json")]
    said = (folder / "torchrun.log").read_text(errors="replace")
    if dead := ROOT_CAUSE.search(said):
        rank, exit_code = int(dead[1]), int(dead[2])
        if exit_code < 0 and exit_code not in STOPPED_BY_US:  # what the other ranks report is that it was gone
            often = "; the machine's memory may not have sufficed" if exit_code == -9 else ""
            return RuntimeError(
                f"rank {rank} was ended by signal {-exit_code}{often}; logs of all ranks: {folder / 'logs'}"
            )
    if not found:
        return RuntimeError(f"the processes ended with code {code}; logs: {folder}\n{said[-2000:]}")
    first = min(found, key=lambda failure: failure.at)
    if first.user_error:
        return UserError(first.message)
    return RuntimeError(f"rank {first.rank} failed; logs of all ranks: {folder / 'logs'}\n{first.message}")
