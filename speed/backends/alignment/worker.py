"""One rank of a generator's training: the job that it reads, and what it does.

torchrun starts it, see `speed.backends.runtime.processes`; a training in one process calls `train` itself.
"""

from __future__ import annotations

from pathlib import Path

from speed.backends.alignment.dpo import train_dpo
from speed.backends.alignment.options import TrlOptions
from speed.backends.alignment.sft import train_sft
from speed.backends.runtime.processes import Job
from speed.backends.runtime.rank import main
from speed.data.trainings import Completion, Dpo, Preference, Sft
from speed.runtime import Context

WORKER = "speed.backends.alignment.worker"


class TrainingJob(Job):
    """One training."""

    options: TrlOptions
    source: str
    """Base reference, or payload folder."""
    config: Sft | Dpo
    """Decides which training it is."""
    rows: int | None = None
    """Of one forward pass, where `auto` has chosen them."""
    probe: bool = False
    """Whether a few steps on random rows are measured instead."""
    completions: tuple[Completion, ...] = ()
    preferences: tuple[Preference, ...] = ()


def train(job: TrainingJob, ctx: Context) -> None:
    """Train as the job says."""
    if isinstance(job.config, Dpo):
        source = job.source if job.probe else Path(job.source)
        train_dpo(job.options, source, job.preferences, job.config, Path(job.out), ctx, job.rows, job.probe)
    else:
        train_sft(job.options, job.source, job.completions, job.config, Path(job.out), ctx, job.rows, job.probe)


if __name__ == "__main__":
    main(TrainingJob, train)
