"""One rank of a job in several processes, as torchrun starts it (`processes` is the parent's side).

Each rank checks that the job really runs as it was asked for: launchers and libraries sometimes fall back to one
process, or to another engine, without an error.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from speed.backends.runtime.at_once import DoesNotFit
from speed.backends.runtime.device import device_of
from speed.backends.runtime.processes import EVENTS, JOB, RESULT, Failure, Job
from speed.core.errors import UserError, explained
from speed.core.spec import Json
from speed.core.store import Store
from speed.runtime import Context

J = TypeVar("J", bound=Job)


def main(job_class: type[J], work: Callable[[J, Context], None]) -> None:
    """Read the job, `work`, report. Rank 0 also sends events and the result."""
    folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    try:
        _main(job_class, work, folder, rank)
    except BaseException as error:
        report_failure(folder, rank, error, traceback.format_exception(error))
        raise


def _main(job_class: type[J], work: Callable[[J, Context], None], folder: Path, rank: int) -> None:
    import torch

    job = job_class.model_validate_json((folder / JOB).read_text())
    if socket.gethostname() == job.host:
        threading.Thread(target=_end_with_parent, args=(job.parent,), daemon=True).start()
    if int(os.environ["WORLD_SIZE"]) != job.grant.processes:
        raise RuntimeError(f"world size {os.environ['WORLD_SIZE']}, and the job is for {job.grant.processes}")
    ctx = Context(store=Store(job.runtime.home), runtime=job.runtime, granted=job.grant)
    if device_of(ctx) == "cuda":
        _select_gpu(int(os.environ["LOCAL_RANK"]), job)
    with (folder / EVENTS).open("a") as events:

        def send(event: dict[str, Json]) -> None:
            events.write(json.dumps(event) + "\n")
            events.flush()

        if rank == 0:
            ctx.send = send
        work(job, ctx)
    world = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    if rank == 0:
        tally = ctx.tally
        result = {"counts": tally.counts, "rejected": tally.rejected, "metrics": tally.metrics, "world_size": world}
        (folder / RESULT).write_text(json.dumps(result))
    if torch.distributed.is_initialized():
        torch.distributed.barrier()  # one that leaves first can bring down another that still speaks to it
        torch.distributed.destroy_process_group()


def assert_engine(model: Any, ctx: Context) -> None:
    """Raise unless `model`, as it is about to be trained, is distributed as the runtime asks.

    Raises:
        RuntimeError: for another world size, communication or engine than asked for.
    """
    import torch

    runtime, processes = ctx.runtime, ctx.grant.processes
    world = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    engine = engine_of(model)
    expected = "zero3" if runtime.strategy == "zero3" else "ddp" if processes > 1 else "none"
    if world != processes or engine != expected:
        raise RuntimeError(
            f"runtime.strategy={runtime.strategy} with {processes} processes was asked for, and {world} train "
            f"with engine {engine}"
        )
    if world > 1:
        over, wanted = torch.distributed.get_backend(), "nccl" if device_of(ctx) == "cuda" else "gloo"
        if wanted not in over:
            raise RuntimeError(f"the processes communicate over {over}, and {wanted} was expected")


def engine_of(model: Any) -> str:
    """`ddp`, `zero3` (or another stage) or `none`, told from the class of a wrapped model."""
    name = type(model).__name__
    if name == "DistributedDataParallel":
        return "ddp"
    return f"zero{model.zero_optimization_stage()}" if name == "DeepSpeedEngine" else "none"


def report_failure(folder: Path, rank: int, error: BaseException, trace: Sequence[str]) -> None:
    """Write a rank's failure to a file that the parent reads."""
    known = explained(error, "working in several processes") if isinstance(error, OSError) else error
    is_mistake = isinstance(known, UserError)
    message = str(known) if is_mistake else "".join(trace)[-4000:]
    again = isinstance(error, DoesNotFit)
    failure = Failure(rank=rank, at=time.time(), user_error=is_mistake, message=message, again=again)
    (folder / f"failure-{rank}.json").write_text(failure.model_dump_json())


def _select_gpu(local_rank: int, job: Job) -> None:
    import torch

    if local_rank >= torch.cuda.device_count():
        raise UserError(
            f"{job.grant.processes} processes on {job.runtime.nodes} node(s), and this machine shows "
            f"{torch.cuda.device_count()} GPUs\n  take machines with the same number, or runtime.devices=[0] on all"
        )
    torch.cuda.set_device(local_rank)


def _end_with_parent(parent: int) -> None:
    """End this rank when its parent has ended: ranks of a killed run must not write into its folders."""
    while Path(f"/proc/{parent}").exists() or not Path("/proc/self").exists():
        time.sleep(1)
    os._exit(1)
