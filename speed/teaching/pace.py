"""How many requests may be in flight, and how fast they follow one another, per endpoint and model.

Providers reject requests (429) because too many are open at once or because too many came in a while. The pacer
does not know which, and learns both limits from what was taken:

- places: one more each round trip while nothing is refused. A refusal lowers them towards the number of answers in a
  round trip, which by Little's law is the number in flight that the server bears; by at least a twentieth and at most
  half;
- rate: none until the first refusal, then the rate at which requests are taken, but never less than one a round trip (a
  server that refuses at random must not starve the run); a little faster after every round trip without a refusal, and
  none again once it no longer binds;
- a server that queues instead of refusing: a run begins with four places and doubles them each round trip, but no
  further than to where a round trip would take half as long as a request may.

Either shrinks at most once a round trip, so that one burst counts once. A request that waits for its next try holds
no place.
"""

from __future__ import annotations

import asyncio
import heapq

MARGIN = 1.2
"""How far above what was taken the limits stay: a little is refused, nothing is left unused."""
FIRST = 4
"""Places that a run begins with, where it is known how long a request may take."""
CREDIT = 0.02
"""Seconds of sending that may be made up for at once: timers are no finer."""


class Pacer:
    """Places in flight and the gaps between sendings. Lives on one event loop; not thread-safe."""

    def __init__(self, ceiling: int, seconds: float | None = None) -> None:
        self.ceiling = max(1, ceiling)
        """Places at most; may be set at any time."""
        self.seconds = seconds
        """How long a request may take; None where nothing is known of it."""
        self.limit = float(self.ceiling if seconds is None else min(FIRST, self.ceiling))
        self._doubles = seconds is not None
        """Whether the places are still doubled each round trip."""
        self.rate: float | None = None
        """Sendings a second; None while nothing limits them."""
        self.in_flight = 0
        self._epoch = 0
        self._decreased = 0.0
        self._round_trip = 0.0
        """Seconds from sending to answer, smoothed; 0 before the first answer."""
        self._round_began = 0.0
        self._taken = 0
        """Requests that were not refused, whatever came of them, in the round that began then."""
        self._refused = False
        """Whether that round saw a refusal."""
        self._speed = 0.0
        """Requests taken a second, smoothed over the last rounds; 0 before the first whole round."""
        self._next = 0.0
        """When the rate allows the next sending."""
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._ticket = 0

    async def enter(self, place: int) -> int:
        """Wait for a place, the lowest `place` first; returns the epoch in which the request is sent."""
        if not self._waiting and self.rate is None and self._has_room():
            self.in_flight += 1
            return self._epoch
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ticket += 1
        heapq.heappush(self._waiting, (place, self._ticket, future))
        self._dispatch()
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.in_flight -= 1
                self._dispatch()
            raise
        return self._epoch

    def leave(self, epoch: int, *, crowded: bool, answered: bool, seconds: float = 0.0) -> None:
        """Give the place back and learn from how it went; `seconds` is what an answer took."""
        now = asyncio.get_running_loop().time()
        self._taken += not crowded
        if answered:
            self._round_trip = 0.8 * self._round_trip + 0.2 * seconds if self._round_trip else seconds
            if not self._doubles and self._in_time(self.limit + 1.0):
                self.limit = min(float(self.ceiling), self.limit + 1.0 / self.limit)
        self._refused |= crowded
        self._doubles &= not crowded
        if crowded and epoch == self._epoch and now - self._decreased >= self._round_trip:
            self._decrease(now)
        if now - self._round_began >= max(self._round_trip, 0.1) and self._round_trip:
            self._begin_round(now)
        self.in_flight -= 1
        if self._waiting:
            self._dispatch()

    def _decrease(self, now: float) -> None:
        limit = min(self.limit, float(self.in_flight))
        self.limit = max(1.0, min(limit, max(0.5 * limit, MARGIN * self._speed * self._round_trip)))
        if self._speed:
            slowest = max(MARGIN * self._speed, 1.0 / self._round_trip if self._round_trip else 0.0)
            self.rate = max(0.5 * self.rate, slowest) if self.rate else slowest
        self._epoch += 1
        self._decreased = now

    def _begin_round(self, now: float) -> None:
        speed = self._taken / (now - self._round_began) if self._round_began else 0.0
        self._speed = 0.7 * self._speed + 0.3 * speed if self._speed else speed
        if self.rate is not None and not self._refused:
            self.rate *= 1.05
            if self.rate > 2.0 * self._speed:
                self.rate = None
        if self._doubles and speed:
            self._doubles = 2.0 * self.limit < self.ceiling and self._in_time(2.0 * self.limit)
            if self._in_time(2.0 * self.limit):
                self.limit = min(float(self.ceiling), 2.0 * self.limit)
        self._round_began, self._taken, self._refused = now, 0, False

    def _in_time(self, places: float) -> bool:
        """Whether so many requests in flight would be answered in half the time that they may take, if the server is no
        faster with more of them (Little's law)."""
        return self.seconds is None or not self._speed or places / self._speed < self.seconds / 2

    def _dispatch(self) -> None:
        """Let go of those that have a place and whose time has come."""
        while self._waiting and self._has_room():
            if self._waiting[0][2].done():
                heapq.heappop(self._waiting)
                continue
            if self.rate is not None:
                loop = asyncio.get_running_loop()
                now = loop.time()
                if now < self._next:
                    if self._timer is None:
                        self._timer = loop.call_at(self._next, self._on_time)
                    return
                self._next = max(self._next, now - CREDIT) + 1.0 / self.rate
            self.in_flight += 1
            heapq.heappop(self._waiting)[2].set_result(None)

    def _has_room(self) -> bool:
        return self.in_flight < self.ceiling and self.in_flight < int(self.limit)

    def _on_time(self) -> None:
        self._timer = None
        self._dispatch()
