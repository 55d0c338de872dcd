"""The answer of a study: its runs among all that a root holds, point by point and seed by seed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeAlias

from speed.core.errors import UserError
from speed.data.evaluation_record import refuse_other_pins
from speed.data.published_scores import published
from speed.runs.finished_runs import DEFAULT_PRESET, FinishedRun, Seeds
from speed.studies.answer import Answer, Figure, Row, RunOfRow
from speed.studies.definition import Measure, Point, Study
from speed.studies.groups import Group, group_of
from speed.studies.missing import commands
from speed.studies.scaling_law import Laws, fit_laws
from speed.studies.statistics import Deviation, Difference, corrected, deviation, difference, interval

Figures: TypeAlias = Callable[[dict[Seeds, FinishedRun], dict[Seeds, int]], dict[int, dict[str, float]]]
"""Takes runs by their seeds, and a number for each seed; gives by that number each run's figures, by name."""

Paid: TypeAlias = Mapping[int, Sequence[float | None]]
"""What runs cost in dollars, by their number of examples; None where a price is unknown."""


def answer(
    study: Study,
    runs: Sequence[FinishedRun],
    seeds: Sequence[int] = (),
    like: FinishedRun | None = None,
    home: str | None = None,
    with_laws: bool = True,
) -> Answer:
    """Everything that a study has to say.

    Args:
        runs: the finished runs of a root, oldest first.
        seeds: those that each point should have; else those that any point of the study has.
        home: the root as it must be named in commands; None where it is the default.
        with_laws: fit the law of scores by data size where the study has one, which takes seconds.
    """
    group, remarks = group_of(study, runs, like)
    remarks += _measured_alike(group)
    remarks += group.leave_out_unlike(study)
    preset = str(group.runs[0].line.get("preset", "")) if group.runs else DEFAULT_PRESET
    expected = study.expected(preset)
    wanted = _wanted_seeds(study, group, seeds)
    points = [*expected, *sorted(_unexpected(group, expected), key=lambda point: _place(study, point) or 0.0)]
    missing = {point.name: [seed for seed in wanted if seed not in group.of(point.name)] for point in points}
    names = [point.name for point in points]
    differences = _differences(study, group, names, _by_task)
    beside = {
        each.name: _differences(study, group, names, partial(_by_measure, group, each))
        for each in study.measures
        if each.compared
    }
    paper = study.paper.rows if study.paper else {}

    def row(point: Point) -> Row:
        there, told = group.of(point.name), paper.get(point.name, {})
        return Row(
            name=point.name,
            x=_place(study, point) if study.x else None,
            size=next((_size(study, run) for run in there.values()), None),
            figures={each.name: _figure(group, each, there, told) for each in study.measures},
            difference=differences.get(point.name),
            beside={name: found[point.name] for name, found in beside.items() if point.name in found},
            missing=tuple(seed.name for seed in missing[point.name]),
            runs=tuple(_run(run, study.measures) for run in there.values()),
        )

    rows = [row(point) for point in points]
    rows += [
        Row(name=name, figures={each.name: Figure(paper=figures.get(each.name)) for each in study.measures})
        for name, figures in paper.items()
        if name not in {point.name for point in points}
    ]
    return Answer(
        study=study,
        preset=preset,
        rows=tuple(rows),
        remarks=(*_other_tasks(study, group), *remarks, *_reuse(group), *study.notes),
        laws=_laws(study, group, _by_task, _paid(study, group)) if study.sizes and with_laws else None,
        further_laws=_further_laws(study, group) if study.sizes and with_laws else {},
        spreads=_spreads(group) if study.seeds else {},
        commands=tuple(commands(study, expected, {point.name: wanted for point in expected}, (), home, preset)),
        missing=tuple(commands(study, points, missing, group.runs, home)),
    )


def _other_tasks(study: Study, group: Group) -> list[str]:
    """Whether our scores are over other tasks than the paper's."""
    if not group.runs or study.paper is None or study.layout == "measures":
        return []
    tasks = set(group.runs[0].scores.tasks)
    if tasks == published().benchmark:
        return []
    named = ", ".join(sorted(tasks)[:8]) + (" ..." if len(tasks) > 8 else "")
    return [
        f"Our scores are means over {len(tasks)} tasks ({named}), the paper's over the 56 of MTEB(eng, v1): what "
        "changes from point to point may be compared, levels may not."
    ]


def _measured_alike(group: Group) -> list[str]:
    """Leave out runs that were not measured as the newest was."""
    remarks, kept = [], Group()
    for run, name in zip(group.runs, group.names, strict=True):
        try:
            refuse_other_pins([*(other.evaluation for other in kept.runs[:1]), run.evaluation])
        except UserError as other:
            remarks.append(f"Left out: {name}, seed {run.seeds.name}, {run.line.get('run')}: {other}")
        else:
            kept.add(run, group.points[name])
    group.runs, group.names = kept.runs, kept.names
    return remarks


def _unexpected(group: Group, expected: Sequence[Point]) -> list[Point]:
    known = {point.name for point in expected}
    return [point for name, point in group.points.items() if name not in known and name in group.names]


def _place(study: Study, point: Point) -> float | None:
    """Where a point stands on the axis; None where its value is no number."""
    value = point.where.get(study.axis[0]) if study.axis else None
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _wanted_seeds(study: Study, group: Group, seeds: Sequence[int]) -> list[Seeds]:
    if seeds:
        return [Seeds.of(seed) for seed in seeds]
    named = {*map(Seeds.of, study.seeds), *(run.seeds for run in group.runs)} or {Seeds()}
    return sorted(named, key=lambda each: each.order)


