"""What engines have in common that load the weights of transformers' folders themselves."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from speed.backends.engines.weights import adopt, refuse_partial
from speed.ports import Engine, FormatName


class LocalWeights(Engine):
    """An engine whose models are folders, or names on the hub, that transformers reads."""

    heavy: ClassVar[tuple[str, ...]] = ("torch", "peft", "transformers.generation", "transformers.modeling_utils")
    """Not vllm: its import changes the environment and PyTorch, and trainings are forked from the same process."""

    def adopt(self, base: str, out: Path, layout: FormatName = "chat") -> None:
        adopt(base, out, layout)

    def check_model(self, base: str) -> None:
        refuse_partial(base)

    def check_base(self, base: str) -> None:
        from speed.backends.engines.base_check import check_generator

        check_generator(base, "chat")
