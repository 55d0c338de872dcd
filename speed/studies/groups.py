"""The runs of a root that belong to one study: they differ in nothing but its axis and their seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from speed.core.errors import UserError
from speed.core.graph import shortened
from speed.core.spec import Json
from speed.runs.finished_runs import FinishedRun, Seeds
from speed.studies.definition import Measure, Point, Study


@dataclass
class Group:
    """Runs that differ in nothing but the axis of a study and their seeds."""

    runs: list[FinishedRun] = field(default_factory=list)
    points: dict[str, Point] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    """The point of each run."""
    unlike: dict[str, set[str]] = field(default_factory=dict)
    """By measure the keys of the runs whose figure does not compare."""

    def add(self, run: FinishedRun, point: Point) -> None:
        """Take one more run in."""
        self.runs.append(run)
        self.points.setdefault(point.name, point)
        self.names.append(point.name)

    def figure(self, run: FinishedRun, measure: Measure) -> float | None:
        """A figure of a run; None where it has none that compares."""
        return None if run.key in self.unlike.get(measure.name, ()) else run.figure(measure.path)

    def leave_out_unlike(self, study: Study) -> list[str]:
        """Leave out figures that were measured on something else than most, with a remark for each measure."""
        remarks = []
        for measure in study.measures:
            if measure.alike is None:
                continue
            on = {run.key: run.figure(measure.alike) for run in self.runs if run.figure(measure.path) is not None}
            most = Counter(on.values()).most_common(1)
            self.unlike[measure.name] = {key for key, value in on.items() if value != most[0][0]}
            if others := len(self.unlike[measure.name]):
                runs = "run that was" if others == 1 else "runs that were"
                remarks.append(f"Left out: {measure.name} of {others} {runs} measured on something else.")
        return remarks

    def of(self, point: str) -> dict[Seeds, FinishedRun]:
        """The runs of a point by their seeds."""
        found = {run.seeds: run for run, name in zip(self.runs, self.names, strict=True) if name == point}
        return dict(sorted(found.items(), key=lambda item: item[0].order))


def group_of(study: Study, runs: Sequence[FinishedRun], like: FinishedRun | None = None) -> tuple[Group, list[str]]:
    """The runs of a study that belong together, and remarks on those that were left out.

    Args:
        runs: oldest first.
        like: a run that must be among them; else those that cover most points, of these the most runs, the newest.
    """
    candidates = [(run, point) for run in reversed(runs) if (point := study.point_of(run.settings)) is not None]
    starts = candidates
    if like is not None:
        starts = [(run, point) for run, point in candidates if run.folder == like.folder]
        if not starts:
            raise UserError(f"{like.folder} is no run of {study.name}: {_why_not(study, like)}")
    best, score = Group(), (0, 0)
    seen: set[str] = set()
    for start in starts:
        if start[0].key in seen:
            continue
        group = _grown(study, start, candidates)
        seen |= {run.key for run in group.runs}
        covered = len({point.name for point in study.expected()} & set(group.names))
        if (covered, len(group.runs)) > score:
            best, score = group, (covered, len(group.runs))
    return best, _left_out(study, best, candidates)


def _why_not(study: Study, run: FinishedRun) -> str:
    wrong = [
        f"{key} is {run.settings.get(key)!r}" for key, value in study.where.items() if run.settings.get(key) != value
    ]
    return ", ".join(wrong) or f"it has none of {', '.join(study.axis)}"


def _grown(study: Study, start: tuple[FinishedRun, Point], candidates: Iterable[tuple[FinishedRun, Point]]) -> Group:
    group = Group()
    group.add(*start)
    taken = {(start[1].name, start[0].seeds)}
    for run, point in candidates:
        if (point.name, run.seeds) in taken or any(differing(study, run, other) for other in group.runs):
            continue
        if point.name in group.points and any(_within(study, run, other) for other in group.of(point.name).values()):
            continue
        group.add(run, point)
        taken.add((point.name, run.seeds))
    return group


def differing(study: Study, one: FinishedRun, two: FinishedRun) -> list[str]:
    """Keys outside of the axis in which two runs differ; what only one of them has makes no difference."""
    return sorted(key for key in _unlike(one.settings, two.settings) if not study.on_axis(key))


def _within(study: Study, one: FinishedRun, two: FinishedRun) -> list[str]:
    """Keys of the axis in which two runs of one point differ after all: a learning rate beside the base."""
    return sorted(key for key in _unlike(one.settings, two.settings) if study.on_axis(key))


def _unlike(one: Mapping[str, Json], two: Mapping[str, Json]) -> Iterator[str]:
    """Keys whose values differ, and those that are null in one and a section in the other.

    A section that is null where its stage is off is no difference beside the key that turns the stage off.
    """
    yield from (key for key in one.keys() & two.keys() if one[key] != two[key])
    for empty, full in ((one, two), (two, one)):
        for key in (key for key, value in empty.items() if value is None and key not in full):
            turned = f"{key.rpartition('.')[0]}.enabled"
            if any(other.startswith(f"{key}.") for other in full) and empty.get(turned) == full.get(turned):
                yield key


def _left_out(study: Study, group: Group, candidates: Iterable[tuple[FinishedRun, Point]]) -> list[str]:
    """One remark for each way in which other runs of the study differ from those that were taken."""
    taken = {run.key for run in group.runs}
    values: dict[tuple[str, ...], list[str]] = {}
    for run, point in candidates:
        if run.key in taken or not group.runs:
            continue
        alike = list(group.of(point.name).values())
        # a run without DPO differs from none in beta: the reason is the run that keeps this one out
        ways = [keys for other in group.runs if (keys := differing(study, run, other))]
        ways = ways or [keys for other in alike if (keys := _within(study, run, other))]
        if ways:
            keys = min(ways, key=len)
            values.setdefault(tuple(keys), []).append(_value(run.settings, keys[0]))
    return [
        f"Left out: {len(found)} {'run' if len(found) == 1 else 'runs'} with another {_some(keys, 3)} "
        f"({_some(list(dict.fromkeys(found)), 5)})."
        for keys, found in sorted(values.items(), key=lambda item: -len(item[1]))[:5]
    ]


def _value(settings: Mapping[str, Json], key: str) -> str:
    """A setting in few words; of a section its first value, which names its class."""
    if key in settings:
        return shortened(settings[key])
    return next(shortened(value) for each, value in settings.items() if each.startswith(f"{key}."))


def _some(texts: Sequence[str], most: int) -> str:
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")
