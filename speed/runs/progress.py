"""Progress for the person at the terminal: a bar a stage where there is a terminal, lines in a log file otherwise."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from speed.core.escape import escape
from speed.core.spec import Json


class Screen:
    """Shows events; a context manager, since a live display must be taken down."""

    def __init__(self) -> None:
        self.live = sys.stderr.isatty()
        self.started: dict[str, float] = {}
        self.first: dict[tuple[str, str], tuple[float, int]] = {}
        """Label and unit -> when its first progress was reported, and how much was done then: rates leave out what came
        before (imports, loading, rows read before steps, what an interrupted build had done)."""
        self.said: dict[str, float] = {}
        self.spent: dict[str, float | None] = {}
        self.begun = time.monotonic()
        self.bars: Any = None
        self.tasks: dict[str, Any] = {}

    def __enter__(self) -> Screen:
        if self.live:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )

            self.bars = Progress(
                TextColumn("{task.description:22}"),
                BarColumn(bar_width=28),
                MofNCompleteColumn(),
                TextColumn("{task.fields[unit]:>11}"),
                TextColumn("{task.fields[rate]:>12}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[figures]}", markup=False),
                console=Console(stderr=True),
            )
            self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bars is not None:
            self.bars.stop()

    def show(self, label: str, event: dict[str, Json]) -> None:
        """One event of one stage."""
        now = time.monotonic()
        name = event["event"]
        if name == "start":
            self.started[label] = now
            if self.bars is not None:
                self.tasks[label] = self.bars.add_task(label, total=None, unit="", rate="", figures="")
        elif name == "progress":
            self._progress(label, event, now)
        elif name == "done":
            seconds = now - self.started.get(label, now)
            if self.bars is None:
                self._line(f"{label}: done in {seconds:.1f} s")
            elif label in self.tasks:
                task = self.bars.tasks[self.tasks[label]]
                end = task.total or 1
                self.bars.update(self.tasks[label], total=end, completed=end)
        elif name in ("say", "corrupt"):
            self._line(f"{label}: {event['message']}")
        elif name == "alert":
            self._line(f"ALERT {label}: {event['message']}")

    def _progress(self, label: str, event: dict[str, Json], now: float) -> None:
        done, total = event["done"], event["total"]
        work = (label, event["unit"])
        began, before = self.first.setdefault(work, (now, done))
        if done < before:  # the next gap of a pool that is built in several
            began, before = self.first[work] = (now, done)
        speed = (done - before) / (now - began) if now > began and done > before else None
        rate = "" if speed is None else f"{speed:,.1f}/s" if speed >= 0.1 else f"{1 / speed:,.0f} s each"
        self.spent[label] = event.get("dollars")
        figures = " ".join(f"{key} {value:.4g}" for key, value in event["figures"].items())
        cost = self._cost()
        if self.bars is not None and label in self.tasks:
            self.bars.update(
                self.tasks[label], completed=done, total=total or None, unit=event["unit"], rate=rate,
                figures=f"{figures} {cost}".strip(),
            )  # fmt: skip
        elif self.bars is None and now - self.said.get(label, 0.0) > 5.0:
            self.said[label] = now
            left = f"{(total - done) / speed:,.0f} s left" if speed and done < total else ""
            whole = f" of {total:,}" if total else ""
            line = ", ".join(part for part in (f"{done:,}{whole} {event['unit']}", rate, left) if part)
            self._line(f"{label}: {line} {figures} {cost}".rstrip())

    def _cost(self) -> str:
        known = [value for value in self.spent.values() if value is not None]
        return f"spent ${sum(known):.2f}" if any(known) else ""

    def _line(self, text: str) -> None:
        text = escape(text)  # messages may quote a provider
        if self.bars is not None:
            self.bars.console.print(text, markup=False, highlight=False)
        else:
            print(f"[{time.monotonic() - self.begun:6.1f} s] {text}", file=sys.stderr, flush=True)
