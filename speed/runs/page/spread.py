"""A sample of a stream that is spread over groups: rare causes are seen as well as common ones."""

from __future__ import annotations

import heapq
from collections import Counter
from hashlib import blake2b
from typing import Generic, TypeVar

T = TypeVar("T")
Group = tuple[str, ...]


class Spread(Generic[T]):
    """At most `size` items of a stream, as many of each group as of the others where there are enough.

    Which items of a group stay is a function of their names alone, so the same stream gives the same sample. Memory
    grows with `size` and the number of groups, and not with the stream.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._held = 0
        self._most = 0
        """Items of the fullest group, once there are `size` of them."""
        self._groups: dict[Group, list[tuple[int, str, T]]] = {}
        self.counts: Counter[Group] = Counter()
        """All items that were seen, by group."""

    def add(self, group: Group, name: str, item: T) -> None:
        """See one item; names differ."""
        self.counts[group] += 1
        entry = (-int.from_bytes(blake2b(name.encode("utf-8", "replace"), digest_size=8).digest()), name, item)
        members = self._groups.setdefault(group, [])
        if self._held == self._size and len(members) >= self._most:
            heapq.heappushpop(members, entry)
            return
        heapq.heappush(members, entry)
        self._held += 1
        if self._held > self._size:
            fullest = max(self._groups, key=lambda each: (len(self._groups[each]), each))
            heapq.heappop(self._groups[fullest])
            self._held -= 1
        if self._held == self._size:
            self._most = max(map(len, self._groups.values()))

    def items(self) -> list[T]:
        """The sample, by group and then by name."""
        return [
            item
            for group in sorted(self._groups)
            for _, _, item in sorted(self._groups[group], key=lambda entry: entry[1])
        ]
