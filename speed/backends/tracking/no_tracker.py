"""No tracker: the run's own folder is the record."""

from __future__ import annotations

from pathlib import Path

from speed.ports import Tracker


class NoTracker(Tracker):
    """Writes nothing."""

    def mirror(self, run: Path, runtime_dir: Path) -> None:
        """Nothing to do."""
