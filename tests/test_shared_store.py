"""Two processes on one store build every shared stage once and ask the teacher nothing twice."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from command_line import SMOKE, answers, runs, speed


@pytest.mark.slow
def test_two_processes_build_each_stage_once(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(lambda _: speed(home, SMOKE, "tracker=none", "runtime.side_by_side=1"), range(2)))
    assert [done.code for done in ended] == [0, 0], ended[0].err + ended[1].err
    events = [json.loads(line) for run in runs(home) for line in (run / "events.jsonl").read_text().splitlines()]
    for training in ("junior", "senior", "revisor", "embedder"):
        steps = [event["step"] for event in events if event["stage"] == training and event["event"] == "metric"]
        assert len(steps) == len(set(steps)), f"{training} was trained twice"
    shards = [(event["stage"], event["start"]) for event in events if event["event"] == "shard"]
    assert len(shards) == len(set(shards))
    assert max(answers(home).values()) == 1
