"""What a study found, as a value: everything that its pages, tables and pictures show."""

from __future__ import annotations

from speed.core.spec import Spec
from speed.studies.definition import Study
from speed.studies.scaling_law import Laws
from speed.studies.statistics import Deviation, Difference


class Figure(Spec):
    """One measure of one point."""

    paper: float | None = None
    ours: float | None = None
    """The mean over seeds; None where it is undefined for one of them."""
    low: float | None = None
    """Lower end of its 95 % interval over seeds (Student's t); None for fewer than two."""
    high: float | None = None
    seeds: int = 0
    """How many runs the mean is over."""


class RunOfRow(Spec):
    """One run behind a row."""

    seed: str
    run: str
    """Its folder, below `runs/`."""
    key: str
    commit: str
    calls: int
    """Answers of a teacher that it stands on, whenever they were paid."""
    dollars: float | None
    figures: dict[str, float | None]


class Row(Spec):
    """One point."""

    name: str
    x: float | None = None
    """Where it stands on a numeric axis."""
    size: int | None = None
    """Its number of examples, where the study is of data sizes."""
    figures: dict[str, Figure]
    difference: Difference | None = None
    """Its mean score minus that of the reference."""
    beside: dict[str, Difference] = {}
    """The same of other measures, over seeds."""
    missing: tuple[str, ...] = ()
    """Seeds without a run."""
    runs: tuple[RunOfRow, ...] = ()


class Answer(Spec):
    """A study with its rows."""

    study: Study
    preset: str | None
    """That of its newest run; None where there is no run."""
    rows: tuple[Row, ...]
    remarks: tuple[str, ...]
    laws: Laws | None = None
    """Of scores by data size, where the study is of them and there are two sizes at least."""
    further_laws: dict[str, Laws] = {}
    """Of further measures by data size, by their name."""
    spreads: dict[str, Deviation] = {}
    """Of the mean score and of each type's over seeds, where the study is of seeds."""
    commands: tuple[str, ...] = ()
    """Commands that make all its runs, in an empty root too."""
    missing: tuple[str, ...]
    """Commands that make what is missing."""
