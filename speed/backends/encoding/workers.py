"""Processes that encode chunks of token rows: one a device, each with the model, takes the next chunk when it is free.

A worker that dies is replaced and its chunk is done again; a device on which two die in a row is left out. The other
machines of a Ray cluster have such workers too, which take part as soon as they have the model, which is carried to
those that do not see the store; one that lacks it, or is lost, is left out. Rows and vectors go through pipes as plain
numbers.
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

from speed.core.elsewhere import LOOK, Elsewhere, Errand, Machine, Need
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
END = 5.0
"""Seconds that the end of a worker on another machine is waited for."""
ENCODED, REFUSED, BEGUN, SAID = b"v", b"r", b"b", b"s"


@dataclass
class _Worker:
    device: str
    process: Any
    pipe: Any
    machine: Machine | None = None
    """Another one of a cluster; None for this one."""
    begun: bool = True
    """Whether it has the model; another machine may have no room now, and then it is given no chunk."""
    chunk: int | None = None
    """Number of the chunk that it encodes."""

    @property
    def place(self) -> str:
        """What is left out when workers die on it."""
        return self.machine.name if self.machine else self.device


class EncodingWorkers:
    """A worker for each device of this machine, and on the others of a cluster as many as find room, until `close`."""

    def __init__(
        self,
        load: Load,
        devices: Sequence[str],
        say: Callable[[str], None] = lambda message: None,
        cluster: Elsewhere | None = None,
        need: Need | None = None,
        errand: Errand | None = None,
    ) -> None:
        """Start them, which load the model at the same time.

        Args:
            devices: as torch names them.
            say: takes one line for each worker that has died.
            cluster: left by `close`.
            need: what a worker takes of another machine.
            errand: of a model in the store, for machines that do not see that.
        """
        self.load, self.say = load, say
        self.cluster, self.need, self.errand = cluster, need or Need(1, 0, 0.0), errand
        # a stage's process is a daemon, which may start none; workers end with it all the same
        multiprocessing.current_process().daemon = False
        self.context = multiprocessing.get_context("spawn")
        self.deaths: Counter[str] = Counter()
        """In a row, by place."""
        self.workers = [self._started(device) for device in devices]

    def encoded(self, chunks: Sequence[list[Ids]]) -> Iterator[tuple[int, Vectors, int]]:
        """(number of a chunk, its vectors, tokens that its worker encodes at once) as they become ready.

        Raises:
            UserError: what a worker of this machine has refused, and for a cluster that has lost its head.
            RuntimeError: where three workers died on one chunk, or no device of this machine is left.
        """
        waiting, died = deque(range(len(chunks))), Counter[int]()
        try:
            self._join_elsewhere(len(chunks))
            for worker in self.workers:
                self._give(worker, waiting, chunks)
            while waiting or any(worker.chunk is not None for worker in self.workers):
                for worker in self._heard():
                    number = worker.chunk
                    try:
                        answer = worker.pipe.recv_bytes()
                    except (EOFError, OSError):
                        answer = b""
                    if answer == BEGUN:
                        worker.begun = True
                    elif answer[:1] == SAID:
                        self.say(answer[1:].decode())
                    elif answer[:1] == ENCODED:
                        assert number is not None
                        worker.chunk, self.deaths[worker.place] = None, 0
                        self._give(worker, waiting, chunks)
                        yield number, *_unpacked_vectors(answer[1:], len(chunks[number]))
                        continue
                    else:
                        if number is not None:
                            waiting.appendleft(number)
                            died[number] += not answer
                        self._replace(worker, answer[1:].decode(), 0 if number is None else died[number])
                    for idle in (idle for idle in self.workers if idle.chunk is None):
                        self._give(idle, waiting, chunks)
        finally:  # whoever asked may have stopped: what is still computed is of no use
            for worker in [worker for worker in self.workers if worker.chunk is not None]:
                self._end(worker)
                place = self.workers.index(worker)
                self.workers[place : place + 1] = [] if worker.machine else [self._started(worker.device)]

    def close(self) -> None:
        """End all workers."""
        for worker in self.workers:
            self._end(worker)
        self.workers = []
        if self.cluster is not None:
            self.cluster.close()

    def _heard(self) -> Iterator[_Worker]:
        """Those of whom something has come, or the end."""
        if self.cluster is not None:
            self.cluster.check_head()
        speaking = [worker for worker in self.workers if worker.chunk is not None or not worker.begun]
        ready = wait([worker.pipe for worker in speaking], LOOK if self.cluster else None)
        yield from (worker for worker in speaking if worker.pipe in ready)

    def _give(self, worker: _Worker, waiting: deque[int], chunks: Sequence[list[Ids]]) -> None:
        if waiting and worker.begun:
            worker.chunk = waiting.popleft()
            with suppress(OSError):  # it has died, and its end is the next thing that is read
                worker.pipe.send_bytes(_packed_rows(chunks[worker.chunk]))

    def _replace(self, worker: _Worker, refused: str, deaths_on_chunk: int) -> None:
        """Start another in the place of one that has ended, or leave its place out.

        Args:
            refused: what it has said; empty where it died.
        """
        worker.process.join(None if worker.machine is None else END)
        code = worker.process.exitcode
        how = f"a worker that encoded on {worker.place} ended with code {code}" if isinstance(code, int) else str(code)
        if refused and worker.machine is None:
            raise UserError(refused)
        how = f"{worker.place} cannot encode: {refused}" if refused else how
        self._end(worker)
        place = self.workers.index(worker)
        self.workers.pop(place)
        if deaths_on_chunk >= TRIES:
            raise RuntimeError(f"{how}, the third on the same texts")
        self.deaths[worker.place] += 1
        if worker.begun and not refused and self.deaths[worker.place] < DEATHS:
            again = self._started_on(worker.machine) if worker.machine else self._started(worker.device)
            self.workers.insert(place, again)
            self.say(f"{how}; its texts are encoded again")
            return
        if not any(other.machine is None for other in self.workers):
            raise RuntimeError(f"{how}, and no device is left")
        if worker.machine and self.cluster:
            self.cluster.left_out.add(worker.machine.id)
        self.say(f"{how}; its texts are encoded elsewhere, and {worker.place} is not used any more")

    def _join_elsewhere(self, chunks: int) -> None:
        """Start workers on other machines as long as there is room and one would have a chunk."""
        while self.cluster is not None and len(self.workers) < chunks and (found := self.cluster.free(self.need)):
            self.workers.append(self._started_on(found))

    def _started_on(self, machine: Machine) -> _Worker:
        assert self.cluster is not None
        device = device_there(self.need)
        process, line = self.cluster.start(_serve, (self.load, device), machine, self.need, self.errand)
        return _Worker(device, process, line, machine, begun=False)

    def _started(self, device: str) -> _Worker:
        here, there = self.context.Pipe()
        process = self.context.Process(target=_serve, args=(self.load, device, there), daemon=True)
        process.start()
        there.close()
        return _Worker(device, process, here)

    def _end(self, worker: _Worker) -> None:
        worker.process.kill()
        worker.process.join(None if worker.machine is None else END)
        worker.pipe.close()


def device_there(need: Need) -> str:
    """The device of a worker on another machine, as torch names it: it sees no GPU but its own."""
    return "cuda" if need.gpus else "cpu"


def _serve(load: Load, device: str, pipe: Connection) -> None:
    """Body of a worker: chunks in, vectors out, until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the run's to handle
    threading.Thread(target=die_with_parent, daemon=True).start()
    try:
        encode = load(device)
        pipe.send_bytes(BEGUN)
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
