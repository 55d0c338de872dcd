"""Two commands on one machine never give one GPU to two workers: what one has, the other waits for."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command_on_cards import ONE, build_on_card
from conftest import HANG, ROOT
from toys import OnCards, SharedNumbers

from speed.core import machine
from speed.core.build import build
from speed.core.build_all import build_all
from speed.core.devices import AGAIN, Devices
from speed.core.errors import UserError
from speed.core.graph import Goal, goals
from speed.core.machine import Gpu
from speed.core.store import Store
from speed.runtime import Runtime

TWO = (*ONE, Gpu("1", 80.0, "GPU-b"))
TAKEN = "waits for GPU 0, which another command uses"
HOLDER = """
import sys
import speed.core.devices as devices
from speed.core.machine import Gpu

devices.gpus = lambda: (Gpu("0", 80.0, "GPU-a"),)
devices.Devices((0,)).grant((), lambda free: [("key", tuple(free))])
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine's temporary folder, on which no other command runs; its name is short, as a socket's must be."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        # where the locks are alone: multiprocessing keeps the first temporary folder that it sees
        monkeypatch.setattr("speed.core.devices.tempfile", SimpleNamespace(gettempdir=lambda: folder))
        yield Path(folder)


@pytest.fixture
def two_gpus(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two GPUs."""
    monkeypatch.setattr("speed.core.devices.gpus", lambda: TWO)


def taken_by(devices: Devices, count: int, held: tuple[int, ...] = ()) -> tuple[int, ...]:
    """So many of the free devices, or none where there are fewer."""
    found = devices.grant(held, lambda free: [("key", tuple(free[:count]))] if len(free) >= count else [])
    return found[0][1] if found else ()


def meanwhile(monkeypatch: pytest.MonkeyPatch, *steps: Callable[[], object]) -> list[float | None]:
    """Take these steps, one each time that a run waits with nothing of its own running; how long it would wait."""
    left, pauses = list(steps), list[float | None]()

    def waited(pipes: list[Any], pause: float | None) -> list[Any]:
        if pipes:
            return wait(pipes, pause)
        pauses.append(pause)
        left.pop(0)()
        return []

    monkeypatch.setattr("speed.core.scheduler.wait", waited)
    return pauses


def built(order: list[Goal], folder: Path, devices: Any = (0, 1)) -> list[str]:
    """What was said, after the goals were built."""
    said: list[str] = []

    def listen(label: str, event: dict[str, Any]) -> None:
        said.append(event.get("message") or event["event"])

    build_all(order, Store(folder / "home").open(), Runtime(devices=devices), listen, folder / "logs")
    return said


@pytest.mark.usefixtures("two_gpus")
def test_what_one_command_has_is_not_free_for_another_until_it_is_released() -> None:
    one, other = Devices((0, 1)), Devices((0, 1))
    assert taken_by(one, 1) == (0,)
    assert (taken_by(other, 1), other.taken) == ((1,), (0,))
    assert (taken_by(one, 1, held=(0,)), one.taken) == ((), (1,))
    one.release([0])
    assert (taken_by(other, 1, held=(1,)), other.taken) == ((0,), ())


@pytest.mark.usefixtures("two_gpus")
def test_of_several_that_one_needs_it_keeps_all_or_none() -> None:
    one, other, third = Devices((0,)), Devices((0, 1)), Devices((1,))
    assert taken_by(one, 1) == (0,)
    assert taken_by(other, 2) == ()
    assert taken_by(third, 1) == (1,), "nothing is kept by who waits for the rest"
    one.release([0])
    third.release([1])
    assert taken_by(other, 2) == (0, 1)


@pytest.mark.usefixtures("two_gpus")
def test_the_lock_goes_with_the_command_that_held_it(temporary: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)}
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HOLDER], env=environment, stdin=pipe, stdout=pipe) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert taken_by(Devices((0,)), 1) == ()
        holder.kill()
        holder.wait()
        assert taken_by(Devices((0,)), 1) == (0,)


@pytest.mark.usefixtures("two_gpus")
def test_commands_that_name_a_gpu_differently_know_it_by_its_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    assert taken_by(Devices((1,)), 1) == (1,)
    monkeypatch.setattr("speed.core.devices.gpus", lambda: (Gpu("GPU-b", 80.0, "GPU-b"), Gpu("MIG-c/1", None)))
    assert taken_by(Devices((0, 1)), 1) == (1,), "a part of a GPU has no other name"


def test_declared_devices_that_are_not_here_are_nobodys(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("speed.core.devices.gpus", lambda: ONE[:0])
    assert taken_by(Devices((0, 1)), 2) == taken_by(Devices((0, 1)), 2) == (0, 1)
    assert list(temporary.iterdir()) == []


@pytest.mark.usefixtures("two_gpus")
def test_a_folder_that_cannot_hold_locks_is_told(temporary: Path) -> None:
    (temporary / f"speed-gpus-{os.getuid()}").touch()
    with pytest.raises(UserError, match="locks that keep two commands from one GPU.*\n  set TMPDIR"):
        taken_by(Devices((0,)), 1)


@pytest.mark.usefixtures("two_gpus")
def test_a_command_that_takes_all_waits_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other, third = Devices((0,)), Devices((0, 1)), Devices((1,))
    pauses, said = list[float](), list[str]()
    assert taken_by(one, 1) == (0,)

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        assert taken_by(third, 1) == (1,), "nothing is kept by who waits for the rest"
        third.release([1])
        if len(pauses) == 3:
            one.release([0])

    monkeypatch.setattr(time, "sleep", sleep)
    with other.all_at_once(said.append):
        assert taken_by(one, 1) == ()
    assert taken_by(one, 1) == (0,)
    assert (pauses, said) == ([AGAIN] * 3, [TAKEN])
    with Devices(()).all_at_once(said.append):
        pass


@pytest.mark.usefixtures("two_gpus")
def test_a_goal_waits_for_a_gpu_and_says_so_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Devices((0,))
    assert taken_by(other, 1) == (0,)
    nothing = [lambda: None] * 4
    pauses = meanwhile(monkeypatch, *nothing, lambda: other.release([0]))
    said = built(goals([OnCards(1, str(tmp_path / "log"))]), tmp_path, devices=(0,))
    assert said == [TAKEN, "start", "runs on GPU 0", "done"]
    assert pauses == [AGAIN] * 5
    assert taken_by(other, 1) == (0,), "it is free when its worker has ended"


@pytest.mark.usefixtures("two_gpus")
def test_a_training_of_two_takes_both_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other, third = Devices((0,)), Devices((1,))
    assert taken_by(other, 1) == (0,)
    found: list[tuple[int, ...]] = []
    meanwhile(
        monkeypatch, lambda: found.append(taken_by(third, 1)), lambda: third.release([1]), lambda: other.release([0])
    )
    said = built(goals([OnCards(2, str(tmp_path / "log"))]), tmp_path)
    assert said == [TAKEN, "start", "runs on GPU 0, 1", "done"]
    assert (tmp_path / "log").read_text().splitlines() == ["0,1 begins", "0,1 ends"]
    assert found == [(1,)], "nothing is kept by who waits for the rest"


@pytest.mark.usefixtures("two_gpus")
def test_a_pool_takes_what_another_command_leaves_and_then_that_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first two workers wait for one another, so it ends only when the second GPU was found to be free."""
    monkeypatch.setattr("speed.core.scheduler.AGAIN", 0.01)
    other = Devices((0,))
    assert taken_by(other, 1) == (0,)
    pool, said = SharedNumbers(3, log=str(tmp_path / "log"), together=2), list[str]()

    def listen(label: str, event: dict[str, Any]) -> None:
        said.append(event.get("message") or event["event"])
        other.release([0])  # at the first event, when GPU 0 was found to be taken

    store = Store(tmp_path / "home").open()
    build_all(goals([pool.take(16)]), store, Runtime(devices=(0, 1)), listen, tmp_path / "logs")
    assert [line for line in said if "GPU" in line] == ["runs on GPU 1", "runs on GPU 0"]


@pytest.mark.usefixtures("two_gpus")
def test_cores_are_not_waited_for(tmp_path: Path) -> None:
    assert taken_by(Devices((0, 1)), 2) == (0, 1)
    pool = SharedNumbers(3, log=str(tmp_path / "log"))
    assert "waits" not in " ".join(built(goals([pool.take(8)]), tmp_path, devices="cpu"))


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("pool", [True, False])
def test_no_gpu_is_held_for_what_another_command_builds(
    pool: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    log, store, other = str(tmp_path / "log"), Store(tmp_path / "home").open(), Devices((0, 1))
    (goal,) = goals([SharedNumbers(3, log=log).take(8) if pool else OnCards(1, log)])
    lock = store.try_lock(goal.node)
    assert lock is not None

    def end() -> None:
        lock.release()
        build(goal, store, Runtime(), lambda event: None)

    free: list[tuple[int, ...]] = []
    meanwhile(monkeypatch, lambda: free.append(taken_by(other, 2)), lambda: other.release([0, 1]), end)
    assert built([goal], tmp_path) == ["waits for another command, which builds it", "done"]
    assert free == [(0, 1)]


def test_two_commands_take_turns_on_one_gpu(tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage of the first ends when the second has said that it waits, or has begun all the same."""
    monkeypatch.setattr("speed.core.devices.gpus", lambda: ONE)
    log, until, said = tmp_path / "log", tmp_path / "told", list[str]()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)}
    program = [sys.executable, str(Path(__file__).with_name("command_on_cards.py"))]
    first = subprocess.Popen([*program, str(tmp_path / "first"), str(log), str(until)], env=environment)
    deadline = time.monotonic() + HANG
    while not log.exists() and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)

    def listen(label: str, event: dict[str, Any]) -> None:
        said.append(event.get("message") or event["event"])
        until.touch()

    build_on_card(tmp_path / "second", str(log), "", listen)
    assert first.wait() == 0
    assert log.read_text().splitlines() == ["0 begins", "0 ends"] * 2
    assert said == [TAKEN, "start", "runs on GPU 0", "done"]


def test_names_of_visible_gpus_are_found_among_those_of_the_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '0, 81920, GPU-aa11'\necho '1, 40960, GPU-bb22'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(machine, "gpu_in_sight", lambda: True)
    monkeypatch.setattr(machine, "_torch_has_gpus", lambda: True)
    first, second = Gpu("0", 80.0, "GPU-aa11"), Gpu("1", 40.0, "GPU-bb22")
    monkeypatch.delenv(machine.VISIBLE, raising=False)
    assert machine.gpus.__wrapped__() == (first, second)
    monkeypatch.setenv(machine.VISIBLE, "GPU-bb, 0,MIG-c")
    assert machine.gpus.__wrapped__() == (second._replace(name="GPU-bb"), first, Gpu("MIG-c", 80.0))


def test_with_cpu_no_worker_sees_a_gpu_and_with_auto_all_do(two_gpus: None) -> None:
    """A library that looks for GPUs by itself, as DeepSpeed does, must not find what was not granted."""
    assert Devices("cpu").visible(()) == ""
    assert Devices("auto").visible(()) is None
    assert Devices((1,)).visible((1,)) == "1"
