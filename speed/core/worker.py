"""A worker: the process of a stage, or of one block of a pool after another.

Here is what the scheduler knows of it, and what runs in it: where its output goes, what it tells, and when it ends.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from filelock import BaseFileLock

from speed.core.allocation import Grant
from speed.core.build import attempt_build
from speed.core.build_settings import BuildSettings
from speed.core.graph import Goal
from speed.core.machine import VISIBLE
from speed.core.manifest import Maker
from speed.core.spec import Json
from speed.core.stage import Node, Pool
from speed.core.store import Span, Store


@dataclass
class Worker:
    """A goal, or one block of a pool after another, in a process of its own."""

    goal: Goal
    process: Any
    pipe: Any
    log: Path
    grant: Grant
    block: Span | None = None
    """That it builds; None for a whole goal, before it asks for the first, and when it was told that none is left."""
    done: int = 0
    """Rows of it."""
    machine: str = ""
    """That it runs on, by its id; empty for this one."""
    waits: bool = False
    """Whether it has yet to begin: another machine may have no room for it now."""


A_LOOK = 0.05
"""Seconds that a command which only looks whether something is built may hold its lock."""


@dataclass
class Blocks:
    """A pool that is built block by block."""

    lock: BaseFileLock
    rows: int
    left: deque[Span]
    done: int = 0
    """Rows of finished blocks."""
    deaths: Counter[Span] = field(default_factory=Counter)
    """Workers that died on a block."""


def divided(pool: Pool[Any], rows: int, store: Store) -> Blocks | None:
    """What is missing of a pool, in blocks; None where nothing is, or another run builds it: one worker finds that
    out, and waits for its end."""
    lock = lock_of(pool, store)
    if lock is None:
        return None
    gaps = store.missing(pool, rows)
    spans = deque(
        Span(start, min(start + pool.block, gap.stop))
        for gap in gaps
        for start in range(gap.start, gap.stop, pool.block)
    )
    if not spans:
        lock.release()
        return None
    return Blocks(lock, sum(gap.stop - gap.start for gap in gaps), spans)


def lock_of(node: Node, store: Store) -> BaseFileLock | None:
    """The lock of what is to be built; None where another command builds it.

    A command that only looks whether it is built holds it for a moment, so it is asked for twice.
    """
    found = store.try_lock(node)
    if found is None:
        time.sleep(A_LOOK)
        found = store.try_lock(node)
    return found


def free_log(goal: Goal, folder: Path, taken: Collection[Path]) -> Path:
    """A log for a worker of a goal that no other one writes."""
    name = goal.label.replace(" ", "-").replace(":", "-")
    logs = (folder / (f"{name}.log" if number == 1 else f"{name}-{number}.log") for number in count(1))
    return next(log for log in logs if log not in taken)


def run_worker(
    goal: Goal,
    store: Store,
    runtime: BuildSettings,
    log: Path,
    made_by: Maker,
    in_blocks: bool,
    block: Span | None,
    grant: Grant,
    visible: str | None,
    parent: Connection,
) -> None:
    """Body of a stage's process: everything it prints goes to its log, what it has to say goes up the pipe.

    Args:
        in_blocks: whether it builds blocks of a pool, for which it asks, and not the whole goal.
        block: the first of them; None has it ask for that too.
        visible: the GPUs that it may see, as the driver names them; None leaves that as it is.
    """
    gc.freeze()  # what the server imported stays
    gc.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=die_with_parent, daemon=True).start()
    with log.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if visible is not None:
        os.environ[VISIBLE] = visible
    lock = threading.Lock()

    def send(event: dict[str, Json]) -> None:
        with lock, suppress(BrokenPipeError):
            parent.send_bytes(json.dumps(event, default=float).encode())

    def asked() -> Span | None:
        send({"event": "next"})
        answer = json.loads(parent.recv_bytes())
        return None if answer is None else Span(*answer)

    def assigned() -> Iterator[Span]:
        mine = block or asked()
        while mine is not None:
            yield mine
            mine = asked()

    send(attempt_build(goal, store, runtime, send, made_by, assigned() if in_blocks else None, grant))
    parent.close()


def die_with_parent() -> None:
    """A process must not outlive the one that started it, whatever killed that."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
