"""Other machines that work for a run, as its scheduler sees them. It does not know what manages them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

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


class Elsewhere(Protocol):
    """Other machines, connected to. Their processes end with this one."""

    left_out: set[str]
    """Ids of machines that are not used any more."""

    def free(self, need: Need) -> Machine | None:
        """A machine with room for one more process; of several that with the fewest."""
        ...

    def start(
        self, target: Callable[..., None], args: tuple[Any, ...], machine: Machine, need: Need
    ) -> tuple[Any, Any]:
        """(process, this end of its pipe) of a process over there, with the methods that `multiprocessing` gives both.

        Args:
            target: called with `args` and the other end of the pipe; a function of a module.
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
