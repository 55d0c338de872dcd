"""Requests on their way into batches: in the words of the server, in files that it takes, and within the caps."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from speed.core.errors import UserError
from speed.core.spec import Json
from speed.runtime import Context, Runtime
from speed.teaching.batch_server import ROAD, BatchServer
from speed.teaching.batches import Sending, total
from speed.teaching.dialect import Dialect
from speed.teaching.entry import Entry, Spending
from speed.teaching.requests import Call, Request, Sender
from speed.teaching.session import Session
from speed.teaching.spending import cap_reached, caps_of


class BatchSender(Sender, Protocol):
    """What an ask in batches needs of a teacher: see `speed.teaching.openai_batch`."""

    @property
    def wait(self) -> bool: ...
    @property
    def poll_seconds(self) -> float: ...
    @property
    def window(self) -> str: ...
    @property
    def requests(self) -> int: ...
    @property
    def megabytes(self) -> float: ...
    @property
    def settled(self) -> float: ...
    def server(self, runtime: Runtime) -> BatchServer: ...
    def served_as(self, runtime: Runtime) -> str: ...


class Outbox:
    """Makes files of requests."""

    def __init__(self, session: Session, teacher: BatchSender, ctx: Context, dialect: Dialect) -> None:
        self._journal, self._account = session.journal, session.account
        self._teacher, self._dialect, self._caps = teacher, dialect, caps_of(ctx.runtime)
        self._endpoint, self._model = teacher.endpoint(ctx.runtime), teacher.model_name
        self._served_as = teacher.served_as(ctx.runtime)
        self.most = teacher.requests
        """Requests of a file; fewer once the server has refused so many."""
        self._full: tuple[Entry, UserError] | None = None
        """The first request that had no room under the caps, where batches alone take it, and what is said then."""

    @property
    def capped(self) -> bool:
        """Whether `within_caps` holds what it lets pass."""
        return not self._caps.none

    def files(self, requests: Iterable[Request], resent: Counter[str]) -> Iterator[list[Sending]]:
        """The requests, divided.

        Args:
            resent: times that each was sent before and not answered, by key.
        """
        some: list[Sending] = []
        size, self._full = 0, None
        for request in requests:
            sending = self._sending(request, resent[request.call.key])
            if some and (len(some) >= self.most or size + len(sending.line) > 1e6 * self._teacher.megabytes):
                yield some
                some, size = [], 0
            some.append(sending)
            size += len(sending.line)
        if some:
            yield some

    def within_caps(self, some: Sequence[Sending]) -> int:
        """How many of some requests, the first ones, can be paid whatever they cost; that is held then.

        Raises:
            UserError: when no further request can be, whatever those under way will have cost.
        """
        fits = len(some)
        while fits and self.capped:
            short = self._account.hold(total(each.highest for each in some[:fits]), self._caps)
            if short is None:
                self._full = None
                break
            first = some[0]
            self._full = first.entry, cap_reached(self._caps, short, first.highest)
            if self._caps.passed(short.paid.plus(first.highest)):
                self.refuse_full()
            if short.held.calls > short.batches.calls:  # some of it is in flight, and will be free again soon
                self._full = None
            spent, tried, fits = short.paid.plus(short.held), some[: fits - 1], 0
            for each in tried:
                spent = spent.plus(each.highest)
                if self._caps.passed(spent):
                    break
                fits += 1
        return fits

    def refuse_full(self) -> None:
        """End the run where nothing but batches takes the room that `within_caps` lacked when it was asked last.

        Raises:
            UserError: the reader's version of the cap that is reached.
        """
        if self._full is not None:
            entry, error = self._full
            self._journal.append(entry.model_copy(update={"cause": "budget", "detail": str(error)}))
            raise error

    def rewords(self, call: Call, words: Mapping[str, Json]) -> bool:
        """Whether a call would be sent in other words now than it was."""
        now, before = (json.dumps(each, sort_keys=True) for each in (self._words(call), words))
        return now != before

    def _words(self, call: Call) -> dict[str, Json]:
        spoken = self._dialect.spoken(call.params, self._teacher.max_completion_tokens)
        spoken.pop("retry", None)
        return spoken

    def _sending(self, request: Request, resent: int) -> Sending:
        call = request.call
        body = {"model": self._served_as, "messages": call.messages, **self._words(call)}
        line = {"custom_id": call.key, "method": "POST", "url": ROAD, "body": body}
        entry = call.entry(self._model, self._endpoint, cause="pending", answered=False, resent=resent)
        tokens_in, tokens_out = call.tokens_at_most(), call.params["max_tokens"]
        highest = Spending(self._teacher.dollars(tokens_in, tokens_out) or 0.0, tokens_in + tokens_out, 1)
        return Sending(entry, json.dumps(line).encode("ascii") + b"\n", highest)
