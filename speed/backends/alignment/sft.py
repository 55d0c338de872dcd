"""Supervised training on completions (paper, equation 1): the junior and the revisor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from datasets import Dataset, disable_progress_bars
from trl import SFTConfig, SFTTrainer, pack_dataset

from speed.backends.alignment.batch_order import BatchOrder
from speed.backends.alignment.measures import measure_writing
from speed.backends.alignment.options import TrlOptions
from speed.backends.alignment.probing import measure_steps, random_rows
from speed.backends.alignment.rows import IGNORED, sft_rows
from speed.backends.alignment.start import load_start, new_adapter, weights_card
from speed.backends.alignment.training import (
    Training,
    carry_out,
    explain_memory_errors,
    keep_to_one_gpu,
    rows_at_once,
    training_arguments,
)
from speed.backends.alignment.trl_patches import in_order
from speed.backends.runtime.device import device_of, quietly
from speed.data.trainings import Completion, Sft
from speed.runtime import Context


def train_sft(
    options: TrlOptions,
    base: str,
    rows: Sequence[Completion],
    config: Sft,
    out: Path,
    ctx: Context,
    at_most: int | None = None,
    probe: bool = False,
) -> None:
    """Train in this process, which may be one of several ranks.

    Args:
        at_most: rows of one forward pass, where `auto` has chosen them.
        probe: whether a few steps on random rows are measured instead.
    """
    with quietly(), explain_memory_errors():
        torch.set_num_threads(ctx.grant.threads)
        device = device_of(ctx)
        start = load_start(options, base, device, ctx.runtime)
        if probe:
            data = random_rows(config, start.tokenizer)
        else:
            data = sft_rows(rows, options.prompt_format, start.tokenizer, config.max_length, ctx)
        packed = packs(data, config.max_length) if options.packing else data
        at_once, parts = rows_at_once(options, config, out, ctx, at_most)
        arguments = SFTConfig(
            **training_arguments(options, config, len(packed), parts, out, device, ctx),
            max_length=None,
            completion_only_loss=True,
            loss_type="nll",
            packing=options.packing,
            padding_free=options.padding_free,
        )
        in_parts = parts if parts.rows < parts.whole else None
        order = BatchOrder([len(row["input_ids"]) for row in packed], config.batch_size, config.seed, in_parts)
        trainer = in_order(SFTTrainer, order)(
            model=start.model,
            args=keep_to_one_gpu(arguments),
            train_dataset=Dataset.from_list(packed),
            processing_class=start.tokenizer,
            peft_config=new_adapter(options, start.model),
        )
        lengths = [sum(label != IGNORED for label in row["labels"]) for row in data]
        prompts = [row["input_ids"][:-length] for row, length in zip(data, lengths, strict=True)]
        training = Training(
            trainer,
            start.tokenizer,
            weights_card(options, base, start, out),
            after=lambda done: measure_writing(done.model, start.tokenizer, prompts, max(lengths)),
            at_once=at_once,
            micro_batch=parts.whole,
        )
        if probe:
            measure_steps(training, config, ctx)
        else:
            carry_out(training, out, ctx)


def packs(rows: Sequence[dict[str, list[int]]], width: int) -> list[dict[str, list[int]]]:
    """`input_ids`, `labels` and `seq_lengths` of packs of at most `width` tokens, each row in one of them.

    As TRL packs ("bfd": the longest row first, each where it fits most tightly), which it does while it prepares a data
    set; ours come prepared. No row is cut (what is too long is left out before), and none sees another: TRL passes
    positions that start anew with each row, from which transformers 5 builds a mask of blocks (a test compares loss and
    gradient with those of the rows alone).
    """
    disable_progress_bars()
    packed: list[dict[str, list[int]]] = pack_dataset(Dataset.from_list(list(rows)), width, "bfd").to_list()
    return packed
