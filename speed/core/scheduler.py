"""Processes for many goals, independent ones at the same time, each of which sees its devices alone.

The blocks of a pool are built by as many workers as there is room for: each takes the next block when it has finished
one, here and on other machines. A worker that dies is replaced, and its block is done again. Processes
are forked from servers that have imported the heavy packages once; when a process ends, its memory is free for the next
stage.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from math import inf
from multiprocessing.connection import wait
from pathlib import Path

from speed.core.allocation import Grant, Ready, most_of, next_starts
from speed.core.build import attempt_build, plan_shares
from speed.core.build_settings import BuildSettings
from speed.core.elsewhere import LOOK, Elsewhere, Machine, Need
from speed.core.errand import Carrier, PoolErrand
from speed.core.fork_servers import ForkServers
from speed.core.graph import Goal
from speed.core.machine import gpus, memory_gigabytes
from speed.core.manifest import maker
from speed.core.spec import Json
from speed.core.stage import Pool
from speed.core.store import Span, Store
from speed.core.waiting import why_waiting
from speed.core.worker import Blocks, Worker, divided, run_worker

Listener = Callable[[str, dict[str, Json]], None]
"""Receives (label of the goal, event)."""

TRIES = 3
"""Deaths of workers on one block after which the pool has failed."""
DEATHS = 2
"""Deaths of workers in a row, without a block done, after which a device is lost."""

_FINAL = ("done", "later", "user_error", "crash", "corrupt")
"""Events after which a worker sends no more."""


class Scheduler:
    """The worker processes: one a goal, or several for a pool, each with devices or a place of its own."""

    def __init__(
        self,
        order: list[Goal],
        store: Store,
        runtime: BuildSettings,
        logs: Path,
        servers: ForkServers,
        elsewhere: Elsewhere | None,
    ) -> None:
        self.store, self.runtime, self.logs = store, runtime, logs
        self.shares = plan_shares(order, runtime, store)
        self.devices = list(runtime.devices) if isinstance(runtime.devices, tuple) else []
        """Those that work."""
        self.deaths: Counter[int | str] = Counter()
        """Workers in a row that died on a device, or on another machine."""
        demands = {goal.key: goal.node.demand(runtime) for goal in order}
        self.memory = {key: demand.gigabytes for key, demand in demands.items()}
        """GB that a worker on cores takes, by key."""
        self.on_all_nodes = {key for key, demand in demands.items() if demand.nodes and runtime.nodes > 1}
        """Goals that take the devices of other machines too, on which the workers of a cluster would meet them."""
        self.running: list[Worker] = []
        self.blocks: dict[str, Blocks] = {}
        """The pools that are built block by block, by key."""
        self.soon: list[tuple[Goal, dict[str, Json]]] = []
        """Events that no process sends."""
        self.told: dict[str, str] = {}
        """By key and where, why a goal waits, as it was said."""
        self.begun: set[str] = set()
        self.elsewhere = elsewhere
        self.carrier = Carrier(store) if elsewhere is not None else None
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
        if there := [worker.goal.label for worker in self.running if worker.machine]:
            for goal in ready:
                if goal.key in self.on_all_nodes:
                    self._tell(goal, f"waits for other machines to finish their blocks of {there[0]}", listen)
            ready = [goal for goal in ready if goal.key not in self.on_all_nodes]
        wishes = [wish for goal in ready if (wish := self._wish(goal)).workers]
        held = {device for worker in self._here() for device in worker.grant.devices}
        free = [device for device in self.devices if device not in held]
        on_cores = [worker for worker in self._here() if not worker.grant.devices]
        places = self.runtime.side_by_side - len(on_cores)
        held_memory = sum(self.memory[worker.goal.key] for worker in on_cores)
        room = (memory_gigabytes() or inf) - held_memory
        for key, devices in next_starts(wishes, free, places, room, alone=not held_memory):
            self._start_worker(goals[key], devices, listen)
        self._start_elsewhere([goals[wish.key] for wish in wishes if wish.pool], listen)
        for wish in wishes:
            self._tell_why_waiting(goals[wish.key], wish, listen)

    def _wish(self, goal: Goal) -> Ready:
        """How many workers a goal could use beside those that it has."""
        demand, devices = goal.node.demand(self.runtime), self.shares[goal.key].devices
        if devices > len(self.devices):  # some have been lost
            devices = most_of(demand.devices, len(self.devices))
        if isinstance(goal.node, Pool) and demand.workers:
            if goal.key not in self.blocks and not self._workers(goal):
                blocks = divided(goal.node, goal.rows, self.store)
                if blocks is not None:
                    self.blocks[goal.key] = blocks
            if goal.key in self.blocks:
                left = len(self.blocks[goal.key].left)
                return Ready(goal.key, devices, left, pool=True, gigabytes=self.memory[goal.key])
        return Ready(goal.key, devices, workers=0 if self._workers(goal) else 1, gigabytes=self.memory[goal.key])

    def _workers(self, goal: Goal) -> list[Worker]:
        return [worker for worker in self.running if worker.goal.key == goal.key]

    def _here(self) -> list[Worker]:
        return [worker for worker in self.running if not worker.machine]

    def _start_elsewhere(self, pools: list[Goal], listen: Listener) -> None:
        """Start workers on the other machines for the blocks that are left. They ask for their first block when they
        have begun, so that no block waits on a machine which has no room after all."""
        trainings = [worker.goal.label for worker in self.running if worker.goal.key in self.on_all_nodes]
        for goal in pools if self.elsewhere is not None else ():
            assert self.elsewhere is not None
            if trainings and self.blocks[goal.key].left:
                self._tell(goal, f"other machines are held by {trainings[0]} until that has ended", listen, "there")
                continue
            for _ in range(len(self.blocks[goal.key].left) - sum(worker.waits for worker in self._workers(goal))):
                machine = self.elsewhere.free(self._need(goal))
                if machine is None:
                    break
                self._start_worker(goal, tuple(range(self.shares[goal.key].devices)), listen, machine)
            waits = [worker.waits for worker in self._workers(goal) if worker.machine]
            if self.blocks[goal.key].left and (why := self.elsewhere.why_idle(goal.key, self._need(goal), waits)):
                listen(goal.label, {"event": "say", "message": why})

    def _need(self, goal: Goal) -> Need:
        share = self.shares[goal.key]
        return Need(share.threads, share.devices, self.memory[goal.key])

    def _start_worker(
        self, goal: Goal, devices: tuple[int, ...], listen: Listener, machine: Machine | None = None
    ) -> None:
        processes = max(1, len(devices)) * self.runtime.nodes
        grant = Grant(devices=devices, threads=self.shares[goal.key].threads, processes=processes)
        if goal.key not in self.begun:
            self.begun.add(goal.key)
            listen(goal.label, {"event": "start", "rows": goal.rows, "grant": grant.model_dump(mode="json")})
        if devices or machine:
            where = f"GPU {', '.join(map(str, devices))}" if not machine else machine.name
            known = {"gpus": [] if machine else list(devices), "machines": [machine.name] if machine else []}
            listen(goal.label, {"event": "say", "message": f"runs on {where}", **known})
        blocks = self.blocks.get(goal.key)
        block = blocks.left.popleft() if blocks is not None and not machine else None
        logs = {worker.log for worker in self.running}
        log = next(log for number in range(len(logs) + 1) if (log := self.logs / _log_name(goal, number)) not in logs)
        work = (goal, self.store, self.runtime, log, self.made_by, blocks is not None, block, grant)
        if machine and self.elsewhere and self.carrier:
            errand = PoolErrand(self.carrier, goal, log, (*work, None))
            remote = self.elsewhere.start(run_worker, errand.args, machine, self._need(goal), errand)
            self.running.append(Worker(goal, *remote, log, grant, machine=machine.id, waits=True))
            return
        here, there = self.context.Pipe()
        child = self.context.Process(target=run_worker, args=(*work, self._visible(devices), there), daemon=True)
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
        if not self._workers(goal):
            most, places = memory_gigabytes(), self.runtime.side_by_side
            self._tell(goal, why_waiting(wish, self._here(), self.memory, most, places), listen)

    def _tell(self, goal: Goal, why: str, listen: Listener, where: str = "") -> None:
        """Say why a goal waits, here or `where` else, once."""
        if why and self.told.get(goal.key + where) != why:
            self.told[goal.key + where] = why
            listen(goal.label, {"event": "say", "message": why})

    def events(self) -> Iterator[tuple[Goal, dict[str, Json]]]:
        """Wait for events; a worker that ends without a final one has died."""
        yield from self._soon()
        if not self.running:
            return
        if self.elsewhere is not None:
            self.elsewhere.check_head()
        for connection in wait([worker.pipe for worker in self.running], LOOK if self.elsewhere else None):
            worker = next((worker for worker in self.running if worker.pipe is connection), None)
            if worker is None:
                continue
            died = False
            try:
                event = json.loads(worker.pipe.recv_bytes())
            except (EOFError, OSError):
                worker.process.join()
                died = True
                code = worker.process.exitcode
                how = f"its process ended with code {code}" if isinstance(code, int) else str(code)
                event = {"event": "crash", "message": how}
            if event["event"] in _FINAL:
                event["log"] = str(worker.log)
                worker.process.join()
                worker.pipe.close()
                self.running.remove(worker)
            blocks = self.blocks.get(worker.goal.key)
            merged = event if blocks is None else self._event_of_pool(worker, blocks, event, died)
            yield from self._soon()  # that a worker died is told before the end of its pool
            if merged is not None:
                if merged["event"] in _FINAL:
                    self.begun.discard(worker.goal.key)
                yield worker.goal, merged

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
            if worker.block is not None:
                blocks.done += worker.block.stop - worker.block.start
                self.deaths.subtract({place: self.deaths[place] for place in _places(worker)})
            worker.done, worker.waits = 0, False
            worker.block = blocks.left.popleft() if blocks.left else None
            with suppress(OSError):  # it has died just now, and its end is the next event
                worker.pipe.send_bytes(json.dumps(worker.block).encode())
            return None
        if event["event"] not in _FINAL:
            return event
        if worker.block is not None and self._is_written(worker.goal, worker.block):
            blocks.done += worker.block.stop - worker.block.start
            worker.block = None
        elif worker.block is not None:
            blocks.left.appendleft(worker.block)
        retried = event["event"] == "crash" and (died or worker.grant.devices or worker.machine)
        # what another machine lacks, such as a model in its cache, this one may have
        retried = retried or (event["event"] == "user_error" and worker.machine and not event.get("here"))
        if retried and self._outlived(worker, blocks, event):
            event = {"event": "done"}
        if blocks.left or not all(other.waits for other in others):
            return None if event["event"] == "done" else event
        for other in others:  # on machines that had no room for them
            self._end(other)
        self.blocks.pop(worker.goal.key).lock.release()
        return event

    def _is_written(self, goal: Goal, block: Span) -> bool:
        """Whether a worker that has ended had finished its block, and only not asked for another."""
        assert isinstance(goal.node, Pool)
        return block in self.store.shards(goal.node)

    def _end(self, worker: Worker) -> None:
        worker.process.kill()
        worker.process.join(5)
        worker.pipe.close()
        self.running.remove(worker)

    def _outlived(self, worker: Worker, blocks: Blocks, event: dict[str, Json]) -> bool:
        """Whether the pool goes on after the death of a worker: its block is done again, elsewhere where a device has
        been lost."""
        if worker.block is not None:
            blocks.deaths[worker.block] += 1
            if blocks.deaths[worker.block] >= TRIES:
                event["message"] += f", the third time at rows {worker.block.start:,} to {worker.block.stop - 1:,}"
                return False
        lost = []
        for place in _places(worker):
            self.deaths[place] += 1
            if self.deaths[place] < DEATHS:
                continue
            if isinstance(place, str):
                assert self.elsewhere is not None
                self.elsewhere.left_out.add(place)
                lost.append("its machine")
            elif place in self.devices:
                self.devices.remove(place)
                lost.append(f"GPU {place}")
        rest = f"; {', '.join(lost)} is not used any more in this run" if lost else ""
        if worker.grant.devices and not worker.machine and not self.devices:
            event["message"] += f"{rest}, and no other is left"
            return False
        again = "; its block is done again" if worker.block is not None else ""
        message = f"a worker died ({event['message']}; log: {worker.log}){again}{rest}"
        self.soon.append((worker.goal, {"event": "say", "message": message}))
        return True

    def close(self) -> None:
        """End what still runs. A training answers by saving a checkpoint, for which there is some time."""
        for worker in self.running:
            worker.process.terminate()
        if self.elsewhere is not None and not self.elsewhere.answers():
            self.elsewhere.close()  # nobody else ends its workers
        deadline = time.monotonic() + self.runtime.grace_seconds
        try:
            for worker in self.running:
                worker.process.join(max(0.0, deadline - time.monotonic()))
        finally:  # time is up, or Ctrl-C was pressed again
            for worker in list(self.running):
                self._end(worker)
            self.servers.close()
            if self.elsewhere is not None and self.carrier is not None:
                self.elsewhere.close()
                self.carrier.close()
            for blocks in self.blocks.values():
                blocks.lock.release()


def _places(worker: Worker) -> tuple[int | str, ...]:
    """What is left out when workers die on it: another machine, or devices of this one."""
    return (worker.machine,) if worker.machine else worker.grant.devices


def _log_name(goal: Goal, worker: int = 0) -> str:
    name = goal.label.replace(" ", "-").replace(":", "-")
    return f"{name}.log" if worker == 0 else f"{name}-{worker + 1}.log"
