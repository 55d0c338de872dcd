"""Checkpoints of a training on disk: which one is whole, and which processes it belongs to."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from speed.core.errors import UserError
from speed.runtime import Runtime

CHECKPOINTS = "checkpoints"
WHOLE = "whole.json"
"""Written into a checkpoint after everything else; a checkpoint without it was cut short and is never used."""


def seal(checkpoints: Path, step: int, runtime: Runtime) -> None:
    """Say that the checkpoint of `step` is whole, and by whom it was written; the ones before it go."""
    newest = checkpoints / f"checkpoint-{step}"
    spread = {"processes": runtime.processes, "strategy": runtime.strategy}
    (newest / WHOLE).write_text(json.dumps({"step": step, **spread}))
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


def refuse_another_spread(checkpoints: Path, runtime: Runtime) -> None:
    """A checkpoint holds one state of random numbers (with ZeRO-3, one part of the optimizer) a process.

    Raises:
        UserError: when it was written by other processes than are there now.
    """
    newest = last_whole(checkpoints)
    if newest is None:
        return
    written = json.loads((newest / WHOLE).read_text())
    processes, strategy = written.get("processes", 1), written.get("strategy", "ddp")
    if (processes, strategy) != (runtime.processes, runtime.strategy):
        raise UserError(
            f"this training stands at step {written['step']} of {processes} processes ({strategy}), and "
            f"runtime.processes={runtime.processes} runtime.strategy={runtime.strategy} is another\n"
            f"  go on with runtime.processes={processes} runtime.strategy={strategy}, or start it again by removing "
            f"{checkpoints}"
        )
