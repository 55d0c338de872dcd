"""Devices and cores are shared out without waste and without double use: a thousand random pipelines, in no time."""

from __future__ import annotations

import heapq
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from speed.core.allocation import Demand, Machine, Ready, Share, most_of, next_starts, shares


@dataclass
class Task:
    demand: Demand
    after: tuple[str, ...]
    work: float
    """Hours of one device; of blocks, where workers build it."""
    blocks: int = 1


@dataclass
class Simulation:
    """A run of a plan: what began when on which devices, checked as it goes."""

    tasks: Mapping[str, Task]
    given: Mapping[str, Share]
    machine: Machine
    now: float = 0.0
    running: list[tuple[float, int, str, tuple[int, ...]]] = field(default_factory=list)
    begun: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)

    def run(self) -> float:
        left = {key: task.blocks for key, task in self.tasks.items()}
        ended = dict.fromkeys(self.tasks, 0)
        while any(ended[key] < task.blocks for key, task in self.tasks.items()):
            self.start(left, ended)
            assert self.running, "something can always run"
            self.now, _, key, devices = heapq.heappop(self.running)
            ended[key] += 1
            if left[key]:  # a pool's worker keeps its devices while there are blocks
                self.begin(key, devices, left)
        return self.now

    def begin(self, key: str, devices: tuple[int, ...], left: dict[str, int]) -> None:
        hours = self.tasks[key].work / self.tasks[key].blocks / max(1, len(devices))
        heapq.heappush(self.running, (self.now + hours, len(self.begun), key, devices))
        self.begun.append((key, devices))
        left[key] -= 1

    def start(self, left: dict[str, int], ended: Mapping[str, int]) -> None:
        ready = [
            Ready(key, self.given[key].devices, left[key], pool=task.demand.workers)
            for key, task in self.tasks.items()
            if left[key] and all(ended[above] == self.tasks[above].blocks for above in task.after)
        ]
        held = [device for *_, devices in self.running for device in devices]
        places = self.machine.side_by_side - sum(not devices for *_, devices in self.running)
        free = [device for device in self.machine.devices if device not in held]
        for key, devices in next_starts(ready, free, places):
            assert len(devices) == self.given[key].devices
            self.begin(key, devices, left)
        held = [device for *_, devices in self.running for device in devices]
        assert len(held) == len(set(held)), "no device is used twice"
        assert set(held) <= set(self.machine.devices)
        assert sum(not devices for *_, devices in self.running) <= self.machine.side_by_side
        idle = len(self.machine.devices) - len(held)
        for wish in ready:
            if left[wish.key] and wish.devices:
                assert idle < wish.devices, "no device idles while something ready fits it"


def given(tasks: Mapping[str, Task], machine: Machine) -> dict[str, Share]:
    demands = {key: task.demand for key, task in tasks.items()}
    return shares(demands, {key: task.after for key, task in tasks.items()}, machine)


def random_tasks(draw: random.Random) -> dict[str, Task]:
    tasks: dict[str, Task] = {}
    for number in range(draw.randint(1, 12)):
        after = tuple(draw.sample(sorted(tasks), min(len(tasks), draw.choice((0, 1, 1, 2)))))
        pool = draw.random() < 0.4
        numbers = (
            draw.choice(((1,), (2,)))
            if pool
            else draw.choice(((), (1,), (1, 2, 4, 8), (1, 2, 3, 4, 6, 8, 12), (4, 8, 16)))
        )
        tasks[f"{number:02d}"] = Task(
            Demand(numbers, pool), after, draw.uniform(0.1, 10), draw.randint(1, 8) if pool else 1
        )
    return tasks


def test_no_double_use_and_no_idle_device_in_a_thousand_random_pipelines() -> None:
    draw = random.Random(0)
    for _ in range(1000):
        tasks = random_tasks(draw)
        machine = Machine(tuple(range(draw.choice((1, 2, 4, 5, 8, 16)))), cores=16, side_by_side=draw.choice((1, 2, 4)))
        simulation = Simulation(tasks, given(tasks, machine), machine)
        simulation.run()
        assert len(simulation.begun) == sum(task.blocks for task in tasks.values())


