"""A rank without a model, for tests of the launcher that take seconds."""

from __future__ import annotations

import os
import signal

from speed.backends.runtime.processes import Job
from speed.backends.runtime.rank import main
from speed.runtime import Context


class SmallJob(Job):
    """`kind`: ranks `sum` their numbers, or rank 1 is `killed` or `raises` while the others wait for it."""

    kind: str


def work(job: SmallJob, ctx: Context) -> None:
    """Join the other ranks and do what the job's kind says."""
    import torch

    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    print(f"rank {rank} is here")
    if job.kind == "killed" and rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if job.kind == "raises" and rank == 1:
        raise ArithmeticError("a number of rank 1 is odd")
    total = torch.tensor([rank + 1])
    torch.distributed.all_reduce(total)
    ctx.metric(1, total=float(total))
    ctx.tally.metrics["total"] = int(total)
    ctx.tally.rejected["odd"] += 1


if __name__ == "__main__":
    main(SmallJob, work)
