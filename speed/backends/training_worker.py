"""One rank of a training in several processes; started by torchrun, see `training_job`."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from pathlib import Path

from speed.backends.training_job import EVENTS, JOB, RESULT, Job, report_failure
from speed.backends.trl_trainer import TrlTrainer
from speed.core.context import Context
from speed.core.spec import Json
from speed.core.store import Store


def main(folder: Path) -> None:
    """Train as the job in `folder` says; rank 0 reports events and the result."""
    import torch

    job = Job.model_validate_json((folder / JOB).read_text())
    threading.Thread(target=_end_with, args=(job.parent,), daemon=True).start()
    rank = int(os.environ["RANK"])
    if int(os.environ["WORLD_SIZE"]) != job.runtime.processes:
        raise RuntimeError(f"world size {os.environ['WORLD_SIZE']}, and the job is for {job.runtime.processes}")
    if torch.cuda.is_available() and job.runtime.device != "cpu":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    ctx = Context(store=Store(job.runtime.home), runtime=job.runtime)
    with (folder / EVENTS).open("a") as events:

        def send(event: dict[str, Json]) -> None:
            events.write(json.dumps(event) + "\n")
            events.flush()

        if rank == 0:
            ctx.send = send
        trainer = TrlTrainer(**job.trainer)
        if job.sft is not None:
            trainer.train_sft(job.source, job.completions, job.sft, Path(job.out), ctx)
        elif job.dpo is not None:
            trainer.train_dpo(Path(job.source), job.preferences, job.dpo, Path(job.out), ctx)
    world = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    if rank == 0:
        result = {"world_size": world, "rejected": ctx.tally.rejected, "metrics": ctx.tally.metrics}
        (folder / RESULT).write_text(json.dumps(result))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _end_with(parent: int) -> None:
    """A killed run must not leave ranks behind that write into its folders."""
    while Path(f"/proc/{parent}").exists() or not Path("/proc/self").exists():
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except BaseException as error:
        report_failure(Path(sys.argv[1]), int(os.environ["RANK"]), error, traceback.format_exception(error))
        raise
