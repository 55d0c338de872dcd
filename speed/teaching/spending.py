"""Hard caps on what a root's teachers may cost, and the places in flight that its processes divide.

A cap bounds everything that the journal of one root has ever paid for, so a run that is killed and started again, and
the processes of a sweep, spend from one account. A call is held at its highest possible cost before it is sent, until
its answer is written down: what is paid and held together never passes a cap, so the overshoot is at most what the
estimate of the calls in flight was wrong by. Both stand in the journal's SQLite file (see `speed.teaching.index`, also
for several hosts). What a process held that is gone is free again: it was never answered. What a server has in a batch
is held until its answers are taken, whether a process waits for them or not (`speed.teaching.pending`).
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from speed.core.errors import UserError
from speed.core.ledger import Line
from speed.core.locks import is_owned
from speed.core.spec import digest
from speed.runtime import Runtime
from speed.teaching.entry import Entry, Spending
from speed.teaching.journal import Journal
from speed.teaching.pending import Pending

EVERY = 1.0
"""Seconds between two looks at who asks."""
LATELY = 5.0
"""Seconds after which a process that was not heard of asks no more; hosts' clocks should not differ by more."""

_PAID = """
SELECT total(dollars), coalesce(sum(tokens), 0), coalesce(sum(calls), 0) FROM (
  SELECT max(dollars) AS dollars, max(tokens) AS tokens, max(calls) AS calls FROM (
    SELECT name, dollars, tokens, calls FROM file UNION ALL SELECT file, dollars, tokens, calls FROM process)
  GROUP BY name)
"""
"""A process's own count is ahead of what is indexed of its file, or behind where it has no caps: the larger counts."""
_HELD = "SELECT total(held_dollars), coalesce(sum(held_tokens), 0), coalesce(sum(held_calls), 0) FROM process"
_HELD_FOR_BATCHES = f"{_HELD} WHERE file LIKE 'batches/%'"
_PROCESS = "INSERT OR REPLACE INTO process VALUES (?,?,?,?,?,?,?)"
_LEDGER = """
SELECT purpose, kind, model, cause, count(*), sum(retry > 0), sum(resent),
       sum(tokens_in), sum(tokens_out), sum(tokens_cached), sum(estimated), sum(dollars),
       sum(answered AND dollars IS NULL)
FROM entry GROUP BY purpose, kind, model, cause ORDER BY purpose, kind, model, cause
"""


class Caps(NamedTuple):
    """Most that may be spent under a root; None for no cap."""

    dollars: float | None = None
    tokens: int | None = None
    calls: int | None = None

    def passed(self, amount: Spending) -> str | None:
        """Name of the first cap that an amount is above, or None."""
        for name, cap, value in zip(Caps._fields, self, amount, strict=True):
            if cap is not None and value > cap + 1e-9:  # sums of prices are no exact numbers
                return name
        return None

    @property
    def none(self) -> bool:
        """Whether nothing is capped."""
        return all(cap is None for cap in self)


def caps_of(runtime: Runtime) -> Caps:
    """The caps that the options `runtime.max_usd`, `max_tokens` and `max_calls` set."""
    return Caps(runtime.max_usd, runtime.max_tokens, runtime.max_calls)


class Short(NamedTuple):
    """Why an amount could not be held."""

    cap: str
    """`dollars`, `tokens` or `calls`."""
    paid: Spending
    """Under this root so far."""
    held: Spending
    """For calls in flight, whoever sent them."""
    batches: Spending
    """The part of it that is held for batches at a server, which may take a day."""


class _Unseen(Exception):
    """The table was opened since this process last looked: it may be a new one, where nothing is held for batches."""


