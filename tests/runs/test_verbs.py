"""`preview=true` and `status=true`: what will be sent, and how a run stands, without touching either."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import HANG

from speed.core.build import build
from speed.core.graph import StageStatus, stage_statuses
from speed.core.store import Store
from speed.data.costs.prices import seconds
from speed.pipeline import pipeline
from speed.ports import Ask
from speed.runs.experiment import point_to
from speed.runs.plan import plan_table, planned_calls, print_plan, whole_block_lines
from speed.runs.preview import previews
from speed.runs.refusals import refuse_over_caps, work_at_most
from speed.runs.status import record_events, runs_to_show, status_of, status_text
from speed.runtime import Runtime
from speed.teaching.entry import Entry


@pytest.mark.parametrize("preset", ["miniature", "paper"])
def test_five_prompts_of_each_kind_without_building_anything(compose: Any, tmp_path: Path, preset: str) -> None:
    config = compose(f"preset={preset}", "topics=miniature")
    texts = list(previews(pipeline(config).goals(), Store(tmp_path / "home"), Runtime()))
    heads = [text.partition("\n")[0].removeprefix("=== ").split(", ")[:2] for text in texts]
    shown = Counter((label, kind) for label, kind in heads)
    assert set(shown.values()) == {5}
    kinds = Counter(label for label, _ in shown)
    assert kinds == {"tasks for seed": 4, "seed data": 5, "preferences": 5, "revisions": 5}
    assert len(set(texts)) == len(texts)
    assert not (tmp_path / "home").exists()
    assert texts == list(previews(pipeline(config).goals(), Store(tmp_path / "home"), Runtime()))


PLANNED = """import runpy, sys
sys.argv = ["speed.run", *sys.argv[1:]]
try:
    runpy.run_module("speed.run", run_name="__main__")
