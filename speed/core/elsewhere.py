"""Other machines that work for a run, as its scheduler sees them. It does not know what manages them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from speed.core.depot import Depot

LOOK = 2.0
"""Seconds between two looks at the machines."""


class Need(NamedTuple):
    """What a worker takes."""

    cores: int
    gpus: int
    gigabytes: float


class Machine(NamedTuple):
    """Another machine, and what it has for its workers in all."""

    id: str
    name: str
    cores: float
    gpus: float
    gigabytes: float

    def has_room(self, needs: Sequence[Need]) -> bool:
        """For all of these at once."""
        whole = (self.cores, self.gpus, self.gigabytes)
        return all(sum(part) <= there for part, there in zip(zip(*needs, strict=True), whole, strict=True))


class NotCarried(Exception):
    """What a process over there needs, or has made, could not be carried.

    `message` is what the process is to have said, in its place, before it ended.
    """

    def __init__(self, message: bytes) -> None:
        super().__init__(message.decode(errors="replace"))
        self.message = message


class Errand(Protocol):
    """What a process over there reads and writes of a store that its machine may not see.

    All calls come from one thread, which waits for each: the process begins after `prepare`, and what it says is heard
    here after `pass_on`.
    """

    mark: str
    """A file that exactly those machines see which see the store."""
    depot: str
    """Name of the depot on a machine that does not."""

    @property
    def keeps(self) -> bool:
        """Whether what is in the depot could not be carried back, and stays when the run ends."""
        ...

    def prepare(self, depot: Depot, machine: str, tell: Callable[[bytes], None]) -> tuple[Any, ...]:
        """Carry there what the process reads; the arguments with which it is called there.

        Args:
            tell: hands on a message as if the process had said it.

        Raises:
            NotCarried: where that failed.
        """
        ...

    def pass_on(self, depot: Depot, message: bytes) -> bytes:
        """Carry back what a message of the process is about; the message as it is to be heard.

        Raises:
            NotCarried: where that failed.
        """
        ...

    def finish(self, depot: Depot) -> None:
        """The process has ended by itself."""
        ...


class Elsewhere(Protocol):
    """Other machines, connected to. Their processes end with this one."""

    left_out: set[str]
    """Ids of machines that are not used any more."""

    def free(self, need: Need) -> Machine | None:
        """A machine with room for one more process; of several that with the fewest."""
        ...

    def start(
        self,
        target: Callable[..., None],
        args: tuple[Any, ...],
        machine: Machine,
        need: Need,
        errand: Errand | None = None,
    ) -> tuple[Any, Any]:
        """(process, this end of its pipe) of a process over there, with the methods that `multiprocessing` gives both.

        Args:
            target: called with `args` and the other end of the pipe; a function of a module.
            errand: for a process that needs the store, and takes other `args` where its machine does not see it.
        """
        ...

    def why_idle(self, stage: str, need: Need, waits: Sequence[bool]) -> str:
        """Why no other machine works for a stage of which blocks are left, where that is to be said; else empty.

        Args:
            waits: of each worker of the stage over there, whether it has yet to begin.
        """
        ...

    def check_head(self) -> None:
        """Refuse to go on without what manages the machines.

        Raises:
            UserError: with the remedy.
        """
        ...

    def answers(self) -> bool:
        """Whether what manages them does, as far as is known."""
        ...

    def close(self) -> None:
        """Leave them."""
        ...
