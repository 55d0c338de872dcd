"""Who gets which devices and how many cores: pure functions of plan and machine, and of what runs now.

How much a build gets (`shares`) follows from plan and machine alone: it is the same today and tomorrow, whatever else
runs. When and where it begins (`next_starts`) depends on what is free, which changes no result.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from math import inf
from typing import NamedTuple

from speed.core.spec import Spec


class Demand(NamedTuple):
    """What a build can use of a machine's devices."""

    devices: tuple[int, ...] = ()
    """Numbers of devices that it can be given; empty where it does not compute, and takes neither devices nor cores."""
    workers: bool = False
    """Whether any number of workers, each with so many devices, may build the blocks of it."""
    gigabytes: float = 0.0
    """Of the machine's memory that each worker takes where it computes on cores, about; 0: too little to count."""
    nodes: bool = False
    """Whether it is shared by all nodes of a run where there are several."""


class Share(Spec):
    """How much of the machine a build gets."""

    devices: int = 0
    """Of each worker; 0: it computes on cores."""
    threads: int = 1
    """Of each process."""


class Grant(Spec):
    """What one worker has for itself while it builds."""

    devices: tuple[int, ...] = ()
    """By number; none: it computes on cores."""
    threads: int = 1
    """Arithmetic threads of each process."""
    processes: int = 1
    """That a training is shared by, on all nodes together."""


class Machine(NamedTuple):
    """What there is to share."""

    devices: tuple[int, ...] = ()
    cores: int = 1
    side_by_side: int = 1
    """Most builds on cores at a time."""


class Ready(NamedTuple):
    """A build that could begin, or take further workers."""

    key: str
    devices: int
    """Of a worker."""
    workers: int = 1
    """That would have something to do."""
    pool: bool = False
    """Whether it may take more than one worker; then it takes what others leave."""
    gigabytes: float = 0.0
    """Of the machine's memory that a worker on cores takes."""


def shares(
    demands: Mapping[str, Demand], after: Mapping[str, Collection[str]], machine: Machine, threads: int | None = None
) -> dict[str, Share]:
    """The share of each build of a plan.

    Args:
        demands: by key, upstream first; of all builds, those that are done included.
        after: keys of what each build reads.
        threads: of each build, where the user has said it.
    """
    before: dict[str, set[str]] = {}
    for key in demands:
        before[key] = {above for direct in after[key] for above in (direct, *before.get(direct, ()))}
    computing = [key for key, demand in demands.items() if demand.devices]

    def share(key: str, demand: Demand) -> Share:
        if not demand.devices:
            return Share(threads=threads or 1)
        devices = most_of(demand.devices, len(machine.devices))
        if devices:
            return Share(devices=devices, threads=threads or max(1, machine.cores // len(machine.devices)))
        beside = [other for other in computing if other != key and _independent(key, other, before)]
        most = max(1, machine.side_by_side)
        width = most if demand.workers else min(most, 1 + _widest(beside, before, most))
        return Share(threads=threads or max(1, machine.cores // width))

    return {key: share(key, demand) for key, demand in demands.items()}


def next_starts(
    ready: Sequence[Ready], free: Sequence[int], places: int, room: float = inf, alone: bool = True
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Which builds begin now, each with its devices: no device idles while something that is ready fits it.

    Each build gets one worker first, those that take only one before pools, which fill what is left; then pools get
    further workers.

    Args:
        free: devices that nobody has.
        places: free places for builds on cores.
        room: GB of memory that builds on cores have not taken.
        alone: whether none of them takes any: then one that takes more than there is may try.
    """
    left = list(free)
    wanted = {each.key: each.workers for each in ready}
    order = sorted(ready, key=lambda each: each.pool)
    while True:
        begun = 0
        for each in order:
            if not wanted[each.key] or (each.devices > len(left) if each.devices else places < 1):
                continue
            if not each.devices and each.gigabytes:
                if each.gigabytes > room and not alone:
                    continue
                room, alone = room - each.gigabytes, False
            places -= not each.devices
            taken, left = tuple(left[: each.devices]), left[each.devices :]
            wanted[each.key] -= 1
            begun += 1
            yield each.key, taken
        if not begun:
            return


def most_of(numbers: Sequence[int], devices: int) -> int:
    """The largest of some numbers of devices that there are; all that there are where none is small enough."""
    return max((number for number in numbers if number <= devices), default=devices)


def _independent(one: str, other: str, before: Mapping[str, Collection[str]]) -> bool:
    return one not in before[other] and other not in before[one]


def _widest(keys: Sequence[str], before: Mapping[str, Collection[str]], enough: int) -> int:
    """How many of some builds could run at the same time, counted up to `enough`."""
    if not keys or enough < 1:
        return 0
    first, rest = keys[0], keys[1:]
    beside = [key for key in rest if _independent(first, key, before)]
    with_first = 1 + _widest(beside, before, enough - 1)
    return with_first if with_first >= enough else max(with_first, _widest(rest, before, enough))
