"""Pictures of a run: how its trainings went, and its scores by task type."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

from speed.core.graph import Goal
from speed.core.stage import Stage
from speed.core.store import Store
from speed.data.records import Scores
from speed.runs.page.drawing import BLUE, GREEN, INK, ORANGE, PINK, drawn

POINTS = 400
"""Points of a curve that are drawn."""
MEASURES = {
    "loss": "loss",
    "rewards_accuracies": "pairs told right",
    "rewards_margins": "margin of rewards",
}
"""What is drawn of a training, in this order."""

MARKS: tuple[dict[str, Any], ...] = (
    {"marker": "v", "color": PINK}, {"marker": "s", "color": INK}, {"marker": "^", "color": GREEN},
    {"marker": "D", "color": ORANGE},
)  # fmt: skip
"""Marks of three yardsticks and the paper, told apart by their shape too."""
MEAN = "mean over tasks"
NARROWEST = 2.0
"""Points of a score that the picture of scores spans at least."""


class Curve(NamedTuple):
    """One measure of one training."""

    picture: Any
    caption: str


def curves(order: Sequence[Goal], store: Store) -> list[Curve]:
    """All trainings of a run, those of adjacent stages beside one another; none where matplotlib is not installed."""
    found = []
    for goal in order:
        if isinstance(goal.node, Stage):
            steps = _steps(store.folder(goal.node) / "curves.jsonl")
            for measure, told in MEASURES.items():
                points = [
                    (step["step"], step[measure])
                    for step in steps
                    if isinstance(step.get(measure), (int, float)) and isfinite(step[measure])
                ]
                name = f"{goal.label}: {told} by step"
                data = {"points": points, "color": BLUE if measure == "loss" else GREEN}
                if len(points) > 1 and (picture := drawn(_curve, data, 3.3, 1.9, name, store.home)) is not None:
                    first, last = points[0][1], points[-1][1]
                    caption = f"{goal.label}, {told}: {first:.3g} to {last:.3g} in {points[-1][0]:,} steps"
                    found.append(Curve(picture, caption))
    return found


def _steps(file: Path) -> list[dict[str, Any]]:
    """Lines of a file of curves, as many as are drawn; a training that was resumed wrote some steps again."""
    if not file.is_file():
        return []
    with file.open(encoding="utf-8") as lines:
        by_step = {step["step"]: step for step in map(json.loads, lines)}
    steps = [by_step[step] for step in sorted(by_step)]
    return steps[:: max(1, len(steps) // POINTS)]


def _curve(figure: Any, data: Any) -> None:
    axes = figure.add_axes((0.14, 0.15, 0.83, 0.8))
    axes.plot(*zip(*data["points"], strict=True), color=data["color"], linewidth=1.5)
    axes.locator_params(axis="x", nbins=4, integer=True)
    axes.locator_params(axis="y", nbins=4)
    axes.tick_params(length=0)


def scores_by_type(
    scores: Scores,
    kinds: dict[str, str],
    beside: dict[str, Scores],
    paper: dict[str, float],
    told_from: float | None,
    home: Path,
) -> Any:
    """Tasks and means of each type, the mean over all, and what to read them beside.

    Args:
        kinds: type of each task.
        beside: yardsticks by name, at most three.
        paper: scores of the paper's SPEED by type, where they compare.
        told_from: points by which the mean of another single run must differ, where that is known.
    """
    means = {kind: value for kind, value in scores.types.items() if value is not None}
    if not means or scores.mean is None:
        return None
    data = {
        "means": [*means.items(), (MEAN, scores.mean)],
        "tasks": [(value, kinds[name]) for name, value in scores.tasks.items() if value is not None and name in kinds],
        "beside": [
            *((name, {**each.types, MEAN: each.mean}) for name, each in beside.items()), ("the paper's SPEED", paper)
        ],
        "told_from": told_from,
    }  # fmt: skip
    return drawn(_scores, data, 5.2, 0.8 + 0.27 * (len(means) + 1), "scores by task type", home)


def _scores(figure: Any, data: Any) -> None:
    axes = figure.add_axes((0.29, 0.11, 0.67, 0.74))
    means_here = dict(data["means"])
    rows = list(means_here)
    places = {name: place for place, name in enumerate(rows)}
    dots = [(value, places[kind]) for value, kind in data["tasks"] if kind in places]
    if len(dots) >= len(rows):
        axes.plot(*zip(*dots, strict=True), "|", color=BLUE, markersize=11, label="a task")
    axes.plot(means_here.values(), places.values(), "o", color=BLUE, markersize=6, linestyle="", label="this run")
    if data["told_from"] is not None:
        axes.errorbar(means_here[MEAN], places[MEAN], xerr=data["told_from"], color=BLUE, capsize=3, linewidth=1)
    for (name, means), style in zip(data["beside"], MARKS, strict=False):
        there = [(means[row], places[row]) for row in rows if means.get(row) is not None]
        if there:
            axes.plot(*zip(*there, strict=True), linestyle="", markersize=6, fillstyle="none", label=name, **style)
    low, high = axes.get_xlim()
    if high - low < NARROWEST:  # equal scores are no spread, and ticks of thousandths run into one another
        middle = (low + high) / 2
        axes.set_xlim(middle - NARROWEST / 2, middle + NARROWEST / 2)
    axes.locator_params(axis="x", nbins=6)
    axes.set_yticks(list(places.values()), rows)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.axhline(len(rows) - 1.5, color=INK, linewidth=0.6)
    axes.tick_params(length=0)
    figure.legend(loc="upper center", ncols=5, fontsize=8, handletextpad=0.2, columnspacing=0.9)
