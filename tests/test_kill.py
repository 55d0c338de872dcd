"""`kill -9` at any moment, then the same command: nothing is lost, nothing is asked twice, the end is the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from smoke import SMOKE, answers, records, speed, surroundings

KILLS = 20


def started(home: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "speed.run", SMOKE, "runtime.checkpoint_seconds=1", "tracker=none"],
        cwd=home.parent,
        env=surroundings(home),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def events(home: Path) -> list[str]:
    """All events of all runs so far: the places at which a kill can fall."""
    return [line for path in sorted((home / "runs").glob("*/*/events.jsonl")) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_twenty_kills_change_nothing(tmp_path: Path) -> None:
    calm, killed = tmp_path / "calm" / "home", tmp_path / "killed" / "home"
    for home in (calm, killed):
        home.parent.mkdir()
    assert speed(calm, SMOKE, "tracker=none").code == 0
    whole = len(events(calm))
    done = 0
    hit_stages: set[str] = set()
    deadline = time.monotonic() + 1500
    while done < KILLS and time.monotonic() < deadline:
        process = started(killed)
        seen = len(events(killed))
        wanted = seen + max(1, whole // KILLS)
        while process.poll() is None and len(events(killed)) < wanted:
            time.sleep(0.02)
        if process.poll() is not None:
            break
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        done += 1
        hit_stages.add(events(killed)[-1].split('"stage": "')[1].split('"')[0])
    last = speed(killed, SMOKE, "tracker=none")
    assert last.code == 0, last.err
    assert records(killed) == records(calm)
    assert set(answers(killed)) == set(answers(calm))
    assert max(answers(killed).values()) == 1
    assert done >= KILLS // 2, f"only {done} kills fell into the run"
    assert len(hit_stages) >= 8, hit_stages
