"""Published scores by task: the paper's Tables 1 and 8, and scores of mteb's results repository."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files

from speed.core.spec import Spec


class PublishedRow(Spec):
    """Scores of one model, 0 to 100, with one or two decimals as published."""

    name: str
    source: str
    tasks: dict[str, float]


class TypeMeans(Spec):
    """A row of the paper's Table 1."""

    name: str
    group: str
    """Training data of the model: synthetic only, or labelled as well."""
    synthesis: str
    """Model that wrote the data."""
    examples: str
    types: dict[str, float]
    mean: float


class TableOne(Spec):
    """The paper's Table 1. Its means are over all of MTEB(eng, v1), so they compare with nothing less."""

    source: str
    rows: tuple[TypeMeans, ...]


class Published(Spec):
    """Contents of `published_scores.json`."""

    rows: tuple[PublishedRow, ...]
    table_1: TableOne

    @property
    def benchmark(self) -> frozenset[str]:
        """The 56 tasks of Tables 1 and 8."""
        return frozenset(self.rows[0].tasks)


@lru_cache(maxsize=1)
def published() -> Published:
    """Read the published scores that come with this version."""
    return Published.model_validate_json((files("speed.data") / "published_scores.json").read_text(encoding="utf-8"))
