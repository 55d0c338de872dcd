"""One line for each stage of a run, from its manifests: what went in, came out, was rejected, and what it took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from speed.core.errors import CorruptArtifact
from speed.core.graph import Goal
from speed.core.ledger import Line, gathered, part
from speed.core.ledger import total as sum_of
from speed.core.manifest import Manifest
from speed.core.spec import Json, Spec
from speed.core.stage import Pool
from speed.core.store import Span, Store


class StageLine(Spec):
    """One stage of a finished run."""

    label: str
    key: str
    state: str
    """`built` in this run, or `reused`."""
    rows_in: int | None
    """None where the stage reads no rows."""
    rows_out: int | None
    """None where the stage writes a model."""
    rejected: dict[str, int]
    seconds: float
    """Of building what the run uses, whenever that was."""
    gpu_seconds: float
    cost: dict[str, int]
    dollars: float | None
    metrics: dict[str, Json]
    noted: dict[str, int] = {}
    """Whatever else the stage counted."""
    calls_per_row: float | None = None
    """Calls to teachers that an accepted row took, whenever they were paid for; those of rejected rows and second tries
    included. None where no teacher was asked, or no row accepted."""
    ledger: tuple[Line, ...] = ()
    """Its requests to teachers, by purpose, kind, model and cause."""
    cpu_seconds: float = 0.0
    """Of the processes that built it; those of a training's processes and of servers are not among them."""
    corpus: bool = False
    """Whether it writes the examples that the run's embedder learns from."""


def corpus_of(lines: Iterable[StageLine]) -> StageLine | None:
    """The stage whose examples the run's embedder learns from; None where the run did not come so far."""
    return next((line for line in lines if line.corpus and line.rows_out is not None), None)


def stage_line(goal: Goal, store: Store, built_now: bool, corpus: bool = False) -> StageLine:
    """A stage's line from its manifest; a pool's from the shards that the run reads.

    Args:
        corpus: whether it writes the examples that the run's embedder learns from.
    """
    manifests = _manifests(goal, store)
    counts: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    cost: Counter[str] = Counter()
    for manifest in manifests:
        counts.update(manifest.counts)
        rejected.update(manifest.rejected)
        cost.update(manifest.cost)
    prices = [manifest.dollars for manifest in manifests]
    ledger = gathered(line for manifest in manifests for line in manifest.ledger)
    figures = goal.node.figures(counts, rejected) if isinstance(goal.node, Pool) and manifests else {}
    return StageLine(
        label=goal.label,
        key=goal.key,
        state="built" if built_now else "reused",
        rows_in=counts.get("in"),
        rows_out=counts.get("out"),
        rejected=dict(rejected.most_common()),
        seconds=round(sum(manifest.seconds for manifest in manifests), 1),
        gpu_seconds=round(sum(manifest.gpu_seconds for manifest in manifests), 1),
        cost=dict(cost),
        dollars=None if None in prices else sum(price or 0.0 for price in prices),
        metrics={**manifests[-1].metrics, **figures} if manifests else {},
        noted={name: n for name, n in counts.items() if n and name not in ("in", "out") and "/" not in name},
        calls_per_row=round(sum_of(ledger).requests / counts["out"], 4) if ledger and counts["out"] else None,
        ledger=tuple(ledger),
        cpu_seconds=round(sum(manifest.cpu_seconds for manifest in manifests), 2),
        corpus=corpus,
    )


def _manifests(goal: Goal, store: Store) -> list[Manifest]:
    node = goal.node
    if not isinstance(node, Pool):
        whole = store.manifest(node)  # type: ignore[arg-type]
        return [] if whole is None else [whole]
    rows, found = node.built_for(goal.rows), []
    for span in store.shards(node):
        manifest = store.shard_manifest(node, span) if span.start < rows else None
        if manifest is not None:
            found.append(manifest if span.stop <= rows else _part(manifest, node, span, rows, store))
    return found


def _part(manifest: Manifest, pool: Pool[Any], span: Span, rows: int, store: Store) -> Manifest:
    """What of a shard a run stands on that reads only its first rows, since another run has asked for more: rows and
    rejections as they are, of everything else the share of these rows."""
    share = (rows - span.start) / (span.stop - span.start)
    rejected = _by_name(manifest.rejected, share)
    with suppress(CorruptArtifact, OSError):  # whoever reads the rows tells the damage
        read = [row for row in store.shard_rows(pool, span) if row.row < rows]
        rejected = dict(Counter(row.rejected for row in read if row.rejected))
    kept = {"in": rows - span.start, "out": rows - span.start - sum(rejected.values())}
    return manifest.model_copy(
        update={
            "counts": {**_by_name(manifest.counts, share), **kept},
            "rejected": rejected,
            "cost": _by_name(manifest.cost, share),
            "dollars": None if manifest.dollars is None else share * manifest.dollars,
            "ledger": part(manifest.ledger, share),
            **{name: share * getattr(manifest, name) for name in ("seconds", "cpu_seconds", "gpu_seconds")},
        }
    )


def _by_name(counts: Mapping[str, int], share: float) -> dict[str, int]:
    return {name: round(share * count) for name, count in counts.items()}
