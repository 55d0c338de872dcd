"""One `ask` of a teacher that answers in batches.

All requests of a stage are read at once, and those that neither the journal nor a pending batch answers are handed over
together. Whenever a batch has ended its answers are taken, and requests that need another try form the next batch.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property

from speed.core.errors import Later, UserError
from speed.ports import Answer, Ask, Check
from speed.runtime import Context
from speed.teaching.batch_results import NO_ROOM, TOO_MUCH, Failure, Outcome
from speed.teaching.batch_server import Told
from speed.teaching.batches import Batches
from speed.teaching.dialect import Dialect
from speed.teaching.entry import Entry
from speed.teaching.errors import TransportError, every_one_refused
from speed.teaching.outbox import BatchSender, Outbox
from speed.teaching.pending import Batch, Pending
from speed.teaching.requests import Request
from speed.teaching.session import Session
from speed.teaching.spending import never_answered

WINDOW = 50_000
"""Requests that are read before the first has its answer: three quarters of a gigabyte (`tests/bench/batches.py`)."""
TELL_SECONDS = 600.0
"""Between two words of a batch of which there is nothing new."""


class BatchAsking:
    """One `ask`. Its first requests are handed over as soon as it is made, before anybody waits for an answer."""

    def __init__(
        self, session: Session, teacher: BatchSender, ctx: Context, requests: Iterable[tuple[Ask, Check]]
    ) -> None:
        self._journal, self._account = session.journal, session.account
        self._teacher, self._ctx = teacher, ctx
        self._endpoint = teacher.endpoint(ctx.runtime)
        self._pending = Pending(session.journal.folder)
        self._dialect = Dialect(session.journal, self._endpoint, teacher.model_name, ctx.say)
        self._outbox = Outbox(session, teacher, ctx, self._dialect)
        self._source = enumerate(requests)
        self._ahead: deque[Request] = deque()
        self._ours: set[str] = set()
        """Batches with requests of this `ask`."""
        self._resent: Counter[str] = Counter()
        """Times that a request was sent and not answered, by key."""
        self._by_turns = False
        """Whether the server takes no more than one batch at a time."""
        self._short = (0, 0)
        """For how many of how many requests the caps had room."""
        self._statuses: dict[str, str] = {}
        """What the server said last of each batch."""
        self._told: tuple[tuple[int, int], float] = ((0, 0), 0.0)
        if self._pending.all():
            with self._pending.lock():
                self._batches.finish()
        self._journal.refresh()
        self._read()
        self._submit()

    def answers(self) -> Iterator[Answer]:
        """Answers in the order of the requests."""
        while self._ahead:
            while self._ahead and (answer := self._ahead[0].answer) is not None:
                self._ahead.popleft().count(self._ctx.tally)
                yield answer
            self._read()
            if self._ahead and self._ahead[0].answer is None:
                self._submit()
                self._take(self._awaited())

    @cached_property
    def _batches(self) -> Batches:
        runtime = self._ctx.runtime
        return Batches(
            journal=self._journal,
            account=self._account,
            pending=self._pending,
            server=self._teacher.server(runtime),
            endpoint=self._endpoint,
            model=self._teacher.model_name,
            price=self._teacher.dollars,
            say=self._ctx.say,
            patience=self._teacher.patience,
            silence=runtime.watchdog_seconds,
            settled=self._teacher.settled,
        )

    def _read(self) -> None:
        """Read on until the first request is one without an answer, and then as many as fit into the window."""
        while len(self._ahead) < WINDOW and (not self._ahead or self._ahead[0].answer is None):
            place, request = next(self._source, (0, None))
            if request is None:
                return
            self._ahead.append(self._teacher.request(*request, place))
            self._ahead[-1].take_known(self._journal.get)

    def _open(self) -> dict[str, Request]:
        """Requests without an answer, by the key of their next call; one of those that ask the same."""
        found: dict[str, Request] = {}
        for request in self._ahead:
            if request.answer is None:
                found.setdefault(request.call.key, request)
        return found

    # -- handing over --------------------------------------------------------------------------------------------------

    def _submit(self) -> None:
        """Hand over what nobody has answered or has been handed."""
        if not self._open():
            return
        self._teacher.prepare(self._ctx.runtime)
        with self._pending.lock():
            self._batches.recover()
            self._journal.refresh()
            self._take({})  # what other processes have taken meanwhile
            placed, waiting = self._pending.by_key(), self._open()
            self._pending.refuse_elsewhere(waiting, self._endpoint)
            new = (request for key, request in waiting.items() if key not in placed)
            for some in self._outbox.files(new, self._resent):
                if self._by_turns and self._batches.mine():
                    break
                fits = self._outbox.within_caps(some)
                if fits:
                    self._batches.submit(some[:fits], self._teacher.window, held=self._outbox.capped)
                if fits < len(some):
                    self._tell_caps(fits, len(some))
                    break
                self._short = (0, 0)
            placed = self._pending.by_key()
            self._ours = {placed[key].id for key in waiting if key in placed}

    def _tell_caps(self, fits: int, count: int) -> None:
        """Say once that some requests have to wait."""
        if self._short != (fits, count):
            self._short = (fits, count)
            self._ctx.say(
                f"the caps have room for {fits:,} of {count:,} requests at their highest cost: the others go when it "
                "is known what those under way have cost (python -m speed.journal batches)"
            )

    # -- waiting -------------------------------------------------------------------------------------------------------

    def _awaited(self) -> dict[str, Outcome]:
        """Wait until a batch with requests of ours has ended; what became of each of its requests.

        Raises:
            Later: instead of waiting, where the teacher is told not to.
        """
        begun = time.monotonic()
        if not self._open():  # another process has taken all answers
            return {}
        while True:
            batches = [batch for batch in self._pending.all() if batch.id in self._ours]
            if len(batches) < len(self._ours):  # another process has taken one
                return {}
            if not batches and self._room_made():
                return {}
            told = [(batch, self._batches.look(batch)) for batch in batches]
            if ended := [each for each in told if each[1].ended]:
                return self._taken(ended)
            self._tell(told)
            waited = time.monotonic() - begun > self._ctx.runtime.watchdog_seconds
            accepted = all(each.status != "validating" for _, each in told)
            if not self._teacher.wait and (accepted or waited):
                raise self._later(batches)
            time.sleep(self._teacher.poll_seconds)
            if not batches:  # there was no room under a cap, or at the server
                return {}

    def _room_made(self) -> bool:
        """Take ended batches whose requests nobody here asks for any more: they hold room under the caps, or a turn.

        Raises:
            UserError: when only batches at other servers or of other models hold the room, which nobody waits for.
        """
        others = [batch for batch in self._batches.mine() if batch.server_id]
        if not others:
            self._outbox.refuse_full()
        ended = [each for batch in others if (each := (batch, self._batches.look(batch)))[1].ended]
        with self._pending.lock():
            left = {batch.id for batch in self._pending.all()}
            for batch, told in ended:
                if batch.id in left:
                    self._batches.take(batch, told)
        return bool(ended)

    def _taken(self, ended: Sequence[tuple[Batch, Told]]) -> dict[str, Outcome]:
        found: dict[str, Outcome] = {}
        with self._pending.lock():
            left = {batch.id for batch in self._pending.all()}
            for batch, told in ended:
                if batch.id in left:  # otherwise another process was faster
                    batch, outcomes = self._batches.take(batch, told)
                    found.update(outcomes)
                    if batch.code == TOO_MUCH:
                        self._send_less(batch)
        return found

    def _send_less(self, batch: Batch) -> None:
        """The server has too many tokens of this model waiting: one batch at a time, and a smaller one if it was alone.

        Raises:
            UserError: when it does not even take one request.
        """
        self._by_turns = True
        if self._batches.mine():
            return
        if batch.requests == 1:
            raise UserError(
                f"{self._endpoint} does not even take one request as a batch: {batch.why}\n  wait until batches that "
                "other programs have there are answered, or raise the limit there"
            )
        self._outbox.most = batch.requests // 2
        self._ctx.say(f"{self._endpoint}: {batch.why}; batches have {self._outbox.most:,} requests at most from now on")

    def _tell(self, told: Sequence[tuple[Batch, Told]]) -> None:
        """Say how far the batches are, where that has changed, or now and then."""
        for batch, each in told:
            if self._statuses.get(batch.id) != each.status:
                self._statuses[batch.id] = each.status
                self._ctx.say(f"batch {batch.id} is {each.status} ({batch.server_id} there)")
        figures = (sum(each.done for _, each in told), sum(batch.requests for batch, _ in told))
        before, when = self._told
        if told and (figures != before or time.monotonic() - when > TELL_SECONDS):
            self._told = (figures, time.monotonic())
            self._ctx.progress(*figures, "in batches", batches=len(told))

    def _later(self, batches: Sequence[Batch]) -> Later:
        placed = self._pending.by_key()
        there = sum(key in placed for key in self._open())
        waiting = len(self._open()) - there
        names = ", ".join(batch.server_id for batch in batches) or "none"
        rest = f"; {waiting:,} more wait for room under the caps or at the server" if waiting else ""
        return Later(
            f"{there:,} requests are with {self._endpoint} (batches: {names}){rest}\n  the same command takes their "
            "answers later, and pays for none again (teacher.wait=true waits for them)"
        )

    # -- taking --------------------------------------------------------------------------------------------------------

    def _take(self, found: Mapping[str, Outcome]) -> None:
        """Give the open requests what is known now; those that are to be asked again stay open.

        Raises:
            UserError: what every further request would meet.
        """
        fresh = {key: each for key, each in found.items() if isinstance(each, Entry)}
        answered = bool(fresh)
        again = self._asked_again(found)
        given_up: list[tuple[Request, TransportError]] = []
        for request in self._ahead:
            while request.answer is None:
                key = request.call.key
                entry, failed = fresh.pop(key, None), found.get(key)
                if entry is not None:
                    request.take(entry, cached=False)
                elif (known := self._journal.get(key)) is not None:
                    request.take(known, cached=True)
                elif isinstance(failed, Failure) and isinstance(failed.why, TransportError) and key not in again:
                    given_up.append((request, failed.why))
                    request.take(self._given_up(request, failed), cached=False)
                else:
                    break
        self._journal.flush()
        for each in found.values():
            if isinstance(each, Failure) and isinstance(each.why, UserError):
                raise each.why
        if given_up and not answered and all(trouble.refused for _, trouble in given_up):
            request, trouble = given_up[-1]
            if never_answered(self._journal, self._teacher.model_name, request.ask.purpose):
                raise every_one_refused(self._teacher.model_name, len(given_up), trouble.detail, trouble.remedy)

    def _asked_again(self, found: Mapping[str, Outcome]) -> set[str]:
        """Keys of the requests that failed and are sent once more, perhaps in other words."""
        setting, waiting = self._teacher.max_completion_tokens, self._open()
        again = set[str]()
        for key, each in found.items():
            if not isinstance(each, Failure) or isinstance(each.why, UserError) or key not in waiting:
                continue
            why, resent, words = each.why, each.resent, each.words
            if words:  # a batch may be as old as the first refusal of its words, from which all is learnt
                self._dialect.learns(why.wants, words, setting)
            if words and self._outbox.rewords(waiting[key].call, words):
                again.add(key)
            elif why.again:
                self._resent[key] = resent + (why.cause != NO_ROOM)
                if self._resent[key] < self._teacher.patience.attempts:
                    again.add(key)
        return again

    def _given_up(self, request: Request, failed: Failure) -> Entry:
        """What is written down of a request that is not sent again."""
        assert isinstance(failed.why, TransportError)
        outcome = {"cause": failed.why.cause, "detail": failed.why.detail, "answered": False, "dollars": 0.0}
        model, now = self._teacher.model_name, round(time.time(), 3)
        entry = request.call.entry(model, self._endpoint, resent=failed.resent, time=now, **outcome)
        self._journal.append(entry)
        return entry