def _figure(group: Group, measure: Measure, runs: dict[Seeds, FinishedRun], paper: dict[str, float]) -> Figure:
    """The mean over seeds; a blank where one of them has none, since the others say nothing of it."""
    found = [group.figure(run, measure) for run in runs.values()]
    known = [value * measure.factor for value in found if value is not None]
    values = known if len(known) == len(found) else []
    over_seeds = interval(values)
    return Figure(
        paper=paper.get(measure.name),
        ours=sum(values) / len(values) if values else None,
        low=over_seeds.low if over_seeds else None,
        high=over_seeds.high if over_seeds else None,
        seeds=len(values),
    )


def _spreads(group: Group) -> dict[str, Deviation]:
    """How far apart scores of runs are that differ in nothing but their seed; left out where one is undefined."""
    scores: dict[str, list[float | None]] = {}
    for run in group.runs:
        for name, score in {f"mean over {len(run.scores.tasks)} tasks": run.scores.mean, **run.scores.types}.items():
            scores.setdefault(name, []).append(score)
    known = {name: [score for score in found if score is not None] for name, found in scores.items()}
    whole = {name: deviation(values) for name, values in known.items() if len(values) == len(group.runs)}
    return {name: found for name, found in whole.items() if found is not None}


def _differences(study: Study, group: Group, points: Sequence[str], figures: Figures) -> dict[str, Difference]:
    """Of each point from the reference; where seeds are shared, over those alone."""
    if study.reference is None or not (reference := group.of(study.reference)):
        return {}
    found = {}
    for point in points:
        runs = group.of(point)
        if point == study.reference or not runs:
            continue
        shared = [seed for seed in reference if seed in runs]
        pair = [{seed: side[seed] for seed in shared} if len(shared) > 1 else side for side in (runs, reference)]
        numbers = {seed: place for place, seed in enumerate({**pair[0], **pair[1]})}
        one, two = (figures(side, numbers) for side in pair)
        if set.intersection(*(set(tasks) for tasks in (*one.values(), *two.values()))):
            found[point] = difference(one, two)
    return corrected(found)


def _size(study: Study, run: FinishedRun) -> int | None:
    """How many examples a run writes, where its study is of that."""
    factors = [run.settings.get(key) for key in study.sizes]
    numbers = [each for each in factors if isinstance(each, (int, float))]
    return round(math.prod(numbers)) if numbers and len(numbers) == len(factors) else None


def _further_laws(study: Study, group: Group) -> dict[str, Laws]:
    found = {each.name: _laws(study, group, partial(_by_measure, group, each)) for each in study.measures if each.law}
    return {name: laws for name, laws in found.items() if laws is not None}


def _laws(study: Study, group: Group, figures: Figures, paid: Paid | None = None) -> Laws | None:
    """The laws of figures by data size; None where nothing can be fitted."""
    seeds = sorted({run.seeds for run in group.runs}, key=lambda each: each.order)
    numbers = {seed: place for place, seed in enumerate(seeds)}
    measured: dict[int, dict[int, dict[str, float]]] = {}
    for run in group.runs:
        size, scores = _size(study, run), figures({run.seeds: run}, numbers)
        if size is not None and all(scores.values()):
            measured.setdefault(size, {}).update(scores)
    try:
        return fit_laws(measured, dollars_per_example=price_of_an_example(paid or {}))
    except UserError:  # a single size, or no task that all have
        return None


def _paid(study: Study, group: Group) -> Paid:
    paid: dict[int, list[float | None]] = {}
    for run in group.runs:
        if (size := _size(study, run)) is not None:
            paid.setdefault(size, []).append(run.dollars)
    return paid


def price_of_an_example(paid: Paid) -> float | None:
    """What one more example has cost, from the smallest size to the largest; None where a price is unknown."""
    least, most = min(paid, default=0), max(paid, default=0)
    ends = [[price for price in paid.get(size, []) if price is not None] for size in (least, most)]
    if least == most or any(len(known) < len(paid[size]) for known, size in zip(ends, (least, most), strict=True)):
        return None
    low, high = (sum(known) / len(known) for known in ends)
    return (high - low) / (most - least)


def _by_task(runs: dict[Seeds, FinishedRun], numbers: dict[Seeds, int]) -> dict[int, dict[str, float]]:
    return {
        numbers[seed]: {task: score for task, score in run.scores.tasks.items() if score is not None}
        for seed, run in runs.items()
    }


def _by_measure(
    group: Group, measure: Measure, runs: dict[Seeds, FinishedRun], numbers: dict[Seeds, int]
) -> dict[int, dict[str, float]]:
    found = {numbers[seed]: group.figure(run, measure) for seed, run in runs.items()}
    return {seed: {} if value is None else {measure.name: value * measure.factor} for seed, value in found.items()}


def _run(run: FinishedRun, measures: Sequence[Measure]) -> RunOfRow:
    return RunOfRow(
        seed=run.seeds.name,
        run=str(run.line.get("run")),
        key=run.key,
        commit=str(run.line.get("commit", "")),
        calls=run.calls,
        dollars=run.dollars,
        figures={
            each.name: None if (value := run.figure(each.path)) is None else value * each.factor for each in measures
        },
    )


def _reuse(group: Group) -> list[str]:
    """Which stages all points share."""
    if len(set(group.names)) < 2:
        return []
    keys: dict[str, set[str]] = {}
    labels: Counter[str] = Counter()
    for run in group.runs:
        for stage in run.summary["stages"]:
            keys.setdefault(stage["label"], set()).add(stage["key"])
            labels[stage["label"]] += 1
    shared = [label for label, found in keys.items() if len(found) == 1 and labels[label] > 1]
    return [f"Built once, and used by all runs that have it: {', '.join(shared)}."] if shared else []
