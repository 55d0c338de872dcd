"""Estimate which GPUs the trainings and generations of a plan need, and how long they take."""

from __future__ import annotations

from typing import NamedTuple

from speed.config import Config
from speed.core.graph import StageStatus
from speed.data.costs.memory import PEAKS, Footprint, fit, rows_at_once, trained_weights, training_hours
from speed.data.costs.model_shapes import Shape, shape_of
from speed.data.costs.prices import EXPECTED_TOKENS
from speed.ports import Dpo, Sft, Trainer
from speed.runs.report import Table

WORTH_A_LINE = 100_000_000
"""Weights below which any machine will do."""


class Training(NamedTuple):
    """A training of a generator, as a plan sees it."""

    label: str
    config: Sft | Dpo
    trainer: Trainer
    tokens_a_row: int


def trainings(config: Config) -> list[Training]:
    """Junior, senior and revisor, as far as the config has them; tokens a row at the paper's lengths."""
    found = [Training("junior", config.generator.sft, config.trainer, sum(EXPECTED_TOKENS["seed"]))]
    if config.preference.enabled and config.preference.dpo is not None:
        prompt, answer = EXPECTED_TOKENS["seed"]
        found.append(Training("senior", config.preference.dpo, config.trainer, 2 * (prompt + answer)))
    if config.revisor.enabled and config.revisor.sft is not None:
        trainer = config.revisor.trainer or config.trainer
        found.append(Training("revisor", config.revisor.sft, trainer, sum(EXPECTED_TOKENS["revise"])))
    return found


def machine_table(config: Config, found: list[StageStatus]) -> Table | None:
    """How each training fits into GPUs of 24, 40 and 80 GB, and how many texts are written side by side; None where the
    base is small, or of unknown sizes."""
    shape = shape_of(config.generator.base.name)
    if shape is None or shape.parameters < WORTH_A_LINE:
        return None
    rows = {status.goal.label: status.work.trained for status in found}
    table = Table("of one GPU (estimates)", "weights", "trained", *(f"{size} GB" for size in PEAKS), "hours on 80 GB")
    for training in trainings(config):
        footprint = training.trainer.footprint()
        if footprint is not None:
            table.add(training.label, *_training_cells(training, shape, footprint, rows.get(training.label, 0)))
    longest = EXPECTED_TOKENS["seed"][0] + max(config.limits.example.values())
    texts = [f"{rows_at_once(shape, longest, size):,} texts of {longest:,} tokens" for size in PEAKS]
    table.add("generation (bf16)", f"{shape.parameters:,}", "-", *texts, "-")
    return table


def _training_cells(training: Training, shape: Shape, footprint: Footprint, rows: int) -> list[str]:
    config, preference = training.config, isinstance(training.config, Dpo)
    fits = {size: fit(shape, footprint, config.batch_size, config.max_length, size, preference) for size in PEAKS}
    widest = fits[max(PEAKS)]
    tokens = rows * training.tokens_a_row
    hours = "-"
    if widest is not None:
        alone = training_hours(shape, footprint, tokens, widest, max(PEAKS), preference)
        hours = f"{alone:,.1f}" + (f" on {widest.gpus}" if widest.gpus > 1 else "")
    counts = [f"{shape.parameters:,}", f"{trained_weights(shape, footprint):,}"]
    return [*counts, *(str(one) if one else "does not fit" for one in fits.values()), hours]
