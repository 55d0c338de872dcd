"""Instruct model: a writer that is not trained here, for comparison (paper 4.1, Mistral with llama3-8B-instruct)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from speed.core.content import HubRepository, ModelReference, hub_model
from speed.core.stage import Stage
from speed.ports import Engine, Weights
from speed.runtime import Context


@dataclass(frozen=True)
class InstructModel(Stage[Weights]):
    """A model as it came, which reads the same prompts through its own chat template."""

    base: ModelReference
    engine: Engine

    name: ClassVar[str] = "instruct model"

    def check_models(self) -> None:
        self.engine.check_base(self.base.name)

    def hub_repositories(self) -> tuple[HubRepository, ...]:
        return hub_model(self.base.name)

    def run(self, out: Path, ctx: Context) -> None:
        self.engine.adopt(self.base.name, out)
