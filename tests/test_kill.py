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
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import pytest
from command_line import SMOKE, answers, records, speed, surroundings
from conftest import HANG, ROOT

POINTS = [
    *("topics", "tasks for seed", "seed data", "junior", "junior", "junior", "tasks for root", "root data"),
    *("preferences", "revisions", "senior", "revisor", "senior", "tasks for synthesis", "synthesis", "revision"),
    *("dedup", "embedder", "evaluation", "evaluation"),
]
"""The stage in which each of the twenty kills falls: every kind of stage is among them."""
READING = ("rows read", "bytes tokenised")
"""What a training counts before its first step."""
HELD = Path(__file__).parent / "held"
"""Put in front of PYTHONPATH, it keeps a stage that is to be killed from ending before."""
UNTRACKED = (SMOKE, "tracker=none")
DRY = (
    "preset=paper", "+experiment=dry_run", "counts.sft=250", "counts.pairs=100", "counts.revisions=100",
    "scale.examples=2300",
)  # fmt: skip
"""A hundredth of the paper's orchestration; rules write at once what models would."""


def started(
    home: Path,
    *more: str,
    command: Sequence[str] = UNTRACKED,
    stderr: int | IO[bytes] = subprocess.DEVNULL,
    **environment: str,
) -> subprocess.Popen[bytes]:
    home.parent.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "speed.run", *command, *more],
        cwd=home.parent,
        env=surroundings(home, **environment),
        stdout=subprocess.DEVNULL,
        stderr=stderr,
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
    kill_and_compare(calm, tmp_path / "home", UNTRACKED, POINTS, "runtime.checkpoint_seconds=0")


@pytest.mark.slow
def test_a_hundredth_of_the_papers_orchestration_resumes_anywhere(tmp_path: Path) -> None:
    calm = tmp_path / "calm" / "home"
    calm.parent.mkdir()
    done = speed(calm, *DRY)
    assert done.code == 0, done.err
    points = ["tasks for seed", "junior", "root data", "preferences", "synthesis", "revision", "dedup", "embedder"]
    kill_and_compare(calm, tmp_path / "killed" / "home", DRY, points)


def kill_and_compare(calm: Path, killed: Path, command: Sequence[str], points: Sequence[str], *more: str) -> None:
    """Kill a run in each of these stages, as often as it is named, and compare its end with that of the calm run."""
    draw = random.Random(0)
    due = Counter(points)
    while due and (stage := killed_in(killed, due, draw, command, more)) is not None:
        due -= Counter([stage])
    assert not due, f"no kill fell into {', '.join(due)}"
    last = speed(killed, *command)
    assert last.code == 0, last.err
    assert records(killed) == records(calm)
    assert set(answers(killed)) == set(answers(calm))
    assert max(answers(killed).values()) == 1


def killed_in(
    home: Path, due: Counter[str], draw: random.Random, command: Sequence[str], more: Sequence[str]
) -> str | None:
    """Go on with a run, and kill it in the first of the due stages that has got to work.

    Returns:
        The stage, which had not ended; None where the run ended by itself.
    """
    before, held = logs(home), home.parent / "held.txt"
    held.unlink(missing_ok=True)
    process = started(home, *more, command=command, PYTHONPATH=f"{HELD}:{ROOT}", HELD=",".join(due), HELD_LOG=str(held))
    stage = None
    while stage is None and process.poll() is None:
        time.sleep(0.05)
        waiting = held.read_text().splitlines() if held.exists() else []  # one that had no more to do than to end
        working = (str(event["stage"]) for event in events(logs(home) - before) if works(event))
        stage = next((stage for stage in (*working, *waiting) if stage in due), None)
    if stage is not None:
        time.sleep(1.5 * draw.random() ** 3)  # a moment that nobody chose, mostly an early one
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    ended = {event["stage"] for event in events(logs(home) - before) if event["event"] == "done"}
    assert stage not in ended, f"{stage} had ended before its kill"
    return stage


def works(event: dict[str, object]) -> bool:
    """Whether a stage has its first rows, or a training its first step of this process."""
    return event["event"] == "progress" and event["done"] != 0 and event["unit"] not in READING


@pytest.mark.slow
def test_a_run_that_is_told_to_end_saves_its_training_first(calm: Path, tmp_path: Path) -> None:
    """SIGTERM, as a cluster sends it to a job that it takes the machine from."""
    home = tmp_path / "home"
    # with seed data, so that nothing else is waited for
    shutil.copytree(calm, home, symlinks=True, ignore=shutil.ignore_patterns("runs"))
    finished = set(home.glob("store/junior/*/manifest.json"))

    def told_to_end(sign: Callable[[dict[str, object]], bool]) -> int:
        endless = "generator.sft.epochs=1000"  # there is a step left to be interrupted, however late the signal comes
        with (tmp_path / "stderr").open("ab") as stderr:
            process = started(home, "runtime.checkpoint_seconds=9999", endless, stderr=stderr)
            while process.poll() is None and not any(map(sign, events(logs(home)))):
                time.sleep(0.05)
            process.terminate()
            return process.wait(timeout=HANG)

    assert told_to_end(lambda event: (event["stage"], event["event"]) == ("junior", "metric")) == 143
    assert set(home.glob("store/junior/*/manifest.json")) == finished
    (saved,) = home.glob("store/junior/*.partial/checkpoints/*/whole.json")
    assert told_to_end(lambda event: saved.parent.name in str(event.get("message"))) == 143
    assert b"leaked" not in (tmp_path / "stderr").read_bytes(), "Python tells of semaphores that nobody gave back"
