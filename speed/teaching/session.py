"""The teaching session of a process under one root, and the event loop of a process.

Stages of one process that ask at the same time share the session: two that want the same answer pay for it once.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path

from speed.teaching.entry import Spending
from speed.teaching.journal import Journal
from speed.teaching.pace import Pacer
from speed.teaching.spending import Account, Caps, Neighbours, cap_reached

LOOK_SECONDS = 0.05
"""Between two looks at what other processes hold, where a cap leaves no room."""


class Session:
    """What all asks of a process under one root share. Its futures and pacers live on the event loop."""

    def __init__(self, folder: Path, loop: asyncio.AbstractEventLoop, say: Callable[[str], None] | None = None) -> None:
        self.journal = Journal(folder, say)
        self.loop = loop
        self.in_flight: dict[str, list[asyncio.Future[None]]] = {}
        """Keys being asked, and who waits for their answers."""
        self.unpriced: set[str] = set()
        """Models whose unknown price has been said."""
        self.account = Account(self.journal)
        self._turn, self._released = asyncio.Lock(), asyncio.Event()
        self._paces: dict[tuple[str, str], tuple[Pacer, Neighbours]] = {}
        self._lock = threading.Lock()

    def pace(self, endpoint: str, model: str, concurrency: int, seconds: float) -> tuple[Pacer, Neighbours]:
        """The pace of an endpoint and model, and the processes that share its places.

        Args:
            seconds: how long a request may take.
        """
        with self._lock:
            place = (endpoint, model)
            if place not in self._paces:
                self._paces[place] = Pacer(concurrency, seconds), Neighbours(self.journal, endpoint, model)
            return self._paces[place]

    async def hold(self, amount: Spending, caps: Caps) -> None:
        """Wait until a call is affordable; the first to ask is the first to be served.

        Raises:
            UserError: when it is not, and no call in flight, of this process or another, can make it so; what is in a
                batch may take a day, and is not waited for.
        """
        async with self._turn:
            while (short := self.account.hold(amount, caps)) is not None:
                if caps.passed(short.paid.plus(amount)) or short.held.calls == short.batches.calls:
                    raise cap_reached(caps, short, amount)
                self._released.clear()
                try:
                    await asyncio.wait_for(self._released.wait(), LOOK_SECONDS)
                except TimeoutError:
                    continue  # another process may have released something

    def release(self, amount: Spending) -> None:
        """Hold an amount no longer."""
        self.account.release(amount)
        self._released.set()


# -- one session a process and root, one event loop a process ----------------------------------------------------------

# At module level, since what must be one in a process has no other owner: stages that ask at the same time know nothing
# of one another, and a teacher is a frozen value. Keyed by process: a fork has no thread of its parent.
_lock = threading.Lock()
_loops: dict[int, asyncio.AbstractEventLoop] = {}
"""By process."""
_sessions: dict[tuple[int, Path], Session] = {}
"""By process and folder of the journal."""


def teaching_loop() -> asyncio.AbstractEventLoop:
    """The event loop of this process, on its own thread; a daemon, so that it never keeps a process alive."""
    with _lock:
        if os.getpid() not in _loops:
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="teacher", daemon=True).start()
            _loops[os.getpid()] = loop
        return _loops[os.getpid()]


def session_at(home: Path, say: Callable[[str], None] | None = None) -> Session:
    """The session of this process under a root; a forked child opens its own."""
    folder = home / "journal"
    place = (os.getpid(), folder.resolve())
    loop = teaching_loop()
    with _lock:
        if place not in _sessions:
            _sessions[place] = Session(folder, loop, say)
        return _sessions[place]
