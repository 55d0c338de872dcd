"""Dropout whose draws cost little on cores."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

VALUES = 1 << 16
"""Of a draw: a rate is exact to one of so many."""


class CheapDropout(torch.nn.Module):
    """`torch.nn.Dropout`, with four draws from each random number of 64 bits.

    PyTorch takes one random number for each entry, on cores one after the other: a LoRA step of SmolLM2-135M takes
    1.2 to 1.4 times as long by it (`tests/bench/lora_step.py`).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = round(rate * VALUES) / VALUES

    def forward(self, entries: Tensor) -> Tensor:
        """Entries of any shape; in training each is zero with probability `rate`, or divided by what remains."""
        if not self.training or not self.rate:
            return entries
        numbers = torch.empty(-(-entries.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        draws = numbers.view(torch.int16)[: entries.numel()].view(entries.shape)
        kept = torch.empty(entries.shape, dtype=entries.dtype)  # of 0 and 1: half the time of a Boolean one
        torch.ge(draws, round(self.rate * VALUES) - VALUES // 2, out=kept)
        return entries * kept.mul_(1 / (1 - self.rate))


def cheap_dropout(model: Any) -> None:
    """Replace every `torch.nn.Dropout` in front of an adapter."""
    for module in model.modules():
        for name, each in getattr(module, "lora_dropout", {}).items():
            if isinstance(each, torch.nn.Dropout):
                module.lora_dropout[name] = CheapDropout(each.p)
