"""SIGTERM as a wish: a training saves a checkpoint and ends. Nodes that may be taken away send it (spot nodes, Slurm).

Ranks share the wish through a file, since all of them must stop at the same step, whichever was told.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class Stop:
    """Whether the end was asked for: by SIGTERM in this process, or by a file that others can write."""

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self.told = False

    @property
    def wanted(self) -> bool:
        """True once the end was asked for."""
        return self.told or (self.file is not None and self.file.exists())

    def ask(self, *signal_and_frame: object) -> None:
        """Ask for the end."""
        self.told = True
        if self.file is not None:
            with suppress(OSError):  # nobody reads it any more
                self.file.touch()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGTERM as the wish to end, while inside; elsewhere than in the main thread nothing changes."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, self.ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)
