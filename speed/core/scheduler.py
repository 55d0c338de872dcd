"""Building many goals: independent ones side by side, each in a process of its own, and blocks of one pool side by side
where nothing else waits for the room.

A stage's process is forked from a server that has imported the heavy packages once; leaving the process frees its
memory before the next stage needs it. A damaged artifact that a stage meets is set aside and built again.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from filelock import BaseFileLock

from speed.core.build import outcome
from speed.core.errors import StoreError, UserError
from speed.core.graph import Goal, stage_statuses
from speed.core.manifest import Maker, maker
from speed.core.spec import Json
from speed.core.stage import BuildSettings, Pool
from speed.core.store import Span, Store

Listener = Callable[[str, dict[str, Json]], None]
"""Receives (label of the goal, event)."""


class StageFailed(Exception):
    """A stage ended in a way that is not the user's mistake; its log has the traceback."""


def build_all(
    order: list[Goal], store: Store, runtime: BuildSettings, listen: Listener, logs: Path, preload: tuple[str, ...] = ()
) -> None:
    """Build the missing goals, independent ones side by side; `preload` names modules worth importing once.

    Raises:
        UserError: a mistake that a stage met. StageFailed: a crash. KeyboardInterrupt: passed on, children ended.
    """
    built = _built(order, store)
    todo = [goal for goal in order if goal.key not in built]
    packages = sorted({package for goal in todo for package in goal.node.heavy})
    scheduler = _Scheduler(store, runtime, logs, ("speed.core.scheduler", *preload, *packages))
    repairs = 0
    try:
        while len(built) < len(order) or scheduler.running:
            waiting = [goal for goal in order if goal.key not in built and not scheduler.has(goal)]
            ready = [goal for goal in waiting if all(key in built for key in goal.after)]
            for place, goal in enumerate(ready):
                room = max(1, runtime.side_by_side) - len(scheduler.running)
                if scheduler.ended or room < 1:
                    break
                if goal.node.alone(runtime) and any(part.goal.node.alone(runtime) for part in scheduler.running):
                    continue
                listen(goal.label, {"event": "start", "rows": goal.rows})
                scheduler.start(goal, listen, room - len(ready[place + 1 :]))
            for goal, event in scheduler.events():
                listen(goal.label, event)
                if event["event"] == "done":
                    built.add(goal.key)
                elif event["event"] == "user_error":
                    kind = StoreError if event.get("store") else UserError
                    raise kind(f"{goal.label}: {event['message']}")
                elif event["event"] == "crash":
                    where = f"\n  log: {event['log']}" if "log" in event else ""
                    raise StageFailed(f"{goal.label} failed: {event['message']}{where}")
                elif event["event"] == "corrupt":
                    repairs += 1
                    if repairs > 100:
                        raise StageFailed(f"the store is damaged again and again: {event['message']}")
                    if Path(event["path"]).exists():
                        store.set_aside(Path(event["path"]))
                    built = _built(order, store)
    finally:
        scheduler.close()


def _built(order: list[Goal], store: Store) -> set[str]:
    return {status.goal.key for status in stage_statuses(order, store) if status.state == "hit"}


@dataclass
class _Part:
    """A goal, or some spans of a pool, in a process of its own."""

    goal: Goal
    process: Any
    news: Connection
    log: Path
    rows: int = 0
    """Of its spans, where the pool is built in parts."""
    done: int = 0


@dataclass
class _Shared:
    """A pool that is built in parts."""

    lock: BaseFileLock
    rows: int
    done: int = 0
    """Rows of parts that have ended."""
    broken: bool = False
    """A part has ended in another way than done: what is missing is built again."""


_LAST = ("done", "user_error", "crash", "corrupt")
"""Events after which a child says nothing more."""


