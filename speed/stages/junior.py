"""Junior: a small model learns to write what the teacher wrote (paper 3.2.1, equation 1)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from speed.core.content import ModelReference
from speed.core.stage import Stage, Take
from speed.core.work import Work
from speed.data.answers.parse import example_json
from speed.data.records import Sample
from speed.ports import Completion, Sft, Trainer, Weights
from speed.runtime import Context
from speed.stages.base import training_rows


@dataclass(frozen=True)
class Junior(Stage[Weights]):
    """Supervised fine-tuning of the base model on (prompt, teacher's example)."""

    base: ModelReference
    sft: Sft
    trainer: Trainer
    data: Take[Sample]

    name: ClassVar[str] = "junior"

    def work(self) -> Work:
        return Work(trained=round(self.data.rows * self.sft.epochs))

    def run(self, out: Path, ctx: Context) -> None:
        rows = [
            Completion(prompt=row.prompt.text, completion=example_json(row.example))
            for row in training_rows(self.data, ctx, "counts.sft")
            if row.example is not None
        ]
        ctx.tally.counts["in"] = len(rows)
        self.trainer.sft(self.base.name, rows, self.sft, out, ctx)
