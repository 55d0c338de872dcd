"""Building one goal, and building many: independent goals side by side, each in a process of its own.

A stage's process is forked from a server that has imported the heavy packages once; leaving the process frees its
memory before the next stage needs it (DESIGN D9). A damaged artifact that a stage meets is set aside and built again.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from speed.core.closed import closed_after
from speed.core.context import Context, Runtime, Send, Tally
from speed.core.errors import CorruptArtifact, UserError, explained
from speed.core.graph import Goal, standings
from speed.core.manifest import Maker, Manifest, maker, now, outputs_of
from speed.core.spec import Json
from speed.core.stage import Node, Pool, Row, Stage
from speed.core.store import Span, Store

Listener = Callable[[str, dict[str, Json]], None]
"""Receives (label of the goal, event)."""


# -- one goal ----------------------------------------------------------------------------------------------------------


def build(goal: Goal, store: Store, runtime: Runtime, send: Send, made_by: Maker | None = None) -> None:
    """Build one goal if it is missing, under its lock."""
    made_by = made_by or maker()
    node = goal.node
    with store.lock(node):
        if isinstance(node, Pool):
            for gap in store.missing(node, goal.rows):
                _grow(node, gap, Context(store, runtime, node.label, send), made_by)
        elif isinstance(node, Stage) and store.manifest(node) is None:
            _build_stage(node, Context(store, runtime, node.label, send), made_by)


def _build_stage(stage: Stage[Any], ctx: Context, made_by: Maker) -> None:
    out = ctx.store.partial(stage)
    begun = time.monotonic()
    with (out / "curves.jsonl").open("a", encoding="utf-8") as curves:
        send = ctx.send

        def record(event: dict[str, Json]) -> None:
            if event["event"] == "metric":
                curves.write(json.dumps({"step": event["step"], **event["figures"]}) + "\n")
                curves.flush()
            send(event)

        ctx.send = record
        stage.run(out, ctx)
    if not (out / "curves.jsonl").stat().st_size:
        (out / "curves.jsonl").unlink()
    (out / "manifest.json").unlink(missing_ok=True)
    manifest = _manifest(stage, ctx.tally, time.monotonic() - begun, made_by)
    ctx.store.publish(stage, manifest.model_copy(update={"outputs": outputs_of(out)}))


def _grow(pool: Pool[Any], gap: Span, ctx: Context, made_by: Maker) -> None:
    """Write the rows of a gap, shard by shard; a shard ends at a multiple of the block or at the gap's end."""
    start = gap.start
    with closed_after(pool.build(gap.start, gap.stop, ctx)) as rows:
        while start < gap.stop:
            stop = min((start // pool.block + 1) * pool.block, gap.stop)
            begun = time.monotonic()
            with ctx.fresh_tally() as tally:
                shard = _next_rows(pool, rows, start, stop)
                _count(shard, tally)
                tally.metrics.update(pool.figures(tally.counts, tally.rejected))
                manifest = _manifest(pool, tally, time.monotonic() - begun, made_by, Span(start, stop))
                ctx.store.write_shard(pool, Span(start, stop), shard, manifest)
            ctx.send({"event": "shard", "start": start, "stop": stop, "calls": ctx.calls, "dollars": ctx.spent})
            start = stop


def _next_rows(pool: Pool[Any], rows: Iterator[Row], start: int, stop: int) -> list[Row]:
    found = []
    for position in range(start, stop):
        row = next(rows, None)
        if row is None or row.row != position:
            raise RuntimeError(f"{pool.label} was to build row {position} and built {row.row if row else 'nothing'}")
        found.append(row)
    return found


def _count(rows: list[Row], tally: Tally) -> None:
    tally.counts["in"] += len(rows)
    for row in rows:
        if row.rejected is None:
            tally.counts["out"] += 1
        else:
            tally.rejected[row.rejected] += 1


def _manifest(node: Node, tally: Tally, seconds: float, made_by: Maker, span: Span | None = None) -> Manifest:
    torch = sys.modules.get("torch")
    on_gpu = torch is not None and torch.cuda.is_initialized()
    return Manifest(
        key=node.key,
        stage=node.name,
        label=node.label,
        version=node.version,
        recipe=dict(node.own_recipe),
        start=span.start if span else None,
        stop=span.stop if span else None,
        counts=dict(tally.counts),
        rejected=dict(tally.rejected),
        cost=dict(tally.cost),
        dollars=tally.dollars,
        ledger=tally.ledger.lines(),
        metrics=tally.metrics,
        seconds=round(seconds, 3),
        gpu_seconds=round(seconds, 3) if on_gpu else 0.0,
        finished=now(),
        maker=made_by,
    )


# -- many goals --------------------------------------------------------------------------------------------------------


class StageFailed(Exception):
    """A stage ended in a way that is not the user's mistake; its log has the traceback."""


def build_all(
    order: list[Goal], store: Store, runtime: Runtime, listen: Listener, logs: Path, preload: tuple[str, ...] = ()
) -> None:
    """Build the missing goals, independent ones side by side; `preload` names modules worth importing once.

    Raises:
        UserError: a mistake that a stage met. StageFailed: a crash. KeyboardInterrupt: passed on, children ended.
    """
    built = _built(order, store)
    todo = [goal for goal in order if goal.key not in built]
    packages = sorted({package for goal in todo for package in goal.node.heavy})
    nursery = _Nursery(store, runtime, logs, ("speed.core.build", *preload, *packages))
    repairs = 0
    try:
        while len(built) < len(order) or nursery.running:
            for goal in order:
                ready = all(key in built for key in goal.after)
                if ready and goal.key not in built and not nursery.has(goal):
                    if nursery.ended or len(nursery.running) >= max(1, runtime.side_by_side):
                        break
                    listen(goal.label, {"event": "start", "rows": goal.rows})
                    nursery.start(goal, listen)
            for goal, event in nursery.events():
                listen(goal.label, event)
                if event["event"] == "done":
                    built.add(goal.key)
                elif event["event"] == "user_error":
                    raise UserError(f"{goal.label}: {event['message']}")
                elif event["event"] == "crash":
                    raise StageFailed(f"{goal.label} failed: {event['message']}\n  log: {logs / _log_name(goal)}")
                elif event["event"] == "corrupt":
                    repairs += 1
                    if repairs > 100:
                        raise StageFailed(f"the store is damaged again and again: {event['message']}")
                    if Path(event["path"]).exists():
                        store.set_aside(Path(event["path"]))
                    built = _built(order, store)
    finally:
        nursery.close()


def _built(order: list[Goal], store: Store) -> set[str]:
    return {standing.goal.key for standing in standings(order, store) if standing.state == "hit"}


class _Nursery:
    """Child processes, one a goal, forked from a server that imported the heavy packages."""

    def __init__(self, store: Store, runtime: Runtime, logs: Path, preload: tuple[str, ...]) -> None:
        self.store, self.runtime, self.logs = store, runtime, logs
        self.running: dict[str, tuple[Goal, Any, Connection]] = {}
        self.ended: list[tuple[Goal, dict[str, Json]]] = []
        self.made_by = maker()
        logs.mkdir(parents=True, exist_ok=True)
        for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[variable] = str(runtime.threads)
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(list(preload))

    def has(self, goal: Goal) -> bool:
        """Whether a goal is being built, or has just ended."""
        return goal.key in self.running or any(goal.key == other.key for other, _ in self.ended)

    def start(self, goal: Goal, listen: Listener) -> None:
        """Build a goal: here when it needs no heavy package, so that its mistakes are told before any is imported."""
        if not goal.node.heavy:
            send = partial(listen, goal.label)
            self.ended.append((goal, outcome(goal, self.store, self.runtime, send, self.made_by)))
            return
        here, there = self.context.Pipe(duplex=False)
        arguments = (goal, self.store, self.runtime, there, self.logs / _log_name(goal), self.made_by)
        child = self.context.Process(target=_child, args=arguments, daemon=True)
        child.start()
        there.close()
        self.running[goal.key] = (goal, child, here)

    def events(self) -> Iterator[tuple[Goal, dict[str, Json]]]:
        """Wait for news; a child that died without a word is a crash."""
        yield from self.ended
        self.ended.clear()
        if not self.running:
            return
        for connection in wait([entry[2] for entry in self.running.values()]):
            goal, child, _ = next(entry for entry in self.running.values() if entry[2] is connection)
            assert isinstance(connection, Connection)
            try:
                event = json.loads(connection.recv_bytes())
            except EOFError:
                child.join()
                event = {"event": "crash", "message": f"its process ended with code {child.exitcode}"}
            if event["event"] in ("done", "user_error", "crash", "corrupt"):
                child.join()
                connection.close()
                del self.running[goal.key]
            yield goal, event

    def close(self) -> None:
        """End what still runs. A training answers by saving a checkpoint, for which there is some time."""
        for _, child, _ in self.running.values():
            child.terminate()
        deadline = time.monotonic() + self.runtime.grace_seconds
        try:
            for _, child, _ in self.running.values():
                child.join(max(0.0, deadline - time.monotonic()))
        finally:  # time is up, or Ctrl-C was pressed again
            for _, child, connection in self.running.values():
                child.kill()
                child.join(5)
                connection.close()
            self.running.clear()


def _log_name(goal: Goal) -> str:
    return goal.label.replace(" ", "-").replace(":", "-") + ".log"


def _child(goal: Goal, store: Store, runtime: Runtime, parent: Connection, log: Path, made_by: Maker) -> None:
    """Body of a stage's process: everything it prints goes to its log, what it has to say goes up the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_die_with_parent, daemon=True).start()
    with log.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    lock = threading.Lock()

    def send(event: dict[str, Json]) -> None:
        with lock, suppress(BrokenPipeError):
            parent.send_bytes(json.dumps(event, default=float).encode())

    send(outcome(goal, store, runtime, send, made_by))
    parent.close()


def outcome(goal: Goal, store: Store, runtime: Runtime, send: Send, made_by: Maker | None = None) -> dict[str, Json]:
    """Build a goal and put the way it ended into an event."""
    try:
        build(goal, store, runtime, send, made_by)
    except CorruptArtifact as corrupt:
        return {"event": "corrupt", "message": str(corrupt), "path": str(corrupt.path)}
    except UserError as error:
        return {"event": "user_error", "message": str(error)}
    except OSError as error:
        known = explained(error, f"building {goal.label}")
        if known is not None:
            return {"event": "user_error", "message": str(known)}
        traceback.print_exc()
        return {"event": "crash", "message": f"{type(error).__name__}: {error}"}
    except Exception as error:
        traceback.print_exc()
        return {"event": "crash", "message": f"{type(error).__name__}: {error}"}
    return {"event": "done"}


def _die_with_parent() -> None:
    """A stage must not outlive the run that started it, whatever killed the run."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
