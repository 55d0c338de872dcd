"""What watches a training: progress, curves, checkpoints by time, and the two signs that it has gone wrong."""

from __future__ import annotations

import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from speed.core.context import Context
from speed.core.errors import UserError

WHOLE = "whole.json"
"""Written into a checkpoint after everything else; a checkpoint without it was cut short and is never used."""

LEFT_OUT = {"epoch", "num_tokens", "total_flos"}


class Watch(TrainerCallback):  # type: ignore[misc]
    """Sends progress and curves, saves by time, and stops a training that shows NaN or a wrong first loss."""

    def __init__(self, ctx: Context, checkpoints: Path, first_loss: float | None) -> None:
        self.ctx = ctx
        self.checkpoints = checkpoints
        self.first_loss = first_loss
        """What the loss must be while the model still equals its reference; None where nothing is known."""
        self.saved = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Ask for a checkpoint when the last one is old enough."""
        due = time.monotonic() - self.saved >= self.ctx.runtime.checkpoint_seconds
        control.should_save = _agreed(due) and state.global_step < state.max_steps

    def on_save(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """The checkpoint is whole now; the ones before it may go."""
        self.saved = time.monotonic()
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        if not state.is_world_process_zero:
            return
        newest = self.checkpoints / f"checkpoint-{state.global_step}"
        (newest / WHOLE).write_text(json.dumps({"step": state.global_step}))
        for older in self.checkpoints.glob("checkpoint-*"):
            if older != newest:
                shutil.rmtree(older)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **rest: Any) -> None:
        """Check a step's figures and pass them on."""
        if not logs or "loss" not in logs:
            return
        loss = float(logs["loss"])
        if not math.isfinite(loss) or not math.isfinite(float(logs.get("grad_norm", 0.0))):
            raise UserError(
                f"the training's loss became {loss} (gradient norm {logs.get('grad_norm')}) at step "
                f"{state.global_step} of {state.max_steps}\n  lower its learning_rate (or leave fp16 for bf16)"
            )
        if self.first_loss is not None and state.global_step == 1 and abs(loss - self.first_loss) > 1e-3:
            raise RuntimeError(
                f"the first preference loss is {loss:.6f} and must be {self.first_loss:.6f}: the reference model is "
                "not the model that the training started from"
            )
        self.ctx.metric(state.global_step, **figures(logs))
        self.ctx.progress(state.global_step, state.max_steps, "steps", loss=loss)


def figures(logs: dict[str, Any]) -> dict[str, float]:
    """The figures of one log line, named without slashes."""
    kept = {key.replace("/", "_"): value for key, value in logs.items() if key not in LEFT_OUT}
    return {key: float(value) for key, value in kept.items() if isinstance(value, (int, float)) and key != "step"}


def remove_cut_short(checkpoints: Path) -> None:
    """Remove the checkpoints whose writing was interrupted."""
    for folder in checkpoints.glob("checkpoint-*"):
        if not (folder / WHOLE).is_file():
            shutil.rmtree(folder)


def last_whole(checkpoints: Path) -> Path | None:
    """The newest whole checkpoint."""
    whole = [folder for folder in checkpoints.glob("checkpoint-*") if (folder / WHOLE).is_file()]
    return max(whole, key=lambda folder: int(folder.name.rpartition("-")[2]), default=None)


def _agreed(due: bool) -> bool:
    """Rank 0's opinion, in every rank: clocks differ, and a checkpoint needs all of them."""
    if not torch.distributed.is_initialized():
        return due
    said = [due]
    torch.distributed.broadcast_object_list(said, src=0)
    return said[0]
