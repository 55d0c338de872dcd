"""The commands that make the points and seeds which a study lacks."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence

from speed.runs.finished_runs import DEFAULT_PRESET, FinishedRun, Seeds
from speed.studies.definition import Point, Study

DONE_WITH_A_RUN = ("name", "plan", "probe", "preview", "teach_check", "status", "verify", "hydra", "runtime.home")
"""Overrides that do not belong to another point or seed."""


def commands(
    study: Study,
    points: Sequence[Point],
    missing: Mapping[str, Sequence[Seeds]],
    runs: Sequence[FinishedRun],
    home: str | None,
    preset: str = "",
) -> Iterator[str]:
    """What to type for each point that lacks seeds, in as few commands as there can be.

    Args:
        missing: seeds that each point lacks.
        runs: those that the study has; one of them is repeated in everything but its point and its seed.
        home: the root as it must be named; None where it is the default.
        preset: the one to name where no run is repeated; empty for the default.
    """
    if study.sweep is None and any(point.overrides for point in points):
        runs = [run for run in runs if run.line.get("sweep") in (None, "config")]
    chosen = [f"preset={preset}"] if preset not in ("", DEFAULT_PRESET) and not runs else []
    start = _start(study, runs) + chosen + ([f"runtime.home={home}"] if home else [])
    lacking: dict[tuple[Seeds, ...], list[Point]] = {}
    for point in points:
        if missing.get(point.name):
            lacking.setdefault(tuple(missing[point.name]), []).append(point)
    for seeds, several in lacking.items():
        swept = not runs and study.sweep is not None and len(several) == len(points)  # the sweep has them by itself
        for typed in [[]] if swept else _together(several):
            for seed in _seeds_together(seeds):
                words = [*_one_experiment([*start, *typed]), *([] if not runs and seed == ["seed=0"] else seed)]
                if "--config-name" not in words and any("," in word for word in (*typed, *seed)):
                    words.insert(0, "-m")
                yield shlex.join(["python", "-m", "speed.run", *words])


def _start(study: Study, runs: Sequence[FinishedRun]) -> list[str]:
    """The command of a run that is there, without its point and its seed.

    A sweep has points of its own, so none is named for a study whose points are typed one by one.
    """
    if not runs:
        return ["--config-dir", "sweeps", "--config-name", study.sweep] if study.sweep else []
    # the run that has most settings: one whose senior is off has not said how a senior is trained
    like = max(runs, key=lambda run: (len(run.settings), (run.line.get("sweep") or study.sweep) == study.sweep))
    sweep = like.line.get("sweep")
    named = ["--config-dir", "sweeps", "--config-name", str(sweep)] if sweep not in (None, "config") else []
    return named + [override for override in like.overrides if not _of_the_point(study, override)]


def _of_the_point(study: Study, override: str) -> bool:
    """Whether an override says which point or which seed a run is, or what is done with it."""
    bare = override.lstrip("+~")
    key = re.split(r"[=@]", bare, maxsplit=1)[0].replace("/", ".")
    if bare in study.replaced or key in DONE_WITH_A_RUN or key.split(".")[0] in ("seed", "hydra"):
        return True
    typed = {override.split("=")[0] for point in study.expected() for override in point.typed}
    return key in typed - {"+experiment"} or key in study.axis


def _together(points: Sequence[Point]) -> Iterator[list[str]]:
    """Overrides of several points, in one command where all combinations of their values are points."""
    split = [[override.partition("=")[::2] for override in point.typed] for point in points]
    keys = {tuple(key for key, _ in each) for each in split}
    if len(keys) == 1 and not any("," in value for each in split for _, value in each):
        axes = [list(dict.fromkeys(each[place][1] for each in split)) for place in range(len(split[0]))]
        combinations = 1
        for axis in axes:
            combinations *= len(axis)
        if combinations == len(points):
            yield [f"{key}={','.join(axis)}" for key, axis in zip(keys.pop(), axes, strict=True)]
            return
    yield from (list(point.typed) for point in points)


def _one_experiment(words: Sequence[str]) -> list[str]:
    """The same words, with the experiments that they add as one list: Hydra takes no second `+experiment=`."""
    named = [word.partition("=")[2].strip("[]") for word in words if word.startswith("+experiment=")]
    if len(named) < 2:
        return list(words)
    first = next(place for place, word in enumerate(words) if word.startswith("+experiment="))
    rest = [word for word in words if not word.startswith("+experiment=")]
    return [*rest[:first], f"+experiment=[{','.join(named)}]", *rest[first:]]


def _seeds_together(seeds: Sequence[Seeds]) -> Iterator[list[str]]:
    single = [str(seed.single) for seed in seeds if seed.single is not None]
    if single:
        yield [f"seed={','.join(single)}"]
    yield from (list(seed.overrides) for seed in seeds if seed.single is None)
