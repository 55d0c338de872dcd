"""The job of a generator's training in several processes, as its ranks read it."""

from __future__ import annotations

from typing import Literal

from speed.backends.runtime.processes import Job
from speed.core.spec import Json
from speed.ports import Completion, Dpo, Preference, Sft

WORKER = "speed.backends.alignment.worker"


class TrainingJob(Job):
    """One training."""

    kind: Literal["sft", "dpo"]
    trainer: dict[str, Json]
    """Fields of the trainer."""
    source: str
    """Base reference, or payload folder."""
    sft: Sft | None = None
    dpo: Dpo | None = None
    completions: tuple[Completion, ...] = ()
    preferences: tuple[Preference, ...] = ()
