"""Checkpoints of an embedder's training: weights and optimiser in safetensors, the step in JSON. No pickle.

A checkpoint is written aside and renamed, and the one before it is removed after that: a kill at any moment leaves a
whole one. Everything random in a step is a function of (seed, step, chunk), so no generator has to be saved.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from speed.backends.embedder.ranks import Ranks

MOMENTS = ("exp_avg", "exp_avg_sq")


def save(
    folder: Path, step: int, identity: str, weights: dict[str, Tensor], optimizer: Any, scaler: Any, ranks: Ranks
) -> None:
    """Write the state after `step` steps, then remove older checkpoints. Called by all processes; the first writes."""
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    for name, weight in weights.items():
        # no gradient has reached a weight without moments: the pooler of an encoder whose tokens are averaged
        state = {"weight": weight.detach(), **optimizer.state.get(weight, {})}
        for moment, value in state.items():
            gathered = ranks.whole(torch.as_tensor(value))
            if ranks.rank == 0:
                tensors[f"{moment}.{name}"] = gathered.cpu().contiguous()
    if ranks.rank != 0:
        return
    partial = folder / "partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file(tensors, partial / "state.safetensors")
    (partial / "state.json").write_text(json.dumps({"step": step, "identity": identity, "scaler": scaler.state_dict()}))
    whole = folder / f"step-{step:09d}"
    partial.rename(whole)
    for older in sorted(folder.glob("step-*"))[:-1]:
        shutil.rmtree(older)


def last_checkpoint(folder: Path, identity: str) -> Path | None:
    """The newest checkpoint of the training with this identity; others are left alone."""
    for found in sorted(folder.glob("step-*"), reverse=True):
        try:
            state = json.loads((found / "state.json").read_text())
        except (OSError, ValueError):
            continue
        if state.get("identity") == identity:
            return found
    return None


def restore(checkpoint: Path, weights: dict[str, Tensor], optimizer: Any, scaler: Any, ranks: Ranks) -> int:
    """Put a saved state in place; the number of steps it has behind it. The number of processes may have changed."""
    from safetensors.torch import load_file

    state = json.loads((checkpoint / "state.json").read_text())
    tensors = load_file(checkpoint / "state.safetensors")
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(ranks.part(tensors[f"weight.{name}"], weight))
            if f"step.{name}" not in tensors:
                continue
            # the step counter of a fused optimiser lies beside its weight
            optimizer.state[weight] = {"step": tensors[f"step.{name}"].to(weight.device, copy=True)} | {
                moment: ranks.part(tensors[f"{moment}.{name}"], weight) for moment in MOMENTS
            }
    if state["scaler"]:
        scaler.load_state_dict(state["scaler"])
    return int(state["step"])
