"""The machine that is measured: its device, its clock, its memory, its peak."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any, NamedTuple

import torch

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""bf16 operations a second without sparsity, by a part of the card's name (data sheets)."""
GIGABYTE = 1024**3


class Machine(NamedTuple):
    """Where a part runs."""

    device: str
    """`cuda` or `cpu`."""
    tiny: bool
    """Tiny shapes, which show that the parts work and measure nothing."""

    @classmethod
    def here(cls, tiny: bool) -> Machine:
        """This machine; tiny shapes where it has no GPU."""
        gpu = torch.cuda.is_available() and not tiny
        return cls("cuda" if gpu else "cpu", not gpu)

    @property
    def name(self) -> str:
        """Of the card."""
        return torch.cuda.get_device_name() if self.device == "cuda" else "CPU, tiny shapes"

    @property
    def peak(self) -> float | None:
        """Operations a second by the data sheet; None where it is not known."""
        return next((peak for card, peak in PEAKS.items() if card in self.name), None)

    @property
    def gigabytes(self) -> float:
        """Memory of the card; on a CPU as much as any card has."""
        return torch.cuda.get_device_properties(0).total_memory / GIGABYTE if self.device == "cuda" else 80.0

    def facts(self) -> dict[str, Any]:
        """What every figure belongs to."""
        versions = {}
        for package in PACKAGES:
            try:
                versions[package] = metadata.version(package)
            except metadata.PackageNotFoundError:
                versions[package] = "missing"
        when = time.strftime("%Y-%m-%d %H:%M")
        python = ".".join(map(str, sys.version_info[:3]))
        return {"card": self.name, "card_gb": self.gigabytes, "when": when, "python": python, "versions": versions}

    def sync(self) -> None:
        """Wait until the device has done what it was given."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def release(self) -> None:
        """Give free memory back, and count peaks anew."""
        if self.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak_gb(self) -> float | None:
        """Most memory of tensors since the last `release`; None on a CPU."""
        return torch.cuda.max_memory_allocated() / GIGABYTE if self.device == "cuda" else None

    def reserved_gb(self) -> float | None:
        """The same with what the allocator holds beside them."""
        return torch.cuda.max_memory_reserved() / GIGABYTE if self.device == "cuda" else None

    def memory(self, estimate: float) -> dict[str, Any]:
        """Peak memory beside an estimate in bytes (of tensors: without the driver's share)."""
        peak = self.peak_gb()
        found = {"peak_gb": peak, "reserved_gb": self.reserved_gb(), "estimate_gb": estimate / GIGABYTE}
        return found | {"peak_over_estimate": None if peak is None else peak * GIGABYTE / estimate}

    def seconds(self, work: Callable[[], Any]) -> float:
        """Time of one call, until the device is done."""
        self.sync()
        begun = time.perf_counter()
        work()
        self.sync()
        return time.perf_counter() - begun

    def utilisation(self, operations: float, seconds: float) -> dict[str, Any]:
        """Operations a second, and their share of the card's peak."""
        rate = operations / seconds
        return {"tflops": rate / 1e12, "of_peak": rate / self.peak if self.peak else None}
