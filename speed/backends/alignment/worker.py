"""One rank of a generator's training; started by torchrun, see `speed.backends.runtime.processes`."""

from __future__ import annotations

from pathlib import Path

from speed.backends.alignment.job import TrainingJob
from speed.backends.alignment.trainer import TrlTrainer
from speed.backends.runtime.rank import main
from speed.runtime import Context


def train(job: TrainingJob, ctx: Context) -> None:
    """Train as the job says."""
    trainer = TrlTrainer(**job.trainer)
    if job.sft is not None:
        trainer.train_sft(job.source, job.completions, job.sft, Path(job.out), ctx)
    elif job.dpo is not None:
        trainer.train_dpo(Path(job.source), job.preferences, job.dpo, Path(job.out), ctx)


if __name__ == "__main__":
    main(TrainingJob, train)