finally:
    print("torch" in sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize("preset", ["miniature", "paper"])
def test_a_plan_does_not_wait_for_torch(tmp_path: Path, preset: str) -> None:
    command = [
        sys.executable,
        "-c",
        PLANNED,
        f"preset={preset}",
        "topics=miniature",
        "plan=true",
        f"runtime.home={tmp_path}",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=HANG)
    assert "plan of speed" in done.stdout
    assert done.stderr.splitlines()[-1] == "False"


def test_a_plan_says_why_more_is_generated_than_is_kept(compose: Any, tmp_path: Path) -> None:
    few = compose("counts.pairs=23", "counts.revisions=23", "scale.examples=92")
    found = stage_statuses(pipeline(few).goals(), Store(tmp_path))
    [line] = whole_block_lines(found)
    assert "engine.block=230" in line
    assert "root data 230 for 23, revision 230 for 92" in line
    assert not whole_block_lines(stage_statuses(pipeline(compose("preset=laptop")).goals(), Store(tmp_path)))


def event(at: float, stage: str, name: str, **fields: object) -> str:
    return json.dumps({"at": at, "stage": stage, "event": name, **fields}) + "\n"


def progress(at: float, done: int, calls: int, dollars: float | None) -> str:
    facts = {"done": done, "total": 400, "unit": "calls", "calls": calls, "dollars": dollars, "figures": {}}
    return event(at, "seed data", "progress", **facts)


def run_folder(home: Path, name: str = "12-00-00-speed") -> Path:
    folder = home / "runs" / "2026-01-01" / name
    folder.mkdir(parents=True)
    return folder


def test_latest_leads_to_the_newest_run_wherever_the_root_is_moved(tmp_path: Path) -> None:
    link = tmp_path / "home" / "runs" / "latest"
    for name in ("12-00-00-one", "12-00-01-two"):
        folder = run_folder(tmp_path / "home", name)
        (folder / "report.md").write_text(name)
        point_to(folder, link)
        assert (link / "report.md").read_text() == name
    (tmp_path / "home").rename(tmp_path / "moved")
    moved = tmp_path / "moved" / "runs"
    assert (moved / "latest" / "report.md").read_text() == "12-00-01-two"
    assert sorted(path.name for path in moved.iterdir()) == ["2026-01-01", "latest"]


BOXES = ("topics", "seed data", "junior")


def test_a_run_is_told_while_it_lives_and_when_it_is_over(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    with record_events(folder, "speed", "speed a=\x1b[31m", BOXES, BOXES[1:]) as events:
        events.write(event(1.0, "seed data", "start", rows=400) + progress(2.0, 100, 90, 0.5))
        events.write(progress(12.0, 300, 280, 1.25) + '{"at": 13.0, "stage": "seed da')
        events.flush()
        living = status_of(folder)
        assert runs_to_show(tmp_path) == [folder]
    assert (living.state, living.about.pid, living.calls, living.dollars) == ("running", os.getpid(), 280, 1.25)
    box = living.boxes["seed data"]
    assert (box.state, box.done, box.total, box.rate) == ("building", 300, 400, 20.0)
    assert {label: found.state for label, found in living.boxes.items()} == {
        "topics": "done", "seed data": "building", "junior": "waiting",
    }  # fmt: skip
    shown = status_text(living)
    assert f"process {os.getpid()} on" in shown
    assert "alive" in shown
    assert "280 teacher calls, $1.25 so far" in shown
    assert "300 of 400 calls" in shown
    assert "\x1b" not in shown
    assert status_of(folder).state == "dead"
    (folder / "summary.json").write_text("{}")
    assert status_of(folder).state == "finished"


def test_a_run_that_left_its_questions_with_a_server_is_not_dead(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    with record_events(folder, "speed", "speed", BOXES, BOXES) as events:
        events.write(event(1.0, "topics", "done") + event(1.0, "seed data", "start", rows=400))
        events.write(event(2.0, "seed data", "later", message="400 requests are with a server"))
    left = status_of(folder)
    assert (left.state, left.boxes["seed data"].state) == ("waiting", "under way elsewhere")
    assert "the same command takes the answers that are under way elsewhere" in status_text(left)
    with (folder / "events.jsonl").open("a") as events:
        events.write(event(3.0, "junior", "crash", message="it broke"))
    assert status_of(folder).state == "dead"


def test_a_status_says_where_a_stage_runs_how_long_it_takes_and_what_is_alarming(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    with record_events(folder, "speed", "speed", BOXES, BOXES) as events:
        events.write(event(1.0, "seed data", "start", rows=400) + progress(2.0, 100, 90, 0.5))
        for gpus, machines in (([1], []), ([], ["far (1a2b)"]), ([0], [])):
            events.write(event(2.0, "seed data", "say", message="runs on it", gpus=gpus, machines=machines))
        events.write(progress(12.0, 200, 280, 1.25) + event(12.0, "junior", "start", rows=9))
        events.write(event(13.0, "junior", "alert", message="stands still\x1b[31m"))
        events.flush()
        living = status_of(folder)
    box = living.boxes["seed data"]
    assert (box.where, box.left) == ("GPU 0, 1; far (1a2b)", "0:00:20")
    assert [living.boxes[label].where for label in ("topics", "junior")] == ["", "cores"]
    assert living.boxes["junior"].left == ""
    lines = status_text(living).splitlines()
    [row] = [line for line in lines if line.startswith("seed data ")]
    assert "GPU 0, 1; far (1a2b)" in row
    assert "0:00:20" in row
    assert lines[-1] == "ALERT junior: stands still\\x1b[31m"


def counted(at: float, unit: str, done: int, total: int) -> str:
    facts = {"done": done, "total": total, "unit": unit, "calls": 0, "dollars": 0.0, "figures": {}}
    return event(at, "junior", "progress", **facts)


def test_a_rate_is_that_of_what_is_counted_now(tmp_path: Path) -> None:
    """A training first reads its rows, then takes its steps; an evaluation counts tasks and texts by turns."""
    folder = run_folder(tmp_path)
    with record_events(folder, "speed", "speed", BOXES, BOXES) as events:
        events.write(event(1.0, "junior", "start") + counted(1.0, "rows read", 20, 5000))
        events.write(counted(11.0, "rows read", 5000, 5000) + counted(21.0, "steps", 1, 100))
        events.flush()
        first = status_of(folder).boxes["junior"]
        events.write(counted(31.0, "steps", 21, 100) + counted(32.0, "texts", 50, 900))
        events.write(counted(41.0, "steps", 41, 100))
        events.flush()
        later = status_of(folder).boxes["junior"]
        events.write(event(42.0, "junior", "start") + counted(50.0, "steps", 1, 100) + counted(60.0, "steps", 11, 100))
        events.flush()
        again = status_of(folder).boxes["junior"]
    assert (first.unit, first.rate, first.left) == ("steps", 0.0, "")
    assert (later.unit, later.rate, later.left) == ("steps", 2.0, "0:00:30")
    assert (again.rate, again.left) == (1.0, "0:01:29"), "a build that begins anew is counted anew"


def test_a_rate_begins_anew_with_the_next_gap_of_a_pool(tmp_path: Path) -> None:
    """Rows of a pool that an earlier run has left in parts are built part by part, each counted from its start."""
    folder = run_folder(tmp_path)
    with record_events(folder, "speed", "speed", BOXES, BOXES) as events:
        events.write(event(1.0, "seed data", "start") + progress(2.0, 100, 90, 0.5) + progress(12.0, 400, 400, 1.0))
        events.write(progress(20.0, 50, 450, 1.25) + progress(30.0, 100, 500, 1.5))
        events.flush()
        box = status_of(folder).boxes["seed data"]
    assert (box.rate, box.left) == (5.0, "0:01:00")


def test_the_reason_of_an_end_is_the_last_event_and_an_unknown_price_stays_unknown(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    with record_events(folder, "speed", "speed", BOXES, BOXES) as events:
        events.write(progress(2.0, 100, 90, None) + event(3.0, "seed data", "user_error", message="the cap is reached"))
    found = status_of(folder)
    assert (found.state, found.last, found.dollars) == ("dead", "seed data: the cap is reached", None)
    with (folder / "events.jsonl").open("a") as events:
        events.write(event(4.0, "seed data", "shard", start=0, stop=400, calls=401, dollars=2.0))
    assert (status_of(folder).calls, status_of(folder).dollars) == (401, 2.0), "a shard's own count is the exact one"
    events_told = status_text(found)
    assert "unknown so far" in events_told


KILLED = """
import signal, sys
from pathlib import Path
from speed.runs.status import record_events
with record_events(Path(sys.argv[1]), "speed", "speed", ("a",), ("a",)):
    print("up", flush=True)
    signal.pause()
"""


def test_a_killed_run_is_dead_and_living_ones_are_shown_first(tmp_path: Path) -> None:
    older, newer = run_folder(tmp_path, "10-00-00-speed"), run_folder(tmp_path, "11-00-00-speed")
    (run_folder(tmp_path, "12-00-00-of-another-version") / "report.md").touch()
    with record_events(newer, "speed", "speed", BOXES, BOXES):
        pass
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(older)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    assert runs_to_show(tmp_path) == [older]
    assert (status_of(older).state, status_of(older).about.pid) == ("running", process.pid)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert status_of(older).state == "dead"
    assert runs_to_show(tmp_path) == [newer]


def test_a_plan_says_what_is_spent_at_least_and_at_most(compose: Any, tmp_path: Path) -> None:
    """25,000 rows of seed data with up to three candidates each, 25,000 calls to judge and revise, some tasks."""

    def planned(*overrides: str) -> list[StageStatus]:
        order = pipeline(compose("preset=paper", "topics=miniature", *overrides)).goals()
        return stage_statuses(order, Store(tmp_path / "home").open())

    plans = planned(), planned("counts.sft_attempts=3", "scale.attempts=2", "judge=swap")
    one, three = ({row[0].strip(): list(row[4:8]) for row in plan_table(found).rows} for found in plans)
    tokens = int(one["seed data"][1].replace(",", ""))
    assert one["seed data"][0] == "25,000"
    assert three["seed data"][:2] == ["25,000 to 75,000", f"{tokens:,} to {3 * tokens:,}"]
    assert one["synthesis"][3] == "230,000"
    assert three["synthesis"][3] == "230,000 to 460,000"
    assert three["revisions"] == one["revisions"]
    tasks = "tasks for seed 1{0}, seed data 1{1}, tasks for root 1{0}, preferences {2}, tasks for synthesis 1{0}"
    assert planned_calls(plans[0], 1) == tasks.format("", "", "1") + ", revisions 1"
    assert planned_calls(plans[1], 2) == tasks.format(" to 2", " to 6", "2 to 4") + ", revisions 1 to 2"
    calls = int(one["total"][0].replace(",", ""))
    assert three["total"][0] == f"{calls + 10_000:,} to {calls + 60_000:,}"


@pytest.mark.parametrize("details", [False, True])
def test_a_plan_fits_the_screen(
    details: bool, compose: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside another preset's store, with ranges in every column."""
    store = Store(tmp_path / "home").open()
    build(pipeline(compose("topics=miniature")).goals()[0], store, Runtime(), lambda _: None)
    others = ("drop_single_letters=true", "min_depth=2", "max_depth=7", "prettify=true", "exclude=[Shopping]")
    config = compose(
        "preset=paper", "topics=miniature", *(f"topics.{each}" for each in others), "counts.sft_attempts=3",
        "scale.attempts=2", f"plan_details={str(details).lower()}",
    )  # fmt: skip
    pipe = pipeline(config)
    found = stage_statuses(pipe.goals(), store)
    print_plan(config, "paper", found, pipe.key)
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 120
    [topics] = [status for status in found if status.goal.label == "topics"]
    assert len(topics.reasons) > 3
    plain = " ".join(shown.split())
    assert f"topics: {', '.join(topics.reasons[:3])}" in plain
    assert (topics.reasons[3] in plain) == details
    assert (f"and {len(topics.reasons) - 3} more" in plain) != details


def test_a_cap_leaves_room_for_answers_that_are_asked_for_again(
    compose: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "home").open()
    for retries in (0, 1):
        config = compose("preset=paper", "topics=miniature", f"teacher.content_retries={retries}")
        pipe = pipeline(config)
        found = stage_statuses(pipe.goals(), store)
        print_plan(config, "paper", found, pipe.key)
        shown = " ".join(capsys.readouterr().out.split())
        assert ("at most 2 times the calls and input tokens" in shown) == (retries == 1)
        assert ("output tokens and dollars may be more than 2 times" in shown) == (retries == 1)
        calls = sum(standing.work.calls for standing in found)
        for cap, noted in ((calls, retries == 1), (2 * calls, False)):
            runtime = config.runtime.model_copy(update={"max_calls": cap})
            refuse_over_caps(config.model_copy(update={"runtime": runtime}), store, found)
            assert (f"note: runtime.max_calls={cap:g} is enough where few" in capsys.readouterr().err) == noted


def test_a_plan_counts_the_tries_that_are_asked_for_by_cause(
    compose: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As many as the worst sequence of answers takes: every named cause adds one, after the usual second try."""
    config = compose("preset=paper", "topics=miniature", "teacher.ask_again=[empty,refusal,empty]")
    request = config.teacher.request(
        Ask(prompt="p", temperature=1.0, max_tokens=9, purpose="seed"), lambda text: None, 0
    )
    calls, messages = 0, ({"role": "user", "content": "p"},)
    for cause in ("empty", "empty", "refusal", "empty", "empty", "ok"):
        calls += 1
        if request.take(Entry(key="k", model="m", messages=messages, cause=cause), cached=False):
            break
    assert config.teacher.tries == calls == 5
    pipe = pipeline(config)
    found = stage_statuses(pipe.goals(), Store(tmp_path / "home"))
    print_plan(config, "paper", found, pipe.key)
    shown = " ".join(capsys.readouterr().out.split())
    assert "teacher.content_retries=1, teacher.ask_again=empty,refusal,empty" in shown
    assert "at most 5 times the calls" in shown
    assert "seed data 1 to 5" in shown
    assert work_at_most(config, found).calls == 5 * sum(standing.at_most.calls for standing in found)


def test_a_plan_of_the_papers_calls_takes_hours(compose: Any) -> None:
    """25,000 + 10,000 + 10,000 calls, at 1 s and 60 tokens a second; with the paper's answers, 32 at once."""
    by_hand = 25_000 * (1 + 156 / 60) + 10_000 * (1 + 100 / 60) + 10_000 * (1 + 380 / 60)
    alignment = [(25_000, 156), (10_000, 100), (10_000, 380)]
    assert sum(seconds("gpt-4o", calls, calls * tokens) for calls, tokens in alignment) == pytest.approx(by_hand)
    assert by_hand / 32 / 3600 == pytest.approx(1.65, abs=0.01)
    nodes = {goal.label: goal for goal in pipeline(compose("preset=paper", "topics=miniature")).goals()}
    works = [nodes[label].node.work(0, nodes[label].rows) for label in ("seed data", "preferences", "revisions")]
    assert [work.waiting for work in works] == [pytest.approx(work.calls + work.tokens_out / 60) for work in works]
    assert [work.calls for work in works] == [25_000, 10_000, 10_000]


@pytest.mark.parametrize(
    ("group", "shown"),
    [("preset=miniature", "take under a minute at"), ("preset=paper", "hours at"), ("preset=laptop", "minutes at")],
)
def test_a_plan_says_how_long_in_a_unit_that_fits(
    group: str, shown: str, compose: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = pipeline(config := compose(group, "topics=miniature"))
    print_plan(config, group, stage_statuses(pipe.goals(), Store(tmp_path / "home").open()), pipe.key)
    assert shown in capsys.readouterr().out.partition("answers of the teacher")[2]
