"""Instruct model: a writer that is not trained here, for comparison (paper 4.1, Mistral with llama3-8B-instruct)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from speed.runtime import Context
from speed.stages.base import UntrainedModel


@dataclass(frozen=True)
class InstructModel(UntrainedModel):
    """A model as it came, which reads the same prompts through its own chat template."""

    name: ClassVar[str] = "instruct model"

    def check_models(self) -> None:
        self.engine.check_base(self.base.name)

    def run(self, out: Path, ctx: Context) -> None:
        self.engine.adopt(self.base.name, out)
