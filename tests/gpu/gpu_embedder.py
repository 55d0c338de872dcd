"""Part 2: contrastive steps of the embedder in Mistral-7B's shape, and attention with and without padding."""

from __future__ import annotations

import inspect
import math
import statistics
from pathlib import Path
from typing import Any, NamedTuple

import torch
from gpu_figures import Figures
from gpu_machine import Machine
from gpu_models import (
    MISTRAL,
    TINY,
    base_folder,
    changed,
    composed,
    context,
    example_file,
    matrix_weights,
    random_model,
)

from speed.backends.embedder.forward import Forward
from speed.backends.embedder.loop import adapted, table_of
from speed.backends.embedder.plan import Plan, batch_of
from speed.backends.embedder.ranks import Ranks
from speed.backends.embedder.step import Steps
from speed.backends.runtime.precision import dtype_of
from speed.data.costs.memory import Footprint, embedder_bytes
from speed.data.costs.model_shapes import Shape
from speed.model.batching import chunks

STEPS = 3
"""Of which the first is not counted: it loads kernels."""
EVERYTHING = 10**9


class Variant(NamedTuple):
    """One way to compute a step."""

    name: str
    records: int
    chunk: int | None
    """Padded tokens of a chunk; None as the preset says."""
    kept: int
    checkpointing: str


VARIANTS = (
    Variant("plain", 16, 4096, EVERYTHING, "off"),
    Variant("plain, checkpointing", 64, 4096, EVERYTHING, "kept"),
    Variant("cached", 64, 4096, 0, "off"),
    Variant("cached, the preset's chunks, checkpointing", 64, None, 0, "all"),
    Variant("cached, the preset's chunks", 64, None, 0, "off"),
)
"""`plain` keeps the graphs of the whole batch; `cached` encodes every chunk twice (gradient caching)."""


def measure(figures: Figures, machine: Machine, place: Path) -> None:
    """Steps of every variant, then attention alone."""
    shape = TINY if machine.tiny else MISTRAL
    figures.add(about="embedder, Mistral-7B's shape, LoRA r 16, the paper's mix of lengths, bf16")
    with figures.attempt("matrix product"):
        figures.add(matrix_product_tflops=matrix_product(machine))
    base = base_folder(place / "base", shape, "mistral")
    preset = changed(composed("preset=one_gpu").embedder, base=str(base))
    model = adapted(random_model(base, machine.device, dtype_of(preset.precision), head=False), preset, seed=0)
    steps: dict[str, Any] = {}
    for variant in VARIANTS:
        with figures.attempt(variant.name):
            steps[variant.name] = step_figures(variant, model, preset, shape, machine, place)
            figures.add(steps=steps)
    lengths = sample_lengths(preset, place, machine)
    del model
    machine.release()
    with figures.attempt("attention"):
        figures.add(attention=attention_figures(lengths, shape, machine))


def matrix_product(machine: Machine) -> float:
    """TFLOP/s of a large bf16 product: the card's ceiling as it is found."""
    size = 64 if machine.tiny else 8192
    a, b = (torch.randn(size, size, device=machine.device, dtype=torch.bfloat16) for _ in range(2))
    a @ b
    times = [machine.seconds(lambda: a @ b) for _ in range(5)]
    return 2 * size**3 / statistics.median(times) / 1e12


def step_figures(
    variant: Variant, model: Any, preset: Any, shape: Shape, machine: Machine, place: Path
) -> dict[str, Any]:
    """Tokens a second and memory of the project's own optimiser steps."""
    count = 6 if machine.tiny else variant.records
    chunk = variant.chunk or preset.chunk_tokens
    config = changed(
        preset,
        batch_size=count,
        chunk_tokens=64 if machine.tiny else chunk,
        kept_tokens=variant.kept,
        checkpointing=variant.checkpointing,
    )
    # one step more than is taken: after the last step of a training the model is tried once
    examples = example_file(place / "examples.jsonl", shape, count * (STEPS + 1), machine.tiny)
    device = torch.device(machine.device)
    rows = table_of(config, examples, context(place / "home", machine))
    plan = Plan(rows.table, config, seed=0)
    for module in model.modules():
        if hasattr(module, "gradient_checkpointing"):
            module.gradient_checkpointing = False  # what another variant has left
    forward = Forward(config, model.train(), rows.table, rows.tokenizer.pad_token_id, device, Ranks())
    steps = Steps(config, forward, plan, seed=0)
    machine.release()
    seconds, real, padded, highest, at_once, losses = 0.0, 0, 0, 0, 0, []
    for step in range(STEPS):
        batch = batch_of(plan, plan.batch(step), step, device)
        _, sizes = forward.chunks(batch.lengths)
        taken: dict[str, float] = {}
        spent = machine.seconds(lambda step=step, taken=taken: taken.update(steps.take(step, examples, place)))
        losses.append(taken["loss"])
        highest, at_once = max(highest, *sizes), max(at_once, sum(sizes))
        if step:
            seconds, real, padded = seconds + spent, real + sum(batch.lengths), padded + sum(sizes)
    passes = 4 if variant.kept else 6
    passes += 0 if variant.checkpointing == "off" else 2
    weights = matrix_weights(shape)
    kept = at_once if variant.kept else 0
    return {
        "records": count, "chunk_tokens": config.chunk_tokens, "largest_chunk": highest, "losses": losses,
        "tokens_per_second": real / seconds, "padded_tokens_per_second": padded / seconds, "padding": padded / real - 1,
        "seconds_a_step": seconds / (STEPS - 1),
        "model_flop": machine.utilisation(4 * weights * real, seconds),
        "computed_flop": machine.utilisation(passes * weights * padded, seconds),
        "memory": machine.memory(estimated(shape, highest, kept, variant.checkpointing)),
    }  # fmt: skip


