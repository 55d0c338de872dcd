"""Build many goals, independent ones at the same time, each in a process of its own.

The blocks of one pool are built by several processes where no other goal could use the place. Processes are forked
from servers that have imported the heavy packages once; when a process ends, its memory is free for the next stage. A
damaged artifact that a stage meets is set aside and built again.
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

from speed.core.build import attempt_build
from speed.core.errors import StoreError, UserError
from speed.core.fork_servers import ForkServers
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
        UserError: a mistake that a stage met. StageFailed: a crash. KeyboardInterrupt: passed on, workers ended.
    """
    built = _built(order, store)
    todo = [goal for goal in order if goal.key not in built]
    needs = [goal.node.heavy for goal in todo for _ in range(2 if isinstance(goal.node, Pool) else 1)]
    scheduler = _Scheduler(store, runtime, logs, ForkServers(needs, ("speed.core.scheduler", *preload)))
    repairs = 0
    try:
        while len(built) < len(order) or scheduler.running:
            waiting = [goal for goal in order if goal.key not in built and not scheduler.has(goal)]
            ready = [goal for goal in waiting if all(key in built for key in goal.after)]
            for place, goal in enumerate(ready):
                room = max(1, runtime.side_by_side) - len(scheduler.running)
                if scheduler.built_here or room < 1:
                    break
                if goal.node.alone(runtime) and any(worker.goal.node.alone(runtime) for worker in scheduler.running):
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
class _Worker:
    """A goal, or some spans of a pool, in a process of its own."""

    goal: Goal
    process: Any
    pipe: Connection
    log: Path
    rows: int = 0
    """Of its spans, where several workers build the pool."""
    done: int = 0


@dataclass
class _SplitPool:
    """A pool that several workers build."""

    lock: BaseFileLock
    rows: int
    done: int = 0
    """Rows of workers that have ended."""
    broken: bool = False
    """A worker has ended in another way than `done`: what is missing is built again."""


_FINAL = ("done", "user_error", "crash", "corrupt")
"""Events after which a worker sends no more."""


class _Scheduler:
    """The worker processes: one a goal, or several for a pool whose blocks can be built at the same time."""

    def __init__(self, store: Store, runtime: BuildSettings, logs: Path, servers: ForkServers) -> None:
        self.store, self.runtime, self.logs = store, runtime, logs
        self.running: list[_Worker] = []
        self.split: dict[str, _SplitPool] = {}
        """The pools that several workers build, by key."""
        self.built_here: list[tuple[Goal, dict[str, Json]]] = []
        self.made_by = maker()
        logs.mkdir(parents=True, exist_ok=True)
        for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[variable] = str(runtime.threads)
        self.context = multiprocessing.get_context("forkserver")
        self.servers = servers

    def has(self, goal: Goal) -> bool:
        """Whether a goal is being built, or has just ended."""
        return bool(self._workers(goal)) or any(goal.key == other.key for other, _ in self.built_here)

    def _workers(self, goal: Goal) -> list[_Worker]:
        return [worker for worker in self.running if worker.goal.key == goal.key]

    def start(self, goal: Goal, listen: Listener, room: int) -> None:
        """Build a goal in up to `room` processes; or here when it needs no heavy package, so that the user
        reads of its mistakes before any is imported."""
        if not goal.node.heavy:
            send = partial(listen, goal.label)
            self.built_here.append((goal, attempt_build(goal, self.store, self.runtime, send, self.made_by)))
            return
        for number, spans in enumerate(self._split_spans(goal, room) or [None]):
            here, there = self.context.Pipe(duplex=False)
            log = self.logs / _log_name(goal, number)
            arguments = (goal, self.store, self.runtime, there, log, self.made_by, spans)
            child = self.context.Process(target=_run_worker, args=arguments, daemon=True)
            self.servers.start(child, goal.node.heavy)
            there.close()
            rows = sum(span.stop - span.start for span in spans or ())
            self.running.append(_Worker(goal, child, here, log, rows))

    def _split_spans(self, goal: Goal, room: int) -> list[list[Span]]:
        """What each of several processes builds of a pool; nothing where one process is to build all."""
        pool = goal.node
        if room < 2 or not isinstance(pool, Pool) or not pool.divisible(self.runtime):
            return []
        lock = self.store.try_lock(pool)
        if lock is None:  # another run builds it: one worker waits for that
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
        self.split[goal.key] = _SplitPool(lock, sum(block.stop - block.start for block in blocks))
        cuts = [len(blocks) * number // parts for number in range(parts + 1)]
        return [_join_neighbours(blocks[start:stop]) for start, stop in pairwise(cuts)]

    def events(self) -> Iterator[tuple[Goal, dict[str, Json]]]:
        """Wait for events; a worker that ends without a final one has crashed."""
        yield from self.built_here
        self.built_here.clear()
        if not self.running:
            return
        for connection in wait([worker.pipe for worker in self.running]):
            worker = next(worker for worker in self.running if worker.pipe is connection)
            try:
                event = json.loads(worker.pipe.recv_bytes())
            except EOFError:
                worker.process.join()
                event = {"event": "crash", "message": f"its process ended with code {worker.process.exitcode}"}
            if event["event"] in _FINAL:
                event["log"] = str(worker.log)
                worker.process.join()
                worker.pipe.close()
                self.running.remove(worker)
            if worker.goal.key in self.split:
                event = self._merged(worker, event)
            if event is not None:
                yield worker.goal, event

    def _merged(self, worker: _Worker, event: dict[str, Json]) -> dict[str, Json] | None:
        """What an event of one worker means for the whole pool, which is done when its last worker is."""
        pool, others = self.split[worker.goal.key], self._workers(worker.goal)
        if event["event"] == "progress":
            worker.done = event["done"]
            return {**event, "done": pool.done + sum(other.done for other in others), "total": pool.rows}
        if event["event"] in _FINAL:
            pool.done += worker.rows
            pool.broken = pool.broken or event["event"] != "done"
            if not others:
                self.split.pop(worker.goal.key).lock.release()
        return None if event["event"] == "done" and (others or pool.broken) else event

    def close(self) -> None:
        """End what still runs. A training answers by saving a checkpoint, for which there is some time."""
        for worker in self.running:
            worker.process.terminate()
        deadline = time.monotonic() + self.runtime.grace_seconds
        try:
            for worker in self.running:
                worker.process.join(max(0.0, deadline - time.monotonic()))
        finally:  # time is up, or Ctrl-C was pressed again
            for worker in self.running:
                worker.process.kill()
                worker.process.join(5)
                worker.pipe.close()
            self.running.clear()
            for pool in self.split.values():
                pool.lock.release()


def _join_neighbours(blocks: list[Span]) -> list[Span]:
    """Neighbouring blocks as one span."""
    found: list[Span] = []
    for block in blocks:
        if found and found[-1].stop == block.start:
            found[-1] = Span(found[-1].start, block.stop)
        else:
            found.append(block)
    return found


def _log_name(goal: Goal, worker: int = 0) -> str:
    name = goal.label.replace(" ", "-").replace(":", "-")
    return f"{name}.log" if worker == 0 else f"{name}-{worker + 1}.log"


def _run_worker(
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

    send(attempt_build(goal, store, runtime, send, made_by, spans))
    parent.close()


def _die_with_parent() -> None:
    """A stage must not outlive the run that started it, whatever killed the run."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
