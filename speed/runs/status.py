"""The status of a run, for another shell: read from its folder alone, whether its process lives or not.

A run writes down who it is (`run.json`) and whatever happens (`events.jsonl`), and holds a lock on its events for as
long as it lives: however it ends, the lock goes with it.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TextIO, TypeAlias

from speed.core.escape import on_one_line
from speed.core.locks import is_owned
from speed.core.spec import Json, Spec
from speed.runs.tables import Table, money

ABOUT, EVENTS = "run.json", "events.jsonl"
First: TypeAlias = dict[str, dict[str, tuple[float, int]]]
"""Label and unit -> when it was first told, and how much was done then: a training counts rows, then steps."""


class About(Spec):
    """Who a run is."""

    name: str
    command: str
    host: str
    pid: int
    begun: float
    """Seconds since the epoch."""
    stages: tuple[str, ...]
    """All boxes of the experiment, upstream first."""
    todo: tuple[str, ...]
    """Those that were not built when it began."""


class Box(Spec):
    """One stage of a run, by its events."""

    state: str = "waiting"
    """`waiting`, `building` or `done`."""
    done: int = 0
    total: int = 0
    unit: str = ""
    rate: float = 0.0
    """Units a second, since the unit was first counted."""
    gpus: tuple[int, ...] = ()
    """Of this machine, that it has run on."""
    machines: tuple[str, ...] = ()
    """Others that have worked for it."""
    calls: int = 0
    dollars: float | None = 0.0

    @property
    def where(self) -> str:
        """The devices that it runs on; empty where nothing has begun."""
        gpus = f"GPU {', '.join(map(str, self.gpus))}" if self.gpus else ""
        return "; ".join([*([gpus] if gpus else []), *self.machines]) or ("cores" if self.state == "building" else "")

    @property
    def left(self) -> str:
        """How long it will still take at its rate."""
        known = self.state == "building" and self.rate and self.done < self.total
        return f"{timedelta(seconds=round((self.total - self.done) / self.rate))}" if known else ""


class Status(Spec):
    """One run."""

    folder: str
    about: About
    state: str
    """`running`, `finished`, or `dead`."""
    seconds: float
    """From its beginning to its last event, or to now while it runs."""
    quiet: float
    """Seconds since the last event."""
    last: str
    """The last event, in words."""
    boxes: dict[str, Box]
    alerts: tuple[str, ...] = ()
    """What its alerts said, first to last."""

    @property
    def calls(self) -> int:
        """Teacher calls so far."""
        return sum(box.calls for box in self.boxes.values())

    @property
    def dollars(self) -> float | None:
        """List price so far; None as soon as one price is unknown."""
        prices = [box.dollars for box in self.boxes.values()]
        return None if None in prices else sum(price or 0.0 for price in prices)


@contextmanager
def record_events(
    folder: Path, name: str, command: str, stages: tuple[str, ...], todo: tuple[str, ...]
) -> Iterator[TextIO]:
    """The file of a run's events, locked while the run lives; who the run is stands beside it."""
    about = About(
        name=name,
        command=command,
        host=socket.gethostname(),
        pid=os.getpid(),
        begun=time.time(),
        stages=stages,
        todo=todo,
    )
    (folder / ABOUT).write_text(about.model_dump_json(indent=1), encoding="utf-8")
    with (folder / EVENTS).open("a", encoding="utf-8") as events:
        with suppress(OSError):  # a file system without locks: the run then looks alive for ever
            fcntl.flock(events, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield events


def runs_to_show(home: Path) -> list[Path]:
    """Folders of the runs that live; where none does, of the last one."""
    found = sorted((path.parent for path in (home / "runs").glob(f"*/*/{ABOUT}")), key=lambda path: path.as_posix())
    living = [folder for folder in found if is_owned(folder / EVENTS)]
    return living or found[-1:]


def status_of(folder: Path) -> Status:
    """How the run in a folder stands."""
    about = About.model_validate_json((folder / ABOUT).read_text(encoding="utf-8"))
    events, alive = folder / EVENTS, is_owned(folder / EVENTS)
    boxes = {label: Box(state="waiting" if label in about.todo else "done") for label in about.stages}
    first: First = {}
    last: dict[str, Json] = {}
    alerts = []
    for event in _events(events):
        label = str(event["stage"])
        if event["event"] == "alert":
            alerts.append(f"{label}: {event['message']}")
            continue
        boxes[label] = _updated_by(boxes.get(label, Box()), event, first)
        last = event
    said = f"{last['stage']}: {_event_text(last)}" if last else "nothing yet"
    now, last_at = time.time(), events.stat().st_mtime if events.exists() else about.begun
    state = "running" if alive else "finished" if (folder / "summary.json").exists() else "dead"
    states = {box.state for box in boxes.values()}
    if state == "dead" and "under way elsewhere" in states and not states & {"building", "failed"}:
        state = "waiting"
    seconds = (now if alive else last_at) - about.begun
    quiet = max(0.0, now - last_at)
    return Status(
        folder=str(folder), about=about, state=state, seconds=seconds, quiet=quiet, last=said, boxes=boxes,
        alerts=tuple(alerts),
    )  # fmt: skip


def status_text(status: Status) -> str:
    """A status in words and columns, for printing."""
    about = status.about
    process = {
        "running": "alive",
        "finished": "ended well",
        "waiting": "ended: the same command takes the answers that are under way elsewhere, and goes on",
        "dead": "dead: the same command goes on from here",
    }
    table = Table("stage", "state", "on", "done", "of", "", "a second", "left", "calls", "dollars")
    for label, box in status.boxes.items():
        known = box.state not in ("waiting", "under way elsewhere") and box.total
        table.add(
            label, box.state, box.where or "-", f"{box.done:,}" if known else "-",
            f"{box.total:,}" if known else "-", box.unit, f"{box.rate:,.1f}" if box.rate else "-", box.left or "-",
            f"{box.calls:,}", money(box.dollars),
        )  # fmt: skip
    lines = [
        f"{about.name}: {status.state}, {status.seconds:,.0f} s",
        f"process {about.pid} on {about.host}: {process[status.state]}",
        f"folder {status.folder}",
        f"command {on_one_line(about.command, 200)}",
        table.text(),
        f"{status.calls:,} teacher calls, {money(status.dollars)} so far",
        f"last event, {status.quiet:,.0f} s ago: {on_one_line(status.last, 200)}",
        *(f"ALERT {on_one_line(alert, 200)}" for alert in status.alerts),
    ]
    return "\n".join(lines)


def _events(path: Path) -> Iterator[dict[str, Json]]:
    """Whole lines; the last one may be half written."""
    if path.exists():
        with path.open(encoding="utf-8") as file:
            for line in file:
                with suppress(ValueError):
                    yield json.loads(line)


def _updated_by(box: Box, event: dict[str, Json], first: First) -> Box:
    """A stage after one more of its events."""
    name, label, at = event["event"], str(event["stage"]), float(event["at"])
    if name == "start":
        first.pop(label, None)
        return box.model_copy(update={"state": "building", "gpus": (), "machines": ()})
    if name == "say" and "gpus" in event:
        gpus, machines = {*box.gpus, *event["gpus"]}, dict.fromkeys([*box.machines, *event["machines"]])
        return box.model_copy(update={"gpus": tuple(sorted(gpus)), "machines": tuple(machines)})
    if name == "done":
        return box.model_copy(update={"state": "done", "done": box.total})
    if name == "later":
        return box.model_copy(update={"state": "under way elsewhere"})
    if name in ("user_error", "crash", "corrupt"):
        return box.model_copy(update={"state": "failed"})
    if name == "shard":
        return box.model_copy(update={"calls": event["calls"], "dollars": event["dollars"]})
    if name != "progress":
        return box
    done, units = event["done"], first.setdefault(label, {})
    begun, before = units.setdefault(event["unit"], (at, done))
    if done < before:  # the next gap of a pool that is built in several
        begun, before = units[event["unit"]] = (at, done)
    rate = (done - before) / (at - begun) if at > begun else 0.0
    facts: dict[str, Json] = {"state": "building", "rate": rate}
    for known in ("done", "total", "unit", "calls", "dollars"):
        facts[known] = event[known]
    return box.model_copy(update=facts)


def _event_text(event: dict[str, Json]) -> str:
    name = str(event["event"])
    if name == "progress":
        return f"{event['done']:,} of {event['total']:,} {event['unit']}"
    if name == "shard":
        return f"rows {event['start']:,} to {event['stop']:,} are built"
    return str(event.get("message", name))
