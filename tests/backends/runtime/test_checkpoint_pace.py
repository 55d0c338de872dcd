"""Checkpoints take a twentieth of a training's time at most, and one beside another only where both have room."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speed.backends.runtime.checkpoint_pace import CheckpointPace, make_room


def shares(steps: list[float], writes: list[float], seconds: float, expected: float = 0.0) -> tuple[float, int]:
    """Share of the time that went into checkpoints, up to the last one's repayment, and how many there were."""
    now, spent, count = 0.0, 0.0, 0
    pace = CheckpointPace(seconds, expected, lambda: now)
    for step in steps:
        now += step
        if pace.due:
            pace.begin()
            took = writes[count % len(writes)]
            now, spent, count = now + took, spent + took, count + 1
            pace.end()
    return spent / now, count


@given(st.lists(st.floats(0.1, 30), min_size=200, max_size=400), st.lists(st.floats(0.01, 20), min_size=1, max_size=5))
def test_what_was_written_is_paid_back_before_the_next(steps: list[float], writes: list[float]) -> None:
    share, count = shares(steps, writes, 60.0)
    last = max(writes) / sum(steps)  # the newest is not paid back yet
    assert share <= 0.05 + last
    quick, often = shares(steps, [1e-9], 60.0)
    assert quick < 1e-6
    assert often >= count, "a checkpoint that costs nothing is written as often as is asked for"


def test_the_first_of_a_large_training_waits_for_what_it_will_take() -> None:
    """96 GB: the optimizer and weights of all 8B, written in some 96 seconds."""
    now = 0.0
    pace = CheckpointPace(60.0, 96e9, lambda: now)
    now = 1_800.0
    assert not pace.due
    now = 1_830.0
    assert pace.due
    small = CheckpointPace(60.0, 1e6, lambda: now)
    now += 59.0
    assert not small.due
    now += 1.0
    assert small.due


def test_a_slow_disk_is_said_once_and_a_step_may_always_be_saved() -> None:
    now = 0.0
    pace = CheckpointPace(60.0, 0.0, lambda: now)
    told = []
    for took in (1.0, 30.0, 31.0):
        pace.begin()
        now += took
        told.append(pace.end())
    assert told == ["", told[1], ""]
    assert told[1].startswith("a checkpoint takes 30 s to write, so 570 s lie between two of them")
    always = CheckpointPace(0.0, 96e9, lambda: now)
    assert always.due
    always.begin()
    now += 30.0
    assert always.end() == ""
    assert always.due


Usage = namedtuple("Usage", ["total", "used", "free"])


@pytest.mark.parametrize(("free", "goes"), [(2_000, False), (1_100, False), (1_000, True), (200, True), (50, False)])
def test_the_old_one_goes_first_only_where_that_makes_room(
    free: int, goes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, free))
    last = tmp_path / "checkpoint-7"
    (last / "inner").mkdir(parents=True)
    (last / "inner" / "state").write_bytes(b"x" * 1_000)
    told = make_room(last)
    assert last.exists() != goes
    assert ("checkpoint-7 was removed before the next is written" in told) == goes
    assert make_room(None) == ""
