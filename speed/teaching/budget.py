"""The caps on the teaching loop: each call holds its highest cost before it is sent, and settles once it is answered.

What is paid and held together never passes a cap, so the overshoot is at most what the estimate of the calls in flight
was wrong by.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from speed.teaching.account import Account, capped
from speed.teaching.caps import Caps, Spending
from speed.teaching.journal import Journal

PATIENCE = 0.05
"""Seconds between two looks at what other processes hold."""


class Budget:
    """The account of a journal, for the stages of this process. Lives on one event loop; not thread-safe."""

    def __init__(self, journal: Journal) -> None:
        self._account = Account(journal)
        self._turn = asyncio.Lock()
        self._settled = asyncio.Event()

    async def hold(self, amount: Spending, caps: Caps) -> None:
        """Wait until the call is affordable; the first to ask is the first to be served.

        Raises:
            UserError: when it is not, and no call in flight, of this process or another, can make it so.
        """
        if caps.none:
            return
        async with self._turn:
            while (short := self._account.hold(amount, caps)) is not None:
                if caps.passed(short.paid.plus(amount)) or not short.held.calls:
                    raise capped(caps, short, amount)
                self._settled.clear()
                try:
                    await asyncio.wait_for(self._settled.wait(), PATIENCE)
                except TimeoutError:
                    continue  # another process may have settled

    def settle(self, held: Spending, paid: Spending, caps: Caps) -> None:
        """Replace what was held by what was paid."""
        if not caps.none:
            self._account.settle(held, paid)
            self._settled.set()


_budgets: dict[tuple[int, Path], Budget] = {}


def budget_of(journal: Journal) -> Budget:
    """The budget that all stages of this process share for a journal."""
    return _budgets.setdefault((os.getpid(), journal.folder.resolve()), Budget(journal))