class _Scheduler:
    """Child processes, forked from a server that imported the heavy packages: one a goal, or several for a pool of
    which blocks can be built side by side."""

    def __init__(self, store: Store, runtime: BuildSettings, logs: Path, preload: tuple[str, ...]) -> None:
        self.store, self.runtime, self.logs = store, runtime, logs
        self.running: list[_Part] = []
        self.shared: dict[str, _Shared] = {}
        """The pools that are built in parts, by key."""
        self.ended: list[tuple[Goal, dict[str, Json]]] = []
        self.made_by = maker()
        logs.mkdir(parents=True, exist_ok=True)
        for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[variable] = str(runtime.threads)
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(list(preload))

    def has(self, goal: Goal) -> bool:
        """Whether a goal is being built, or has just ended."""
        return bool(self._parts(goal)) or any(goal.key == other.key for other, _ in self.ended)

    def _parts(self, goal: Goal) -> list[_Part]:
        return [part for part in self.running if part.goal.key == goal.key]

    def start(self, goal: Goal, listen: Listener, room: int) -> None:
        """Build a goal in up to `room` processes; or here when it needs no heavy package, so that its mistakes are told
        before any is imported."""
        if not goal.node.heavy:
            send = partial(listen, goal.label)
            self.ended.append((goal, outcome(goal, self.store, self.runtime, send, self.made_by)))
            return
        for number, spans in enumerate(self._shares(goal, room) or [None]):
            here, there = self.context.Pipe(duplex=False)
            log = self.logs / _log_name(goal, number)
            arguments = (goal, self.store, self.runtime, there, log, self.made_by, spans)
            child = self.context.Process(target=_child, args=arguments, daemon=True)
            child.start()
            there.close()
            rows = sum(span.stop - span.start for span in spans or ())
            self.running.append(_Part(goal, child, here, log, rows))

    def _shares(self, goal: Goal, room: int) -> list[list[Span]]:
        """What each of several processes builds of a pool; nothing where one process is to build all."""
        pool = goal.node
        if room < 2 or not isinstance(pool, Pool) or not pool.divisible(self.runtime):
            return []
        lock = self.store.try_lock(pool)
        if lock is None:  # another run builds it: one child waits for that
            return []
        blocks = [
            Span(start, min(start + pool.block, gap.stop))
            for gap in self.store.missing(pool, goal.rows)
            for start in range(gap.start, gap.stop, pool.block)
        ]
        parts = min(room, len(blocks))
        if parts < 2:
            lock.release()
            return []
        self.shared[goal.key] = _Shared(lock, sum(block.stop - block.start for block in blocks))
        cuts = [len(blocks) * number // parts for number in range(parts + 1)]
        return [_joined(blocks[start:stop]) for start, stop in pairwise(cuts)]

    def events(self) -> Iterator[tuple[Goal, dict[str, Json]]]:
        """Wait for news; a child that died without a word is a crash."""
        yield from self.ended
        self.ended.clear()
        if not self.running:
            return
        for connection in wait([part.news for part in self.running]):
            part = next(part for part in self.running if part.news is connection)
            try:
                event = json.loads(part.news.recv_bytes())
            except EOFError:
                part.process.join()
                event = {"event": "crash", "message": f"its process ended with code {part.process.exitcode}"}
            if event["event"] in _LAST:
                event["log"] = str(part.log)
                part.process.join()
                part.news.close()
                self.running.remove(part)
            if part.goal.key in self.shared:
                event = self._of_all(part, event)
            if event is not None:
                yield part.goal, event

    def _of_all(self, part: _Part, event: dict[str, Json]) -> dict[str, Json] | None:
        """What an event of one part means for the whole pool, which is done when its last part is."""
        shared, others = self.shared[part.goal.key], self._parts(part.goal)
        if event["event"] == "progress":
            part.done = event["done"]
            return {**event, "done": shared.done + sum(other.done for other in others), "total": shared.rows}
        if event["event"] in _LAST:
            shared.done += part.rows
            shared.broken = shared.broken or event["event"] != "done"
            if not others:
                self.shared.pop(part.goal.key).lock.release()
        return None if event["event"] == "done" and (others or shared.broken) else event

    def close(self) -> None:
        """End what still runs. A training answers by saving a checkpoint, for which there is some time."""
        for part in self.running:
            part.process.terminate()
        deadline = time.monotonic() + self.runtime.grace_seconds
        try:
            for part in self.running:
                part.process.join(max(0.0, deadline - time.monotonic()))
        finally:  # time is up, or Ctrl-C was pressed again
            for part in self.running:
                part.process.kill()
                part.process.join(5)
                part.news.close()
            self.running.clear()
            for shared in self.shared.values():
                shared.lock.release()


def _joined(blocks: list[Span]) -> list[Span]:
    """Neighbouring blocks as one span."""
    found: list[Span] = []
    for block in blocks:
        if found and found[-1].stop == block.start:
            found[-1] = Span(found[-1].start, block.stop)
        else:
            found.append(block)
    return found


def _log_name(goal: Goal, part: int = 0) -> str:
    name = goal.label.replace(" ", "-").replace(":", "-")
    return f"{name}.log" if part == 0 else f"{name}-{part + 1}.log"


def _child(
    goal: Goal,
    store: Store,
    runtime: BuildSettings,
    parent: Connection,
    log: Path,
    made_by: Maker,
    spans: Sequence[Span] | None,
) -> None:
    """Body of a stage's process: everything it prints goes to its log, what it has to say goes up the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_die_with_parent, daemon=True).start()
    with log.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    lock = threading.Lock()

    def send(event: dict[str, Json]) -> None:
        with lock, suppress(BrokenPipeError):
            parent.send_bytes(json.dumps(event, default=float).encode())

    send(outcome(goal, store, runtime, send, made_by, spans))
    parent.close()


def _die_with_parent() -> None:
    """A stage must not outlive the run that started it, whatever killed the run."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
