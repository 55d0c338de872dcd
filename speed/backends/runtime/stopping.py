"""Turn SIGTERM into a checkpoint-and-exit request; spot nodes and Slurm send it before they take a machine away.

Ranks share the request through a file: all of them must stop at the same step, whichever got the signal.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class Stop:
    """Whether a stop was requested: by SIGTERM in this process, or by a file that other processes can create."""

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self.signalled = False

    @property
    def wanted(self) -> bool:
        """True once a stop was requested."""
        return self.signalled or (self.file is not None and self.file.exists())

    def ask(self, *signal_and_frame: object) -> None:
        """Request a stop."""
        self.signalled = True
        if self.file is not None:
            with suppress(OSError):  # the folder is removed when the job has ended
                self.file.touch()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGTERM as a request inside the block. Only the main thread can; in others nothing changes."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, self.ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)
