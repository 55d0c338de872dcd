"""One rank of an embedder's training; torchrun starts it (`speed.backends.runtime.processes`)."""

from __future__ import annotations

from pathlib import Path

from speed.backends.embedder.loop import run
from speed.backends.embedder.probing import measure_steps
from speed.backends.embedder.trainer import EmbedderJob
from speed.backends.runtime.rank import main
from speed.runtime import Context


def train(job: EmbedderJob, ctx: Context) -> None:
    """Train as the job says."""
    if job.examples is None:
        measure_steps(job.trainer, Path(job.out), ctx)
    else:
        run(job.trainer, job.examples, Path(job.out), job.seed, ctx)


if __name__ == "__main__":
    main(EmbedderJob, train)
