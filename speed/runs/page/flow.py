"""The pipeline as a picture: Figure 2 with what went along each arrow of this run.

Boxes stand on a grid of five columns that the flow runs through like an S, so that it fits a screen. Stages of one name
(brainstorming for three roles) are one box. An arrow that a longer way makes needless (topics to seed data, since tasks
lie between) is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from speed.core.graph import Goal
from speed.core.stage import Pool, Take
from speed.runs.stage_lines import StageLine
from speed.runs.tables import counted, money

PLACES = {
    "topics": (0, 0), "tasks": (1, 0), "seed data": (2, 0), "junior": (3, 0), "root data": (4, 0),
    "preferences": (4, 1), "verified pairs": (4, 1), "field pairs": (4, 1), "retriever pairs": (4, 1),
    "senior": (3, 1), "instruct model": (3, 1),
    "synthesis": (2, 1),
    "revisions": (4, 2), "revisor": (3, 2), "revision": (2, 2), "dedup": (1, 2), "embedder": (0, 2),
    "evaluation": (0, 1),
}  # fmt: skip
"""Column and row of each box; others stand in a row below."""
BEFORE_EMBEDDER = ("negatives", "filter", "relabelling", "graded documents")
"""Boxes between dedup and embedder, which stand in a row below and end below the embedder."""
WIDTH, HEIGHT, GAP_X, GAP_Y = 172, 103, 74, 52
LEFT, RIGHT, TOP, BOTTOM = 34, 78, 46, 34
"""Margins: an arrow above the first row and one on the right have their numbers there."""


class Box(NamedTuple):
    """One box."""

    name: str
    state: str
    label: str
    """Of its first stage, for a link to its figures."""
    x: int
    y: int
    rows: str
    took: str
    """Time and dollars."""
    calls: str
    """Calls to teachers."""
    kept: float | None
    """Share of the rows that were accepted."""
    why: str
    """Causes of rejection."""


class Arrow(NamedTuple):
    """One arrow, and what went along it."""

    path: str
    x: int
    y: int
    """Where its label stands."""
    anchor: str
    """How the label stands there: `middle`, `start` or `end`."""
    rows: str
    lost: str
    why: str
    of: tuple[str, str]
    """Names of its boxes."""


class Flow(NamedTuple):
    """The picture."""

    width: int
    height: int
    boxes: list[Box]
    arrows: list[Arrow]


def flow(order: Sequence[Goal], lines: Sequence[StageLine]) -> Flow:
    """Lay a run out."""
    by_key = {line.key: line for line in lines}
    names = {goal.key: goal.node.name for goal in order if goal.key in by_key}
    groups: dict[str, list[StageLine]] = {}
    for goal in order:
        if goal.key in by_key:
            groups.setdefault(goal.node.name, []).append(by_key[goal.key])
    places = _places(list(groups))
    boxes = [_box(name, group, places[name]) for name, group in groups.items()]
    arrows = []
    for (source, target), taken in _edges(order, names).items():
        arrows.append(_arrow(source, target, taken, groups[source], places))
    columns, rows = (max(place[axis] for place in places.values()) + 1 for axis in (0, 1))
    return Flow(
        LEFT + columns * (WIDTH + GAP_X) - GAP_X + RIGHT, TOP + rows * (HEIGHT + GAP_Y) - GAP_Y + BOTTOM, boxes, arrows
    )


def _places(names: Sequence[str]) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    late = [name for name in reversed(BEFORE_EMBEDDER) if name in names]
    fixed = PLACES | {name: (column, 3) for column, name in enumerate(late)}
    others = 0
    for name in names:
        place = fixed.get(name)
        if place is None or place in found.values():
            place, others = (others % 5, 3 + others // 5), others + 1
        found[name] = place
    return found


def _corner(place: tuple[int, int]) -> tuple[int, int]:
    return LEFT + place[0] * (WIDTH + GAP_X), TOP + place[1] * (HEIGHT + GAP_Y)


def _box(name: str, group: Sequence[StageLine], place: tuple[int, int]) -> Box:
    x, y = _corner(place)
    seen = sum(line.rows_in or 0 for line in group)
    kept = [line.rows_out for line in group if line.rows_out is not None]
    states = {line.state for line in group}
    if name == "evaluation":
        rows = counted(sum(kept), "task")
    elif not kept:
        rows = f"{seen:,} rows learned" if seen else ""
    else:
        rows = f"{sum(kept):,} of {seen:,}" if seen and sum(kept) != seen else f"{sum(kept):,} rows"
    return Box(
        name=name,
        state=states.pop() if len(states) == 1 else "built in part",
        label=group[0].label,
        x=x,
        y=y,
        rows=rows,
        took=_took(group),
        calls=f"{calls:,} calls" if (calls := sum(line.cost.get("calls", 0) for line in group)) else "",
        kept=min(1.0, sum(kept) / seen) if kept and seen else None,
        why=_causes(group),
    )


def _took(group: Sequence[StageLine]) -> str:
    """Seconds of some stages and, where a teacher was asked, dollars."""
    told = duration(sum(line.seconds for line in group))
    if not any(line.cost.get("calls") for line in group):
        return told
    if None in (prices := [line.dollars for line in group]):
        return f"{told} · price unknown"
    spent = sum(price or 0.0 for price in prices)
    return f"{told} · {money(spent)}" if spent else told


def duration(seconds: float) -> str:
    """`4.2 s`, `3 min`, `5.1 h`."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:,.1f} h"


