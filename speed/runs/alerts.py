"""What one wants to be woken for: a stage that stands still, many more rejections than at first, or more money than
was planned.

An alert is an event like others: it goes to the screen, the log, the status and the tracker, and stops nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import sqrt

from speed.core.spec import Json
from speed.runs.tables import money

Say = Callable[[str, str], None]
"""Receives (label of the stage, message)."""

STILL_SECONDS = 900.0
"""Shortest time without an event that is worth waking somebody for."""
STILL_GAPS = 10.0
"""A stage whose events come seldom stands still after so many of its longest gaps."""
LOOK_SECONDS = 30.0
FIRST_ROWS = 1000
"""Rows from which the usual share of rejections is taken, and rows of each later look at it."""
MORE_REJECTED, ERRORS = 0.05, 5.0
"""More rejections: by so much of all rows, and by so many standard errors."""
OVER_PLAN = 1.25
JUDGED_FROM = 100
"""Rows (or a twentieth of all) that must be paid before the price of all is foreseen from them."""


@dataclass
class _Seen:
    """What is known of one stage."""

    last: float
    gap: float = 0.0
    still: bool = False
    first: list[int] = field(default_factory=lambda: [0, 0])
    """Rejected rows and all rows, of the first thousand."""
    later: list[int] = field(default_factory=lambda: [0, 0])
    """The same since the last look."""
    began: tuple[int, float] | None = None
    """Rows and dollars of the first progress."""
    told: set[str] = field(default_factory=set)


class Alerts:
    """Watches the events of a run's stages."""

    def __init__(
        self, planned: Mapping[str, float | None], say: Say, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """
        Args:
            planned: dollars that each stage was planned to cost; None where a price is unknown.
        """
        self.planned, self.say, self.clock = planned, say, clock
        self.stages: dict[str, _Seen] = {}

    def see(self, label: str, event: Mapping[str, Json]) -> None:
        """Look at one event of a stage."""
        now = self.clock()
        if event["event"] == "alert":
            return
        if event["event"] in ("done", "later", "user_error", "crash", "corrupt"):
            self.stages.pop(label, None)
            return
        if event["event"] == "say" and label not in self.stages:  # it says what it waits for
            return
        seen = self.stages.setdefault(label, _Seen(last=now))
        seen.gap, seen.last, seen.still = max(seen.gap, now - seen.last), now, False
        if event["event"] == "shard":
            self._see_rejections(label, seen, event["rejected"], event["stop"] - event["start"])
        if event["event"] == "progress":
            self._see_spending(label, seen, event["done"], event["total"], event["dollars"])

    def look(self) -> None:
        """Look for stages that stand still."""
        now = self.clock()
        for label, seen in list(self.stages.items()):
            quiet = now - seen.last
            if not seen.still and quiet >= max(STILL_SECONDS, STILL_GAPS * seen.gap):
                seen.still = True
                self.say(label, f"nothing has happened for {quiet / 60:,.0f} minutes; its log is in the run's folder")

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Look every half minute, in a thread."""
        over = threading.Event()

        def look() -> None:
            while not over.wait(LOOK_SECONDS):
                self.look()

        thread = threading.Thread(target=look, name="alerts", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _see_rejections(self, label: str, seen: _Seen, rejected: int, rows: int) -> None:
        counts = seen.first if seen.first[1] < FIRST_ROWS else seen.later
        counts[0] += rejected
        counts[1] += rows
        if counts is seen.first or counts[1] < FIRST_ROWS:
            return
        (few, before), (many, since) = seen.first, seen.later
        usual, now, both = few / before, many / since, (few + many) / (before + since)
        error = sqrt(both * (1 - both) * (1 / before + 1 / since))
        if now - usual > max(MORE_REJECTED, ERRORS * error):
            told = f"{now:.0%} of its last {since:,} rows are rejected, and {usual:.0%} of its first {before:,} were"
            self._once(label, seen, "rejections", told)
        seen.later = [0, 0]

    def _see_spending(self, label: str, seen: _Seen, done: int, total: int, dollars: float | None) -> None:
        planned = self.planned.get(label)
        if dollars is None or not planned:
            return
        if seen.began is None:
            seen.began = (done, dollars)
        rows, paid = done - seen.began[0], dollars - seen.began[1]
        foreseen = paid
        if rows >= max(JUDGED_FROM, total / 20):
            foreseen = paid * (total - seen.began[0]) / rows
        if max(foreseen, paid) > OVER_PLAN * planned:
            foreseen = max(foreseen, paid)
            told = f"it has cost {money(paid)} and will cost about {money(foreseen)}; planned were {money(planned)}"
            self._once(label, seen, "spending", told)

    def _once(self, label: str, seen: _Seen, what: str, message: str) -> None:
        if what not in seen.told:
            seen.told.add(what)
            self.say(label, message)
