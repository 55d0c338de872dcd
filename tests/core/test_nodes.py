"""A training on several nodes and the workers of a cluster never share a machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
from toys import SharedNumbers

from speed.core.allocation import Demand, Grant
from speed.core.elsewhere import Elsewhere, Machine, Need
from speed.core.fork_servers import ForkServers
from speed.core.graph import Goal, goals
from speed.core.scheduler import Scheduler
from speed.core.stage import Stage
from speed.core.store import Store
from speed.core.worker import Worker
from speed.runtime import Context, Runtime
from speed.stages.embedder import Embedder
from speed.stages.junior import Junior
from speed.stages.senior import Senior

pytestmark = pytest.mark.usefixtures("no_gpu_here")


@dataclass(frozen=True)
class OnAllNodes(Stage[int]):
    number: int
    name: ClassVar[str] = "training"
    packages: ClassVar[tuple[str, ...]] = ("json",)

    def demand(self, runtime: Runtime) -> Demand:
        return Demand((1, 2), nodes=True)

    def run(self, out: Path, ctx: Context) -> None:
        raise NotImplementedError


class OneMachine:
    """Another machine with room for two workers."""

    def __init__(self, scheduler: list[Scheduler]) -> None:
        self.scheduler, self.left_out = scheduler, set[str]()

    def free(self, need: Need) -> Machine | None:
        there = [worker for worker in self.scheduler[0].running if worker.machine]
        return None if len(there) == 2 else Machine("far", "far", 8.0, 2.0, 64.0)

    def why_idle(self, stage: str, need: Need, waits: Any) -> str:
        return ""


def started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: list[Goal], nodes: int
) -> tuple[Scheduler, list[tuple[str, str]]]:
    """A scheduler whose workers are no processes, and what it says."""
    made: list[Scheduler] = []
    runtime = Runtime(devices=(0, 1), device_gb=80, nodes=nodes)
    cluster = cast(Elsewhere, OneMachine(made))
    made.append(Scheduler(order, Store(tmp_path / "home").open(), runtime, tmp_path, ForkServers([], ()), cluster))
    scheduler = made[0]

    def start(goal: Goal, devices: tuple[int, ...], listen: Any, machine: Machine | None = None) -> None:
        log, grant = tmp_path / "log", Grant(devices=devices)
        worker = Worker(goal, None, None, log, grant, machine="" if machine is None else machine.id)
        worker.waits = machine is not None
        scheduler.running.append(worker)

    monkeypatch.setattr(scheduler, "_start_worker", start)
    said: list[tuple[str, str]] = []
    scheduler.start(order, lambda label, event: said.append((label, str(event.get("message")))))
    return scheduler, said


def where(scheduler: Scheduler) -> list[tuple[str, str]]:
    return [(worker.goal.label, worker.machine) for worker in scheduler.running]


def test_no_worker_starts_on_machines_that_a_training_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training, pool = OnAllNodes(0), SharedNumbers(1, log=str(tmp_path / "numbers"))
    order = [*goals([training]), *goals([pool.take(40)])]
    scheduler, _ = started(tmp_path / "two", monkeypatch, order, nodes=2)
    assert where(scheduler) == [("training", "")]
    scheduler.running.clear()
    scheduler.start(order[1:], lambda *_: None)
    assert ("shared numbers", "far") in where(scheduler), "they start when it has ended"
    alone, _ = started(tmp_path / "one", monkeypatch, order, nodes=1)
    assert ("shared numbers", "far") in where(alone), "a training on this machine alone holds no other"


def test_a_training_waits_for_workers_on_the_machines_that_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, training = SharedNumbers(1, log=str(tmp_path / "numbers")), OnAllNodes(0)
    scheduler, _ = started(tmp_path, monkeypatch, goals([pool.take(40)]), nodes=2)
    order = goals([training])
    scheduler.on_all_nodes |= {order[0].key}
    scheduler.shares |= {order[0].key: scheduler.shares[next(iter(scheduler.shares))]}
    scheduler.memory |= {order[0].key: 0.0}
    said: list[tuple[str, str]] = []
    for _ in range(2):
        scheduler.start(order, lambda label, event: said.append((label, str(event.get("message")))))
    assert "training" not in {label for label, _ in where(scheduler)}
    assert said == [("training", "waits for other machines to finish their blocks of shared numbers")]
    scheduler.running.clear()
    scheduler.start(order, lambda *_: None)
    assert ("training", "") in where(scheduler)


def test_a_pool_says_which_training_holds_the_other_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training, pool = OnAllNodes(0), SharedNumbers(1, log=str(tmp_path / "numbers"))
    order = [*goals([training]), *goals([pool.take(40)])]
    scheduler, said = started(tmp_path / "two", monkeypatch, order, nodes=2)
    assert where(scheduler) == [("training", "")]
    told = ("shared numbers", "other machines are held by training until that has ended")
    assert told in said
    said.clear()
    for _ in range(3):
        scheduler.start(order[1:], lambda label, event: said.append((label, str(event.get("message")))))
    assert told not in said, "once, whatever else it waits for"
    assert len(said) == len(set(said))
    alone, said = started(tmp_path / "one", monkeypatch, order, nodes=1)
    assert ("shared numbers", "far") in where(alone)
    assert told not in said


def test_a_store_that_is_full_ends_the_pool_and_no_machine_is_left_out_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = SharedNumbers(1, log=str(tmp_path / "numbers"))
    scheduler, _ = started(tmp_path, monkeypatch, goals([pool.take(40)]), nodes=1)
    worker = next(worker for worker in scheduler.running if worker.machine)
    blocks = scheduler.blocks[worker.goal.key]
    worker.block = blocks.left.popleft()
    event: dict[str, Any] = {"event": "user_error", "message": "the disk is full", "store": True}
    assert scheduler._event_of_pool(worker, blocks, dict(event), died=False) is None, "that of the other machine"
    assert dict(scheduler.deaths.in_a_row) == {"far": 1}
    worker.block = blocks.left.popleft()
    here = {**event, "here": True}
    assert scheduler._event_of_pool(worker, blocks, here, died=False) == here
    assert dict(scheduler.deaths.in_a_row) == {"far": 1}


def test_trainings_are_what_all_nodes_share(compose: Any) -> None:
    from speed.pipeline import pipeline

    config = compose("preset=paper")
    shared = {type(goal.node) for goal in pipeline(config).goals() if goal.node.demand(config.runtime).nodes}
    assert {Junior, Senior, Embedder} <= shared
    assert {kind.__name__ for kind in shared} == {"Junior", "Senior", "Revisor", "Embedder"}
