"""Scores that others have published, by task: the paper's Tables 1 and 8, and those of mteb's results repository."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files

from speed.core.spec import Spec


class PublishedRow(Spec):
    """One model's scores, 0..100, each with one or two decimals as published."""

    name: str
    source: str
    tasks: dict[str, float]


class TypeMeans(Spec):
    """A line of the paper's Table 1."""

    name: str
    group: str
    """What the model was trained on: synthetic data only, or labelled data too."""
    synthesis: str
    """The model that wrote the data."""
    examples: str
    types: dict[str, float]
    mean: float


class TableOne(Spec):
    """The paper's Table 1; it holds for the whole of MTEB(eng, v1) and for no part of it."""

    source: str
    rows: tuple[TypeMeans, ...]


class Published(Spec):
    """`published.json`."""

    rows: tuple[PublishedRow, ...]
    table_1: TableOne

    @property
    def benchmark(self) -> frozenset[str]:
        """The 56 tasks of Tables 1 and 8."""
        return frozenset(self.rows[0].tasks)


@lru_cache(maxsize=1)
def published() -> Published:
    """The scores that come with this version."""
    return Published.model_validate_json((files("speed.data") / "published.json").read_text(encoding="utf-8"))
