"""How an embedder is evaluated, whatever the tasks: instructions, length, arithmetic; and what its scores belong to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

from pydantic import Field

from speed.backends.encoding.instructions import instruction_table
from speed.core.spec import Json, digest
from speed.ports import Evaluator


class EvaluationProtocol(Evaluator):
    """The settings that all evaluations have in common."""

    version: ClassVar[int] = 2
    heavy: ClassVar[tuple[str, ...]] = ("torch", "transformers.modeling_utils", "mteb")

    protocol: Literal["e5", "native"] = "e5"
    """`e5`: instructions per task, no normalisation for classification; `native`: as the model itself says."""
    max_length: int | None = Field(default=None, ge=8)
    """Tokens of a text; null as the model says, and under `e5` 512 at most."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of the arithmetic inside the transformer; vectors and similarities are always fp32."""

    only: tuple[str, ...] = ()
    """Names of the tasks to evaluate; empty for all."""

    @property
    def instructs(self) -> bool:
        return self.protocol == "e5"

    def recipe(self) -> Json:
        """Identity: the fields, and under `e5` the instructions themselves."""
        return {**super().recipe(), "instructions": self._instructions()}

    def identity(self, model: Json) -> str:
        """What a score belongs to: the model (its files, or its endpoint) and the protocol, whatever the tasks.

        Args:
            model: `EvaluatedModel.identity()`.
        """
        own = {name: getattr(self, name) for name in ("protocol", "max_length", "precision")}
        own |= {"version": self.version, "instructions": self._instructions()}
        return digest({**own, "model": model})[:40]

    def _instructions(self) -> str | None:
        return instruction_table().identity(self._names()) if self.protocol == "e5" else None

    def _names(self) -> Iterable[str] | None:
        """Names of mteb's tasks among those of this evaluation, or None if it may hold any. The table has no other
        names."""
        return ()
