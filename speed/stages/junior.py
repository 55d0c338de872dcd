"""Junior: a small model learns to write what the teacher wrote (paper 3.2.2, equation 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from speed.data.answers.parse import example_json
from speed.data.records import Sample
from speed.data.trainings import Completion
from speed.runtime import Context
from speed.stages.base import FineTuning


@dataclass(frozen=True)
class Junior(FineTuning[Sample]):
    """Supervised fine-tuning of the base model on (prompt, teacher's example)."""

    name: ClassVar[str] = "junior"
    count: ClassVar[str] = "counts.sft"

    @property
    def learns_from(self) -> str:
        return "seed"

    def model_prompt(self, ctx: Context) -> str:
        rows = self.data.pool.sample_rows(1, ctx)
        first = next((row.prompt.text for row in rows if row.prompt.text), "")
        return self.trainer.read_prompt(self.base.name, first) if first else ""

    def completion(self, row: Sample) -> Completion:
        assert row.example is not None
        return Completion(prompt=row.prompt.text, completion=example_json(row.example))
