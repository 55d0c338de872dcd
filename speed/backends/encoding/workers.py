"""Processes that encode chunks of token rows: one a device, each with the model, takes the next chunk when it is free.

A worker that dies is replaced and its chunk is done again; a device on which two die in a row is left out. Rows and
vectors go through pipes as plain numbers.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from speed.core.errors import UserError
from speed.core.worker import die_with_parent

Ids: TypeAlias = NDArray[np.int32]
Vectors: TypeAlias = NDArray[np.float32]
Encode: TypeAlias = Callable[[list[Ids]], tuple[Vectors, int]]
"""Vectors of a chunk, in the order of its rows, and the tokens that are encoded at once from now on."""
Load: TypeAlias = Callable[[str], Encode]
"""Loads the model on a device; a function of a module, since a new process calls it."""

TRIES = 3
"""Deaths of workers on one chunk after which the encoding has failed."""
DEATHS = 2
"""Deaths of workers in a row, without a chunk done, after which a device is left out."""
ENCODED, REFUSED = b"v", b"r"


@dataclass
class _Worker:
    device: str
    process: Any
    pipe: Connection
    chunk: int | None = None
    """Number of the chunk that it encodes."""


class EncodingWorkers:
    """A worker for each device, until `close`."""

    def __init__(self, load: Load, devices: Sequence[str], say: Callable[[str], None] = lambda message: None) -> None:
        """Start them, which load the model at the same time.

        Args:
            devices: as torch names them.
            say: takes one line for each worker that has died.
        """
        self.load, self.say = load, say
        # a stage's process is a daemon, which may start none; workers end with it all the same
        multiprocessing.current_process().daemon = False
        self.context = multiprocessing.get_context("spawn")
        self.deaths: Counter[str] = Counter()
        """In a row, by device."""
        self.workers = [self._started(device) for device in devices]

    def encoded(self, chunks: Sequence[list[Ids]]) -> Iterator[tuple[int, Vectors, int]]:
        """(number of a chunk, its vectors, tokens that its worker encodes at once) as they become ready.

        Raises:
            UserError: what a worker has refused.
            RuntimeError: where three workers died on one chunk, or no device is left.
        """
        waiting, died = deque(range(len(chunks))), Counter[int]()
        try:
            for worker in self.workers:
                self._give(worker, waiting, chunks)
            while busy := [worker for worker in self.workers if worker.chunk is not None]:
                ready = wait([worker.pipe for worker in busy])
                for worker in (worker for worker in busy if worker.pipe in ready):
                    number = worker.chunk
                    assert number is not None
                    try:
                        answer = worker.pipe.recv_bytes()
                    except (EOFError, OSError):
                        waiting.appendleft(number)
                        died[number] += 1
                        self._after_death(worker, died[number])
                        for idle in (idle for idle in self.workers if idle.chunk is None):
                            self._give(idle, waiting, chunks)
                        continue
                    worker.chunk = None
                    if answer[:1] == REFUSED:
                        raise UserError(answer[1:].decode())
                    self.deaths[worker.device] = 0
                    self._give(worker, waiting, chunks)
                    yield number, *_unpacked_vectors(answer[1:], len(chunks[number]))
        finally:  # whoever asked may have stopped: what is still computed is of no use
            for worker in [worker for worker in self.workers if worker.chunk is not None]:
                self._end(worker)
                self.workers[self.workers.index(worker)] = self._started(worker.device)

    def close(self) -> None:
        """End all workers."""
        for worker in self.workers:
            self._end(worker)
        self.workers = []

    def _give(self, worker: _Worker, waiting: deque[int], chunks: Sequence[list[Ids]]) -> None:
        if waiting:
            worker.chunk = waiting.popleft()
            with suppress(OSError):  # it has died, and its end is the next thing that is read
                worker.pipe.send_bytes(_packed_rows(chunks[worker.chunk]))

    def _after_death(self, worker: _Worker, deaths_on_chunk: int) -> None:
        """Replace a worker, or leave its device out."""
        worker.process.join()
        how = f"a worker that encoded on {worker.device} ended with code {worker.process.exitcode}"
        self._end(worker)
        place = self.workers.index(worker)
        self.workers.pop(place)
        if deaths_on_chunk >= TRIES:
            raise RuntimeError(f"{how}, the third on the same texts")
        self.deaths[worker.device] += 1
        if self.deaths[worker.device] < DEATHS:
            self.workers.insert(place, self._started(worker.device))
            self.say(f"{how}; its texts are encoded again")
            return
        if not self.workers:
            raise RuntimeError(f"{how}, and no device is left")
        self.say(f"{how}; its texts are encoded elsewhere, and {worker.device} is not used any more")

    def _started(self, device: str) -> _Worker:
        here, there = self.context.Pipe()
        process = self.context.Process(target=_serve, args=(self.load, device, there), daemon=True)
        process.start()
        there.close()
        return _Worker(device, process, here)

    def _end(self, worker: _Worker) -> None:
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()


def _serve(load: Load, device: str, pipe: Connection) -> None:
    """Body of a worker: chunks in, vectors out, until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the run's to handle
    threading.Thread(target=die_with_parent, daemon=True).start()
    try:
        encode = load(device)
        while True:
            try:
                rows = _unpacked_rows(pipe.recv_bytes())
            except EOFError:
                return
            vectors, at_once = encode(rows)
            pipe.send_bytes(ENCODED + at_once.to_bytes(8, "little") + vectors.astype("<f4").tobytes())
    except UserError as error:
        pipe.send_bytes(REFUSED + str(error).encode())


def _packed_rows(rows: Sequence[Ids]) -> bytes:
    return np.concatenate([[len(rows)], [len(row) for row in rows], *rows]).astype("<i4").tobytes()


def _unpacked_rows(message: bytes) -> list[Ids]:
    numbers = np.frombuffer(message, "<i4").astype(np.int32)
    count = int(numbers[0])
    ends = 1 + count + np.cumsum(numbers[1 : 1 + count])
    return np.split(numbers[1 + count :], (ends - 1 - count)[:-1])


def _unpacked_vectors(message: bytes, rows: int) -> tuple[Vectors, int]:
    found = np.frombuffer(message[8:], "<f4").reshape(rows, -1)
    return found.astype(np.float32), int.from_bytes(message[:8], "little")
