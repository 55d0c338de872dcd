"""How many requests may be in flight: additive increase, multiplicative decrease, per endpoint and model.

While the server takes requests, the limit grows by one a round trip. When it turns one away, the limit shrinks towards
what it took in the last round trip (by Little's law the number in flight that it can bear), at least by a twentieth,
at most by half, and at most once a round trip, so that one burst counts once. A request that waits for its next try
holds no place.
"""

from __future__ import annotations

import asyncio
import heapq
import os
import time


class Pacer:
    """Places in flight. Lives on one event loop; not thread-safe."""

    def __init__(self, ceiling: int) -> None:
        self.ceiling = max(1, ceiling)
        self.limit = float(self.ceiling)
        self.in_flight = 0
        self._epoch = 0
        self._decreased = 0.0
        self._round_trip = 0.0
        """Seconds from sending to answer, smoothed; 0 before the first answer."""
        self._round_began = 0.0
        self._taken = 0
        """Answers in the round trip that began at `_round_began`."""
        self._bearable = 0.0
        """Answers in the round trip before."""
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

    def leave(self, epoch: int, *, crowded: bool, answered: bool, seconds: float = 0.0) -> None:
        """Give the place back and learn from how it went; `seconds` is what an answer took."""
        now = time.monotonic()
        if answered:
            self._round_trip = 0.8 * self._round_trip + 0.2 * seconds if self._round_trip else seconds
            self._taken += 1
            if self.limit < self.ceiling:
                self.limit = min(float(self.ceiling), self.limit + 1.0 / self.limit)
        if now - self._round_began >= self._round_trip > 0:
            self._bearable = self._taken * self._round_trip / (now - self._round_began)
            self._round_began, self._taken = now, 0
        if crowded and epoch == self._epoch and now - self._decreased >= self._round_trip:
            limit = min(self.limit, float(self.in_flight))
            self.limit = max(1.0, min(0.95 * limit, max(0.5 * limit, self._bearable)))
            self._epoch += 1
            self._decreased = now
        self._leave()

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
