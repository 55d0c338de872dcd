"""One `ask` of a teacher, from requests that are read to answers.

The caller's thread renders requests and looks them up in the journal; whatever has to be paid for goes to one event
loop on a thread of its own, so that answers are journaled as they come, however busy the caller is.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any

from speed.core.errors import UserError
from speed.ports import Answer, Ask, Check
from speed.runtime import Context
from speed.teaching.dialect import Dialect
from speed.teaching.entry import Entry, Spending
from speed.teaching.envelope import answered
from speed.teaching.errors import Reply, TransportError, every_one_refused
from speed.teaching.pending import Pending
from speed.teaching.requests import Call, Request, Sender
from speed.teaching.session import Session
from speed.teaching.spending import caps_of, never_answered

WINDOW = 4
"""Requests ahead of the caller, as a multiple of the concurrency: memory is flat, and a slow answer stalls nobody."""
REFUSED = 20
"""Requests in a row that a provider refuses for good before the run ends: one is one rejected row."""


class Asking:
    """One `ask`."""

    def __init__(self, session: Session, teacher: Sender, ctx: Context) -> None:
        self._session, self._teacher, self._ctx = session, teacher, ctx
        self._journal, self._loop = session.journal, session.loop
        self._patience, self._caps = teacher.patience, caps_of(ctx.runtime)
        self._endpoint = teacher.endpoint(ctx.runtime)
        self._seconds = self._patience.timeout or ctx.runtime.request_seconds
        """How long one sending may take."""
        self._pacer, self._neighbours = session.pace(
            self._endpoint, teacher.model_name, self._concurrency, self._seconds
        )
        self._dialect = Dialect(session.journal, self._endpoint, teacher.model_name, ctx.say)
        self._ahead: deque[Request] = deque()
        self._tasks: dict[Request, asyncio.Task[None]] = {}
        self._pending = Pending(session.journal.folder)
        self._prepared = False
        self._stop: BaseException | None = None
        self._failures_in_a_row = 0
        self._refused_in_a_row = 0
        self._remedy = ""
        self._any_answer = False
        """Whether any request was answered, by the teacher or the journal."""
        self._alive = time.monotonic()
        """When the teacher last said anything; later, where it asked for a pause."""
        self._hung = self._told_timeout = False
        self._awaited: Request | None = None
        self._news = threading.Event()

    # -- the caller's thread -------------------------------------------------------------------------------------------

    def answers(self, requests: Iterable[tuple[Ask, Check]]) -> Iterator[Answer]:
        """Answers in the order of the requests, which are read lazily."""
        source, over = enumerate(requests), False
        most = WINDOW * self._concurrency
        self._journal.refresh()
        self._neighbours.join()
        try:
            while True:
                # As many at once as fly at once: two threads that take turns for every single request spend more on
                # changing turns than on everything else.
                if len(self._ahead) <= most - self._concurrency:
                    wanted = most - len(self._ahead)
                    room = islice(source, wanted)
                    read = [self._teacher.request(ask, check, place) for place, (ask, check) in room]
                    over = len(read) < wanted
                    self._ahead.extend(read)
                    self._launch([request for request in read if not self._from_journal(request)])
                if not self._ahead:
                    return
                answer = self._landed(self._ahead[0])
                if over and len(self._ahead) == 1 and self._all_refused(self._ahead[0].ask.purpose):
                    raise self._refused(answer.detail, self._remedy)
                yield answer
                self._ahead.popleft()
        finally:
            try:
                self._land()
            finally:
                self._neighbours.leave()

    def _all_refused(self, purpose: str) -> bool:
        """Whether all of a small stage was refused, by a teacher that never answered its purpose."""
        if self._any_answer or not self._refused_in_a_row:
            return False
        return never_answered(self._journal, self._teacher.model_name, purpose)

    def _refused(self, detail: str, remedy: str) -> UserError:
        return every_one_refused(self._teacher.model_name, self._refused_in_a_row, detail, remedy)

    @property
    def _concurrency(self) -> int:
        return max(1, self._ctx.runtime.concurrency)

    def _from_journal(self, request: Request) -> bool:
        """Answer a request from the journal as far as it goes; whether that is to the end."""
        whole = request.take_known(self._journal.get)
        self._any_answer |= bool(request.judged)
        return whole

    def _launch(self, requests: list[Request]) -> None:
        if not requests:
            return
        self._pending.refuse_elsewhere(request.call.key for request in requests)
        if not self._prepared:
            self._teacher.prepare(self._ctx.runtime)
            self._prepared = True
        self._share()
        self._loop.call_soon_threadsafe(self._start, requests)

    def _landed(self, request: Request) -> Answer:
        """Wait for one request."""
        begun = time.monotonic()
        while request.answer is None:
            if self._stop is not None:
                raise self._stop
            if request.error is not None:
                raise request.error
            self._share()
            self._awaited = request
            self._news.clear()
            if request.answer is None and request.error is None and self._stop is None:
                self._news.wait(1.0)
                self._ctx.answered_ahead(sum(each.answer is not None for each in self._ahead))
            self._watch(begun)
        self._awaited = None
        request.count(self._ctx.tally)
        return request.answer

    def _share(self) -> None:
        """Leave their part of the places to the other processes that ask the same."""
        self._pacer.ceiling = self._neighbours.share(self._concurrency)

    def _watch(self, begun: float) -> None:
        """Never hang: a teacher that says nothing for too long, while the caller waits, ends the run.

        Any response is a sign of life, also a refusal (which may ask for a longer pause); a timeout is none.
        """
        silent = time.monotonic() - max(self._alive, begun)
        if self._tasks and silent > self._ctx.runtime.watchdog_seconds:
            open_requests = list(self._tasks)  # a copy, since the loop goes on beginning and ending them
            sent = sum(request.sending for request in open_requests)
            self._hung = True
            self._stop = UserError(
                f"the teacher {self._teacher.model_name} has said nothing for {silent:.0f} s (runtime.watchdog_seconds="
                f"{self._ctx.runtime.watchdog_seconds:g}): {len(open_requests)} requests are open, {sent} of them in "
                "flight\n  the run ends here instead of hanging; every answer so far is kept, and the same command "
                "goes on from here"
            )

    def _land(self) -> None:
        """Let go of what was not sent, and wait for the answers in flight: they are being paid for."""
        if any(request.answer is None for request in self._ahead):
            self._stop = self._stop or asyncio.CancelledError()
            landed = threading.Event()
            self._loop.call_soon_threadsafe(self._cancel_unsent, landed)
            landed.wait(5.0 if self._hung else self._seconds)
        self._journal.flush()

    # -- the event loop ------------------------------------------------------------------------------------------------

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
                pass
        except BaseException as error:
            request.error = error
            if self._stop is None and not isinstance(error, asyncio.CancelledError):
                self._stop = error
        finally:
            del self._tasks[request]
            if self._awaited is request or self._stop is not None:
                self._loop.call_soon(self._news.set)  # behind what else has landed by now

    async def _asked(self, request: Request) -> bool:
        """Make the next call of a request, unless the journal has its answer, or its twin is on the way."""
        key, in_flight = request.call.key, self._session.in_flight
        while (waiting := in_flight.get(key)) is not None:
            landed = self._loop.create_future()  # one for each: whoever is cancelled takes no other with it
            waiting.append(landed)
            await landed
        if (known := self._journal.get(key)) is not None:  # it may have landed since it was looked up
            return request.take(known, cached=True)
        in_flight[key] = []
        try:
            entry = await self._paid(request)
        finally:
            for twin in in_flight.pop(key):
                if not twin.done():  # cancelled, where it waits no more
                    twin.set_result(None)
        return request.take(entry, cached=False)

    async def _paid(self, request: Request) -> Entry:
        """Send a call until it is answered or given up; what came of it is written down before anyone reads it."""
        begun = time.monotonic()
        try:
            return await self._patience.resend(partial(self._sent, request, begun))
        except TransportError as trouble:
            unanswered = {"cause": trouble.cause, "detail": trouble.detail, "answered": False, "dollars": 0.0}
            entry = self._entry(request.call, request.resent, begun, **unanswered)
            self._journal.append(entry)
            self._failures_in_a_row += trouble.again
            self._refused_in_a_row += trouble.refused
            self._remedy = trouble.remedy
            if self._refused_in_a_row >= REFUSED:
                raise self._refused(trouble.detail, trouble.remedy) from None
            if self._failures_in_a_row >= self._patience.window:
                raise UserError(
                    f"the teacher {self._teacher.model_name} is gone: {self._failures_in_a_row} requests in a row "
                    f"failed, the last with {trouble.cause} ({trouble.detail})\n  run the same command again when it "
                    "is back; answers are kept"
                ) from None
            return entry

    async def _sent(self, request: Request, begun: float, resent: int) -> Entry:
        """One sending, in its place in flight and within the caps; its answer is written down."""
        request.resent = resent
        epoch = await self._pacer.enter(request.place)
        crowded = answered = False
        sent = time.monotonic()
        try:
            if self._stop is not None:
                raise asyncio.CancelledError
            held = await self._held(request.call)
            try:
                request.sending = True
                reply = await self._replied(request.call)
                answered = True
                self._alive = time.monotonic()
                self._failures_in_a_row = self._refused_in_a_row = 0
                self._any_answer = True
                entry = self._answer(request.call, reply, resent, begun)
                self._journal.append(entry)
                return entry
            finally:
                request.sending = False
                if held is not None:
                    self._session.release(held)
        except TransportError as trouble:
            crowded = trouble.crowded
            if trouble.cause == "timeout":
                self._tell_timeout()
            if trouble.cause not in ("timeout", "connection"):
                self._alive = time.monotonic() + (trouble.retry_after or 0.0)
            raise
        finally:
            self._pacer.leave(epoch, crowded=crowded, answered=answered, seconds=time.monotonic() - sent)

    def _tell_timeout(self) -> None:
        """Say once that requests are sent again, which a server works on twice."""
        if not self._told_timeout:
            self._told_timeout = True
            self._ctx.say(
                f"the teacher {self._teacher.model_name} has not answered a request within {self._seconds:g} s "
                f"(runtime.request_seconds): it is sent again; give a slow server more, or fewer requests at once "
                f"(runtime.concurrency={self._concurrency})"
            )

    async def _replied(self, call: Call) -> Reply:
        """Send a call in the words that the server takes, which are learnt from its refusal of others."""
        setting = self._teacher.max_completion_tokens
        while True:
            spoken = self._dialect.spoken(call.params, setting)
            try:
                return await self._teacher.send(call._replace(params=spoken), self._ctx.runtime, self._seconds)
            except TransportError as trouble:
                if not self._dialect.learns(trouble.wants, spoken, setting):
                    raise

    async def _held(self, call: Call) -> Spending | None:
        """The highest cost of a call, set aside until it is known; None where nothing is capped."""
        if self._caps.none:
            return None
        tokens_in, tokens_out = call.tokens_at_most(), call.params["max_tokens"]
        highest = Spending(self._teacher.dollars(tokens_in, tokens_out) or 0.0, tokens_in + tokens_out, 1)
        try:
            await self._session.hold(highest, self._caps)
        except UserError as error:
            unsent = {"cause": "budget", "detail": str(error), "answered": False, "dollars": 0.0}
            self._journal.append(self._entry(call, 0, time.monotonic(), **unsent))
            raise
        return highest

    def _answer(self, call: Call, reply: Reply, resent: int, begun: float) -> Entry:
        return self._entry(call, resent, begun, **answered(call.messages, reply, self._teacher.dollars))

    def _entry(self, call: Call, resent: int, begun: float, **outcome: Any) -> Entry:
        seconds, now = round(time.monotonic() - begun, 4), round(time.time(), 3)
        model = self._teacher.model_name
        return call.entry(model, self._endpoint, resent=resent, seconds=seconds, time=now, **outcome)
