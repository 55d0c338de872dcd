"""One training of TRL, carried out: its arguments, resume, train, write weights, curve and card, remove checkpoints."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from peft import PeftModel
from transformers import PrinterCallback

from speed.backends.alignment import zero3
from speed.backends.alignment.batch_order import Parts, repeated_rows
from speed.backends.alignment.checkpoints import (
    CHECKPOINTS,
    Watch,
    figures,
    last_whole,
    refuse_other_processes,
    remove_cut_short,
)
from speed.backends.alignment.first_step import FirstStep
from speed.backends.alignment.options import TrlOptions, micro_batch_of
from speed.backends.alignment.trl_patches import project_completions_only
from speed.backends.engines.weights import CARD, WeightsCard, write_card
from speed.backends.runtime.at_once import AtOnce, DoesNotFit
from speed.backends.runtime.attention import fast_on_cores
from speed.backends.runtime.disk import disk_errors
from speed.backends.runtime.older_readers import for_older_readers
from speed.backends.runtime.processes import FOLDER, STOP, several
from speed.backends.runtime.stopping import Stop
from speed.core.errors import UserError
from speed.data.trainings import Dpo, Sft
from speed.runtime import Context

CURVE = "training.json"
"""File beside `model/`: summary and curve of a training, step by step."""

KEPT = (
    "mean_token_accuracy",
    "rewards_accuracies",
    "rewards_margins",
    "rewards_chosen",
    "rewards_rejected",
    "logps_chosen",
    "logps_rejected",
)
"""Figures that go into the summary."""


@dataclass(frozen=True)
class Training:
    """A trainer of TRL, ready to start, and what is to be written about its weights."""

    trainer: Any
    tokenizer: Any
    card: WeightsCard
    first: FirstStep | None = None
    """What the first step must show, where theory knows."""
    after: Callable[[Any], dict[str, float]] | None = None
    """Further figures, measured on the trained model."""
    at_once: AtOnce | None = None
    """Rows of a forward pass, where fewer of them give the same gradient."""
    micro_batch: int = 1
    """Rows whose loss is one mean, in one forward pass or in several."""


def training_arguments(
    options: TrlOptions, config: Sft | Dpo, rows: int, parts: Parts, out: Path, device: str, ctx: Context
) -> dict[str, Any]:
    """The arguments that both of TRL's configs share; none is left to a default that could change a result."""
    steps = math.ceil(config.epochs * math.ceil(rows / config.batch_size))
    constant = options.schedule == "constant"
    return {
        "output_dir": str(out / CHECKPOINTS),
        "per_device_train_batch_size": parts.rows,
        "gradient_accumulation_steps": parts.passes,
        "num_train_epochs": config.epochs,
        "learning_rate": config.learning_rate,
        "warmup_steps": min(math.ceil(config.warmup_ratio * steps), steps - 1),  # its first step has rate 0
        "lr_scheduler_type": "constant_with_warmup" if constant else options.schedule,
        "weight_decay": options.weight_decay,
        "max_grad_norm": options.max_grad_norm,
        "optim": "adamw_torch",
        "seed": config.seed,
        "data_seed": config.seed,
        "bf16": options.precision == "bf16",
        "fp16": options.precision == "fp16",
        "gradient_checkpointing": options.gradient_checkpointing is True,
        "use_cpu": device == "cpu",
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": device != "cpu",
        "save_strategy": "no",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": [],
        "use_liger_kernel": options.liger,
        "deepspeed": zero3.settings(options.precision) if ctx.runtime.strategy == "zero3" else None,
        "disable_tqdm": True,
    }


