"""The most memory that this process has taken so far, on the device that it computes on."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from speed.core.machine import GIGABYTE


def peak_gigabytes(device: str) -> float:
    """GB at the peak: of the GPU, with the driver's share of it, since the last `forget_peak`; or of the process.

    Args:
        device: `cuda` or `cpu`.
    """
    if device != "cpu":
        import torch

        free, whole = torch.cuda.mem_get_info()
        beside = whole - free - torch.cuda.memory_reserved()
        return float(beside + torch.cuda.max_memory_reserved()) / GIGABYTE
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024**2
    except (OSError, ValueError, IndexError):  # no Linux; there it would begin with the parent's
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIGABYTE


def forget_peak(device: str) -> None:
    """Count a GPU's peak from now on; a process's cannot be forgotten."""
    if device != "cpu":
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def finish_computing(device: str) -> None:
    """Wait for what a GPU still computes, so that clocks tell the truth."""
    if device != "cpu":
        import torch

        torch.cuda.synchronize()
