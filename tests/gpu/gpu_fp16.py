"""Part 6: fp16 with loss scaling, the paper's arithmetic: 20 steps of the embedder and of a generator.

The shapes are narrow in depth only (four layers of the real width), since overflow is a matter of widths. Records are
learnable: a query shares its words with its positive.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from gpu_figures import Figures
from gpu_generators import random_start
from gpu_machine import Machine
from gpu_models import LLAMA, MISTRAL, TINY, Words, base_folder, changed, composed, context, random_model

from speed.backends.embedder.forward import Forward
from speed.backends.embedder.loop import adapted, table_of
from speed.backends.embedder.plan import Plan
from speed.backends.embedder.ranks import Ranks
from speed.backends.embedder.step import Steps
from speed.backends.runtime.precision import dtype_of
from speed.data.costs.model_shapes import Shape
from speed.data.records import Example, Kind
from speed.data.trainings import Completion

STEPS = 20


def measure(figures: Figures, machine: Machine, place: Path) -> None:
    """The embedder in fp16 and, as a comparison, in bf16; then a generator."""
    figures.add(about=f"{STEPS} steps in fp16 with loss scaling, four layers of the 7B and 8B shapes")
    steps = 4 if machine.tiny else STEPS
    mistral = TINY if machine.tiny else MISTRAL.model_copy(update={"layers": 4})
    base = base_folder(place / "embedder", mistral, "mistral")
    for precision in ("fp16", "bf16"):
        with figures.attempt(f"embedder {precision}"):
            figures.add(**{f"embedder {precision}": embedder(precision, base, mistral, steps, machine, place)})
    if machine.device == "cpu":
        figures.add(**{"generator fp16": "not on a CPU: the trainer refuses it"})
        return
    llama = LLAMA.model_copy(update={"layers": 4})
    with figures.attempt("generator fp16"):
        found = generator(base_folder(place / "generator", llama, "llama"), llama, steps, machine, place)
        figures.add(**{"generator fp16": found})


def embedder(precision: str, base: Path, shape: Shape, steps: int, machine: Machine, place: Path) -> dict[str, Any]:
    """Losses, gradient norms, the scaler's scale, and steps that overflowed."""
    config = changed(
        composed("preset=one_gpu").embedder,
        base=str(base), precision=precision, batch_size=8 if machine.tiny else 64, warmup_ratio=0.0,
        learning_rate=1e-3, chunk_tokens=4096,
    )  # fmt: skip
    examples = learnable(place / "learnable.jsonl", shape, config.batch_size * (steps + 1))
    rows = table_of(config, examples, context(place / "home", machine))
    plan = Plan(rows.table, config, seed=0)
    model = adapted(random_model(base, machine.device, dtype_of(precision), head=False), config, seed=0).train()
    device = torch.device(machine.device)
    forward = Forward(config, model, rows.table, rows.tokenizer.pad_token_id, device, Ranks())
    run = Steps(config, forward, plan, seed=0)
    losses, norms, overflows = [], [], 0
    for step in range(steps):
        taken = run.take(step, examples, place)
        losses.append(taken["loss"])
        norms.append(taken["gradient_norm"] if math.isfinite(taken["gradient_norm"]) else None)
        overflows += not math.isfinite(taken["gradient_norm"])
    types = sorted({str(weight.dtype) for weight in run.trained().values()})
    return {
        "losses": losses[:: max(1, steps // 5)], "last_loss": losses[-1], "overflows": overflows, "trained_in": types,
        "scale": run.scaler.get_scale() if run.scaler.is_enabled() else None, "last_gradient_norm": norms[-1],
    }  # fmt: skip


def generator(base: Path, shape: Shape, steps: int, machine: Machine, place: Path) -> dict[str, Any]:
    """Losses of a supervised training; an overflow shows as a gradient norm that is no number."""
    preset = composed("preset=one_gpu")
    trainer = changed(preset.trainer, precision="fp16", micro_batch=4)
    config = preset.generator.sft.model_copy(update={"batch_size": 8, "max_length": 256, "epochs": 1.0})
    words = Words(shape, 4)
    made = [Completion(prompt=words.text(150), completion=" ".join([words.text(4)] * 20)) for _ in range(8 * steps)]
    ctx = context(place / "sft", machine)
    with random_start(trainer, base, machine, adapter=False, dtype=torch.float16):
        trainer.sft(str(base), made, config, place / "sft", ctx)
    found = [event["figures"] for event in ctx.events if event["event"] == "metric"]
    norms = [each.get("grad_norm", math.nan) for each in found]
    losses = [each["loss"] for each in found]
    overflows = sum(not math.isfinite(norm) for norm in norms)
    return {"losses": losses[:: max(1, steps // 5)], "last_loss": losses[-1], "overflows": overflows}


def learnable(file: Path, shape: Shape, count: int) -> Path:
    """Records whose positive holds the query's words and whose negative does not."""
    words = Words(shape, 5)
    lines = []
    for _ in range(count):
        query = words.text(12)
        example = Example(
            kind=Kind.RETRIEVAL, task=words.text(4), query=query,
            positive=f"{words.text(20)} {query}", negative=words.text(32),
        )  # fmt: skip
        lines.append(example.model_dump_json())
    file.write_text("\n".join(lines) + "\n")
    return file
