"""Revisor: another copy of the base model learns to repair (paper 3.2.4, equation 3; from an unaligned model)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar, Literal

from speed.data.records import RevisedAnswer
from speed.data.trainings import Completion
from speed.stages.base import FineTuning


@dataclass(frozen=True)
class Revisor(FineTuning[RevisedAnswer]):
    """Supervised fine-tuning of the base model on (prompt and root answer, revision)."""

    target: Literal["reason+revision", "revision"]
    """Whether the teacher's reason is written before the revision."""

    name: ClassVar[str] = "revisor"
    count: ClassVar[str] = "counts.revisions"

    @property
    def learns_from(self) -> str:
        return "revise" if self.target == "reason+revision" else "revision"

    def completion(self, row: RevisedAnswer) -> Completion:
        answer = {"revision": json.loads(row.revision)}
        if self.target == "reason+revision":
            answer = {"reason": row.reason, **answer}
        return Completion(prompt=row.revise_prompt, completion=json.dumps(answer, ensure_ascii=False))
