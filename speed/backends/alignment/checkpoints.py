"""Checkpoints of a training: the callback that asks for them, which of them are whole, and which processes wrote them.

The same callback sends progress and curves, and stops a training whose figures show that it has gone wrong.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from speed.backends.alignment.first_step import FirstStep
from speed.backends.runtime.checkpoint_pace import CheckpointPace, make_room
from speed.backends.runtime.rank import assert_engine
from speed.backends.runtime.stopping import Stop
from speed.core.errors import UserError
from speed.data.costs.memory import checkpoint_bytes
from speed.runtime import Context

CHECKPOINTS = "checkpoints"
WHOLE = "whole.json"
"""Written into a checkpoint after everything else; a checkpoint without it was cut short and is never used."""

OVERFLOWS = 16
"""Steps in a row that may overflow in fp16, each of which is left out and halves the loss's scale: from 65,536 to 1."""

LEFT_OUT = {"epoch", "num_tokens", "total_flos"}


class Watch(TrainerCallback):  # type: ignore[misc]
    """Sends progress and curves, saves by time, and stops a training that shows NaN or a wrong first step."""

    def __init__(self, trainer: Any, ctx: Context, checkpoints: Path, first: FirstStep | None, stop: Stop) -> None:
        self.trainer = trainer
        self.ctx = ctx
        self.checkpoints = checkpoints
        self.first = first
        """What a preference training must show while the model still equals its reference; None for others."""
        self.stop = stop
        self.stopped_at: int | None = None
        """Step after which the training ended because it was asked to."""
        self.pace = CheckpointPace(ctx.runtime.checkpoint_seconds, 0.0)
        self.overflows = 0
        """Steps in a row without a finite gradient."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Check that the training engine, which is made by now, is the one that was asked for."""
        assert_engine(self.trainer.model_wrapped, self.ctx)
        trained = [weight for weight in self.trainer.model.parameters() if weight.requires_grad]
        gathered = trained[0].element_size() if self.ctx.runtime.strategy == "zero3" else 0
        expected = checkpoint_bytes(sum(map(_whole_size, trained)), gathered)
        self.pace = CheckpointPace(self.ctx.runtime.checkpoint_seconds, expected)

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Ask for a checkpoint when the last one is old enough, or when the training is to end."""
        due, ends = _from_rank_0((self.pace.due, self.stop.wanted))
        if state.global_step >= state.max_steps:
            return
        if due or ends:
            if state.is_world_process_zero and (told := make_room(last_whole(self.checkpoints))):
                self.ctx.say(told)
            self.pace.begin()
        control.should_save = due or ends
        if ends:
            control.should_training_stop = True
            self.stopped_at = state.global_step

    def on_save(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Mark the checkpoint as whole; the ones before it go."""
        if told := self.pace.end():
            self.ctx.say(told)
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        if not state.is_world_process_zero:
            return
        seal(self.checkpoints, state.global_step, self.ctx)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **rest: Any) -> None:
        """Check a step's figures and send them on."""
        if not logs or "loss" not in logs:
            return
        loss = float(logs["loss"])
        self.overflows = 0 if math.isfinite(float(logs.get("grad_norm", 0.0))) else self.overflows + 1
        if not math.isfinite(loss) or self.overflows > (OVERFLOWS if args.fp16 else 0):
            raise UserError(
                f"the training has diverged at step {state.global_step} of {state.max_steps}: loss {loss}, gradient "
                f"norm {logs.get('grad_norm')}\n  lower its learning_rate (now {args.learning_rate:g})"
                + (", or take trainer.precision=bf16" if args.fp16 else "")
            )
        if self.first is not None and state.global_step == 1:
            self.first.check(logs, self.trainer.model)
        self.ctx.metric(state.global_step, **figures(logs))
        self.ctx.progress(state.global_step, state.max_steps, "steps", loss=loss)


def figures(logs: dict[str, Any]) -> dict[str, float]:
    """The figures of one log line, named without slashes."""
    kept = {key.replace("/", "_"): value for key, value in logs.items() if key not in LEFT_OUT}
    return {key: float(value) for key, value in kept.items() if isinstance(value, (int, float)) and key != "step"}


def _whole_size(weight: Any) -> int:
    """Entries of a weight; under ZeRO-3 each process holds a part."""
    return int(getattr(weight, "ds_numel", weight.numel()))


def _from_rank_0(decision: tuple[bool, bool]) -> tuple[bool, bool]:
    """Rank 0's decision, in every rank: clocks differ, and a checkpoint needs all ranks."""
    if not torch.distributed.is_initialized():
        return decision
    shared = [decision]
    torch.distributed.broadcast_object_list(shared, src=0)
    return shared[0]


def seal(checkpoints: Path, step: int, ctx: Context) -> None:
    """Mark the checkpoint of `step` as whole, with the processes that wrote it, and remove the ones before it."""
    newest = checkpoints / f"checkpoint-{step}"
    whole = {"step": step, "processes": ctx.grant.processes, "strategy": ctx.runtime.strategy}
    (newest / WHOLE).write_text(json.dumps(whole))
    for older in checkpoints.glob("checkpoint-*"):
        if older != newest:
            shutil.rmtree(older)


def remove_cut_short(checkpoints: Path) -> None:
    """Remove the checkpoints whose writing was interrupted."""
    for folder in checkpoints.glob("checkpoint-*"):
        if not (folder / WHOLE).is_file():
            shutil.rmtree(folder)


def last_whole(checkpoints: Path) -> Path | None:
    """The newest whole checkpoint."""
    whole = [folder for folder in checkpoints.glob("checkpoint-*") if (folder / WHOLE).is_file()]
    return max(whole, key=lambda folder: int(folder.name.rpartition("-")[2]), default=None)


def refuse_other_processes(checkpoints: Path, ctx: Context) -> None:
    """Refuse to go on from a checkpoint that another number or kind of processes wrote.

    It holds one state of random numbers (with ZeRO-3, one part of the optimizer) a process.

    Raises:
        UserError: naming the settings under which the training goes on.
    """
    newest = last_whole(checkpoints)
    if newest is None:
        return
    written = json.loads((newest / WHOLE).read_text())
    processes, strategy = written.get("processes", 1), written.get("strategy", "ddp")
    if (processes, strategy) != (ctx.grant.processes, ctx.runtime.strategy):
        devices = "cpu" if processes == 1 else "[" + ",".join(map(str, range(processes // ctx.runtime.nodes))) + "]"
        raise UserError(
            f"{checkpoints} holds step {written['step']} of a training in {processes} processes ({strategy}), which "
            f"cannot go on in {ctx.grant.processes} with runtime.strategy={ctx.runtime.strategy}\n"
            f"  go on with as many GPUs (runtime.devices={devices}) and runtime.strategy={strategy}, or remove "
            f"{checkpoints} to start the training again"
        )
