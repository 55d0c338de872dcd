"""Scores of encoders without training on local tasks of known content, to read a run's scores beside.

`python -m speed.miniature.yardsticks --write` makes `yardsticks.json`. A task is named by the revision of its data, so
that a score is never shown beside another data set of the same name.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files

from speed.core.spec import Spec


class Yardstick(Spec):
    """One encoder."""

    name: str
    about: str
    scores: dict[str, float]
    """Revision of a task's data -> main score, 0 to 100."""


class _Yardsticks(Spec):
    rows: tuple[Yardstick, ...]


@lru_cache(maxsize=1)
def known_yardsticks() -> tuple[Yardstick, ...]:
    """Read the yardsticks that come with this version."""
    text = (files("speed.data") / "yardsticks.json").read_text(encoding="utf-8")
    return _Yardsticks.model_validate_json(text).rows


def yardsticks(datasets: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """Yardsticks that are known for all tasks of a run.

    Args:
        datasets: task -> revision of its data.

    Returns:
        Name of the yardstick -> task -> main score, 0 to 100; empty where a task is not among the measured ones.
    """
    return {
        each.name: {task: each.scores[revision] for task, revision in datasets.items()}
        for each in known_yardsticks()
        if datasets and all(revision in each.scores for revision in datasets.values())
    }