def estimated(shape: Shape, chunk: int, kept: int, checkpointing: str) -> float:
    """Bytes that `speed.data.costs.memory` gives for a step whose largest chunk has so many tokens."""
    footprint = Footprint(lora=16, weight_bytes=2, checkpointing=checkpointing != "off")
    return embedder_bytes(shape, footprint, chunk, kept, checkpointing != "off")


def sample_lengths(config: Any, place: Path, machine: Machine) -> list[int]:
    """Lengths of a batch's rows, in the order in which records hold them."""
    table = table_of(config, place / "examples.jsonl", context(place / "home", machine)).table
    return [int(length) for length in table.lengths()[:192]]


def attention_figures(lengths: list[int], shape: Shape, machine: Machine) -> dict[str, Any]:
    """Milliseconds of one layer's attention, forward and backward: rows padded to the longest, and without padding.

    The trainer has no path without padding: this says what one would bring, to attention alone.
    """
    found: dict[str, Any] = {"layers": shape.layers, "path_in_trainer": "padding, sorted into chunks"}
    whole = chunks(lengths, 64 if machine.tiny else 4096)
    sorted_rows = [lengths[row] for row in whole[len(whole) // 2]]
    for name, rows in (("a chunk as the trainer makes it", sorted_rows), ("rows as they come", lengths[:32])):
        padded = padded_attention(rows, shape, machine)
        found[name] = {"rows": len(rows), "real_tokens": sum(rows), "padded_tokens": len(rows) * max(rows)}
        found[name]["padded_ms"] = padded
        try:
            found[name]["varlen_ms"] = varlen_attention(rows, shape, machine)
        except (ImportError, RuntimeError, TypeError, NotImplementedError) as error:
            found[name]["varlen_ms"] = f"none: {type(error).__name__}: {error}"[:200]
    return found


def padded_attention(rows: list[int], shape: Shape, machine: Machine) -> float:
    """As transformers computes it for causal models whose padding stands on the right: no mask but the causal one."""
    size = (len(rows), shape.heads, max(rows), shape.head)
    query = random(size, machine)
    key, value = (random((size[0], shape.key_heads, *size[2:]), machine) for _ in range(2))

    def work() -> None:
        attend = torch.nn.functional.scaled_dot_product_attention
        out = attend(query, key, value, is_causal=True, enable_gqa=True)
        out.sum().backward()

    return milliseconds(work, machine)


def varlen_attention(rows: list[int], shape: Shape, machine: Machine) -> float:
    """torch.nn.attention.varlen on the same rows end to end; where it knows no groups of heads, these are repeated."""
    from torch.nn.attention.varlen import varlen_attn

    if machine.device != "cuda":
        raise NotImplementedError("torch.nn.attention.varlen needs a GPU")
    known = inspect.signature(varlen_attn).parameters
    options: dict[str, Any] = {"is_causal": True} if "is_causal" in known else {"window_size": (-1, 0)}
    heads = shape.heads
    if "enable_gqa" in known:
        options["enable_gqa"], heads = True, shape.key_heads
    total, longest = sum(rows), max(rows)
    bounds = torch.tensor([0, *rows], device=machine.device).cumsum(0).to(torch.int32)
    query = random((total, shape.heads, shape.head), machine)
    key, value = (random((total, heads, shape.head), machine) for _ in range(2))

    def work() -> None:
        varlen_attn(query, key, value, bounds, bounds, longest, longest, **options).sum().backward()

    return milliseconds(work, machine)


def random(size: tuple[int, ...], machine: Machine) -> torch.Tensor:
    """A tensor with a gradient."""
    return torch.randn(size, device=machine.device, dtype=torch.bfloat16, requires_grad=True)


def milliseconds(work: Any, machine: Machine, rounds: int = 10) -> float:
    """Median time of a call after two that are not counted."""
    work(), work()
    times = [machine.seconds(work) for _ in range(2 if machine.tiny else rounds)]
    assert all(math.isfinite(time) for time in times)
    return 1000 * statistics.median(times)
