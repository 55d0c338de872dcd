"""Build one goal: a stage whole, or a pool shard by shard, with its share of the machine."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from speed.core.allocation import Grant, Machine, Share, shares
from speed.core.build_settings import BuildSettings
from speed.core.cache import remove_left
from speed.core.closing import closing
from speed.core.errors import CorruptArtifact, Later, StoreError, UserError, explained
from speed.core.graph import Goal
from speed.core.machine import cores
from speed.core.manifest import Maker, Manifest, maker, now, outputs_of
from speed.core.rejections import Watch
from speed.core.row import Row
from speed.core.spec import Json
from speed.core.stage import Context, Node, Pool, Send, Stage
from speed.core.store import Span, Store
from speed.core.work import Tally

GRANT = "share.json"
"""File beside what an interrupted stage has left: what it had of the machine."""


def build(
    goal: Goal,
    store: Store,
    runtime: BuildSettings,
    send: Send,
    made_by: Maker | None = None,
    spans: Iterable[Span] | None = None,
    grant: Grant | None = None,
) -> None:
    """Build one goal if it is missing, under its lock; or these spans of a pool, whose lock the caller holds.

    Args:
        grant: what of the machine the build has for itself; none where nobody shares it out.
    """
    made_by = made_by or maker()
    node = goal.node
    ctx = Context(store, runtime, node.label, send, granted=grant)
    if spans is not None:
        assert isinstance(node, Pool)
        with ctx.several_blocks():
            for span in spans:
                found = store.shard_manifest(node, span) if store.is_shard(node, span) else None
                if found is None:
                    _build_rows(node, span, store, ctx, made_by)
                else:  # written by a worker that died before it could say so
                    _tell_shard(node, span, found.rejected, ctx)
        return
    with store.lock(node):
        if isinstance(node, Pool):
            for gap in store.missing(node, goal.rows):
                _build_rows(node, gap, store, ctx, made_by)
        elif isinstance(node, Stage) and store.manifest(node) is None:
            _build_stage(node, store, ctx, made_by)


def _build_stage(stage: Stage[Any], store: Store, ctx: Context[Any], made_by: Maker) -> None:
    out = store.partial(stage)
    remove_left(out)
    (out / GRANT).write_text(_share(ctx).model_dump_json(), encoding="utf-8")
    begun = Clock.now()
    left = list(_points(out / "curves.jsonl"))  # by a build that was interrupted
    with (out / "curves.jsonl").open("w", encoding="utf-8") as curves:
        send = ctx.send

        def record(event: dict[str, Json]) -> None:
            if event["event"] == "metric":
                curves.write(json.dumps({"step": event["step"], **event["figures"]}) + "\n")
                curves.flush()
            send(event)

        ctx.send = record
        for point in left:
            ctx.metric(point.pop("step"), **point)
        stage.run(out, ctx)
    if not (out / "curves.jsonl").stat().st_size:
        (out / "curves.jsonl").unlink()
    for own in ("manifest.json", GRANT):
        (out / own).unlink(missing_ok=True)
    manifest = _manifest(stage, ctx, ctx.tally, begun, made_by)
    store.publish(stage, manifest.model_copy(update={"outputs": outputs_of(out)}))


def _points(curves: Path) -> Iterator[dict[str, Any]]:
    """Points of a training; the last line may be half written."""
    if curves.is_file():
        for line in curves.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError):
                yield json.loads(line)


def _build_rows(pool: Pool[Any], gap: Span, store: Store, ctx: Context[Any], made_by: Maker) -> None:
    """Write the rows of a gap, shard by shard; a shard ends at a multiple of the block or at the gap's end."""
    start = gap.start
    watch = Watch(pool, gap.stop - gap.start if gap.start == 0 else 0, ctx)
    with closing(pool.build(gap.start, gap.stop, ctx)) as rows:
        while start < gap.stop:
            stop = min((start // pool.block + 1) * pool.block, gap.stop)
            begun = Clock.now()
            with ctx.fresh_tally() as tally:
                shard = _next_rows(pool, rows, start, stop, watch)
                _count(shard, tally)
                tally.metrics.update(pool.figures(tally.counts, tally.rejected))
                manifest = _manifest(pool, ctx, tally, begun, made_by, Span(start, stop))
                store.write_shard(pool, Span(start, stop), shard, manifest)
            _tell_shard(pool, Span(start, stop), manifest.rejected, ctx)
            start = stop


def _tell_shard(pool: Pool[Any], span: Span, rejected: Mapping[str, int], ctx: Context[Any]) -> None:
    count = sum(rows for cause, rows in rejected.items() if cause not in pool.choices)
    event = {"event": "shard", "start": span.start, "stop": span.stop, "rejected": count}
    ctx.send({**event, "calls": ctx.calls, "dollars": ctx.spent})


def _next_rows(pool: Pool[Any], rows: Iterator[Row], start: int, stop: int, watch: Watch) -> list[Row]:
    found = []
    for position in range(start, stop):
        row = next(rows, None)
        if row is None or row.row != position:
            raise RuntimeError(f"{pool.label} was to build row {position} and built {row.row if row else 'nothing'}")
        found.append(row)
        watch.see(row)
    return found


def _count(rows: list[Row], tally: Tally) -> None:
    tally.counts["in"] += len(rows)
    for row in rows:
        if row.rejected is None:
            tally.counts["out"] += 1
        else:
            tally.rejected[row.rejected] += 1


def _share(ctx: Context[Any]) -> Share:
    return Share(devices=len(ctx.grant.devices), threads=ctx.grant.threads)


def kept_share(stage: Stage[Any], store: Store) -> Share | None:
    """What an interrupted build of a stage had of the machine: it goes on with as much."""
    file = store.unfinished(stage) / GRANT
    try:
        return Share.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def plan_shares(order: list[Goal], runtime: BuildSettings, store: Store | None = None) -> dict[str, Share]:
    """How much of the machine each goal gets, by key.

    Args:
        store: where interrupted stages lie, which go on with what they had.
    """
    devices = runtime.devices if isinstance(runtime.devices, tuple) else ()
    threads = None if runtime.threads == "auto" else runtime.threads
    found = shares(
        {goal.key: goal.node.demand(runtime) for goal in order},
        {goal.key: goal.after for goal in order},
        Machine(devices, cores(), runtime.side_by_side),
        threads,
    )
    for goal in order if store is not None else ():
        node = goal.node
        kept = kept_share(node, store) if store and isinstance(node, Stage) and node.demand(runtime).devices else None
        if kept is not None and bool(kept.devices) == bool(devices) and kept.devices <= len(devices):
            found[goal.key] = kept if threads is None else kept.model_copy(update={"threads": threads})
    return found


class Clock(NamedTuple):
    """A moment of a build, in seconds."""

    wall: float
    cpu: float
    """Of all threads of this process."""

    @classmethod
    def now(cls) -> Clock:
        """This moment."""
        return cls(time.monotonic(), time.process_time())


def _manifest(
    node: Node, ctx: Context[Any], tally: Tally, begun: Clock, made_by: Maker, span: Span | None = None
) -> Manifest:
    seconds, cpu_seconds = (now - then for now, then in zip(Clock.now(), begun, strict=True))
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
        cpu_seconds=round(cpu_seconds, 3),
        gpu_seconds=round(seconds * ctx.gpus, 3),
        share=_share(ctx),
        finished=now(),
        maker=made_by,
    )


def attempt_build(
    goal: Goal,
    store: Store,
    runtime: BuildSettings,
    send: Send,
    made_by: Maker | None = None,
    spans: Iterable[Span] | None = None,
    grant: Grant | None = None,
) -> dict[str, Json]:
    """Build a goal, or these spans of it, and report as an event how that ended: `done`, `later`, `user_error`,
    `crash`, or `corrupt` where a damaged file was met that must be set aside and built again."""
    try:
        build(goal, store, runtime, send, made_by, spans, grant)
    except CorruptArtifact as corrupt:
        return {"event": "corrupt", "message": str(corrupt), "path": str(corrupt.path)}
    except Later as later:
        return {"event": "later", "message": str(later)}
    except UserError as error:
        return {"event": "user_error", "message": str(error), "store": isinstance(error, StoreError)}
    except OSError as error:
        known = explained(error, f"building {goal.label}")
        if known is not None:
            return {"event": "user_error", "message": str(known), "store": True}
        traceback.print_exc()
        return {"event": "crash", "message": f"{type(error).__name__}: {error}"}
    except Exception as error:
        traceback.print_exc()
        return {"event": "crash", "message": f"{type(error).__name__}: {error}"}
    return {"event": "done"}