class Account:
    """The account of a journal, as this process sees it. Safe with many threads and many processes."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._lock = threading.Lock()
        self._held = Spending()
        self._opened = 0
        """Which opening of the index this process has looked into, as it counts them."""

    def hold(self, amount: Spending, caps: Caps) -> Short | None:
        """Set an amount aside; or say why there is no room for it."""
        with self._lock:
            short = self._held_unless_short(amount, caps)
            if short is not None:  # perhaps the room is held by somebody who is gone
                self._look()
                short = self._held_unless_short(amount, caps)
            return short

    def release(self, amount: Spending) -> None:
        """Hold an amount no longer: its answer is written down, or none came."""
        with self._lock:
            self._held = self._held.minus(amount)
            own = self._journal.own_file
            self._journal.index.write(lambda table: self._tell(table, own, self._held))

    def hand_over(self, name: str, amount: Spending, *, held: bool) -> None:
        """Hold an amount under the name of a batch from now on, however this process ends.

        Args:
            held: whether this process holds it by now.
        """
        with self._lock:
            self._held = self._held.minus(amount) if held else self._held
            own = self._journal.own_file

            def work(table: sqlite3.Connection) -> None:
                table.execute(_PROCESS, (name, *Spending(), *amount))
                self._tell(table, own, self._held)

            self._journal.index.write(work)

    def forget(self, name: str) -> None:
        """A batch has ended: what it cost is in the journal."""
        with self._lock:
            own = self._journal.own_file

            def work(table: sqlite3.Connection) -> None:
                self._tell(table, own, self._held)
                table.execute("DELETE FROM process WHERE file = ?", (name,))

            self._journal.index.write(work)

    def _held_unless_short(self, amount: Spending, caps: Caps) -> Short | None:
        own, wanted = self._journal.own_file, self._held.plus(amount)

        def work(table: sqlite3.Connection) -> Short | None:
            if self._opened != self._journal.index.opened:
                raise _Unseen
            self._tell(table, own, self._held)
            paid, held = (Spending(*table.execute(query).fetchone()) for query in (_PAID, _HELD))
            passed = caps.passed(paid.plus(held).plus(amount))
            if passed is not None:
                return Short(passed, paid, held, Spending(*table.execute(_HELD_FOR_BATCHES).fetchone()))
            self._tell(table, own, wanted)
            return None

        while True:  # until nobody deletes the index between a look and what follows
            try:
                short = self._journal.index.write(work)
                break
            except _Unseen:
                self._look()
        if short is None:
            self._held = wanted
        return short

    def _tell(self, table: sqlite3.Connection, own: str, held: Spending) -> None:
        table.execute(_PROCESS, (own, *self._journal.paid, *held))

    def _look(self) -> None:
        """Clear away what processes held that are gone, and add up what everybody has paid, or has with a server."""
        self._opened = self._journal.index.opened
        folder = self._journal.folder
        told = {name for (name,) in self._journal.index.select("SELECT file FROM process")}
        # behind the table: a batch that is begun in between has its folder by then, or no row that could be deleted
        batches = {batch.name: batch.highest for batch in Pending(folder).all()}
        others = told - batches.keys() - {self._journal.name}
        gone = [(name,) for name in others if not is_owned(folder / name)]
        self._journal.refresh()  # with the last answers of those who are gone

        def work(table: sqlite3.Connection) -> None:
            table.executemany("DELETE FROM process WHERE file = ?", gone)
            table.executemany(_PROCESS, [(name, *Spending(), *amount) for name, amount in batches.items()])

        if gone or batches:
            self._journal.index.write(work)


def cap_reached(caps: Caps, short: Short, wanted: Spending) -> UserError:
    """The reader's version of a cap that is reached."""
    name = {"dollars": "max_usd", "tokens": "max_tokens", "calls": "max_calls"}[short.cap]
    cap, paid, next_call = (getattr(each, short.cap) for each in (caps, short.paid, wanted))
    shown = "${:,.4f}".format if short.cap == "dollars" else "{:,} {}".format
    unit = () if short.cap == "dollars" else (short.cap,)
    held = getattr(short.batches, short.cap)
    batches = f", {shown(held, *unit)} at most held for what is in batches (python -m speed.journal batches)"
    return UserError(
        f"runtime.{name}={cap:g} is reached: {shown(paid, *unit)} paid under this root, in all its runs"
        f"{batches * (held > 0)}, and the next answer may take {shown(next_call, *unit)}\n  every answer paid for is "
        f"kept: the same command with a larger runtime.{name} goes on from here and pays for nothing twice"
    )


class Neighbours:
    """The processes of a root that ask one endpoint for one model: they divide `runtime.concurrency`.

    Stages that run side by side, and the points of a sweep, are processes of their own. Thread-safe.
    """

    def __init__(self, journal: Journal, endpoint: str, model: str, clock: Callable[[], float] = time.time) -> None:
        self._journal = journal
        self._whom = digest([endpoint, model])[:16]
        self._clock = clock
        self._lock = threading.Lock()
        self._asks = 0
        self._looked = 0.0
        self._count = 1

    def join(self) -> None:
        """One more `ask` of this process begins."""
        with self._lock:
            self._asks += 1
            self._looked = 0.0

    def leave(self) -> None:
        """One of them has ended."""
        with self._lock:
            self._asks -= 1
            if not self._asks:
                gone = (self._whom, self._journal.name)
                self._journal.index.write(
                    lambda table: table.execute("DELETE FROM asking WHERE whom = ? AND file = ?", gone)
                )

    def share(self, concurrency: int) -> int:
        """This process's part of the requests in flight, at least 1; itself counts while it asks."""
        with self._lock:
            now = self._clock()
            if self._asks and not 0 <= now - self._looked < EVERY:
                self._looked = now
                self._count = self._journal.index.write(lambda table: self._counted(table, now))
            return max(1, concurrency // self._count)

    def _counted(self, table: sqlite3.Connection, now: float) -> int:
        table.execute("INSERT OR REPLACE INTO asking VALUES (?,?,?)", (self._whom, self._journal.name, now))
        table.execute("DELETE FROM asking WHERE abs(? - seen) > ?", (now, LATELY))
        return int(table.execute("SELECT count(*) FROM asking WHERE whom = ?", (self._whom,)).fetchone()[0])


def ledger_of(journal: Journal) -> list[Line]:
    """What the journal says was asked and paid: a line per purpose, kind, model and cause that the transport saw."""
    names = ("purpose", "kind", "model", "cause", "calls", "retries", "resent", "tokens_in", "tokens_out")
    return [
        Line(
            **dict(zip(names, figures, strict=True)),
            tokens_cached=cached,
            estimated=estimated,
            dollars=None if unpriced else dollars or 0.0,
        )
        for *figures, cached, estimated, dollars, unpriced in journal.select(_LEDGER)
    ]


def never_answered(journal: Journal, model: str, purpose: str) -> bool:
    """Whether a model has not given one sound answer to a purpose by now."""
    asked = (model, purpose, "ok")
    return all((line.model, line.purpose, line.cause) != asked for line in ledger_of(journal))


def cost_of(entry: Entry, cause: str, *, cached: bool) -> Line:
    """One request as a line of a ledger: how it ended for the caller; free where the journal had its answer."""
    place = {"purpose": entry.purpose, "kind": entry.kind, "model": entry.model, "cause": cause}
    if cached:
        return Line(**place, cached=1, found_tokens=entry.tokens_in + entry.tokens_out, found_dollars=entry.dollars)
    return Line(
        **place,
        calls=1,
        retries=int(entry.params.get("retry", 0) > 0),
        resent=entry.resent,
        tokens_in=entry.tokens_in,
        tokens_out=entry.tokens_out,
        tokens_cached=entry.tokens_cached,
        estimated=int(entry.estimated),
        dollars=entry.dollars,
    )
