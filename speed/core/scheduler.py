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
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from math import inf
from multiprocessing.connection import wait
from pathlib import Path

from speed.core.allocation import Grant, Ready, most_of, next_starts
from speed.core.build import attempt_build, plan_shares
from speed.core.build_settings import BuildSettings
from speed.core.deaths import Deaths, too_few_left
from speed.core.devices import AGAIN, Devices, named
from speed.core.elsewhere import LOOK, Elsewhere, Machine, Need
from speed.core.errand import Carrier, PoolErrand
from speed.core.fork_servers import ForkServers
from speed.core.graph import Goal, is_built
from speed.core.machine import memory_gigabytes
from speed.core.manifest import maker
from speed.core.spec import Json
from speed.core.stage import Pool
from speed.core.store import Span, Store
from speed.core.waiting import Listener, Reasons, why_waiting
from speed.core.worker import Blocks, Worker, divided, free_log, lock_of, run_worker

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
        self.devices = Devices(runtime.devices)
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
        self.reasons = Reasons()
        self.look_again = False
        """Whether a goal waits for another command, of which no event tells."""
        self.begun: set[str] = set()
        self.elsewhere = elsewhere
        self.deaths = Deaths(self.devices, elsewhere)
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
        self.look_again = False
        ready = [goal for goal in ready if not self._left_to_another(goal, listen)]
        goals = {goal.key: goal for goal in ready}
        if there := [worker.goal.label for worker in self.running if worker.machine]:
            for goal in ready:
                if goal.key in self.on_all_nodes:
                    self.reasons.tell(goal, f"waits for other machines to finish their blocks of {there[0]}", listen)
            ready = [goal for goal in ready if goal.key not in self.on_all_nodes]
        wishes = [wish for goal in ready if (wish := self._wish(goal)).workers]
        held = {device for worker in self._here() for device in worker.grant.devices}
        on_cores = [worker for worker in self._here() if not worker.grant.devices]
        places = self.runtime.side_by_side - len(on_cores)
        held_memory = sum(self.memory[worker.goal.key] for worker in on_cores)
        room = (memory_gigabytes() or inf) - held_memory

        def starts(free: list[int]) -> Iterator[tuple[str, tuple[int, ...]]]:
            return next_starts(wishes, free, places, room, alone=not held_memory)

        for key, devices in self.devices.grant(held, starts):
            self._start_worker(goals[key], devices, listen)
        self.look_again |= bool(self.devices.taken) and any(wish.devices for wish in wishes)
        self._start_elsewhere([goals[wish.key] for wish in wishes if wish.pool], listen)
        for wish in wishes:
            self._tell_why_waiting(goals[wish.key], wish, listen)

    def _wish(self, goal: Goal) -> Ready:
        """How many workers a goal could use beside those that it has."""
        demand, devices = goal.node.demand(self.runtime), self.shares[goal.key].devices
        if devices > (left := len(self.devices.working)):  # some have been lost
            fewest = devices if demand.workers else min(demand.devices)  # a group is the least that holds the model
            if fewest > left:
                self.soon.append((goal, {"event": "user_error", "message": too_few_left(fewest, left)}))
                return Ready(goal.key, devices, workers=0)
            devices = most_of(demand.devices, left)
        if isinstance(goal.node, Pool) and demand.workers:
            if goal.key not in self.blocks and not self._workers(goal):
                blocks = divided(goal.node, goal.rows, self.store)
                if blocks is not None:
                    self.blocks[goal.key] = blocks
                elif devices and self.devices.are_here:  # another command was quicker: see `_left_to_another`
                    self.look_again = True
                    return Ready(goal.key, devices, workers=0)
            if goal.key in self.blocks:
                left = len(self.blocks[goal.key].left)
                return Ready(goal.key, devices, left, pool=True, gigabytes=self.memory[goal.key])
        return Ready(goal.key, devices, workers=0 if self._workers(goal) else 1, gigabytes=self.memory[goal.key])

    def _left_to_another(self, goal: Goal, listen: Listener) -> bool:
        """Whether another command builds a goal now, or has built it, that would take a GPU here: none is held while
        its worker waits for that. Nor can two commands wait for one another, one with the GPU and one with the pool."""
        if not (self.shares[goal.key].devices and self.devices.are_here):
            return False
        if goal.key in self.blocks or self._workers(goal):
            return False
        lock = lock_of(goal.node, self.store)
        if lock is None:
            self.look_again = True
            self.reasons.tell(goal, "waits for another command, which builds it", listen)
            return True
        try:
            built = is_built(goal, self.store)
        finally:
            lock.release()
        if built:
            self.soon.append((goal, {"event": "done"}))
        return built

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
                self.reasons.tell(
                    goal, f"other machines are held by {trainings[0]} until that has ended", listen, "there"
                )
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
            where = named(devices) if not machine else machine.name
            known = {"gpus": [] if machine else list(devices), "machines": [machine.name] if machine else []}
            listen(goal.label, {"event": "say", "message": f"runs on {where}", **known})
        blocks = self.blocks.get(goal.key)
        block = blocks.left.popleft() if blocks is not None and not machine else None
        log = free_log(goal, self.logs, [worker.log for worker in self.running])
        work = (goal, self.store, self.runtime, log, self.made_by, blocks is not None, block, grant)
        if machine and self.elsewhere and self.carrier:
            errand = PoolErrand(self.carrier, goal, log, (*work, None))
            remote = self.elsewhere.start(run_worker, errand.args, machine, self._need(goal), errand)
            self.running.append(Worker(goal, *remote, log, grant, machine=machine.id, waits=True))
            return
        here, there = self.context.Pipe()
        visible = self.devices.visible(devices)
        child = self.context.Process(target=run_worker, args=(*work, visible, there), daemon=True)
        self.servers.start(child, goal.node.heavy)
        there.close()
        self.running.append(Worker(goal, child, here, log, grant, block))

    def _tell_why_waiting(self, goal: Goal, wish: Ready, listen: Listener) -> None:
        if not self._workers(goal):
            machine = (self.memory, memory_gigabytes(), self.runtime.side_by_side)
            taken = self.devices.taken if wish.devices else ()
            why, alike = (why_waiting(wish, self._here(), some, *machine) for some in (taken, ()))
            # which GPUs other commands have may change from second to second
            self.reasons.tell(goal, why, listen, "another command" if taken else "", alike)

    def events(self) -> Iterator[tuple[Goal, dict[str, Json]]]:
        """Wait for events; a worker that ends without a final one has died."""
        if soon := self._soon():
            yield from soon
            return
        if not (self.running or self.look_again):
            return
        if self.elsewhere is not None:
            self.elsewhere.check_head()
        pause = AGAIN if self.look_again else LOOK if self.elsewhere else None
        for connection in wait([worker.pipe for worker in self.running], pause):
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
                self._forget(worker)
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
                self.deaths.forget(worker)
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
        if retried and (message := self.deaths.outlived(worker, blocks, event)):
            self.soon.append((worker.goal, {"event": "say", "message": message}))
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
        self._forget(worker)

    def _forget(self, worker: Worker) -> None:
        """A worker has ended."""
        worker.pipe.close()
        self.running.remove(worker)
        if not worker.machine:
            self.devices.release(worker.grant.devices)

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
            self.devices.release_all()
            self.servers.close()
            if self.elsewhere is not None and self.carrier is not None:
                self.elsewhere.close()
                self.carrier.close()
            for blocks in self.blocks.values():
                blocks.lock.release()
