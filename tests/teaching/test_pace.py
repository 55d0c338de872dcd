"""The pace in virtual time: what a crowded server gets out of its places, whatever machine the test runs on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest
import virtual_time

from speed.teaching.errors import Patience, TransportError
from speed.teaching.pace import Pacer


class Server:
    """Takes so many at once, or so many a second; rejects the rest within two milliseconds."""

    def __init__(self, places: int | None, per_second: float | None, latency: Callable[[], float]) -> None:
        self.places, self.per_second, self.latency = places, per_second, latency
        self.in_flight = self.bucket = self.filled = 0.0
        self.answered: list[float] = []
        self.refused = 0

    async def serve(self) -> bool:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0.001)
        if not self._takes(loop.time()):
            self.refused += 1
            await asyncio.sleep(0.001)
            return False
        self.in_flight += 1
        await asyncio.sleep(self.latency())
        self.in_flight -= 1
        self.answered.append(loop.time())
        return True

    def _takes(self, now: float) -> bool:
        if self.places is not None and self.in_flight >= self.places:
            return False
        if self.per_second is None:
            return True
        self.bucket = min(max(2.0, self.per_second), self.bucket + (now - self.filled) * self.per_second)
        self.filled = now
        if self.bucket < 1:
            return False
        self.bucket -= 1
        return True


async def storm(server: Server, pacer: Pacer, rows: int, patience: Patience) -> None:
    """What an `ask` does with its requests, without anything else: 256 ahead, each sent until it is answered."""
    ahead = asyncio.Semaphore(256)

    async def one(place: int) -> None:
        failures = 0
        while True:
            epoch = await pacer.enter(place)
            begun = asyncio.get_running_loop().time()
            answered = await server.serve()
            seconds = asyncio.get_running_loop().time() - begun
            pacer.leave(epoch, crowded=not answered, answered=answered, seconds=seconds)
            if answered:
                break
            await asyncio.sleep(patience.pause(TransportError("http_4xx", "", limited=True), failures))
            failures += 1
        ahead.release()

    tasks = []
    for place in range(rows):
        await ahead.acquire()
        tasks.append(asyncio.create_task(one(place)))
    await asyncio.gather(*tasks)


@pytest.mark.parametrize("seconds", [0.05, 2.0])
@pytest.mark.parametrize("spread", [0.0, 0.4])
@pytest.mark.parametrize("limit", ["places 10", "places 40", "rate 300"])
def test_a_storm_of_429_leaves_nine_tenths_of_the_servers_limit(limit: str, seconds: float, spread: float) -> None:
    draw = random.Random(0)
    size = float(limit.split()[1])
    rate = None if limit.startswith("places") else size * 0.05 / seconds
    server = Server(int(size) if rate is None else None, rate, lambda: seconds * draw.uniform(1 - spread, 1 + spread))
    true_limit = rate or size / seconds
    rows = int(100 * size) if rate is None else 3000
    virtual_time.run(storm(server, Pacer(64), rows, Patience()))
    assert len(server.answered) == rows
    assert server.refused > 0
    middle = server.answered[rows // 20 : -rows // 20]
    goodput = len(middle) / (middle[-1] - middle[0])
    assert goodput >= 0.9 * true_limit, f"{goodput / true_limit:.2f}"
    assert server.refused < rows, "the server is not shouted at"


def test_a_server_that_refuses_at_random_does_not_starve_the_run() -> None:
    """Whatever the load, one request in three is refused: the pace may fall to one a round trip and no further."""
    draw = random.Random(0)

    class Moody(Server):
        def _takes(self, now: float) -> bool:
            return draw.random() > 0.33

    server = Moody(None, None, lambda: 0.05)
    virtual_time.run(storm(server, Pacer(64), 400, Patience()))
    assert len(server.answered) == 400
    assert server.answered[-1] < 400 * 0.05 / 0.6


def test_one_burst_halves_the_limit_once_and_it_grows_by_one_a_round_trip() -> None:
    async def scenario() -> None:
        pacer = Pacer(32)
        epochs = [await pacer.enter(place) for place in range(32)]
        for epoch in epochs:
            pacer.leave(epoch, crowded=True, answered=False)
        assert pacer.limit == 16.0, "one burst counts once"
        for _ in range(16):
            await asyncio.sleep(0.01)
            pacer.leave(await pacer.enter(0), crowded=False, answered=True, seconds=1.0)
        assert 16.9 < pacer.limit < 17.0
        assert pacer.in_flight == 0

    virtual_time.run(scenario())


def test_places_go_to_the_oldest_and_a_cancelled_wait_takes_none() -> None:
    async def scenario() -> None:
        pacer, order = Pacer(1), []
        first = await pacer.enter(0)

        async def wait(place: int) -> None:
            epoch = await pacer.enter(place)
            order.append(place)
            pacer.leave(epoch, crowded=False, answered=True, seconds=1.0)

        waiting = [asyncio.create_task(wait(place)) for place in (5, 3, 4, 2)]
        await asyncio.sleep(0)
        waiting[1].cancel()
        pacer.leave(first, crowded=False, answered=True, seconds=1.0)
        await asyncio.gather(*waiting, return_exceptions=True)
        assert order == [2, 4, 5]
        assert pacer.in_flight == 0

    virtual_time.run(scenario())


@pytest.mark.parametrize(("places", "seconds"), [(1, 20.0), (4, 60.0), (64, 2.0)])
def test_a_server_that_queues_is_not_flooded(places: int, seconds: float) -> None:
    """It answers so many side by side and refuses nobody: requests wait there, and none may wait for 300 s."""

    class Queue(Server):
        def __init__(self) -> None:
            super().__init__(None, None, lambda: seconds)
            self.turns = asyncio.Semaphore(places)
            self.slowest = 0.0

        async def serve(self) -> bool:
            begun = asyncio.get_running_loop().time()
            async with self.turns:
                answered = await super().serve()
            self.slowest = max(self.slowest, asyncio.get_running_loop().time() - begun)
            return answered

    async def scenario() -> Queue:
        server = Queue()
        await storm(server, Pacer(32, 300.0), 200, Patience())
        return server

    server = virtual_time.run(scenario())
    assert server.slowest < 300.0
    ideal = 200 / min(places, 32) * seconds
    assert server.answered[-1] < 1.1 * ideal + 5 * seconds, "and it is kept busy"
