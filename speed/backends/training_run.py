"""One training, carried out: resume, train, write weights, curve and card in this order, remove the checkpoints."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speed.backends.weights import CARD, WeightsCard, write_card
from speed.core.context import Context
from speed.core.errors import UserError

CURVE = "training.json"
"""File beside `model/`: the summary of a training, and its curve step by step."""

DISK_FULL = ("os error 28", "PytorchStreamWriter failed", "inline_container.cc")
"""How safetensors and torch.save tell of a disk without space."""

KEPT = (
    "mean_token_accuracy",
    "rewards_accuracies",
    "rewards_margins",
    "rewards_chosen",
    "rewards_rejected",
    "logps_chosen",
    "logps_rejected",
)
"""Figures whose last value goes into the summary."""


@dataclass(frozen=True)
class Run:
    """A trainer of TRL, ready to start, and what its weights are to be called."""

    trainer: Any
    tokenizer: Any
    card: WeightsCard
    first_loss: float | None = None
    """What the first loss must be, where theory knows."""
    after: Callable[[Any], dict[str, float]] | None = None
    """Further figures, measured on the trained model."""


def carry_out(run: Run, out: Path, ctx: Context) -> None:
    """Train from the last whole checkpoint (or from the start) and write the payload.

    Raises:
        UserError: when the loss is no number, or the GPU's memory does not suffice.
    """
    import torch
    from transformers import PrinterCallback

    from speed.backends.training_watch import Watch, last_whole, remove_cut_short

    trainer = run.trainer
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Watch(ctx, out / "checkpoints", run.first_loss))
    if trainer.is_world_process_zero():
        remove_cut_short(out / "checkpoints")
    trainer.accelerator.wait_for_everyone()
    resume = last_whole(out / "checkpoints")
    if resume is not None:
        ctx.say(f"the training goes on from {resume.name}")
    try:
        with disk_errors(out):
            trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    except torch.OutOfMemoryError as error:
        raise UserError(
            "the training does not fit into the GPU's memory\n"
            "  set trainer.micro_batch to a smaller divisor of the batch size, or trainer.gradient_checkpointing=true; "
            "the last checkpoint is kept"
        ) from error
    if trainer.is_world_process_zero():
        with disk_errors(out):
            _write(run, out, ctx)
    trainer.accelerator.wait_for_everyone()


def _write(run: Run, out: Path, ctx: Context) -> None:
    """Weights, curve and card."""
    from speed.backends.training_watch import figures

    trainer = run.trainer
    save_model(trainer.model, run.tokenizer, run.card.base, out / "model")
    curve = [{"step": line["step"], **figures(line)} for line in trainer.state.log_history if "loss" in line]
    summary = summary_of(curve) | (run.after(trainer) if run.after else {})
    (out / CURVE).write_text(json.dumps({"summary": summary, "curve": curve}, indent=1) + "\n")
    write_card(out, run.card)
    ctx.tally.metrics.update(summary)
    shutil.rmtree(out / "checkpoints", ignore_errors=True)


def finished_before(out: Path, ctx: Context) -> bool:
    """True when an interrupted build had come to the end of its training: the card is written last."""
    if not (out / CARD).is_file():
        return False
    ctx.tally.metrics.update(json.loads((out / CURVE).read_text())["summary"])
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
    return True


@contextmanager
def disk_errors(out: Path) -> Iterator[None]:
    """A full disk as the OSError that it is: safetensors and torch.save raise other things for it."""
    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, RuntimeError) as error:
        if any(sign in str(error) for sign in DISK_FULL):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(out)) from error
        raise


def save_model(model: Any, tokenizer: Any, base: str, folder: Path) -> None:
    """Write the trained adapter (never TRL's frozen copy of it) or the whole model, with its tokenizer."""
    from peft import PeftModel

    if isinstance(model, PeftModel):
        shape = model.peft_config["default"]
        shape.base_model_name_or_path = base
        shape.target_modules = sorted(shape.target_modules)  # a set, whose order would differ from run to run
        model.save_pretrained(str(folder), selected_adapters=["default"], save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty form of a model card
    else:
        model.config.use_cache = True
        model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))


def summary_of(curve: Sequence[dict[str, float]]) -> dict[str, float]:
    """Figures of a training for its manifest: the ends of its curve."""
    first, last = curve[0], curve[-1]
    found = {"steps": last["step"], "first_loss": first["loss"], "last_loss": last["loss"]}
    return found | {name: last[name] for name in KEPT if name in last}
