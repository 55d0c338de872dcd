"""The job of an embedder's training in several processes, as its ranks read it."""

from __future__ import annotations

from speed.backends.runtime.processes import Job
from speed.core.spec import Json

WORKER = "speed.backends.embedder.worker"


class EmbedderJob(Job):
    """One training."""

    trainer: dict[str, Json]
    """Fields of the trainer."""
    examples: str
    """JSONL file of the synthetic records."""
    seed: int
