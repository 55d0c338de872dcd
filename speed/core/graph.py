"""From a handful of targets to an ordered list of goals: each stage once, each pool once at the largest size wanted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from speed.core.errors import CorruptArtifact
from speed.core.spec import Json
from speed.core.stage import Node, Pool, Stage, Take
from speed.core.store import Store
from speed.core.work import Work


@dataclass(frozen=True)
class Goal:
    """A stage to build, or a pool to grow to `rows` rows."""

    node: Node
    rows: int
    """0 for a stage."""
    after: tuple[str, ...]
    """Keys of the nodes that must be built first."""

    @property
    def key(self) -> str:
        """Key of the node."""
        return self.node.key

    @property
    def label(self) -> str:
        """Name of the node for the reader."""
        return self.node.label


def goals(targets: Iterable[Stage[Any] | Take[Any]]) -> list[Goal]:
    """Everything that the targets need, upstream first; of what a node reads, that with the longest way before it."""
    wanted: dict[str, int] = {}
    order: dict[str, Node] = {}
    depths: dict[str, int] = {}

    def depth(node: Node) -> int:
        if node.key not in depths:
            depths[node.key] = 1 + max(map(depth, _nodes_read(node)), default=0)
        return depths[node.key]

    def visit(node: Node) -> None:
        if node.key in order:
            return
        for upstream in sorted(_nodes_read(node), key=depth, reverse=True):
            visit(upstream)
        order[node.key] = node

    for target in targets:
        aim: Node = target.pool if isinstance(target, Take) else target
        visit(aim)
        wanted[aim.key] = max(wanted.get(aim.key, 0), target.rows if isinstance(target, Take) else 0)
    # Consumers first, so that a pool's size is final before it asks its own upstream.
    for node in reversed(order.values()):
        for pool, rows in _pools_read(node, wanted.get(node.key, 0)):
            wanted[pool.key] = max(wanted.get(pool.key, 0), rows)
    return [
        Goal(node, wanted.get(key, 0), tuple(need.key for need in _nodes_read(node))) for key, node in order.items()
    ]


def _nodes_read(node: Node) -> Iterator[Node]:
    for upstream in node.upstream.values():
        yield upstream.pool if isinstance(upstream, Take) else upstream


def _pools_read(node: Node, rows: int) -> Iterator[tuple[Pool[Any], int]]:
    for name, upstream in node.upstream.items():
        if isinstance(upstream, Take):
            yield upstream.pool, upstream.rows
        elif isinstance(upstream, Pool):
            if not isinstance(node, Pool):
                raise TypeError(f"{node.label}.{name} is a pool: a stage reads a take of it")
            span = -(-rows // node.block) * node.block if node.whole_blocks else rows
            yield upstream, node.rows_needed(name, span)


def read_by(goal: Goal) -> list[tuple[Node, int]]:
    """(node, rows) of what building a goal reads from the store, and of what that refers to; 0 rows of a stage."""
    rows = dict[str, int]()
    for pool, count in _pools_read(goal.node, goal.rows):
        rows[pool.key] = max(rows.get(pool.key, 0), count)
    found = dict[str, Node]()

    def visit(nodes: Iterable[Node]) -> None:
        for node in nodes:
            if node.key not in found:
                found[node.key] = node
                visit(node.refers_to)

    visit(_nodes_read(goal.node))
    return [(node, rows.get(key, 0)) for key, node in found.items()]


@dataclass(frozen=True)
class StageStatus:
    """How far a goal is, and what is left to do."""

    goal: Goal
    built: int
    """Rows present of those wanted; 1 or 0 for a stage."""
    wanted: int
    work: Work
    """What is still to spend, at least."""
    at_most: Work
    """The same, where every row needs all the tries that it may take."""
    reasons: tuple[str, ...] = ()
    """For a miss: what differs from the nearest build of the same stage."""
    commit: str = ""
    """Code that built it."""
    damaged: str = ""
    """A file whose checksum failed, if one was noticed."""

    @property
    def why(self) -> str:
        """All reasons in one line."""
        return ", ".join(self.reasons)

    @property
    def state(self) -> str:
        """`hit`, `partial` or `miss`."""
        return "hit" if self.built >= self.wanted else "partial" if self.built else "miss"


def is_built(goal: Goal, store: Store) -> bool:
    """Whether a goal is there, as far as names tell: its payload is not read."""
    if isinstance(goal.node, Pool):
        return not store.missing(goal.node, goal.rows)
    assert isinstance(goal.node, Stage)
    try:
        return store.manifest(goal.node) is not None
    except CorruptArtifact:
        return False


def stage_statuses(order: list[Goal], store: Store) -> list[StageStatus]:
    """Where each goal stands in the store. Damaged artifacts are set aside on the way and count as missing."""
    return [_status_of(goal, store) for goal in order]


def _status_of(goal: Goal, store: Store) -> StageStatus:
    damaged = ""
    for _ in range(1000):
        try:
            found = _measured(goal, store)
            return StageStatus(**{**found.__dict__, "damaged": damaged}) if damaged else found
        except CorruptArtifact as corrupt:
            store.set_aside(corrupt.path)
            damaged = str(corrupt)
    raise RuntimeError(f"{goal.label}: more damage than can be set aside")


def _measured(goal: Goal, store: Store) -> StageStatus:
    node = goal.node
    if isinstance(node, Pool):
        gaps = store.missing(node, goal.rows)
        work = sum((node.work(gap.start, gap.stop) for gap in gaps), Work())
        at_most = sum((node.work_at_most(gap.start, gap.stop) for gap in gaps), Work())
        built = max(0, goal.rows - sum(min(gap.stop, goal.rows) - min(gap.start, goal.rows) for gap in gaps))
        first = store.shards(node)[:1]
        manifest = store.shard_manifest(node, first[0]) if first else None
        reasons = () if built else _reasons(node, store)
        return StageStatus(goal, built, goal.rows, work, at_most, reasons, _commit_of(manifest))
    assert isinstance(node, Stage)
    manifest = store.manifest(node)
    if manifest is not None:
        return StageStatus(goal, 1, 1, Work(), Work(), commit=_commit_of(manifest))
    return StageStatus(goal, 0, 1, node.work(), node.work(), _reasons(node, store))


def _commit_of(manifest: Any) -> str:
    return manifest.maker.commit if manifest is not None and manifest.maker is not None else ""


def _reasons(node: Node, store: Store) -> tuple[str, ...]:
    """What differs from the nearest build, the most telling first: own settings before upstream stages, outer
    ones before those deep within."""
    nearest: list[str] = []
    for sibling in store.siblings(node):
        if sibling.label != node.label:
            continue
        differing = differences(sibling.recipe, dict(node.own_recipe))
        if sibling.version != node.version:
            differing.append(f"version {sibling.version} -> {node.version}")
        if not nearest or len(differing) < len(nearest):
            nearest = differing
    telling = sorted(nearest, key=lambda each: (each.endswith(" changed"), each.partition(" ")[0].count(".")))
    return tuple(telling) or ("not built yet",)


def differences(old: Json, new: Json, path: str = "") -> list[str]:
    """The leaves that differ between two recipes, as `path old -> new`; an upstream is named, not its key."""
    if isinstance(old, dict) and isinstance(new, dict):
        if "key" in new and "key" in old and ("stage" in new or "pool" in new):
            rows = f" {old['rows']} -> {new['rows']} rows" if old.get("rows") != new.get("rows") else ""
            return [] if old == new else [f"{path}{rows or ' changed'}"]
        found = []
        for name in sorted(set(old) | set(new)):
            found += differences(old.get(name), new.get(name), f"{path}.{name}" if path else name)
        return found
    return [] if old == new else [f"{path} {shortened(old)} -> {shortened(new)}"]


def shortened(value: Json) -> str:
    """A value for the reader, in at most 40 characters."""
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."