def paper(divisors: Mapping[str, tuple[int, ...]] | None = None) -> dict[str, Task]:
    """The paper's pipeline at 230,000 examples, with the plan's estimates in hours of one GPU of 80 GB."""
    batches = {"junior": 16, "senior": 16, "revisor": 24, "embedder": 1536}
    numbers = {key: tuple(n for n in range(1, 17) if batch % n == 0) for key, batch in batches.items()}
    numbers |= divisors or {}
    pool = Demand((1,), workers=True)
    return {
        "tasks": Task(Demand(), (), 1.4),
        "seed": Task(Demand(), (), 1.5),
        "junior": Task(Demand(numbers["junior"]), ("seed",), HOURS["junior"]),
        "root": Task(pool, ("junior",), HOURS["root"], 11),
        "preferences": Task(Demand(), ("root",), 0.2),
        "senior": Task(Demand(numbers["senior"]), ("preferences",), HOURS["senior"]),
        "synthesis": Task(pool, ("senior", "tasks"), HOURS["synthesis"], 25),
        "revisions": Task(Demand(), ("root",), 0.8),
        "revisor": Task(Demand(numbers["revisor"]), ("revisions",), HOURS["revisor"]),
        "revision": Task(pool, ("synthesis", "revisor"), HOURS["revision"], 25),
        "embedder": Task(Demand(numbers["embedder"]), ("revision",), HOURS["embedder"]),
        # It comes last in every schedule and takes all devices; with its 117 hours nothing else would count.
        "evaluation": Task(Demand(tuple(range(1, 17))), ("embedder",), 0.1),
    }


HOURS = {
    "junior": 1.9, "root": 0.8, "senior": 1.1, "synthesis": 3.7, "revisor": 3.0, "revision": 9.2, "embedder": 7.7,
}  # fmt: skip
"""Those of the plan that docs/scale.md shows."""


def search(tasks: Mapping[str, Task], machine: Machine) -> float:
    """The best of many schedules: other numbers of devices for the trainings, and other orders of what is ready."""
    draw, best = random.Random(1), float("inf")
    for _ in range(40):
        order = list(tasks)
        draw.shuffle(order)
        shuffled = {key: tasks[key] for key in order}
        own = {
            key: Share(devices=draw.choice([n for n in task.demand.devices if n <= len(machine.devices)] or [0]))
            for key, task in shuffled.items()
        }
        best = min(best, Simulation(shuffled, own, machine).run())
    return best


@pytest.mark.parametrize("devices", [1, 2, 4, 8, 16])
def test_the_papers_pipeline_is_near_the_best_schedule_that_a_search_finds(devices: int) -> None:
    machine = Machine(tuple(range(devices)), cores=64, side_by_side=2)
    tasks = paper()
    found = Simulation(tasks, given(tasks, machine), machine).run()
    assert found <= 1.1 * search(tasks, machine)


def test_trainings_take_what_their_batch_divides_by() -> None:
    for devices, wanted in {8: (8, 8, 8, 8), 16: (16, 16, 12, 16), 6: (4, 4, 6, 6), 1: (1, 1, 1, 1)}.items():
        tasks = paper()
        found = given(tasks, Machine(tuple(range(devices)), cores=64, side_by_side=2))
        assert tuple(found[key].devices for key in ("junior", "senior", "revisor", "embedder")) == wanted
        assert found["synthesis"].devices == 1
        assert found["tasks"].devices == 0


def test_a_stage_that_runs_alone_has_all_cores_and_those_side_by_side_share_them() -> None:
    found = given(paper(), Machine((), cores=8, side_by_side=2))
    threads = {key: share.threads for key, share in found.items()}
    assert [threads[key] for key in ("junior", "embedder", "evaluation")] == [8, 8, 8]
    assert [threads[key] for key in ("senior", "revisor", "synthesis", "root")] == [4, 4, 4, 4]
    assert threads["seed"] == 1, "a teacher's answers are waited for"
    alone = given(paper(), Machine((), cores=8, side_by_side=1))
    assert {share.threads for key, share in alone.items() if key != "tasks"} == {1, 8}
    said = shares({"junior": Demand((1,))}, {"junior": ()}, Machine((), 8, 2), threads=3)
    assert said["junior"].threads == 3


def test_what_no_number_of_devices_suffices_for_takes_all() -> None:
    assert most_of((4, 8), 2) == 2
    assert most_of((4, 8), 6) == 4


def test_builds_on_cores_wait_for_memory_and_one_that_never_fits_runs_alone() -> None:
    ready = [Ready("a", 0, gigabytes=9.0), Ready("b", 0, gigabytes=9.0), Ready("light", 0), Ready("gpu", 1)]
    assert [key for key, _ in next_starts(ready, [0], 4, room=16.0)] == ["a", "light", "gpu"]
    assert [key for key, _ in next_starts(ready[:2], [], 4, room=18.0)] == ["a", "b"]
    assert [key for key, _ in next_starts(ready[:2], [], 4, room=4.0, alone=False)] == []
    assert [key for key, _ in next_starts(ready[:2], [], 4, room=4.0, alone=True)] == ["a"]
    workers = Ready("pool", 0, workers=4, pool=True, gigabytes=5.0)
    assert len(list(next_starts([workers], [], 4, room=16.0))) == 3
