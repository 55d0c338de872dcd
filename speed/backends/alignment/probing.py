"""A few steps of a training on random tokens, all rows as long as they may be: what memory they take, and how fast."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from peft import PeftModel, get_peft_model
from transformers import PrinterCallback, TrainerCallback

from speed.backends.alignment import zero3
from speed.backends.alignment.options import TrlOptions
from speed.backends.alignment.rows import IGNORED
from speed.backends.alignment.start import new_adapter
from speed.backends.alignment.training import Training, halve_rows_at_once
from speed.backends.alignment.trl_patches import project_completions_only
from speed.backends.engines.weights import Loaded
from speed.backends.runtime.device import device_of
from speed.backends.runtime.peak_memory import finish_computing, forget_peak
from speed.backends.runtime.probe_steps import STEPS, leave
from speed.backends.runtime.rank import assert_engine
from speed.data.trainings import Dpo, Sft
from speed.runtime import Context

Rows = list[dict[str, list[int]]]


def random_rows(config: Sft | Dpo, tokenizer: Any) -> Rows:
    """Rows for `STEPS` batches, as `rows` makes them of texts: `max_length` tokens each, half of them the answer's."""
    draw = np.random.default_rng(0)
    answer = max(2, config.max_length // 2)
    prompt = max(1, config.max_length - answer)

    def ids(length: int) -> list[int]:
        found: list[int] = draw.integers(0, tokenizer.vocab_size, length).tolist()
        return found

    rows: Rows = []
    for _ in range(STEPS * config.batch_size):
        if isinstance(config, Dpo):
            rows.append({"prompt_ids": ids(prompt), "chosen_ids": ids(answer), "rejected_ids": ids(answer)})
        else:
            asked, answered = ids(prompt), ids(answer)
            rows.append({"input_ids": asked + answered, "labels": [IGNORED] * prompt + answered})
    return rows


def with_adapter(options: TrlOptions, start: Loaded) -> Loaded:
    """A base with an adapter, as the junior has one: TRL keeps a copy of it as the reference."""
    if options.method == "full" or isinstance(start.model, PeftModel):
        return start
    return start._replace(model=get_peft_model(start.model, new_adapter(options, start.model)))


class StepClock(TrainerCallback):  # type: ignore[misc]
    """Seconds of the steps after the first."""

    def __init__(self, trainer: Any, ctx: Context) -> None:
        self.trainer, self.ctx, self.device = trainer, ctx, device_of(ctx)
        self.begun = self.seconds = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Check that the training engine is the one that was asked for."""
        assert_engine(self.trainer.model_wrapped, self.ctx)

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Begin with the end of the first step."""
        finish_computing(self.device)
        now = time.perf_counter()
        if state.global_step == 1:
            self.begun = now
        self.seconds = now - self.begun


def measure_steps(training: Training, config: Sft | Dpo, ctx: Context) -> None:
    """Take the steps, and leave what they took among the metrics of the build. Nothing is written.

    Raises:
        DoesNotFit: where half the rows at once are to be tried.
    """
    trainer, device = training.trainer, device_of(ctx)
    if ctx.runtime.strategy == "zero3":
        zero3.unify_dtype(trainer.model)
    trainer.remove_callback(PrinterCallback)
    clock = StepClock(trainer, ctx)
    trainer.add_callback(clock)
    forget_peak(device)
    with project_completions_only():
        try:
            trainer.train()
        except torch.OutOfMemoryError as error:
            raise halve_rows_at_once(training.at_once, error) from error
    if training.at_once is not None:
        training.at_once.tell()
    tokens = (STEPS - 1) * config.batch_size * config.max_length * (2 if isinstance(config, Dpo) else 1)
    leave(device, tokens / max(clock.seconds, 1e-9), ctx)
