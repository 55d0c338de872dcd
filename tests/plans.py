"""What plans say, for tests: the calls and examples of a command, in an empty store, without composing it twice."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from itertools import product
from typing import Any, NamedTuple

import yaml
from composition import Composer
from conftest import ROOT
from omegaconf import OmegaConf

from speed.config import Config, validated
from speed.core.content import noted_absence
from speed.core.graph import Goal
from speed.core.stage import Pool
from speed.core.work import Work
from speed.pipeline import pipeline
from speed.run import composed


class Planned(NamedTuple):
    """The size of an experiment and what its teacher is asked."""

    examples: int
    """Raw, before deduplication; of a given corpus, as given."""
    calls: int
    """Without brainstorming."""
    brainstorming: int


composer = cache(Composer)


def points(sweep: str, preset: str = "miniature") -> list[tuple[str, ...]]:
    """Every point of a sweep under a preset, as overrides."""
    params = yaml.safe_load((ROOT / "sweeps" / f"{sweep}.yaml").read_text())["hydra"]["sweeper"]["params"]
    axes = {key: _resolved(str(values), sweep, preset) for key, values in params.items()}
    return list(product(*([f"{key}={value}" for value in axis.split(",")] for key, axis in axes.items())))


@cache
def _resolved(values: str, sweep: str, preset: str) -> str:
    """An axis whose values the preset decides (`${generator.peers}`); the others are not composed for it."""
    if not (named := re.fullmatch(r"\$\{([\w.]+)\}", values)):
        return values
    return str(OmegaConf.select(composer()((f"preset={preset}",), sweep), named[1]))


@cache
def config_of(*overrides: str, config: str = "config") -> Config:
    """The validated config of a command line."""
    return validated(composed(composer()(overrides, config)))


def planned(*overrides: str, config: str = "config") -> Planned:
    """The plan of one command in an empty store."""
    made = config_of(*overrides, config=config)
    with noted_absence():
        pipe = pipeline(made)
        return Planned(pipe.embedder.rows, *asked(pipe.goals()))


def asked(goals: Iterable[Goal]) -> tuple[int, int]:
    """Calls for alignment and for brainstorming; pools that several goals name are bought once, at the largest size."""
    largest: dict[str, Goal] = {}
    for goal in goals:
        if goal.rows >= largest.get(goal.key, goal).rows:
            largest[goal.key] = goal
    calls: dict[bool, int] = {True: 0, False: 0}
    for goal in largest.values():
        calls[goal.node.purpose == "brainstorm"] += work_of(goal).calls
    return calls[False], calls[True]


def together(sweep: str, preset: str) -> tuple[int, int]:
    """What all points of a sweep ask, in whatever order they run."""
    made: list[Any] = [config_of(f"preset={preset}", *point, config=sweep) for point in points(sweep, preset)]
    return asked(goal for config in made for goal in pipeline(config).goals())


def work_of(goal: Goal) -> Work:
    """What a goal costs from nothing."""
    return goal.node.work(0, goal.rows) if isinstance(goal.node, Pool) else goal.node.work()  # type: ignore[attr-defined]
