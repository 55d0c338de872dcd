"""A machine on which more than so much at once runs out of memory, for trainings and encodings on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch


class Machine:
    """It counts what it refuses, and keeps every gradient that a step takes."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.refused = 0
        self.training = True
        """Whether it is small for trainings, or for what only reads a model."""
        self.gradients: list[torch.Tensor] = []


def small_machine(monkeypatch: pytest.MonkeyPatch, size: Callable[[torch.Tensor], int]) -> Machine:
    """A machine that has room for everything until `most` is set; `size` is what counts of a batch of token ids."""
    made = Machine(10**9)
    look_up, clip = torch.nn.Embedding.forward, torch.nn.utils.clip_grad_norm_

    def watched(self: Any, ids: torch.Tensor) -> Any:
        if size(ids) > made.most and self.training == made.training:
            made.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return look_up(self, ids)

    def clipped(weights: Any, *rest: Any, **more: Any) -> Any:
        weights = list(weights)
        made.gradients.append(torch.cat([weight.grad.flatten() for weight in weights if weight.grad is not None]))
        return clip(weights, *rest, **more)

    monkeypatch.setattr(torch.nn.Embedding, "forward", watched)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clipped)
    return made


def said(ctx: Any) -> list[str]:
    """What a stage has told."""
    return [event["message"] for event in ctx.events if event["event"] == "say"]
