"""Preference training (paper, equation 2): the senior, from the junior, with the junior as the frozen reference.

The reference is TRL's copy of the junior's adapter under the name `ref`, the base without an adapter of its own where
the junior has all weights, or a copy of the whole model. Objectives without a reference (`reference_free`) load and run
none; the measures at the end alone look at the junior.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from speed.backends.alignment.batch_order import BatchOrder
from speed.backends.alignment.first_step import FirstStep
from speed.backends.alignment.measures import PROMPTS, drift, kl_reference, load_reference
from speed.backends.alignment.options import TrlOptions
from speed.backends.alignment.probing import measure_steps, random_rows, with_adapter
from speed.backends.alignment.reference_free import without_reference
from speed.backends.alignment.rows import dpo_rows
from speed.backends.alignment.start import load_start, new_adapter, weights_card
from speed.backends.alignment.training import (
    Training,
    carry_out,
    explain_memory_errors,
    keep_to_one_gpu,
    rows_at_once,
    training_arguments,
)
from speed.backends.alignment.trl_patches import in_order, weighted, with_reference
from speed.backends.engines.prompt_format import prompt_ids
from speed.backends.engines.weights import Loaded
from speed.backends.runtime.device import device_of, quietly
from speed.core.content import sha256_of
from speed.core.spec import digest
from speed.data.trainings import Dpo, Preference
from speed.runtime import Context


def train_dpo(
    options: TrlOptions,
    source: Path | str,
    rows: Sequence[Preference],
    config: Dpo,
    out: Path,
    ctx: Context,
    at_most: int | None = None,
    probe: bool = False,
) -> None:
    """Train in this process, which may be one of several ranks.

    Args:
        at_most: rows of one forward pass, where `auto` has chosen them.
        probe: whether a few steps on random pairs are measured instead, from a base model.
    """
    with quietly(), explain_memory_errors():
        torch.set_num_threads(ctx.grant.threads)
        device = device_of(ctx)
        start = load_start(options, source, device, ctx.runtime)
        if probe:
            start, data = with_adapter(options, start), random_rows(config, start.tokenizer)
        else:
            data = dpo_rows(rows, options.prompt_format, start.tokenizer, config.max_length, ctx)
        at_once, parts = rows_at_once(options, config, out, ctx, at_most)
        arguments = DPOConfig(
            **training_arguments(options, config, len(data), parts, out, device, ctx),
            **loss_arguments(config),
            max_length=config.max_length,
            disable_dropout=True,
            precompute_ref_log_probs=options.precompute_reference or not config.needs_reference,
        )
        in_parts = parts if parts.rows < parts.whole else None
        order = BatchOrder([sum(map(len, row.values())) for row in data], config.batch_size, config.seed, in_parts)
        objective = DPOTrainer if config.needs_reference else without_reference(DPOTrainer, config)
        trainer_class = weighted(in_order(objective, order), order)
        if options.precompute_reference:
            folder = out / "reference"
            if not probe:
                folder = reference_folder(ctx.store.home, Path(source), start, data, options.precision)
            trainer_class = with_reference(trainer_class, folder)
        trainer = trainer_class(
            model=start.model,
            args=keep_to_one_gpu(arguments),
            train_dataset=Dataset.from_list(data),
            processing_class=start.tokenizer,
            peft_config=new_adapter(options, start.model),
        )
        prompts = [prompt_ids(row.prompt, options.prompt_format, start.tokenizer) for row in rows[:PROMPTS]]

        def measure(done: Any) -> dict[str, float]:
            load_reference(done, lambda: load_start(options, source, device, ctx.runtime).model)
            return kl_reference(done, data) | drift(done, start.tokenizer, prompts, data)

        card = weights_card(options, source, start, out)
        batch = [data[row] for row in islice(order, config.batch_size)]
        first = FirstStep(
            config,
            options.precision,
            loss_at_start(config),
            chosen=[len(row["chosen_ids"]) for row in batch],
            rejected=[len(row["rejected_ids"]) for row in batch],
            ids=batch[-1]["prompt_ids"] + batch[-1]["chosen_ids"],
        )
        # the likelihood term is a mean over the tokens of a forward pass, which fewer rows would change
        lowered = None if config.sft_weight else at_once
        known = first if config.needs_reference else None
        training = Training(trainer, start.tokenizer, card, known, measure, lowered, parts.whole)
        if probe:
            measure_steps(training, config, ctx)
        else:
            carry_out(training, out, ctx)


def loss_arguments(config: Dpo) -> dict[str, Any]:
    """The objective in TRL's terms; of one without a reference, the likelihood term alone."""
    if not config.needs_reference:
        return {"beta": config.beta, "loss_type": ["sft"], "loss_weights": [config.sft_weight]}
    return {
        "beta": config.beta,
        "loss_type": [config.loss, "sft"] if config.sft_weight else [config.loss],
        "loss_weights": [1.0, config.sft_weight] if config.sft_weight else None,
        "label_smoothing": config.label_smoothing,
    }


def loss_at_start(config: Dpo) -> float | None:
    """Loss of a policy that equals its reference (all margins are 0), by objective; None where it depends on more."""
    if config.sft_weight or not config.needs_reference:
        return None
    return {
        "sigmoid": math.log(2),
        "robust": math.log(2),
        "hinge": 1.0,
        "apo_zero": 1.0,
        "apo_down": 1.0,
        "ipo": 1 / (4 * config.beta**2),
    }[config.loss]


def reference_folder(
    home: Path, source: Path, start: Loaded, data: Sequence[dict[str, list[int]]], precision: str
) -> Path:
    """Where the reference's log-probabilities of these rows are kept.

    They depend on the start's weights, the rows and the arithmetic, and on nothing that the training varies: the points
    of a sweep over beta, loss or learning rate pay for them once, and a training of all weights needs no second model.
    """
    weights = [sha256_of(source / "model"), start.card.base_sha256 if start.card else ""]
    key = digest({"start": weights, "rows": list(data), "precision": precision})
    return home / "cache" / "reference" / key
