"""What a root's teachers may cost: hard caps, kept across calls in flight, stages, resumed runs and processes.

A cap bounds everything that the journal of one root has ever paid for, so a run that is killed and started again, and
the processes of a sweep, share one purse. A call is held at its highest possible cost before it is sent, and settled
when its answer is written down. What is held stands in a small file beside the journal, with one row a process that
keeps caps; the rest is added up from the journal itself. A row whose process is gone is dropped: what that process paid
stands in its journal file, and what it held was never answered.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from speed.core.errors import UserError, explained
from speed.core.locks import is_owned
from speed.core.spec import Json
from speed.teaching.caps import Caps, Spending
from speed.teaching.journal import Journal

NAME = "account.json"
_BY_FILE = """
SELECT name, coalesce(sum(dollars), 0.0), sum(tokens_in + tokens_out), count(*)
FROM entry JOIN file ON id = file WHERE answered GROUP BY name
"""


class Short(NamedTuple):
    """Why an amount could not be held."""

    cap: str
    """`dollars`, `tokens` or `calls`."""
    paid: Spending
    """Under this root so far."""
    held: Spending
    """For calls in flight, whoever sent them."""


class Account:
    """The purse of a journal, as this process sees it. Safe with many threads and many processes."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._path = journal.folder / NAME
        self._lock = threading.Lock()
        self._paid = Spending()
        self._held = Spending()
        self._elsewhere: dict[str, Spending] = {}
        """What the journal's other files hold, as of the last look; a row counts for its file."""
        self._all_elsewhere = Spending()
        self._looked = -1
        """Number of the last clearance that `_elsewhere` knows of."""

    def look(self) -> None:
        """Clear away the rows of processes that are gone, and add up what others have paid."""
        with self._lock, self._opened() as (number, rows, keep):
            keep(self._look(number, rows), rows)

    def hold(self, amount: Spending, caps: Caps) -> Short | None:
        """Set an amount aside; or say why there is no room for it."""
        with self._lock, self._opened() as (number, rows, keep):
            if number != self._looked:
                number = self._look(number, rows)
            short = self._short(amount, caps, rows)
            if short is not None:  # perhaps the room is held by somebody who is gone
                number = self._look(number, rows)
                short = self._short(amount, caps, rows)
            if short is None:
                self._held = self._held.plus(amount)
            keep(number, rows)
            return short

    def settle(self, held: Spending, paid: Spending) -> None:
        """Replace what was held by what was paid; nothing, where no answer came."""
        with self._lock, self._opened() as (number, rows, keep):
            self._held = self._held.minus(held)
            self._paid = self._paid.plus(paid)
            keep(number, rows)

    def _short(self, amount: Spending, caps: Caps, rows: dict[str, tuple[Spending, Spending]]) -> Short | None:
        others = [row for name, row in rows.items() if name != self._journal.own_file]
        counted = _sum(self._elsewhere[name] for name in rows if name in self._elsewhere)
        paid = _sum([self._paid, self._all_elsewhere.minus(counted), *(paid for paid, _ in others)])
        held = _sum([self._held, *(held for _, held in others)])
        passed = caps.passed(paid.plus(held).plus(amount))
        return None if passed is None else Short(passed, paid, held)

    def _look(self, number: int, rows: dict[str, tuple[Spending, Spending]]) -> int:
        """The number of clearances after this one."""
        own = self._journal.own_file
        gone = [name for name in rows if name != own and not is_owned(self._journal.folder / name)]
        for name in gone:
            del rows[name]
        self._journal.refresh()
        found = self._by_file()
        written = found.pop(own, Spending())
        if self._looked < 0:
            self._paid = written  # before anything was capped
        self._elsewhere, self._all_elsewhere = found, _sum(found.values())
        self._looked = number + bool(gone)
        return self._looked

    def _by_file(self) -> dict[str, Spending]:
        return {name: Spending(*sums) for name, *sums in self._journal.select(_BY_FILE)}

    @contextmanager
    def _opened(self) -> Iterator[Json]:
        """(number of clearances, rows by journal file, function that writes them back), under the file's lock."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise explained(error, "keeping the teacher's caps") or error from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            number, rows = _read(descriptor)

            def keep(number: int, rows: dict[str, tuple[Spending, Spending]]) -> None:
                rows[self._journal.own_file] = (self._paid, self._held)
                _write(descriptor, number, rows, self._path)

            yield number, rows, keep
        finally:
            os.close(descriptor)


def _read(descriptor: int) -> tuple[int, dict[str, tuple[Spending, Spending]]]:
    """What stands in the file; nothing where it is empty or damaged: every process writes its own row again."""
    try:
        found = json.loads(os.pread(descriptor, os.fstat(descriptor).st_size, 0))
        rows = {name: (Spending(*row[:3]), Spending(*row[3:])) for name, row in found["rows"].items()}
        return int(found["cleared"]), rows
    except (ValueError, TypeError, KeyError, AttributeError):
        return 0, {}


def _write(descriptor: int, number: int, rows: dict[str, tuple[Spending, Spending]], path: Path) -> None:
    """One write, padded to the old length, so that a kill leaves either the old or the new content."""
    shown = {name: [*paid, *held] for name, (paid, held) in rows.items()}
    text = json.dumps({"cleared": number, "rows": shown}).encode()
    try:
        os.pwrite(descriptor, text.ljust(os.fstat(descriptor).st_size), 0)
    except OSError as error:
        known = explained(OSError(error.errno, error.strerror, str(path)), "keeping the teacher's caps")
        raise known or error from error


def _sum(amounts: Iterable[Spending]) -> Spending:
    total = Spending()
    for amount in amounts:
        total = total.plus(amount)
    return total


def capped(caps: Caps, short: Short, wanted: Spending) -> UserError:
    """The reader's version of a cap that is reached."""
    name = {"dollars": "max_usd", "tokens": "max_tokens", "calls": "max_calls"}[short.cap]
    cap, paid, next_call = (getattr(each, short.cap) for each in (caps, short.paid, wanted))
    shown = "${:,.4f}".format if short.cap == "dollars" else "{:,} {}".format
    unit = () if short.cap == "dollars" else (short.cap,)
    return UserError(
        f"runtime.{name}={cap:g} is reached: {shown(paid, *unit)} paid under this root, in all its runs, and the next "
        f"answer may take {shown(next_call, *unit)}\n  every answer paid for is kept: the same command with a larger "
        f"runtime.{name} goes on from here and pays for nothing twice"
    )
