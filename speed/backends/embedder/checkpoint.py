"""Checkpoints of an embedder's training: weights and optimiser in safetensors, the step in JSON. No pickle.

The checkpoint before is removed when the new one is complete: a kill at any moment leaves one. Everything random in a
step is a function of (seed, step, chunk), so no generator has to be saved.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from speed.backends.embedder.ranks import Ranks
from speed.core.cache import write_aside

MOMENTS = ("exp_avg", "exp_avg_sq")


def save(
    folder: Path, step: int, identity: str, weights: dict[str, Tensor], optimizer: Any, scaler: Any, ranks: Ranks
) -> None:
    """Write the state after `step` steps, then remove older checkpoints.

    All processes must call it, since they gather what each of them holds; the first one writes.
    """
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    for name, weight in weights.items():
        # a weight that no gradient reaches has no moments: the pooler of an encoder whose tokens are averaged
        entries = {"weight": weight.detach(), **optimizer.state.get(weight, {})}
        for moment, value in entries.items():
            gathered = ranks.whole(torch.as_tensor(value))
            if ranks.rank == 0:
                tensors[f"{moment}.{name}"] = gathered.cpu().contiguous()
    if ranks.rank != 0:
        return
    state = {"step": step, "identity": identity, "scaler": scaler.state_dict()}
    checkpoint = folder / f"step-{step:09d}"
    with write_aside(checkpoint) as aside:
        aside.mkdir()
        save_file(tensors, aside / "state.safetensors")
        (aside / "state.json").write_text(json.dumps(state))
    for older in folder.glob("step-*"):
        if older != checkpoint:
            shutil.rmtree(older)


def last_checkpoint(folder: Path, identity: str) -> Path | None:
    """The newest checkpoint of the training with this identity; others are left alone."""
    for checkpoint in reversed(complete_checkpoints(folder)):
        try:
            state = json.loads((checkpoint / "state.json").read_text())
        except (OSError, ValueError):
            continue
        if state.get("identity") == identity:
            return checkpoint
    return None


def complete_checkpoints(folder: Path) -> list[Path]:
    """All checkpoints of a folder, the oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.suffix != ".partial")


def restore(checkpoint: Path, weights: dict[str, Tensor], optimizer: Any, scaler: Any, ranks: Ranks) -> int:
    """Load a saved state; returns the steps that were done. The number of processes may have changed since."""
    from safetensors.torch import load_file

    state = json.loads((checkpoint / "state.json").read_text())
    tensors = load_file(checkpoint / "state.safetensors")
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(ranks.part(tensors[f"weight.{name}"], weight))
            if f"step.{name}" not in tensors:
                continue
            # a fused optimiser expects its step counter on the device of the weight
            optimizer.state[weight] = {"step": tensors[f"step.{name}"].to(weight.device, copy=True)} | {
                moment: ranks.part(tensors[f"{moment}.{name}"], weight) for moment in MOMENTS
            }
    if state["scaler"]:
        scaler.load_state_dict(state["scaler"])
    return int(state["step"])
