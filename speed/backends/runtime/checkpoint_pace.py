"""When a training writes its next checkpoint, and whether the one before may stay beside it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

SHARE = 0.05
"""Most of a training's time that its checkpoints take, the one that a request to end asks for aside."""
WRITTEN = 1e9
"""Bytes a second that a disk is taken to write, for the first checkpoint alone."""
ROOM = 1.1
"""Times the size of the last checkpoint that the next one may need."""


class CheckpointPace:
    """Measures how long checkpoints take to write: the next one waits until the last has cost its share."""

    def __init__(self, seconds: float, expected: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin to count.

        Args:
            seconds: that lie between two checkpoints at least; 0 has one written after each step, whatever it costs.
            expected: bytes of a checkpoint, about.
        """
        self.seconds, self.clock = seconds, clock
        self.took = expected / WRITTEN
        """Seconds that the last checkpoint took to write."""
        self.since = self.begun = clock()
        self._told = False

    @property
    def between(self) -> float:
        """Seconds from the end of one checkpoint to the beginning of the next, at least."""
        return max(self.seconds, self.took * (1 / SHARE - 1)) if self.seconds else 0.0

    @property
    def due(self) -> bool:
        """Whether the next checkpoint is to be written."""
        return self.clock() - self.since >= self.between

    def begin(self) -> None:
        """A checkpoint is about to be written."""
        self.begun = self.clock()

    def end(self) -> str:
        """It is written; returns what to say, once, where it took so long that they become rarer."""
        self.since = self.clock()
        self.took = self.since - self.begun
        if self._told or self.between <= self.seconds:
            return ""
        self._told = True
        return (
            f"a checkpoint takes {self.took:.0f} s to write, so {self.between:.0f} s lie between two of them and not "
            f"runtime.checkpoint_seconds={self.seconds:g}: a kill costs as much, and a request to end (SIGTERM) nothing"
        )


def make_room(last: Path | None) -> str:
    """Remove the last checkpoint before the next is written, where the disk does not hold both and would hold the next
    alone; returns what to say."""
    if last is None:
        return ""
    size = sum(file.stat().st_size for file in last.rglob("*") if file.is_file())
    free = shutil.disk_usage(last).free
    if free >= ROOM * size or free + size < ROOM * size:
        return ""
    shutil.rmtree(last)
    return (
        f"the disk has {free / 1e9:.1f} GB left, too little for two checkpoints of {size / 1e9:.1f}: {last.name} was "
        "removed before the next is written, and a kill while it is written costs the training"
    )
