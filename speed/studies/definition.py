"""What a study is: in which settings its points differ, and what is measured. Each is a file of `definitions/`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Literal

import yaml  # type: ignore[import-untyped]
from pydantic import Field, model_validator

from speed.core.spec import Json, Spec
from speed.data.paper_results import PaperTable, paper_tables


class Measure(Spec):
    """A figure of a run."""

    name: str
    path: str
    """Where it stands in the run's `summary.json`, as `FinishedRun.figure` reads it."""
    factor: float = 1.0
    """Multiplies it: 100 shows a share as per cent."""
    decimals: int = 2
    compared: bool = False
    """Whether its difference from the reference is told too, as that of the first measure always is."""
    alike: str | None = None
    """Where a number stands that must be equal in runs whose figures are compared; of others the figure is left out."""
    law: bool = False
    """Whether a law by data size is fitted to it, where the study has `sizes`; to the mean score it always is."""


class Point(Spec):
    """A row of a table, or a point of a figure."""

    name: str
    where: dict[str, Json] = {}
    """Its settings, by dotted key of the config; `*` stands for any value that is not empty."""
    overrides: tuple[str, ...] = ()
    """What to type for it; its settings themselves where this is empty."""
    presets: tuple[str, ...] = ()
    """The presets under which it is expected; all where this is empty."""

    @property
    def typed(self) -> tuple[str, ...]:
        """What to type for it."""
        return self.overrides or tuple(f"{key}={_typed(value)}" for key, value in self.where.items())


TEXTS = ("title", "question", "hypothesis", "learnt", "notes")
"""Fields of a study that say something and decide nothing: a committed page takes them from today's definition."""


class Study(Spec):
    """A question, and the runs that answer it."""

    name: str
    title: str
    question: str
    hypothesis: str = ""
    """What was expected of the committed runs (`preset=miniature`), and what would refute it; written before them."""
    learnt: tuple[str, ...] = ()
    """What the committed runs have taught, one sentence or two each; what failed is told as well."""
    axis: tuple[str, ...]
    """Keys in which its points may differ, with whatever stands below them. In everything else its runs are alike."""
    where: dict[str, Json] = {}
    """Settings that all its runs have."""
    points: tuple[Point, ...] = ()
    values: tuple[Json, ...] = ()
    """In place of `points`: the values of the only key of the axis."""
    closed: bool = False
    """Whether it has no points but those that it expects."""
    reference: str | None = None
    """The point that differences are taken from."""
    measures: tuple[Measure, ...] = Field((Measure(name="mean", path="scores/mean"),), min_length=1)
    """The first is the one that differences and pictures are of."""
    layout: Literal["points", "pairs", "measures"] = "points"
    """A row for each point; for each point a row of the paper's numbers and one of ours; or a row for each measure."""
    x: str | None = None
    """What the axis is called in a picture, where its values are numbers."""
    log_x: bool = False
    sizes: tuple[str, ...] = ()
    """Settings whose product is a point's number of examples, where the law of scores by data size is asked for."""
    pictured: tuple[str, ...] = ()
    """Measures that the picture of `layout: measures` shows, on one axis."""
    seeds: tuple[int, ...] = ()
    """Seeds that the study is about; all that any point has where this is empty."""
    sweep: str | None = None
    """The file of `sweeps/` that makes all its points."""
    replaced: tuple[str, ...] = ()
    """Overrides of earlier runs that say which point they are, and so are not typed again for another point."""
    notes: tuple[str, ...] = ()
    """What a reader should know."""

    @model_validator(mode="after")
    def _complete(self) -> Study:
        if bool(self.points) == bool(self.values) or (self.values and len(self.axis) != 1):
            raise ValueError(f"{self.name}: points, or values of the one key of an axis")
        if self.reference is not None and self.reference not in [point.name for point in self.expected()]:
            raise ValueError(f"{self.name}: reference {self.reference} is no point")
        if self.reference is not None and self.measures[0].path != "scores/mean":
            raise ValueError(f"{self.name}: differences are of the mean score, so it must be the first measure")
        return self

    def expected(self, preset: str | None = None) -> tuple[Point, ...]:
        """The points that it should have, under a preset."""
        made = self.points or tuple(Point(name=_typed(value), where={self.axis[0]: value}) for value in self.values)
        return tuple(point for point in made if preset is None or not point.presets or preset in point.presets)

    def on_axis(self, key: str) -> bool:
        """Whether points may differ in a key."""
        return any(key == axis or key.startswith(f"{axis}.") for axis in self.axis)

    def point_of(self, settings: Mapping[str, Json]) -> Point | None:
        """The point that a run with these settings is; None where it belongs to another study.

        A value that the study does not expect is a point of its own, unless the study is `closed`.
        """
        if not _has(settings, self.where):
            return None
        for point in self.expected():
            if _has(settings, point.where):
                return point
        found = {key: settings[key] for key in self.axis if key in settings}
        if self.closed or not found:
            return None
        told = [_typed(value) if len(found) == 1 else f"{key}={_typed(value)}" for key, value in found.items()]
        return Point(name=", ".join(told), where=found)

    @property
    def paper(self) -> PaperTable | None:
        """The paper's numbers; None for a question of ours."""
        return paper_tables().get(self.name)


def _has(settings: Mapping[str, Json], wanted: Mapping[str, Json]) -> bool:
    """Whether settings have these values. An option that a run could not have yet was off."""
    return all(
        bool(settings.get(key))
        if value == "*"
        else (key in settings or value is False) and settings.get(key, False) == value
        for key, value in wanted.items()
    )


def _typed(value: Json) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


@lru_cache(maxsize=1)
def studies() -> dict[str, Study]:
    """Every study, by name."""
    found = sorted(
        (file for file in (files("speed.studies") / "definitions").iterdir() if file.name.endswith(".yaml")),
        key=lambda file: file.name,
    )
    texts = {file.name.removesuffix(".yaml"): file.read_text(encoding="utf-8") for file in found}
    return {name: Study.model_validate({"name": name, **yaml.safe_load(text)}) for name, text in texts.items()}
