"""Steps of a training's probe, and how the process that takes them leaves what they took."""

from __future__ import annotations

from speed.backends.runtime.peak_memory import peak_gigabytes
from speed.data.costs.loads import Measured
from speed.runtime import Context

STEPS = 3
"""The first, in which kernels and optimizer states are made, is not timed."""
_MEASURED = "measured"
"""Among the metrics of a build, which come back from a training's own processes."""


def leave(device: str, tokens_per_second: float, ctx: Context) -> None:
    """Leave memory, as it is now at its peak, and speed."""
    ctx.tally.metrics[_MEASURED] = {"gigabytes": peak_gigabytes(device), "tokens_per_second": tokens_per_second}


def left(ctx: Context) -> Measured:
    """What the steps took, with the settings that `auto` chose and what was halved for memory."""
    found = ctx.tally.metrics
    return Measured(**found[_MEASURED], settings=found.get("auto", ""), cut=found.get("at_once", ""))
