"""How many requests may be in flight: additive increase, multiplicative decrease, per endpoint and model.

When the server turns requests away, the limit shrinks to the share that it took (at most once per round trip, so that
one burst counts once); while it takes them, the limit grows by one per round trip. A request that waits for its
next try holds no place.
"""

from __future__ import annotations

import asyncio
import heapq
import os


class Pacer:
    """Places in flight. Lives on one event loop; not thread-safe."""

    def __init__(self, ceiling: int) -> None:
        self.ceiling = max(1, ceiling)
        self.limit = float(self.ceiling)
        self.in_flight = 0
        self._epoch = 0
        self._taken = 0
        self._turned_away = 0
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._ticket = 0

    async def enter(self, place: int) -> int:
        """Wait for a place, the lowest `place` first; returns the epoch in which the request is sent."""
        if self.in_flight < int(self.limit) and not self._waiting:
            self.in_flight += 1
            return self._epoch
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ticket += 1
        heapq.heappush(self._waiting, (place, self._ticket, future))
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self._leave()
            raise
        return self._epoch

    def leave(self, epoch: int, *, crowded: bool, answered: bool) -> None:
        """Give the place back and learn from how it went."""
        if crowded:
            self._turned_away += 1
            if epoch == self._epoch:
                share = self._taken / (self._taken + self._turned_away)
                self.limit = max(1.0, min(self.limit, self.in_flight) * min(0.95, max(0.5, share)))
                self._begin_epoch()
        elif answered:
            self._taken += 1
            if self.limit < self.ceiling:
                self.limit = min(float(self.ceiling), self.limit + 1.0 / self.limit)
            if self._taken > 4 * self.limit:
                # Old news: a burst is judged by the last few round trips.
                self._taken //= 2
                self._turned_away //= 2
        self._leave()

    def _begin_epoch(self) -> None:
        """Refusals of requests that were sent before this decrease will not count again."""
        self._epoch += 1
        self._taken = 0
        self._turned_away = 0

    def _leave(self) -> None:
        self.in_flight -= 1
        while self._waiting and self.in_flight < int(self.limit):
            future = heapq.heappop(self._waiting)[2]
            if not future.done():
                self.in_flight += 1
                future.set_result(None)


_pacers: dict[tuple[int, str, str], Pacer] = {}


def pacer_of(endpoint: str, model: str, ceiling: int) -> Pacer:
    """The pacer that all stages of this process share for an endpoint and model."""
    key = (os.getpid(), endpoint, model)
    if key not in _pacers:
        _pacers[key] = Pacer(ceiling)
    _pacers[key].ceiling = max(1, ceiling)
    return _pacers[key]
