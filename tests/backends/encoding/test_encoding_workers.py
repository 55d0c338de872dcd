"""Chunks are encoded by several processes: the same vectors whoever computes them, also where workers die."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from speed.backends.encoding.workers import Encode, EncodingWorkers, Ids, Vectors
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
