"""Part 3: supervised and preference steps of generators in Llama-3-8B's shape, and their memory beside a plan's."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from gpu_figures import Figures
from gpu_machine import Machine
from gpu_models import LLAMA, TINY, Words, base_folder, changed, composed, context, matrix_weights, random_model

from speed.backends.alignment import dpo, sft, start
from speed.backends.engines.weights import Loaded, load_tokenizer
from speed.data.costs.memory import fit, training_bytes
from speed.data.costs.model_shapes import Shape
from speed.data.costs.prices import EXPECTED_TOKENS
from speed.data.trainings import Completion, Preference

STEPS = 3
"""Of which the first is not counted."""


class Variant(NamedTuple):
    """One training."""

    name: str
    preference: bool
    micro_batch: int
    rows: int
    """Of a batch."""
    checkpointing: bool
    full: bool = True
    """Whether rows have the preset's full length, as a plan assumes; otherwise the lengths that the paper's had."""


VARIANTS = (
    Variant("sft, 1 row at once", False, 1, 4, False),
    Variant("dpo, 1 pair at once", True, 1, 2, False),
    Variant("sft, 2 rows at once", False, 2, 4, False),
    Variant("sft, 8 rows at once, checkpointing", False, 8, 8, True),
    Variant("dpo, 2 pairs at once, checkpointing", True, 2, 4, True),
    Variant("dpo, 4 pairs at once, checkpointing", True, 4, 4, True),
    Variant("sft, 16 rows of the paper's lengths, checkpointing", False, 16, 16, True, False),
)


def measure(figures: Figures, machine: Machine, place: Path) -> None:
    """Every variant; first the ones that need least memory."""
    shape = TINY if machine.tiny else LLAMA
    figures.add(about="generators, Llama-3-8B's shape, LoRA r 16, bf16, rows of the preset's full length")
    base = base_folder(place / "base", shape, "llama")
    preset = composed("preset=one_gpu")
    figures.add(plan={name: planned(preset, shape, machine, name == "dpo") for name in ("sft", "dpo")})
    found: dict[str, Any] = {}
    for number, variant in enumerate(VARIANTS[::4] if machine.tiny else VARIANTS):
        with figures.attempt(variant.name):
            found[variant.name] = training_figures(variant, preset, base, shape, machine, place / str(number))
            figures.add(trainings=found)


def planned(preset: Any, shape: Shape, machine: Machine, preference: bool) -> str:
    """What a plan would say of this card."""
    config = preset.preference.dpo if preference else preset.generator.sft
    size = math.floor(machine.gigabytes)
    found = fit(shape, preset.trainer.footprint(), config, size)
    return str(found or "does not fit")


def training_figures(
    variant: Variant, preset: Any, base: Path, shape: Shape, machine: Machine, place: Path
) -> dict[str, Any]:
    """Tokens a second and memory of a training by the project's own trainer, from random weights."""
    ctx = context(place / "home", machine)
    trainer = changed(preset.trainer, micro_batch=variant.micro_batch, gradient_checkpointing=variant.checkpointing)
    config = preset.preference.dpo if variant.preference else preset.generator.sft
    longest = 48 if machine.tiny else config.max_length
    shown = config.model_copy(update={"batch_size": variant.rows, "max_length": longest, "epochs": 1.0})
    words = Words(shape, 2)
    lengths = [_lengths(words, variant, longest) for _ in range(variant.rows * STEPS)]
    made = [_row(words, variant, *each) for each in lengths]
    machine.release()
    with random_start(trainer, base, machine, adapter=variant.preference):
        if variant.preference:
            trainer.dpo(base, made, shown, place, ctx)
        else:
            trainer.sft(str(base), made, shown, place, ctx)
    steps = [event for event in ctx.events if event["event"] == "metric"]
    seconds = [after["at"] - before["at"] for before, after in pairwise(steps)]
    rows_a_row = 2 if variant.preference else 1
    tokens = sum(map(sum, lengths)) * rows_a_row / STEPS
    answers = sum(answer for _, answer in lengths) * rows_a_row / STEPS
    spent = statistics.median(seconds)
    at_once = max(map(sum, lengths)) * variant.micro_batch * rows_a_row
    forward = 2 * (matrix_weights(shape) * tokens + shape.embedding * answers)
    passes = (3 if variant.preference else 2) + (1 if variant.checkpointing else 0)
    estimate = training_bytes(shape, trainer.footprint(), config, at_once, variant.checkpointing)
    losses = [event["figures"]["loss"] for event in steps]
    found = {
        "micro_batch": variant.micro_batch, "tokens_a_step": tokens, "seconds_a_step": spent, "losses": losses,
        "tokens_per_second": tokens / spent, "model_flop": machine.utilisation(2 * forward, spent),
        "computed_flop": machine.utilisation(passes * forward, spent), "memory": machine.memory(estimate),
    }  # fmt: skip
    if variant.preference:
        found["first_loss_minus_ln2"] = losses[0] - math.log(2)
    return found


@contextmanager
def random_start(
    trainer: Any, base: Path, machine: Machine, adapter: bool, dtype: torch.dtype = torch.bfloat16
) -> Iterator[None]:
    """While this lasts, the trainer finds random weights where it would load some, and writes no samples at its end.

    Args:
        adapter: with an adapter that is away from its start, as a junior's is: then the frozen reference of a
            preference training is a second adapter.
    """
    carry_out = sft.carry_out

    def load(source: Any, precision: str, device: str, for_training: bool = False) -> Loaded:
        model = random_model(base, device, dtype, head=True)
        if adapter:
            from peft import get_peft_model

            model = get_peft_model(model, start.new_adapter(trainer, model))
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    torch.nn.init.normal_(weight, std=0.01)
        return Loaded(model, load_tokenizer(base), None)

    def without_samples(training: Any, out: Path, ctx: Any) -> None:
        carry_out(replace(training, after=None), out, ctx)

    with (
        mock.patch.object(start, "load", load),
        mock.patch.object(sft, "carry_out", without_samples),
        mock.patch.object(dpo, "carry_out", without_samples),
    ):
        yield


def _lengths(words: Words, variant: Variant, longest: int) -> tuple[int, int]:
    """Tokens of prompt and answer."""
    prompt, answer = EXPECTED_TOKENS["seed"]
    if not variant.full:
        scale = 400 / longest if longest < 400 else 1
        found = [max(2, int(words.length(mean, 20, 900) / scale)) for mean in (prompt, answer)]
        return min(found[0], longest // 2), min(found[1], longest // 2)
    whole = longest * answer // (prompt + answer)
    return longest - whole, whole


def _row(words: Words, variant: Variant, prompt: int, answer: int) -> Completion | Preference:
    """A row of exactly so many tokens; BOS and EOS are two of them."""
    asked, said = words.text(prompt - 1), words.text(answer - 1)
    if variant.preference:
        return Preference(prompt=asked, chosen=said, rejected=words.text(answer - 1))
    return Completion(prompt=asked, completion=said)
