"""Revisor: another copy of the base model learns to repair (paper 3.2.3, equation 3; from an unaligned model)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from speed.core.content import ModelReference
from speed.core.stage import Stage, Take
from speed.core.work import Work
from speed.data.records import RevisedAnswer
from speed.ports import Completion, Sft, Trainer, Weights
from speed.runtime import Context
from speed.stages.base import training_rows


@dataclass(frozen=True)
class Revisor(Stage[Weights]):
    """Supervised fine-tuning of the base model on (prompt and root answer, revision)."""

    base: ModelReference
    sft: Sft
    trainer: Trainer
    data: Take[RevisedAnswer]
    target: Literal["reason+revision", "revision"]
    """Whether the teacher's reason is written before the revision."""

    name: ClassVar[str] = "revisor"

    def work(self) -> Work:
        return Work(trained=round(self.data.rows * self.sft.epochs))

    def run(self, out: Path, ctx: Context) -> None:
        rows = [
            Completion(prompt=row.revise_prompt, completion=self._completion(row))
            for row in training_rows(self.data, ctx, "counts.revisions")
        ]
        ctx.tally.counts["in"] = len(rows)
        self.trainer.sft(self.base.name, rows, self.sft, out, ctx)

    def _completion(self, row: RevisedAnswer) -> str:
        answer = {"revision": json.loads(row.revision)}
        if self.target == "reason+revision":
            answer = {"reason": row.reason, **answer}
        return json.dumps(answer, ensure_ascii=False)
