"""No tracker: the run's folder holds all figures anyway."""

from __future__ import annotations

from pathlib import Path

from speed.ports import Tracker


class NoTracker(Tracker):
    """Writes nothing."""

    def mirror(self, run: Path, runtime_dir: Path) -> None:
        """Do nothing."""
