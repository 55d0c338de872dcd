"""The end of a multirun: each point with its score, what it cost, and what it found built."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml  # type: ignore[import-untyped]

from speed.core.escape import escape
from speed.runs.finished_runs import FinishedRun, ledger_lines, read_run
from speed.runs.multirun import Multirun
from speed.runs.tables import Table, money
from speed.studies.definition import studies
from speed.studies.statistics import interval

WHATEVER = ("seed", "name", "runtime", "tracker", "verify")
"""Overrides that tell no point of a sweep from another."""


@dataclass
class SweptPoint:
    """A point, with its runs over seeds."""

    wanted: int = 0
    runs: list[FinishedRun] = field(default_factory=list)
    unread: int = 0


def text(multirun: Multirun) -> str:
    """What is printed; nothing where no run was to be made."""
    lines = {_overrides(line): line for line in ledger_lines(multirun.home, multirun.start) if _of(multirun, line)}
    jobs = list(dict.fromkeys([*multirun.jobs, *lines]))
    if not jobs:
        return ""
    points: dict[str, SweptPoint] = {}
    for job in jobs:
        point = points.setdefault(_name(job, jobs), SweptPoint())
        point.wanted += 1
        if job in lines:
            try:
                point.runs.append(read_run(multirun.home / "runs" / str(lines[job]["run"]), lines[job]))
            except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError, RecursionError):
                point.unread += 1
    parts = [table(points).text()]
    lacking = sum(point.wanted - len(point.runs) - point.unread for point in points.values())
    if lacking:
        parts.append(f"{lacking} of {len(jobs)} runs did not finish: the same command goes on with them.")
    pages = [f"python -m speed.report {study.name}" for study in studies().values() if study.sweep == multirun.sweep]
    parts += [f"Beside the paper's numbers, with intervals and a picture: {page}" for page in pages]
    return "\n".join(["", *parts])


def table(points: Mapping[str, SweptPoint]) -> Table:
    """One row for each point, and one for all of them together."""
    out = Table("point", "score", "seeds", "calls", "dollars", "stages built", "reused", "seconds")
    for name, point in points.items():
        out.add(name, _score(point.runs), _seeds(point), *_costs(point.runs))
    if len(points) > 1:
        every = [run for point in points.values() for run in point.runs]
        out.add("together", "", "", *_costs(every))
    return out


def _score(runs: Sequence[FinishedRun]) -> str:
    scores = [run.scores.mean for run in runs]
    known = [score for score in scores if score is not None]
    if not runs:
        return "not finished"
    if len(known) < len(scores):
        return "undefined"
    mean = sum(known) / len(known)
    over_seeds = interval(known)
    return f"{mean:.2f} ± {over_seeds.high - mean:.2f}" if over_seeds else f"{mean:.2f}"


def _seeds(point: SweptPoint) -> str:
    done = len(point.runs)
    return str(done) if done == point.wanted else f"{done} of {point.wanted}"


def _costs(runs: Sequence[FinishedRun]) -> list[str]:
    """What was paid and built in this multirun; what was there before, or was built by another point, is reused."""
    built = sum(len(run.line.get("built", ())) for run in runs)
    stages = sum(len(run.summary["stages"]) for run in runs)
    paid = [run.dollars_now for run in runs]
    dollars = None if None in paid else sum(price or 0.0 for price in paid)
    seconds = sum(float(run.line.get("seconds", 0)) for run in runs)
    calls = sum(run.calls_now for run in runs)
    return [f"{calls:,}", money(dollars), str(built), str(stages - built), f"{seconds:,.0f}"]


def _of(multirun: Multirun, line: Mapping[str, Any]) -> bool:
    return line.get("sweep") == multirun.sweep and (not multirun.jobs or _overrides(line) in multirun.jobs)


def _overrides(line: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(map(str, line.get("overrides", ())))


def _name(job: Iterable[str], jobs: Sequence[Sequence[str]]) -> str:
    """A point by those of its overrides that not all have."""
    shared = set.intersection(*(set(each) for each in jobs))
    own = [each for each in job if each not in shared and each.split("=")[0].split(".")[0] not in WHATEVER]
    return escape(" ".join(own)) or "this recipe"