def _causes(group: Iterable[StageLine]) -> str:
    return ", ".join(f"{count:,} {cause}" for line in group for cause, count in line.rejected.items() if count)


def _edges(order: Sequence[Goal], names: Mapping[str, str]) -> dict[tuple[str, str], int | None]:
    """Names of boxes that an arrow joins, with the rows that are read; None where a model or a file is."""
    after = {goal.key: set(goal.after) for goal in order}
    reached: dict[str, set[str]] = {}
    for goal in order:  # upstream first
        reached[goal.key] = set().union(*({key} | reached[key] for key in goal.after)) if goal.after else set()
    rows = {goal.key: goal.rows for goal in order}
    found: dict[tuple[str, str], int | None] = {}
    for goal in order:
        takes = {each.pool.key: each.rows for each in goal.node.upstream.values() if isinstance(each, Take)}
        for key in goal.after:
            needless = any(key in reached[other] for other in after[goal.key] if other != key)
            ends = names.get(key), names.get(goal.key)
            if needless or None in ends or ends[0] == ends[1]:
                continue
            source = next(each for each in order if each.key == key)
            read = takes.get(key, min(rows[key], goal.rows or rows[key])) if isinstance(source.node, Pool) else None
            joined = (str(ends[0]), str(ends[1]))
            before = found.get(joined)
            found[joined] = read if before is None else before if read is None else before + read
    return found


def _arrow(
    source: str, target: str, taken: int | None, group: Sequence[StageLine], places: Mapping[str, tuple[int, int]]
) -> Arrow:
    (column, row), (to_column, to_row) = places[source], places[target]
    (x, y), (to_x, to_y) = _corner(places[source]), _corner(places[target])
    middle, to_middle = y + HEIGHT // 2, to_y + HEIGHT // 2
    centre, to_centre = x + WIDTH // 2, to_x + WIDTH // 2
    between = {
        place for place in places.values() if place[0] == column and min(row, to_row) < place[1] < max(row, to_row)
    }
    anchor = "start"
    if row == to_row and abs(column - to_column) == 1:
        start, end = (x + WIDTH, to_x) if to_column > column else (x, to_x + WIDTH)
        path, at, anchor = f"M{start} {middle}H{end}", ((start + end) // 2, middle), "middle"
    elif row == to_row:
        top = y - 20
        path = f"M{centre} {y}V{top + 8}q0 -8 8 -8H{to_centre - 8}q8 0 8 8V{to_y}"
        if to_column < column:
            path = f"M{centre} {y}V{top + 8}q0 -8 -8 -8H{to_centre + 8}q-8 0 -8 8V{to_y}"
        at, anchor = ((centre + to_centre) // 2, top), "middle"
    elif column == to_column and not between:
        start, end = (y + HEIGHT, to_y) if to_row > row else (y, to_y + HEIGHT)
        path, at = f"M{centre} {start}V{end}", (centre + 8, (start + end) // 2 + 5)
    elif column == to_column:
        edge = x + WIDTH + 20
        path = f"M{x + WIDTH} {middle}H{edge - 8}q8 0 8 8V{to_middle - 8}q0 8 -8 8H{to_x + WIDTH}"
        at = (edge + 8, (y + HEIGHT + to_y) // 2 - 30)
    else:
        start = y + HEIGHT if to_row > row else y
        end, turn = (to_x, 8) if to_column > column else (to_x + WIDTH, -8)
        bend = to_middle - 8 if to_row > row else to_middle + 8
        path = f"M{centre} {start}V{bend}q0 {to_middle - bend} {turn} {to_middle - bend}H{end}"
        at = (centre + 8, start + 22)
    whole = [line for line in group if line.rows_in is not None and line.rows_out is not None]
    asked = sum(line.rows_in or 0 for line in whole)
    lost = asked - sum(line.rows_out or 0 for line in whole)
    every = taken is not None and taken >= asked
    rows = "" if taken is None else f"{taken - lost if every else taken:,}"
    if taken is None and whole:
        rows = f"{sum(line.rows_out or 0 for line in whole):,}"
    return Arrow(
        path=path, x=at[0], y=at[1], anchor=anchor, rows=rows, lost=f"{-lost:+,}" if lost else "",
        why=_causes(group), of=(source, target),
    )  # fmt: skip
