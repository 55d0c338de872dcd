"""The cap in dollars: each call reserves its highest price before it is sent, and settles when its answer is there.

The sum of what was paid and what is reserved never passes the cap, so the overshoot is at most what the estimate of
the calls in flight was wrong by. What is paid here is what this process pays: answers of earlier runs are free.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from speed.core.errors import UserError


class Budget:
    """Dollars of this process, shared by its stages. Lives on one event loop; not thread-safe."""

    def __init__(self) -> None:
        self.spent = 0.0
        self.reserved = 0.0
        self._holders = 0
        self._waiting: list[asyncio.Future[None]] = []

    async def reserve(self, dollars: float, cap: float | None) -> None:
        """Wait until the call is affordable.

        Raises:
            UserError: when it is not, and no call in flight can make it so.
        """
        while cap is not None and self.spent + self.reserved + dollars > cap:
            if self._holders == 0:
                raise UserError(
                    f"runtime.max_usd={cap:g} is reached: ${self.spent:.4f} spent now, and the next answer may cost "
                    f"${dollars:.4f}\n  every answer paid for is kept: the same command with a larger runtime.max_usd "
                    "goes on from here and pays for nothing twice"
                )
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await future
        self.reserved += dollars
        self._holders += 1

    def settle(self, reserved: float, paid: float) -> None:
        """Replace a reservation by what was paid."""
        self.reserved -= reserved
        self.spent += paid
        self._holders -= 1
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)


_budgets: dict[tuple[int, Path], Budget] = {}


def budget_of(journal: Path) -> Budget:
    """The budget that all stages of this process share for a journal."""
    return _budgets.setdefault((os.getpid(), journal.resolve()), Budget())
