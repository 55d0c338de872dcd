"""How large a difference between scores must be to mean something, where that was measured with known faults.

`python experiments/calibrate_miniature.py --table --write` writes `calibration.json`. A set of tasks is named by the
revisions of its data, so that nothing is said of other data than what was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files

from pydantic import Field

from speed.core.spec import Spec


class Calibration(Spec):
    """Differences of mean scores over one set of tasks, between runs that share their seed."""

    datasets: tuple[str, ...]
    """Revisions of the tasks' data."""
    examples: int
    """That the embedders were trained on."""
    deviation: float = Field(gt=0)
    """Standard deviation over seeds of a difference, in points."""
    five_seeds: float
    """Smallest difference that five seeds of each recipe resolve four times in five, in points."""
    seeds_for_a_point: int
    """Seeds of each recipe that resolve a difference of one point as often."""

    @property
    def single(self) -> float:
        """Smallest difference that single runs tell, in points."""
        return 1.96 * self.deviation

    def told(self) -> str:
        """For whoever compares scores of runs."""
        return (
            "Between two runs of one seed the difference of mean scores has a standard deviation of "
            f"{self.deviation:.1f} points over seeds (calibrated by known faults, {self.examples:,} examples). "
            f"Single runs tell differences from {self.single:.1f} points on, five seeds of each "
            f"{self.five_seeds:.1f}, and one point takes {self.seeds_for_a_point} seeds."
        )


class _Calibrations(Spec):
    rows: tuple[Calibration, ...]


@lru_cache(maxsize=1)
def _known() -> tuple[Calibration, ...]:
    text = (files("speed.data") / "calibration.json").read_text(encoding="utf-8")
    return _Calibrations.model_validate_json(text).rows


def calibration(datasets: Mapping[str, str], known: tuple[Calibration, ...] | None = None) -> Calibration | None:
    """What is known of a set of tasks; None where its scores were not calibrated.

    Args:
        datasets: task -> revision of its data.
        known: None: those that come with this version.
    """
    wanted = sorted(datasets.values())
    return next((each for each in (_known() if known is None else known) if sorted(each.datasets) == wanted), None)
