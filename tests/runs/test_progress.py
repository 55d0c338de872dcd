"""What a person reads while a run goes on."""

from __future__ import annotations

import pytest

from speed.runs import progress as screen
from speed.runs.progress import Screen


class Clock:
    """Time that passes when told."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(screen, "time", made)
    return made


def progress(done: int, total: int = 100, unit: str = "steps") -> dict[str, object]:
    return {"event": "progress", "done": done, "total": total, "unit": unit, "figures": {}}


def lines(clock: Clock, capsys: pytest.CaptureFixture[str], events: list[tuple[float, int]]) -> list[str]:
    shown = Screen()
    shown.show("junior", {"event": "start"})
    for seconds, done in events:
        clock.now = seconds
        shown.show("junior", progress(done))
    return capsys.readouterr().err.splitlines()


def test_a_rate_leaves_out_the_imports(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """Twenty seconds of imports, then a step a second."""
    first, second = lines(clock, capsys, [(20.0, 1), (30.0, 11)])
    assert first.endswith("junior: 1 of 100 steps")
    assert second.endswith("junior: 11 of 100 steps, 1.0/s, 89 s left")


def test_slow_steps_are_told_in_seconds(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """And after the last one nothing is left to say of the time."""
    _, slow, last = lines(clock, capsys, [(10.0, 1), (50.0, 3), (2000.0, 100)])
    assert slow.endswith("junior: 3 of 100 steps, 20 s each, 1,940 s left")
    assert last.endswith("junior: 100 of 100 steps, 20 s each")


def test_a_rate_leaves_out_what_an_interrupted_build_had_done(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    _, second = lines(clock, capsys, [(6.0, 61), (16.0, 66)])
    assert second.endswith("junior: 66 of 100 steps, 0.5/s, 68 s left")


def test_a_rate_is_that_of_what_is_counted_now(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """A training first reads its rows, then takes its steps."""
    shown = Screen()
    for clock.now, event in [
        (10.0, progress(1, 500, "rows read")),
        (20.0, progress(500, 500, "rows read")),
        (40.0, progress(1)),
        (50.0, progress(11)),
    ]:
        shown.show("junior", event)
    _, whole, first, second = capsys.readouterr().err.splitlines()
    assert whole.endswith("junior: 500 of 500 rows read, 49.9/s")
    assert first.endswith("junior: 1 of 100 steps")
    assert second.endswith("junior: 11 of 100 steps, 1.0/s, 89 s left")


def test_a_stage_that_stands_still_says_no_rate(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    _, second = lines(clock, capsys, [(6.0, 5), (16.0, 5)])
    assert second.endswith("junior: 5 of 100 steps")
