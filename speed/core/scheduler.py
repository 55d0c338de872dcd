"""Build many goals, independent ones at the same time, each in a process of its own that sees its devices alone.

The blocks of a pool are built by as many workers as there is room for: each takes the next block when it has finished
one. A worker that dies is replaced, and its block is done again. Processes are forked from servers that have imported
the heavy packages once; when a process ends, its memory is free for the next stage. A damaged artifact that a stage
meets is set aside and built again.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from math import inf
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from speed.core.allocation import Grant, Ready, most_of, next_starts
from speed.core.build import attempt_build, plan_shares
from speed.core.build_settings import BuildSettings
from speed.core.errors import StoreError, UserError
from speed.core.fork_servers import ForkServers
from speed.core.graph import Goal, stage_statuses
from speed.core.machine import gpus, memory_gigabytes
from speed.core.manifest import maker
from speed.core.spec import Json
from speed.core.stage import Pool
from speed.core.store import Span, Store
from speed.core.worker import Blocks, Worker, run_worker

Listener = Callable[[str, dict[str, Json]], None]
"""Receives (label of the goal, event)."""

TRIES = 3
"""Deaths of workers on one block after which the pool has failed."""
DEATHS = 2
"""Deaths of workers in a row, without a block done, after which a device is lost."""


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
    scheduler = _Scheduler(order, store, runtime, logs, ForkServers(needs, ("speed.core.scheduler", *preload)))
    repairs = 0
    try:
        while len(built) < len(order) or scheduler.running:
            waiting = [goal for goal in order if goal.key not in built]
            scheduler.start([goal for goal in waiting if all(key in built for key in goal.after)], listen)
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


_FINAL = ("done", "user_error", "crash", "corrupt")
"""Events after which a worker sends no more."""


class _Scheduler:
    """The worker processes: one a goal, or several for a pool, each with devices or a place of its own."""

    def __init__(
        self, order: list[Goal], store: Store, runtime: BuildSettings, logs: Path, servers: ForkServers
    ) -> None:
        self.store, self.runtime, self.logs = store, runtime, logs
        self.shares = plan_shares(order, runtime, store)
        self.devices = list(runtime.devices) if isinstance(runtime.devices, tuple) else []
        """Those that work."""
        self.deaths: Counter[int] = Counter()
        """Workers in a row that died on a device."""
        self.memory = {goal.key: goal.node.demand(runtime).gigabytes for goal in order}
        """GB that a worker on cores takes, by key."""
        self.running: list[Worker] = []
        self.blocks: dict[str, Blocks] = {}
        """The pools that are built block by block, by key."""
        self.soon: list[tuple[Goal, dict[str, Json]]] = []
        """Events that no process sends."""
        self.told: dict[str, str] = {}
        """By key, why a goal waits, as it was said."""
        self.begun: set[str] = set()
        self.made_by = maker()
        logs.mkdir(parents=True, exist_ok=True)
        for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[variable] = "1" if runtime.threads == "auto" else str(runtime.threads)
        self.context = multiprocessing.get_context("forkserver")
        self.servers = servers

    def start(self, ready: list[Goal], listen: Listener) -> None:
        """Begin what there is room for. What needs no heavy package is built here, before the others, so that the user
        reads of its mistakes before any is imported."""
        for goal in ready:
            if not goal.node.heavy:
                listen(goal.label, {"event": "start", "rows": goal.rows})
                send = partial(listen, goal.label)
                self.soon.append((goal, attempt_build(goal, self.store, self.runtime, send, self.made_by)))
        if self.soon:
            return
        goals = {goal.key: goal for goal in ready}
        wishes = [wish for goal in ready if (wish := self._wish(goal)).workers]
        held = {device for worker in self.running for device in worker.grant.devices}
        free = [device for device in self.devices if device not in held]
        on_cores = [worker for worker in self.running if not worker.grant.devices]
        places = self.runtime.side_by_side - len(on_cores)
        held_memory = sum(self.memory[worker.goal.key] for worker in on_cores)
        room = (memory_gigabytes() or inf) - held_memory
        for key, devices in next_starts(wishes, free, places, room, alone=not held_memory):
            self._start_worker(goals[key], devices, listen)
        for wish in wishes:
            self._tell_why_waiting(goals[wish.key], wish, listen)

    def _wish(self, goal: Goal) -> Ready:
        """How many workers a goal could use beside those that it has."""
        demand, devices = goal.node.demand(self.runtime), self.shares[goal.key].devices
        if devices > len(self.devices):  # some have been lost
            devices = most_of(demand.devices, len(self.devices))
        if isinstance(goal.node, Pool) and demand.workers:
            if goal.key not in self.blocks and not self._workers(goal):
                self._divide(goal, goal.node)
            if goal.key in self.blocks:
                left = len(self.blocks[goal.key].left)
                return Ready(goal.key, devices, left, pool=True, gigabytes=self.memory[goal.key])
        return Ready(goal.key, devices, workers=0 if self._workers(goal) else 1, gigabytes=self.memory[goal.key])

    def _divide(self, goal: Goal, pool: Pool[Any]) -> None:
        """Divide what is missing of a pool into blocks; unless another run builds it, for which one worker waits."""
        lock = self.store.try_lock(pool)
        if lock is None:
            return
        gaps = self.store.missing(pool, goal.rows)
        blocks = deque(
            Span(start, min(start + pool.block, gap.stop))
            for gap in gaps
            for start in range(gap.start, gap.stop, pool.block)
        )
        if blocks:
            self.blocks[goal.key] = Blocks(lock, sum(gap.stop - gap.start for gap in gaps), blocks)
        else:  # another run has just built it: one worker finds that out
            lock.release()

    def _workers(self, goal: Goal) -> list[Worker]:
        return [worker for worker in self.running if worker.goal.key == goal.key]

    def _start_worker(self, goal: Goal, devices: tuple[int, ...], listen: Listener) -> None:
        processes = max(1, len(devices)) * self.runtime.nodes
        grant = Grant(devices=devices, threads=self.shares[goal.key].threads, processes=processes)
        where = f"GPU {', '.join(map(str, devices))}" if devices else f"threads {grant.threads}"
        if goal.key not in self.begun:
            self.begun.add(goal.key)
            listen(goal.label, {"event": "start", "rows": goal.rows, "grant": grant.model_dump(mode="json")})
        if devices:
            listen(goal.label, {"event": "say", "message": f"runs on {where}"})
        blocks = self.blocks.get(goal.key)
        block = blocks.left.popleft() if blocks is not None else None
        here, there = self.context.Pipe()
        logs = {worker.log for worker in self.running}
        log = next(log for number in range(len(logs) + 1) if (log := self.logs / _log_name(goal, number)) not in logs)
        arguments = (goal, self.store, self.runtime, there, log, self.made_by, block, grant, self._visible(devices))
        child = self.context.Process(target=run_worker, args=arguments, daemon=True)
        self.servers.start(child, goal.node.heavy)
        there.close()
        self.running.append(Worker(goal, child, here, log, grant, block))

    def _visible(self, devices: tuple[int, ...]) -> str | None:
        """How the driver names these devices; declared ones that are not there by their numbers."""
        if not isinstance(self.runtime.devices, tuple):
            return None
        names = [gpu.name for gpu in gpus()]
        return ",".join(names[device] if device < len(names) else str(device) for device in devices)

    def _tell_why_waiting(self, goal: Goal, wish: Ready, listen: Listener) -> None:
        if self._workers(goal):
            return
        if not wish.devices:
            self._tell_no_memory(goal, wish, listen)
            return
        others = "; ".join(
            f"{worker.goal.label} has GPU {', '.join(map(str, worker.grant.devices))}"
            for worker in self.running
            if worker.grant.devices
        )
        self._tell(goal, f"waits for {wish.devices} GPU{'s' * (wish.devices > 1)}: {others}", listen)

    def _tell_no_memory(self, goal: Goal, wish: Ready, listen: Listener) -> None:
        on_cores = [worker for worker in self.running if not worker.grant.devices and self.memory[worker.goal.key]]
        held, most = sum(self.memory[worker.goal.key] for worker in on_cores), memory_gigabytes()
        if len(on_cores) >= self.runtime.side_by_side or most is None or held + wish.gigabytes <= most:
            return
        others = ", ".join(f"{worker.goal.label} {self.memory[worker.goal.key]:.0f}" for worker in on_cores)
        self._tell(goal, f"waits for memory: it takes about {wish.gigabytes:.0f} of {most:.0f} GB ({others})", listen)

    def _tell(self, goal: Goal, why: str, listen: Listener) -> None:
        if self.told.get(goal.key) != why:
            self.told[goal.key] = why
            listen(goal.label, {"event": "say", "message": why})

    def events(self) -> Iterator[tuple[Goal, dict[str, Json]]]:
        """Wait for events; a worker that ends without a final one has died."""
        yield from self._soon()
        if not self.running:
            return
        for connection in wait([worker.pipe for worker in self.running]):
            worker = next((worker for worker in self.running if worker.pipe is connection), None)
            if worker is None:
                continue
            died = False
            try:
                event = json.loads(worker.pipe.recv_bytes())
            except (EOFError, OSError):
                worker.process.join()
                died = True
                event = {"event": "crash", "message": f"its process ended with code {worker.process.exitcode}"}
            if event["event"] in _FINAL:
                event["log"] = str(worker.log)
                worker.process.join()
                worker.pipe.close()
                self.running.remove(worker)
            blocks = self.blocks.get(worker.goal.key)
            merged = event if blocks is None else self._event_of_pool(worker, blocks, event, died)
            if merged is not None:
                if merged["event"] in _FINAL:
                    self.begun.discard(worker.goal.key)
                yield worker.goal, merged
            yield from self._soon()

    def _soon(self) -> list[tuple[Goal, dict[str, Json]]]:
        found, self.soon = self.soon, []
        return found

    def _event_of_pool(
        self, worker: Worker, blocks: Blocks, event: dict[str, Json], died: bool
    ) -> dict[str, Json] | None:
        """What an event of one worker means for the whole pool, which is done when its last block is."""
        others = [other for other in self._workers(worker.goal) if other is not worker]
        if event["event"] == "progress":
            worker.done = event["done"]
            whole = blocks.done + worker.done + sum(other.done for other in others)
            return {**event, "done": whole, "total": blocks.rows}
        if event["event"] == "next":
            assert worker.block is not None
            blocks.done += worker.block.stop - worker.block.start
            worker.done = 0
            self.deaths.subtract({device: self.deaths[device] for device in worker.grant.devices})
            worker.block = blocks.left.popleft() if blocks.left else None
            with suppress(OSError):  # it has died just now, and its end is the next event
                worker.pipe.send_bytes(json.dumps(worker.block).encode())
            return None
        if event["event"] not in _FINAL:
            return event
        if worker.block is not None:
            blocks.left.appendleft(worker.block)
        if event["event"] == "crash" and (died or worker.grant.devices) and self._outlived(worker, blocks, event):
            event = {"event": "done"}
        if blocks.left or others:
            return None if event["event"] == "done" else event
        self.blocks.pop(worker.goal.key).lock.release()
        return event

    def _outlived(self, worker: Worker, blocks: Blocks, event: dict[str, Json]) -> bool:
        """Whether the pool goes on after the death of a worker: its block is done again, elsewhere where a device has
        been lost."""
        if worker.block is not None:
            blocks.deaths[worker.block] += 1
            if blocks.deaths[worker.block] >= TRIES:
                event["message"] += f", the third time at rows {worker.block.start:,} to {worker.block.stop - 1:,}"
                return False
        lost = []
        for device in worker.grant.devices:
            self.deaths[device] += 1
            if self.deaths[device] >= DEATHS and device in self.devices:
                self.devices.remove(device)
                lost.append(str(device))
        rest = f"; GPU {', '.join(lost)} is not used any more in this run" if lost else ""
        if worker.grant.devices and not self.devices:
            event["message"] += f"{rest}, and no other is left"
            return False
        message = f"a worker died ({event['message']}; log: {worker.log}); its block is done again{rest}"
        self.soon.append((worker.goal, {"event": "say", "message": message}))
        return True

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
            self.servers.close()
            for blocks in self.blocks.values():
                blocks.lock.release()


def _log_name(goal: Goal, worker: int = 0) -> str:
    name = goal.label.replace(" ", "-").replace(":", "-")
    return f"{name}.log" if worker == 0 else f"{name}-{worker + 1}.log"
