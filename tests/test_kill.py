"""`kill -9` at any moment, then the same command: nothing is lost, nothing is asked twice, the end is the same."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from command_line import SMOKE, answers, records, speed, surroundings
from conftest import HANG

POINTS = [
    *("topics", "tasks for seed", "seed data", "junior", "junior", "junior", "tasks for root", "root data"),
    *("preferences", "revisions", "senior", "revisor", "senior", "tasks for synthesis", "synthesis", "revision"),
    *("dedup", "embedder", "evaluation", "evaluation"),
]
"""The stage in which each of the twenty kills falls, in the order in which a run comes to them."""
UNTRACKED = (SMOKE, "tracker=none")
DRY = (
    "preset=paper", "+experiment=dry_run", "counts.sft=250", "counts.pairs=100", "counts.revisions=100",
    "scale.examples=2300",
)  # fmt: skip
"""A hundredth of the paper's orchestration; rules write at once what models would."""


def started(home: Path, *more: str, command: Sequence[str] = UNTRACKED) -> subprocess.Popen[bytes]:
    home.parent.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "speed.run", *command, *more],
        cwd=home.parent,
        env=surroundings(home),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def logs(home: Path) -> set[Path]:
    """The events of each run so far."""
    return set((home / "runs").glob("*/*/events.jsonl"))


def events(files: set[Path]) -> list[dict[str, object]]:
    """All events of these files; the last line of each may be torn."""
    lines = [line for path in sorted(files) for line in path.read_text().splitlines()]
    return [json.loads(line) for line in lines if line.endswith("}")]


@pytest.fixture
def calm(smoke: Path) -> Path:
    """The root of a run that nothing disturbs."""
    return smoke / "untouched"


@pytest.mark.slow
def test_twenty_kills_change_nothing(calm: Path, tmp_path: Path) -> None:
    fallen = fallen_kills(calm, tmp_path / "home", UNTRACKED, POINTS, "runtime.checkpoint_seconds=1")
    assert len(fallen) >= 17, f"kills fell into {fallen} only"


@pytest.mark.slow
def test_a_hundredth_of_the_papers_orchestration_resumes_anywhere(tmp_path: Path) -> None:
    calm = tmp_path / "calm" / "home"
    calm.parent.mkdir()
    done = speed(calm, *DRY)
    assert done.code == 0, done.err
    points = ["tasks for seed", "root data", "preferences", "synthesis", "revision"]
    fallen = fallen_kills(calm, tmp_path / "killed" / "home", DRY, points)
    assert len(fallen) >= 4, f"kills fell into {fallen} only"


def fallen_kills(calm: Path, killed: Path, command: Sequence[str], points: Sequence[str], *more: str) -> list[str]:
    """Kill a run in each of these stages, and compare its end with that of the calm run.

    Returns:
        The stages in which a kill fell.
    """
    draw = random.Random(0)
    fallen: list[str] = []
    for place, stage in enumerate(points):
        aimed_at = set(points[place:])  # a stage may have been finished beside the one before
        before = logs(killed)
        process = started(killed, *more, command=command)
        while process.poll() is None and not any(e["stage"] in aimed_at for e in events(logs(killed) - before)):
            time.sleep(0.05)
        time.sleep(draw.uniform(0, 1.5))  # a moment that nobody chose
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            fallen.append(stage)
        process.wait()
    last = speed(killed, *command)
    assert last.code == 0, last.err
    assert records(killed) == records(calm)
    assert set(answers(killed)) == set(answers(calm))
    assert max(answers(killed).values()) == 1
    return fallen


@pytest.mark.slow
def test_a_run_that_is_told_to_end_saves_its_training_first(calm: Path, tmp_path: Path) -> None:
    """SIGTERM, as a cluster sends it to a job that it takes the machine from."""
    home = tmp_path / "home"
    # with seed data, so that nothing else is waited for
    shutil.copytree(calm, home, symlinks=True, ignore=shutil.ignore_patterns("runs"))
    finished = set(home.glob("store/junior/*/manifest.json"))

    def told_to_end(sign: Callable[[dict[str, object]], bool]) -> int:
        endless = "generator.sft.epochs=1000"  # there is a step left to be interrupted, however late the signal comes
        process = started(home, "runtime.checkpoint_seconds=9999", endless)
        while process.poll() is None and not any(map(sign, events(logs(home)))):
            time.sleep(0.05)
        process.terminate()
        return process.wait(timeout=HANG)

    assert told_to_end(lambda event: (event["stage"], event["event"]) == ("junior", "metric")) == 143
    assert set(home.glob("store/junior/*/manifest.json")) == finished
    (saved,) = home.glob("store/junior/*.partial/checkpoints/*/whole.json")
    assert told_to_end(lambda event: saved.parent.name in str(event.get("message"))) == 143
