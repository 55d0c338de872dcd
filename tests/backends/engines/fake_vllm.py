"""vLLM as far as the engine knows it, with a memory that is as large as a test says. It writes random tokens."""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch


@dataclass
class FakeVllm:
    """What its starts were given, and what fits."""

    room: dict[str, int] = field(default_factory=dict)
    """The most of an option of `LLM` that fits when it starts."""
    room_to_write: dict[str, int] = field(default_factory=dict)
    """The most of it that fits when texts are written, after the first time."""
    error: Exception = field(default_factory=lambda: torch.OutOfMemoryError("CUDA out of memory."))
    starts: list[dict[str, Any]] = field(default_factory=list)
    running: int = 0
    """Models in memory."""
    calls: int = 0
    """Blocks that were asked for."""

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have `import vllm` find this one."""
        modules = {name: ModuleType(name) for name in ("vllm", *(f"vllm.{part}" for part in PARTS))}
        modules["vllm"].__spec__ = ModuleSpec("vllm", None)
        modules["vllm"].LLM = lambda **options: _Llm(self, options)  # type: ignore[attr-defined]
        modules["vllm"].SamplingParams = SimpleNamespace  # type: ignore[attr-defined]
        modules["vllm.sampling_params"].StructuredOutputsParams = SimpleNamespace  # type: ignore[attr-defined]
        modules["vllm.distributed"].cleanup_dist_env_and_memory = lambda: None  # type: ignore[attr-defined]
        modules["vllm.platforms"].current_platform = SimpleNamespace(is_cpu=lambda: True)  # type: ignore[attr-defined]
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, name, module)

    def refuse_beyond(self, room: dict[str, int], options: dict[str, Any]) -> None:
        """Run out of memory where an option asks for more than there is room for."""
        if any(options[name] > most for name, most in room.items()):
            raise self.error


PARTS = ("sampling_params", "distributed", "platforms")


class _Llm:
    def __init__(self, fake: FakeVllm, options: dict[str, Any]) -> None:
        assert fake.running == 0, "the one before is still in memory"
        assert options["max_num_batched_tokens"] >= max(options["max_num_seqs"], options["max_model_len"])
        assert options["num_gpu_blocks_override"] * options["block_size"] > options["max_model_len"]
        self.fake, self.options = fake, options
        fake.starts.append(options)
        fake.refuse_beyond(fake.room, options)
        fake.running += 1
        self.llm_engine = SimpleNamespace(engine_core=SimpleNamespace(shutdown=self._shutdown))

    def _shutdown(self) -> None:
        self.fake.running -= 1

    def reset_prefix_cache(self) -> None:
        """Nothing is cached."""

    def generate(self, prompts: list[Any], parameters: list[Any], use_tqdm: bool) -> list[Any]:
        """Tokens of each candidate, from its seed and prompt alone."""
        self.fake.calls += 1
        if self.fake.calls > 1:
            self.fake.refuse_beyond(self.fake.room_to_write, self.options)
        return [_answer(prompt["prompt_token_ids"], asked) for prompt, asked in zip(prompts, parameters, strict=True)]


def _answer(ids: list[int], asked: Any) -> Any:
    outputs = []
    for index in range(asked.n):
        draw = random.Random(str((asked.seed + index, ids)))
        tokens = [draw.randrange(3, 300) for _ in range(asked.max_tokens)]
        outputs.append(SimpleNamespace(index=index, token_ids=tokens, finish_reason="length"))
    return SimpleNamespace(outputs=outputs)
