"""Build what is missing of a run, and tell everybody who listens: screen, events, tracker and alerts."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from speed.cluster.ray_cluster import Cluster
from speed.config import Config
from speed.core.build_all import build_all
from speed.core.graph import Goal
from speed.core.spec import Json, Spec
from speed.core.store import Store
from speed.ports import Follower
from speed.runs.alerts import Alerts
from speed.runs.excerpts import excerpts, has_excerpts
from speed.runs.host import Rates
from speed.runs.progress import Screen
from speed.runs.rejections import refuse_nearly_all_rejected
from speed.runs.status import record_events

PRELOAD = ("hydra", "speed.pipeline")
"""Modules that every stage's process needs."""


class Origin(Spec):
    """How a config came about."""

    preset: str
    overrides: tuple[str, ...] = ()
    sweep: str | None = None
    """Name of the sweep that this run is a point of."""


@dataclass(frozen=True)
class Building:
    """A run that is being built."""

    config: Config
    store: Store
    order: list[Goal]
    todo: set[str]
    """Keys of the goals that were missing when it began."""
    folder: Path
    begun: float
    planned: dict[str, float | None]
    """Dollars of each stage, by label."""
    tracked: Follower
    rows: dict[str, float]
    """Records that each stage has still to train on, or texts that it has to write, by label."""
    clock: Callable[[], float] = time.monotonic
    """By which alerts tell that a stage stands still, in seconds."""

    def build(self) -> None:
        """Build what is missing.

        Raises:
            NearlyAllRejected: where a stage that something is still to be built from, now or before, is of no use.
        """
        for goal in self.order:
            if goal.key in self._read - self.todo:
                refuse_nearly_all_rejected(goal, self.store)
            if goal.key not in self.todo and has_excerpts(goal):
                self.tracked.records(goal.label, partial(excerpts, goal, self.store))
        if not self.todo:
            return
        labels = tuple(goal.label for goal in self.order)
        missing = tuple(goal.label for goal in self.order if goal.key in self.todo)
        one_at_a_time = threading.RLock()  # alerts come from a thread of their own
        with (
            Screen() as screen,
            record_events(self.folder, self.config.name, " ".join(sys.argv), labels, missing) as events,
        ):
            rates = Rates(self.store.home, self.rows, {goal.label: goal for goal in self.order})

            def listen(label: str, event: dict[str, Json]) -> None:
                line = {"at": round(time.monotonic() - self.begun, 3), "stage": label, **event}
                with one_at_a_time:
                    events.write(json.dumps(line) + "\n")
                    events.flush()
                    screen.show(label, event)
                    self.tracked.event(label, event)
                    alerts.see(label, event)
                    rates.see(label, event, time.monotonic())
                if event["event"] == "done":
                    self._look_at(label)

            def say(label: str, message: str) -> None:
                listen(label, {"event": "alert", "message": message})

            alerts = Alerts(self.planned, say, self.clock)
            runtime = self.config.runtime
            join = (lambda: Cluster(runtime.address).watch()) if runtime.cluster == "ray" else None
            with alerts.looking():
                build_all(self.order, self.store, runtime, listen, self.folder / "logs", PRELOAD, join)

    @property
    def _read(self) -> set[str]:
        """Keys of what the missing goals are built from."""
        return {key for goal in self.order if goal.key in self.todo for key in goal.after}

    def _look_at(self, label: str) -> None:
        """What is built now is shown, and looked at where something is to be built from it."""
        for goal in self.order:
            if goal.label == label and has_excerpts(goal):
                self.tracked.records(label, partial(excerpts, goal, self.store))
            if goal.label == label and goal.key in self._read & self.todo:
                refuse_nearly_all_rejected(goal, self.store)