def rows_at_once(
    options: TrlOptions, config: Sft | Dpo, out: Path, ctx: Context, at_most: int | None = None
) -> tuple[AtOnce, Parts]:
    """Rows of a forward pass: as many as the options say or `auto` has chosen, or as have been seen to fit since."""
    processes = ctx.grant.processes
    whole = micro_batch_of(options, config.batch_size, processes)
    what, begin = ["training", str(out.resolve()), processes, whole], min(at_most or whole, whole)
    at_once = AtOnce(ctx, what, begin, "rows", "trainer.micro_batch")
    return at_once, Parts(at_once.value, whole, config.batch_size // processes)


def halve_rows_at_once(at_once: AtOnce | None, error: torch.OutOfMemoryError) -> Exception:
    """What a training that did not fit raises: to be begun again with half the rows at once, as long as there are two;
    otherwise the error itself."""
    if at_once is None or at_once.value == 1:
        return error
    fewer = next(rows for rows in range(at_once.value // 2, 0, -1) if at_once.most % rows == 0)
    return DoesNotFit(at_once.lower(fewer))


def keep_to_one_gpu(arguments: Any) -> Any:
    """TRL's arguments for one process on one GPU: transformers would otherwise take all others in sight too."""
    arguments._n_gpu = 1
    return arguments


def carry_out(training: Training, out: Path, ctx: Context) -> None:
    """Train from the last whole checkpoint (or from the start) and write the payload.

    Raises:
        UserError: when the loss is no number, or the training was asked to end (then it has saved where it stands).
    """
    trainer = training.trainer
    if ctx.runtime.strategy == "zero3":
        zero3.unify_dtype(trainer.model)
    trainer.remove_callback(PrinterCallback)
    stop = Stop(out / FOLDER / STOP if several(ctx) else None)
    watch = Watch(trainer, ctx, out / CHECKPOINTS, training.first, stop)
    trainer.add_callback(watch)
    if trainer.is_world_process_zero():
        remove_cut_short(out / CHECKPOINTS)
    trainer.accelerator.wait_for_everyone()
    if repeated := repeated_rows(len(trainer.train_dataset), training.micro_batch, ctx.grant.processes):
        ctx.say(f"{repeated} rows from the beginning of each pass fill its last batch up: each process needs its share")
    resume = last_whole(out / CHECKPOINTS)
    if resume is not None:
        ctx.say(f"the training goes on from {resume.name}")
    with disk_errors(out), stop.listening(), project_completions_only(), fast_on_cores(trainer.model):
        try:
            trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        except torch.OutOfMemoryError as error:
            raise halve_rows_at_once(training.at_once, error) from error
    if watch.stopped_at is not None:
        raise UserError(
            f"the training was told to end and saved step {watch.stopped_at} of {trainer.state.max_steps}\n"
            "  run the same command again: it goes on from there"
        )
    if training.at_once is not None:
        training.at_once.tell()
    _refuse_broken(trainer)
    # in every rank: under ZeRO-3 each holds a part of the weights
    if training.after:  # it writes texts, which takes a CPU a minute
        ctx.say("the last step is done; what the model writes now is measured")
    measured = training.after(trainer) if training.after else {}
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped) if ctx.runtime.strategy == "zero3" else None
    if trainer.is_world_process_zero():
        with disk_errors(out):
            _write(training, weights, measured, out, ctx)
    trainer.accelerator.wait_for_everyone()


def _refuse_broken(trainer: Any) -> None:
    """Use the model once, in every rank: no loss is computed after the last step, which may have broken it.

    Raises:
        UserError: when what it computes is not finite.
    """
    row = trainer.train_dataset[0]
    ids = row["input_ids"] if "input_ids" in row else row["prompt_ids"] + row["chosen_ids"]
    trainer.model.eval()
    with torch.no_grad():
        logits = trainer.model(input_ids=torch.tensor([ids], device=trainer.model.device), use_cache=False).logits
    if not torch.isfinite(logits).all():
        raise UserError(
            "the training has diverged in its last step (the model no longer computes numbers)\n"
            f"  lower its learning_rate (now {trainer.args.learning_rate:g})"
        )


def _write(
    training: Training, weights: dict[str, Any] | None, measured: dict[str, float], out: Path, ctx: Context
) -> None:
    """Write weights, curve and card, and remove what only an interrupted training needs."""
    trainer = training.trainer
    save_model(trainer.model, training.tokenizer, training.card.base, out / "model", weights)
    curve = [{"step": line["step"], **figures(line)} for line in trainer.state.log_history if "loss" in line]
    summary = summary_of(curve) | measured
    (out / CURVE).write_text(json.dumps({"summary": summary, "curve": curve}, indent=1) + "\n")
    write_card(out, training.card)
    ctx.tally.metrics.update(summary)
    shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    if not several(ctx):  # what an earlier attempt in several processes left
        shutil.rmtree(out / FOLDER, ignore_errors=True)


def is_finished(out: Path, ctx: Context) -> bool:
    """Whether an interrupted build had come to the end of its training: the card is written last.

    Its figures are then told again, and what is left of its checkpoints is removed.

    Raises:
        UserError: when it had not, and its checkpoints are of other processes than are there now.
    """
    if not (out / CARD).is_file():
        refuse_other_processes(out / CHECKPOINTS, ctx)
        return False
    ctx.tally.metrics.update(json.loads((out / CURVE).read_text())["summary"])
    shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    return True


@contextmanager
def explain_memory_errors() -> Iterator[None]:
    """Raise what does not fit into a GPU as a UserError that says what to change."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(
            "the training does not fit into the GPU's memory\n"
            "  set trainer.micro_batch to a smaller divisor of the batch size, trainer.gradient_checkpointing=true, or "
            "share it: more of runtime.devices, with runtime.strategy=zero3; the last checkpoint is kept"
        ) from error


def save_model(model: Any, tokenizer: Any, base: str, folder: Path, weights: dict[str, Any] | None = None) -> None:
    """Write the trained adapter (never TRL's frozen copy of it) or the whole model, with its tokenizer.

    `weights` stand in for the model's own where they are spread over processes.
    """
    if isinstance(model, PeftModel):
        shape = model.peft_config["default"]
        shape.base_model_name_or_path = base
        shape.target_modules = sorted(shape.target_modules)  # a set, whose order would differ from run to run
        model.save_pretrained(
            str(folder), selected_adapters=["default"], save_embedding_layers=False, state_dict=weights
        )
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty form of a model card
    else:
        model.config.use_cache = True
        model.save_pretrained(str(folder), state_dict=weights)
    tokenizer.save_pretrained(str(folder))
    for_older_readers(folder)


def summary_of(curve: Sequence[dict[str, float]]) -> dict[str, float]:
    """Figures of a training for its manifest: its first and last loss, and means over the last quarter of its steps.

    A batch alone is too few pairs for an accuracy, and the last batch of a pass may be one pair: `late_loss` is the
    median of the last quarter, and of three steps at least.
    """
    first, last, quarter = curve[0], curve[-1], curve[-max(1, len(curve) // 4) :]
    late = median(line["loss"] for line in curve[-max(3, len(curve) // 4) :])
    ends = {"steps": last["step"], "first_loss": first["loss"], "last_loss": last["loss"], "late_loss": late}
    return ends | {name: fmean(line[name] for line in quarter) for name in KEPT if name in last}
