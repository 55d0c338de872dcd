"""Chunks are encoded by several processes: the same vectors whoever computes them, also where workers die."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from conftest import HANG

from speed.backends.encoding.workers import Encode, EncodingWorkers, Ids, Vectors
from speed.core.elsewhere import Elsewhere, Machine, Need
from speed.core.errors import UserError

CHUNKS = [[np.arange(first, first + length, dtype=np.int32) for length in (3, 1)] for first in range(0, 90, 10)]


def vectors_of(rows: list[Ids]) -> Vectors:
    return np.array([[len(row), row.sum()] for row in rows], np.float32)


def scripted(log: Path, together: int, dies: tuple[int, int], bad: str, device: str) -> Encode:
    """Encodes by arithmetic, with a line in a file for each chunk.

    Args:
        together: processes that wait for one another before the first chunk.
        dies: (first number of a chunk, how many workers die on it).
        bad: a device on which every worker dies; `none` has no model.
    """
    if device == "none":
        raise UserError("there is no model")

    def encode(rows: list[Ids]) -> tuple[Vectors, int]:
        with log.open("a") as file:
            file.write(f"{os.getpid()} {rows[0][0]} {device}\n")
        while len({line.split()[0] for line in log.read_text().splitlines()}) < together:
            time.sleep(0.01)
        tries = sum(line.split()[1] == str(rows[0][0]) for line in log.read_text().splitlines())
        if device == bad or (rows[0][0] == dies[0] and tries <= dies[1]):
            os.kill(os.getpid(), signal.SIGKILL)
        return vectors_of(rows), 7

    return encode


@contextmanager
def working(
    log: Path, *devices: str, together: int = 1, dies: tuple[int, int] = (-1, 0), bad: str = ""
) -> Iterator[tuple[EncodingWorkers, list[str]]]:
    said: list[str] = []
    workers = EncodingWorkers(partial(scripted, log, together, dies, bad), devices, said.append)
    try:
        yield workers, said
    finally:
        workers.close()


def check(workers: EncodingWorkers) -> None:
    found = {number: (vectors, at_once) for number, vectors, at_once in workers.encoded(CHUNKS)}
    assert sorted(found) == list(range(len(CHUNKS)))
    for number, (vectors, at_once) in found.items():
        assert vectors.dtype == np.float32
        assert np.array_equal(vectors, vectors_of(CHUNKS[number]))
        assert at_once == 7


def test_several_processes_encode_each_chunk_once(tmp_path: Path) -> None:
    with working(tmp_path / "log", "a", "b", together=2) as (workers, said):
        check(workers)
        lines = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
        assert sorted(int(line[1]) for line in lines) == list(range(0, 90, 10))
        assert {line[2] for line in lines} == {"a", "b"}
        check(workers)
        assert len({line.split()[0] for line in (tmp_path / "log").read_text().splitlines()}) == 2, "the same workers"
    assert said == []


def test_a_killed_workers_chunk_is_encoded_again_and_a_device_that_kills_two_is_left_out(tmp_path: Path) -> None:
    with working(tmp_path / "log", "a", "b", together=2, dies=(40, 1), bad="b") as (workers, said):
        check(workers)
        assert [worker.device for worker in workers.workers] == ["a"]
    lines = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert sum(line[2] == "b" for line in lines) == 2
    assert sum(line[1] == "40" for line in lines) >= 2
    assert any("ended with code -9; its texts are encoded again" in line for line in said)
    assert any("b is not used any more" in line for line in said)


def test_the_third_death_on_one_chunk_ends_it_and_so_does_a_refusal(tmp_path: Path) -> None:
    with working(tmp_path / "log", "a", "b", together=2, dies=(0, 9)) as (workers, _), pytest.raises(RuntimeError):
        check(workers)
    with working(tmp_path / "log", "none") as (workers, _), pytest.raises(UserError, match="there is no model"):
        check(workers)


def test_who_stops_reading_leaves_nothing_behind(tmp_path: Path) -> None:
    with working(tmp_path / "log", "a", "b") as (workers, _):
        some = workers.encoded(CHUNKS)
        next(some)
        some.close()  # type: ignore[attr-defined]
        check(workers)


class ScriptedCluster:
    """Three machines: one works, one lacks the model, one has no room. Their processes are of this one."""

    def __init__(self) -> None:
        self.free_machines = [Machine(name, name, 1.0, 0.0, 8.0) for name in ("full", "lacking", "far")]
        self.left_out: set[str] = set()
        self.kept: list[Any] = []
        self.is_closed = False

    def check_head(self) -> None:
        """It answers."""

    def free(self, need: Need) -> Machine | None:
        return self.free_machines.pop() if self.free_machines else None

    def start(self, target: Any, args: tuple[Any, ...], machine: Machine, need: Need, errand: Any) -> tuple[Any, Any]:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        device = {"lacking": "none"}.get(machine.id, machine.id)
        process = context.Process(target=target, args=(args[0], device, there), daemon=True)
        if machine.id == "full":
            self.kept.append(there)
            return SimpleNamespace(kill=lambda: None, join=lambda timeout: None), here
        process.start()
        there.close()
        return process, here

    def close(self) -> None:
        self.is_closed = True


def test_other_machines_encode_too_where_they_have_room_and_the_model(tmp_path: Path) -> None:
    cluster, said = ScriptedCluster(), list[str]()
    load = partial(scripted, tmp_path / "log", 2, (-1, 0), "")
    workers = EncodingWorkers(load, ["a"], said.append, cast(Elsewhere, cluster), Need(1, 0, 2.0))
    try:
        check(workers)
        lines = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
        assert sorted(int(line[1]) for line in lines) == list(range(0, 90, 10)), "each chunk once"
        assert {line[2] for line in lines} == {"a", "far"}
        deadline = time.monotonic() + HANG
        while not cluster.left_out and time.monotonic() < deadline:  # it may take its time to find out
            check(workers)
        assert cluster.left_out == {"lacking"}
        assert len(said) == 1
        assert said[0].startswith("lacking cannot encode: there is no model; ")
        assert [worker.begun for worker in workers.workers if worker.place == "full"] == [False]
    finally:
        workers.close()
    assert cluster.is_closed
