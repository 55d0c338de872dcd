"""No tracker: the run's folder holds all figures anyway."""

from __future__ import annotations

from collections.abc import Callable

from speed.core.spec import Json
from speed.ports import Follower, TrackedRun, Tracker


class NoTracker(Tracker):
    """Writes nothing."""

    def follow(self, run: TrackedRun) -> Follower:
        """Follow nothing."""
        return _Nobody()


class _Nobody(Follower):
    def event(self, label: str, event: dict[str, Json]) -> None:
        """Leave it."""

    def records(self, label: str, read: Callable[[], list[dict[str, Json]]]) -> None:
        """Leave them."""

    def finish(self) -> None:
        """Nothing is waiting."""

    def fail(self) -> None:
        """Nothing is waiting."""

    def leave(self) -> None:
        """Nothing is waiting."""
