"""One event loop per process, on its own thread: answers are journaled as they come, however busy the caller is."""

from __future__ import annotations

import asyncio
import os
import threading

_lock = threading.Lock()
_loops: dict[int, asyncio.AbstractEventLoop] = {}


def teaching_loop() -> asyncio.AbstractEventLoop:
    """The loop of this process; started on first use, a daemon, so that it never keeps a process alive."""
    with _lock:
        if os.getpid() not in _loops:
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="teacher", daemon=True).start()
            _loops[os.getpid()] = loop
        return _loops[os.getpid()]
