"""Part 4: `engine=transformers` in Llama-3-8B's shape, at the batch of the preset."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from gpu_figures import Figures
from gpu_machine import GIGABYTE, Machine
from gpu_models import LLAMA, TINY, Words, base_folder, changed, composed, context, random_model

from speed.backends.engines.weights import Loaded, load_tokenizer
from speed.data.costs.memory import rows_at_once
from speed.data.costs.prices import EXPECTED_TOKENS
from speed.ports import Generate, Sampling


def measure(figures: Figures, machine: Machine, place: Path) -> None:
    """Batches of one length, which is what an engine does best, then one block of unlike prompts."""
    shape = TINY if machine.tiny else LLAMA
    figures.add(about="engine=transformers, Llama-3-8B's shape, bf16, temperature 1, the preset's batch")
    base = base_folder(place / "base", shape, "llama")
    engine = composed("preset=one_gpu", "engine=gpu").engine
    if machine.tiny:
        engine = changed(engine, batch_tokens=512, block=16)
    prompt, answer = (12, 8) if machine.tiny else EXPECTED_TOKENS["seed"]
    machine.release()
    model = random_model(base, machine.device, torch.bfloat16, head=True).eval().requires_grad_(False)
    model.generation_config.eos_token_id = None
    loaded = Loaded(model, load_tokenizer(base), None)
    words = Words(shape, 3)
    with mock.patch.object(sys.modules[type(engine).__module__], "load", return_value=loaded):
        warm = [Generate(key="warm", prompt=words.text(prompt - 1), seed=1, max_tokens=4)]
        run(engine, base, warm, machine, place)
        for name, rows in (("a quarter of the batch", 4), ("the preset's batch", 1)):
            with figures.attempt(name):
                machine.release()
                count = max(2, engine.batch_tokens // (prompt + answer) // rows)
                wanted = [
                    Generate(key=str(row), prompt=words.text(prompt - 1), seed=row, max_tokens=answer)
                    for row in range(count)
                ]
                figures.add(**{name: figures_of(engine, base, wanted, prompt, machine, place)})
    expected = rows_at_once(shape, prompt + answer, int(machine.gigabytes))
    figures.add(texts_at_once_by_plan=expected, weights_gb=shape.parameters * 2 / GIGABYTE)


def figures_of(
    engine: Any, base: Path, wanted: list[Generate], prompt: int, machine: Machine, place: Path
) -> dict[str, Any]:
    """Tokens a second of one block, and what is left of the memory."""
    texts: list[Any] = []
    said: list[str] = []
    spent = machine.seconds(lambda: texts.extend(run(engine, base, wanted, machine, place, said)))
    tokens = sum(text.tokens for text in texts)
    reserved = machine.reserved_gb()
    return {
        "texts": len(texts), "prompt_tokens": prompt, "tokens": tokens, "seconds": spent, "said": said,
        "tokens_per_second": tokens / spent, "seconds_a_token_of_all": spent * len(texts) / max(1, tokens),
        "peak_gb": machine.peak_gb(), "left_gb": None if reserved is None else machine.gigabytes - reserved,
    }  # fmt: skip


def run(
    engine: Any, base: Path, wanted: list[Generate], machine: Machine, place: Path, said: list[str] | None = None
) -> list[Any]:
    """The texts of one block."""
    ctx = context(place / "home", machine)
    (found,) = engine.generate(base, [wanted], Sampling(temperature=1.0), ctx)
    if said is not None:
        said += [event["message"] for event in ctx.events if event["event"] == "say"]
    return found
