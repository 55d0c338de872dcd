"""The requests of one `ask` on their way: read lazily by the caller, sent on the teaching loop, answered in order.

The caller's thread renders requests and looks them up in the journal; whatever has to be paid for goes to the loop.
At most `WINDOW` times the concurrency is ahead of the caller, so memory is flat and a slow answer stalls nobody.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from speed.core.errors import UserError
from speed.ports import Answer, Ask, Check
from speed.runtime import Context
from speed.teaching.budget import Budget
from speed.teaching.caps import Spending, caps_of
from speed.teaching.errors import Patience, Reply, TransportError, Tries
from speed.teaching.journal import Entry, Journal
from speed.teaching.loop import teaching_loop
from speed.teaching.neighbours import Neighbours
from speed.teaching.pace import Pacer
from speed.teaching.requests import Call, Request

WINDOW = 4
"""Requests ahead of the caller, as a multiple of the concurrency."""


_in_flight: dict[tuple[int, Path], dict[str, list[asyncio.Future[None]]]] = {}
"""Keys being asked and who waits for them to land, by process and journal: two stages that want the same answer pay for
it once."""


class Sender(Protocol):
    """What a flight needs of a teacher."""

    def send(self, call: Call, seconds: float) -> Awaitable[Reply]: ...

    def dollars(self, tokens_in: int, tokens_out: int) -> float | None: ...


class Flight:
    """One `ask`."""

    def __init__(
        self,
        sender: Sender,
        request_of: Callable[[Ask, Check, int], Request],
        journal: Journal,
        pacer: Pacer,
        neighbours: Neighbours,
        budget: Budget,
        patience: Patience,
        *,
        model: str,
        endpoint: str,
        prepare: Callable[[], None],
        ctx: Context,
    ) -> None:
        self._sender = sender
        self._request_of = request_of
        self._journal = journal
        self._pacer = pacer
        self._neighbours = neighbours
        self._budget = budget
        self._patience = patience
        self._draw = random.Random(os.getpid())
        """Of pauses alone."""
        self._model = model
        self._endpoint = endpoint
        self._prepare = prepare
        self._ctx = ctx
        self._caps = caps_of(ctx.runtime)
        self._has_caps = not self._caps.none
        self._loop = teaching_loop()
        self._ahead: deque[Request] = deque()
        self._tasks: dict[Request, asyncio.Task[None]] = {}
        self._in_flight = _in_flight.setdefault((os.getpid(), journal.folder), {})
        self._prepared = False
        self._stop: BaseException | None = None
        self._failures_in_a_row = 0
        self._to_write: list[Entry] = []
        """Answers of this turn of the loop."""
        self._writing: asyncio.Future[None] | None = None
        """Done when they are written down."""
        self._alive = time.monotonic()
        """When the teacher last said anything; later, where it asked for a pause."""
        self._hung = False
        self._awaited: Request | None = None
        self._news = threading.Event()

    def answers(self, requests: Iterable[tuple[Ask, Check]]) -> Iterator[Answer]:
        """Answers in the order of the requests."""
        source = enumerate(requests)
        exhausted = False
        batch = max(1, self._ctx.runtime.concurrency)
        most = WINDOW * batch
        self._neighbours.join()
        try:
            while True:
                # Requests are read, keyed, looked up and sent by the batch: threads that change turns for each one cost
                # more than all the rest, and the same code again and again is faster than all of it in turns.
                while not exhausted and self._stop is None and len(self._ahead) <= most - batch:
                    asked = list(islice(source, batch))
                    exhausted = len(asked) < batch
                    read = [self._request_of(ask, check, place) for place, (ask, check) in asked]
                    self._share()
                    self._ahead.extend(read)
                    self._launch(self._unanswered(read))
                if not self._ahead:
                    return
                yield self._landed(self._ahead[0])
                self._ahead.popleft()
        finally:
            try:
                self._land()
            finally:
                self._neighbours.leave()

    # -- the caller's thread -------------------------------------------------------------------------------------------

    def _unanswered(self, requests: list[Request]) -> list[Request]:
        """Those of some requests that the journal does not answer to the end."""
        known = self._journal.answered([request.call.key for request in requests])
        return [each for each in requests if each.call.key not in known or not self._from_journal(each)]

    def _from_journal(self, request: Request) -> bool:
        """Answer a request from the journal as far as it goes."""
        while (known := self._journal.get(request.call.key)) is not None:
            if request.take(known, cached=True):
                return True
        return False

    def _launch(self, requests: list[Request]) -> None:
        if not requests:
            return
        if not self._prepared:
            self._prepare()
            self._prepared = True
        self._loop.call_soon_threadsafe(self._start, requests)

    def _landed(self, request: Request) -> Answer:
        """Wait for one request."""
        begun = 0.0
        while request.answer is None:
            begun = begun or time.monotonic()
            if self._stop is not None:
                raise self._stop
            if request.error is not None:
                raise request.error
            self._share()
            self._awaited = request
            self._news.clear()
            if request.answer is None and request.error is None and self._stop is None:
                self._news.wait(1.0)
            self._watch(begun)
        self._awaited = None
        request.count(self._ctx.tally)
        return request.answer

    def _share(self) -> None:
        """Leave their part of the places to the other processes that ask the same."""
        self._pacer.ceiling = self._neighbours.share(max(1, self._ctx.runtime.concurrency))

    def _watch(self, begun: float) -> None:
        """Never hang: a teacher that says nothing for too long, while the caller waits, ends the run.

        Any response is a word of life, also a refusal (which may ask for a longer pause); a timeout is none.
        """
        silent = time.monotonic() - max(self._alive, begun)
        if self._tasks and silent > self._ctx.runtime.watchdog_seconds:
            open_requests = list(self._tasks)  # a copy, since the loop goes on beginning and ending them
            sent = sum(request.sending for request in open_requests)
            self._hung = True
            self._stop = UserError(
                f"the teacher {self._model} has said nothing for {silent:.0f} s (runtime.watchdog_seconds="
                f"{self._ctx.runtime.watchdog_seconds:g}): {len(open_requests)} requests are open, {sent} of them in "
                "flight\n  the run ends here instead of hanging; every answer so far is kept, and the same command "
                "goes on from here"
            )

    def _land(self) -> None:
        """Let go of what was not sent, and wait for the answers in flight: they are being paid for."""
        if all(request.answer is not None for request in self._ahead):
            self._journal.flush()
            return
        self._stop = self._stop or asyncio.CancelledError()
        landed = threading.Event()
        self._loop.call_soon_threadsafe(self._cancel_unsent, landed)
        landed.wait(5.0 if self._hung else self._patience.timeout)
        self._journal.flush()

    # -- the loop ------------------------------------------------------------------------------------------------------

    def _start(self, requests: list[Request]) -> None:
        for request in requests:
            self._tasks[request] = self._loop.create_task(self._drive(request))

    def _cancel_unsent(self, landed: threading.Event) -> None:
        for request, task in list(self._tasks.items()):
            if self._hung or not request.sending:
                task.cancel()
        if not self._tasks:
            landed.set()
            return
        last = asyncio.gather(*self._tasks.values(), return_exceptions=True)
        last.add_done_callback(lambda _: landed.set())

    async def _drive(self, request: Request) -> None:
        """Make the calls of a request until its answer is final."""
        try:
            while not await self._asked(request):
                if self._from_journal(request):
                    break
        except BaseException as error:
            request.error = error
            if self._stop is None and not isinstance(error, asyncio.CancelledError):
                self._stop = error
        finally:
            del self._tasks[request]
            if self._awaited is request or self._stop is not None:
                # Behind what else has landed by now: whoever wakes the caller for each answer changes threads for each.
                self._loop.call_soon(self._news.set)

    async def _asked(self, request: Request) -> bool:
        """Make the next call of a request, unless its twin is on the way: then take that one's answer."""
        key = request.call.key
        while (waiting := self._in_flight.get(key)) is not None:
            landed = self._loop.create_future()  # one for each: whoever is cancelled takes no other with it
            waiting.append(landed)
            await landed
        # It was looked up by the batch, a moment ago: its twin may have landed since.
        if self._journal.answered_lately(key) and (known := self._journal.get(key)) is not None:
            return request.take(known, cached=True)
        self._in_flight[key] = []
        try:
            entry = await self._paid(request)
        finally:
            for twin in self._in_flight.pop(key):
                if not twin.done():  # cancelled, where it waits no more
                    twin.set_result(None)
        return request.take(entry, cached=False)

    async def _paid(self, request: Request) -> Entry:
        """Send a call until it is answered or given up, and write down what came of it before anyone reads it."""
        call = request.call
        tries = Tries(self._patience, self._draw)
        begun = time.monotonic()
        while True:
            try:
                reply = await self._sent(request, call)
                self._alive = time.monotonic()
                break
            except TransportError as trouble:
                if trouble.cause not in ("timeout", "connection"):
                    self._alive = time.monotonic() + (trouble.retry_after or 0.0)
                pause = tries.pause(trouble)
                if pause is None:
                    return self._given_up(call, trouble, tries.resent, begun)
                await asyncio.sleep(pause)
        entry = self._entry(
            call,
            tries.resent,
            begun,
            text=reply.text,
            finish_reason=reply.finish_reason,
            cause=reply.cause,
            tokens_in=reply.tokens_in,
            tokens_out=reply.tokens_out,
            tokens_cached=reply.tokens_cached,
            dollars=self._sender.dollars(reply.tokens_in, reply.tokens_out),
            provider=reply.provider,
            served_by=reply.served_by,
        )
        await self._written(entry)
        request.sending = False
        return entry

    def _written(self, entry: Entry) -> asyncio.Future[None]:
        """Done when the answer is written down.

        Answers that come in one turn of the loop are written one after another and read afterwards: the same few lines
        of code again and again take two thirds of the time that they take in turns.
        """
        self._to_write.append(entry)
        if self._writing is None:
            self._writing = self._loop.create_future()
            self._loop.call_soon(self._write, self._writing)
        return self._writing

    def _write(self, writing: asyncio.Future[None]) -> None:
        entries, self._to_write, self._writing = self._to_write, [], None
        failure: Exception | None = None
        try:
            for entry in entries:
                self._journal.append(entry)
        except Exception as error:
            failure = error
        if writing.cancelled():  # with those who wait, where the run hangs
            return
        if failure is not None:
            writing.set_exception(failure)
        else:
            writing.set_result(None)

    async def _sent(self, request: Request, call: Call) -> Reply:
        """One sending, in its place in flight and within the budget."""
        epoch = await self._pacer.enter(request.place)
        crowded = answered = False
        begun = time.monotonic()
        try:
            if self._stop is not None:
                raise asyncio.CancelledError
            reply = await (self._capped if self._has_caps else self._uncapped)(request, call)
            answered = True
            self._failures_in_a_row = 0
            return reply
        except TransportError as trouble:
            crowded = trouble.crowded
            raise
        finally:
            self._pacer.leave(epoch, crowded=crowded, answered=answered, seconds=time.monotonic() - begun)

    async def _capped(self, request: Request, call: Call) -> Reply:
        """One sending whose highest cost is held until it is known."""
        tokens_in, tokens_out = _tokens_at_most(call), call.params["max_tokens"]
        highest = Spending(self._sender.dollars(tokens_in, tokens_out) or 0.0, tokens_in + tokens_out, 1)
        paid = Spending()
        try:
            await self._budget.hold(highest, self._caps)
        except UserError as error:
            unsent = self._entry(
                call, 0, time.monotonic(), cause="budget", detail=str(error), answered=False, dollars=0.0
            )
            self._journal.append(unsent)
            raise
        try:
            reply = await self._uncapped(request, call)
            dollars = self._sender.dollars(reply.tokens_in, reply.tokens_out)
            paid = Spending(dollars or 0.0, reply.tokens_in + reply.tokens_out, 1)
            return reply
        finally:
            self._budget.settle(highest, paid, self._caps)

    async def _uncapped(self, request: Request, call: Call) -> Reply:
        """One sending."""
        request.sending = True  # until its answer is written down
        try:
            return await self._sender.send(call, self._patience.timeout)
        except BaseException:
            request.sending = False
            raise

    def _given_up(self, call: Call, trouble: TransportError, resent: int, begun: float) -> Entry:
        entry = self._entry(
            call, resent, begun, cause=trouble.cause, detail=trouble.detail, answered=False, dollars=0.0
        )
        self._journal.append(entry)
        self._failures_in_a_row += trouble.again
        if self._failures_in_a_row >= self._patience.window:
            raise UserError(
                f"the teacher {self._model} is gone: {self._failures_in_a_row} requests in a row failed, the last with "
                f"{trouble.cause} ({trouble.detail})\n  run the same command again when it is back; answers are kept"
            )
        return entry

    def _entry(self, call: Call, resent: int, begun: float, **outcome: Any) -> Entry:
        return Entry(
            key=call.key,
            model=self._model,
            messages=call.messages,
            params=call.params,
            index=call.ask.index,
            purpose=call.ask.purpose,
            kind=call.ask.kind.value if call.ask.kind else "",
            endpoint=self._endpoint,
            resent=resent,
            seconds=round(time.monotonic() - begun, 4),
            time=round(time.time(), 3),
            **outcome,
        )


def _tokens_at_most(call: Call) -> int:
    """Input tokens, rather too many: three bytes a token."""
    return sum(len(message["content"].encode("utf-8", "replace")) for message in call.messages) // 3 + 16
