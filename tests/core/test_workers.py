"""Workers of a pool on declared devices: whatever their number, order or death, the rows are those of one worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from toys import Large, SharedNumbers

from speed.core.allocation import Demand
from speed.core.build_all import StageFailed, build_all
from speed.core.fork_servers import ForkServers
from speed.core.graph import goals
from speed.core.scheduler import Scheduler
from speed.core.store import Span, Store
from speed.runtime import Runtime

pytestmark = pytest.mark.usefixtures("no_gpu_here")
EIGHT = tuple(range(8))


def built(pool: SharedNumbers, rows: int, tmp_path: Path, **runtime: Any) -> list[str]:
    """What was said, after the pool was built and found complete."""
    store, said = Store(tmp_path / "home").open(), []

    def listen(label: str, event: dict[str, Any]) -> None:
        said.append(event.get("message") or event["event"])

    build_all(goals([pool.take(rows)]), store, Runtime(**runtime), listen, tmp_path / "logs")
    assert [row.value for row in store.rows(pool.take(rows))] == [pool.factor * row for row in range(rows)]
    assert store.shards(pool) == [Span(start, start + 4) for start in range(0, rows, 4)]
    assert said[-1] == "done"
    assert said.count("done") == 1
    manifest = store.shard_manifest(pool, Span(0, 4))
    assert manifest is not None
    assert manifest.share is not None
    assert manifest.share.devices == (pool.group if "devices" in runtime else 0)
    return said


def blocks(log: Path) -> list[int]:
    """First rows of the blocks that were begun."""
    return sorted(int(line.split()[1]) for line in log.read_text().splitlines())


def test_eight_devices_have_a_worker_each(tmp_path: Path) -> None:
    pool = SharedNumbers(3, log=str(tmp_path / "log"), together=8)
    said = built(pool, 48, tmp_path, devices=EIGHT)
    assert [line for line in said if line.startswith("runs on")] == [f"runs on GPU {number}" for number in EIGHT]
    assert blocks(tmp_path / "log") == list(range(0, 48, 4))


@pytest.mark.parametrize("runtime", [{}, {"devices": (0, 1)}])
def test_the_block_of_a_killed_worker_is_done_again_by_another(runtime: dict[str, Any], tmp_path: Path) -> None:
    pool = SharedNumbers(3, log=str(tmp_path / "log"), dies=(8, 2))
    said = built(pool, 24, tmp_path, **runtime)
    assert sum("its process ended with code -9" in line and "is done again" in line for line in said) == 2
    assert blocks(tmp_path / "log") == [0, 4, 8, 8, 8, 12, 16, 20]


@pytest.mark.parametrize("last", [0, 4])
def test_a_block_that_a_killed_worker_had_written_is_not_done_again(last: int, tmp_path: Path) -> None:
    pool = SharedNumbers(3, log=str(tmp_path / "log"), dies_after=8, dies_last=last)
    said = built(pool, 16, tmp_path)
    assert sum("its process ended with code -9" in line for line in said) == 1
    assert not any("is done again" in line for line in said)
    assert blocks(tmp_path / "log") == [0, 4, 8, 12]


def test_one_device_that_is_lost_for_good_leaves_seven(tmp_path: Path) -> None:
    pool = SharedNumbers(3, log=str(tmp_path / "log"), bad_device="5", together=9)  # seven, and two that die
    said = built(pool, 64, tmp_path, devices=EIGHT)
    assert sum("GPU 5 is not used any more in this run" in line for line in said) == 1
    assert sum("is done again" in line for line in said) == 2


def test_a_block_on_which_every_worker_dies_ends_the_run(tmp_path: Path) -> None:
    pool = SharedNumbers(3, log=str(tmp_path / "log"), dies=(8, 9))
    with pytest.raises(StageFailed, match="ended with code -9, the third time at rows 8 to 11"):
        built(pool, 24, tmp_path, devices=EIGHT)


def test_the_last_device_that_is_lost_ends_the_run(tmp_path: Path) -> None:
    pool = SharedNumbers(3, log=str(tmp_path / "log"), bad_device="0")
    with pytest.raises(StageFailed, match="GPU 0 is not used any more in this run: 1 GPU is needed, and none is left"):
        built(pool, 8, tmp_path, devices=(0,))


def test_a_bad_device_takes_its_group_along_and_no_worker_begins_on_less_than_a_group(tmp_path: Path) -> None:
    pool = SharedNumbers(3, log=str(tmp_path / "log"), bad_device="1", group=2, together=3)  # two that die
    said = built(pool, 48, tmp_path, devices=(0, 1, 2, 3, 4))
    assert sum("GPU 0, 1 are not used any more in this run" in line for line in said) == 1
    assert all(line in ("runs on GPU 0, 1", "runs on GPU 2, 3") for line in said if line.startswith("runs on"))
    shorter = SharedNumbers(5, log=str(tmp_path / "other"), bad_device="1", group=2)
    with pytest.raises(StageFailed, match="0, 1 are not used any more in this run: 2 GPUs are needed, and 1 is left"):
        built(shorter, 8, tmp_path, devices=(0, 1, 2))


@pytest.mark.parametrize("numbers", [(2,), (1, 2)])  # a model that two hold is planned for no less
def test_what_needs_more_devices_than_are_left_does_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, numbers: tuple[int, ...]
) -> None:
    monkeypatch.setattr(SharedNumbers, "demand", lambda *_: Demand(numbers, workers=True))
    order, store = goals([SharedNumbers(3).take(8)]), Store(tmp_path / "home").open()
    scheduler = Scheduler(order, store, Runtime(devices=(0, 1)), tmp_path / "logs", ForkServers([], ()), None)
    scheduler.devices.working = [1]
    scheduler.start(order, lambda *_: None)
    assert not scheduler.running
    [(_, event)] = list(scheduler.events())
    assert event["event"] == "user_error"
    assert event["message"].startswith("2 GPUs are needed, and 1 is left\n")


@pytest.mark.parametrize(("gigabytes", "waits"), [(16.0, True), (20.0, False)])
def test_what_does_not_fit_into_memory_side_by_side_runs_one_after_the_other(
    gigabytes: float, waits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("speed.core.scheduler.memory_gigabytes", lambda: gigabytes)
    log, said = tmp_path / "log", []
    order = goals([Large(1, str(log)), Large(2, str(log))])

    def listen(label: str, event: dict[str, Any]) -> None:
        said.append(event.get("message"))

    build_all(order, Store(tmp_path / "home").open(), Runtime(), listen, tmp_path / "logs")
    lines = log.read_text().splitlines()
    told = any(str(each).startswith("waits for memory: it takes about 9 of 16 GB (large") for each in said)
    assert told == waits
    if waits:
        assert [line.split()[1] for line in lines] == ["begins", "ends"] * 2
    assert len(lines) == 4
