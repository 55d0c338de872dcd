"""The processes of a root that ask one endpoint for one model: they divide `runtime.concurrency` among themselves.

Stages that run side by side, and the points of a sweep, are processes of their own. Each touches a small file beside
the journal while it asks, and counts the files that were touched lately; one that was killed is forgotten in seconds.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path

from speed.core.spec import digest

EVERY = 1.0
"""Seconds between two looks."""
LATELY = 5.0
"""Seconds after which a process that has not touched its file asks no more."""
FOLDER = "asking"


class Neighbours:
    """One endpoint and model, as this process sees it; itself counts while it asks. Thread-safe."""

    def __init__(self, journal: Path, endpoint: str, model: str, process: str = "") -> None:
        self._folder = journal / FOLDER
        self._all = digest([endpoint, model])[:16]
        self._own = self._folder / f"{self._all}-{process or f'{os.uname().nodename}-{os.getpid()}'}"
        self._lock = threading.Lock()
        self._asks = 0
        self._looked = 0.0
        self._count = 1

    def join(self) -> None:
        """One more `ask` of this process begins."""
        with self._lock:
            self._asks += 1
            self._looked = 0.0

    def leave(self) -> None:
        """One of them has ended."""
        with self._lock:
            self._asks -= 1
            if not self._asks:
                with suppress(OSError):
                    self._own.unlink(missing_ok=True)

    def share(self, concurrency: int) -> int:
        """This process's part of the requests in flight, at least 1."""
        with self._lock:
            if self._asks and time.monotonic() - self._looked >= EVERY:
                self._looked = time.monotonic()
                self._count = self._counted()
            return max(1, concurrency // self._count)

    def _counted(self) -> int:
        """Processes that ask. Where no file can be written, this one counts as the only one."""
        count = 0
        try:
            self._folder.mkdir(exist_ok=True)
            self._own.touch()
            now = self._own.stat().st_mtime  # by the clock of the file system
            for path in self._folder.glob(f"{self._all}-*"):
                with suppress(FileNotFoundError):
                    if now - path.stat().st_mtime < LATELY:
                        count += 1
                    else:
                        path.unlink()
        except OSError:
            return 1
        return max(1, count)


_neighbours: dict[tuple[int, Path, str, str], Neighbours] = {}
_making = threading.Lock()


def neighbours_of(journal: Path, endpoint: str, model: str) -> Neighbours:
    """What all stages of this process share for an endpoint and model."""
    with _making:
        place = (os.getpid(), journal.resolve(), endpoint, model)
        return _neighbours.setdefault(place, Neighbours(journal, endpoint, model))
