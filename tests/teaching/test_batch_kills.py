"""A process that ends at any moment of a batch loses none and buys none twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from batch_provider import BatchProvider
from conftest import HANG
from quick_batches import batching, bought_once, ended, pending, texts, until_later
from quick_teacher import answers, context

from speed.teaching import pending as on_disk
from speed.teaching.batch_server import BatchServer
from speed.teaching.batches import Batches
from speed.teaching.entry import Spending, json_of
from speed.teaching.journal import Journal
from speed.teaching.lines import line_of
from speed.teaching.pending import Pending
from speed.teaching.session import session_at
from speed.teaching.spending import Account, Caps

PROMPTS = ["row 0", "row 1 | late ok", "row 2", "row 3 | 500 ok"]
STEPS = [
    *((Pending, name) for name in ("begin", "update", "drop", "end")),
    *((BatchServer, name) for name in ("upload", "create", "find", "batch", "download")),
    *((Account, name) for name in ("hand_over", "forget")),
    *((Journal, "append"), (on_disk.shutil, "rmtree")),
]


class Killed(BaseException):
    """Nothing that a process does at its end is to be relied on; here it does nothing."""


def killed_at(moment: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """End the process behind one of the steps that follow; how many were done."""
    count = [0]

    def stepping(do: Callable[..., Any]) -> Callable[..., Any]:
        def step(*given: Any, **named: Any) -> Any:
            done = do(*given, **named)
            count[0] += 1
            if count[0] == moment:
                raise Killed
            return done

        return step

    for owner, name in STEPS:
        monkeypatch.setattr(owner, name, stepping(getattr(owner, name)))
    return lambda: count[0]


def test_killed_behind_every_step(serving: BatchProvider, tmp_path: Path) -> None:
    """Each of some thirty steps is the last of one process: the next buys what was not bought, and takes what was."""
    moments, over = 0, False
    while not over:
        moments += 1
        home = tmp_path / str(moments)
        for known in (serving.batches, serving.requests, serving.paid, serving.arrivals):
            known.clear()
        with pytest.MonkeyPatch.context() as monkeypatch:
            steps = killed_at(moments, monkeypatch)
            try:
                answers(PROMPTS, context(home, serving), by=batching())
                over = steps() < moments
            except Killed:
                pass
        found = answers(PROMPTS, context(home, serving), by=batching())
        assert [answer.cause for answer in found] == ["ok"] * 4, moments
        assert bought_once(serving, PROMPTS), (moments, serving.sent)
        assert len({line["id"] for line in ended(home)}) == len(serving.batches) == 2, moments
        entries = [entry for entry in Journal(home / "journal") if entry.answered]
        assert len(entries) == len({entry.key for entry in entries}) == 4, moments
        assert pending(home) == [], moments
        one_more = Account(Journal(home / "journal")).hold(Spending(calls=1), Caps(calls=5))
        assert one_more is None, (moments, one_more)
    assert moments > 25


@pytest.mark.parametrize("what", ["uploaded", "created", "fetched"])
def test_kill_9_while_the_server_does_something(serving: BatchProvider, tmp_path: Path, what: str) -> None:
    """The server has done what it was asked, and the process never hears of it."""
    victim: list[int] = []
    begun = threading.Event()

    def kill(done: str) -> None:
        assert begun.wait(HANG)
        if done == what and victim:
            os.kill(victim.pop(), signal.SIGKILL)

    serving.on = kill
    serving.steps = lambda prompt: "500 ok" if prompt == "row 3" else "ok"
    script = Path(__file__).with_name("batch_program.py")
    command = [sys.executable, str(script), serving.url, str(tmp_path), "20"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        victim.append(process.pid)
        begun.set()
        assert process.wait(HANG) == -signal.SIGKILL
    again = subprocess.run(command, capture_output=True, text=True, timeout=HANG, check=False)
    assert again.returncode == 0, again.stderr
    assert [text.partition(" to ")[2] for text in json.loads(again.stdout)] == [f"row {row}" for row in range(20)]
    assert bought_once(serving, [f"row {row}" for row in range(20)])
    assert pending(tmp_path) == []


def test_a_batch_that_was_left_between_two_steps_is_told(serving: BatchProvider, tmp_path: Path) -> None:
    said: list[str] = []
    ctx = context(tmp_path, serving)
    ctx.send = lambda event: said.append(str(event.get("message")))
    for step, told in (("create", "the server never began it"), ("update", "the server has it")):
        with pytest.MonkeyPatch.context() as monkeypatch:
            owner: Any = BatchServer if step == "create" else Pending
            whole, calls = getattr(owner, step), []

            def killed(
                *given: Any, step: str = step, whole: Any = whole, calls: list[int] = calls, **named: Any
            ) -> Any:
                calls.append(1)
                if step == "create" or named.get("server_id"):
                    raise Killed
                return whole(*given, **named)

            monkeypatch.setattr(owner, step, killed)
            with pytest.raises(Killed):
                answers(PROMPTS, context(tmp_path, serving), by=batching())
        said.clear()
        serving.busy = True
        with until_later():
            answers(PROMPTS, ctx, by=batching(wait=False))
        assert any(told in each for each in said), said
        if step == "create":
            shutil.rmtree(tmp_path / "journal" / "batches")
            for known in (serving.batches, serving.requests):
                known.clear()
    serving.busy = False
    assert len(answers(PROMPTS, ctx, by=batching())) == 4
    assert bought_once(serving, PROMPTS)


def test_a_server_without_a_list_is_no_reason_to_buy_again(serving: BatchProvider, tmp_path: Path) -> None:
    faults = {"created": "reset", "listed": "404"}
    serving.fault = lambda what: faults.get(what, "")
    for _ in range(2):
        with pytest.raises(Exception, match=r"may have begun a batch with the metadata speed=.*HTTP 404"):
            answers(PROMPTS, context(tmp_path, serving), by=batching())
    assert len(serving.batches) == 1
    assert len(pending(tmp_path)) == 1


def test_a_damaged_note_of_a_batch_is_no_reason_to_buy_again(serving: BatchProvider, tmp_path: Path) -> None:
    serving.busy = True
    with until_later():
        answers(PROMPTS, context(tmp_path, serving), by=batching(wait=False))
    (note,) = (tmp_path / "journal" / "batches").glob("*/batch.json")
    note.write_text(note.read_text()[:40])
    with pytest.raises(Exception, match="is damaged: look at the server's list"):
        answers(PROMPTS, context(tmp_path, serving), by=batching())
    assert len(serving.batches) == 1


def test_what_a_killed_process_wrote_down_is_finished_without_the_server(
    serving: BatchProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All answers are in the journal, and the batch's note is still there: nobody waits for it any more."""

    def killed(*given: Any, **named: Any) -> None:
        raise Killed

    prompts = ["row 0", "row 1"]
    with monkeypatch.context() as patched:
        patched.setattr(Pending, "end", killed)
        with pytest.raises(Killed):
            answers(prompts, context(tmp_path, serving), by=batching())
    session_at(tmp_path).journal.flush()
    serving.fault = lambda what: "500"
    assert texts(answers(prompts, context(tmp_path, serving), by=batching())) == [
        f"good answer 1 to {prompt}" for prompt in prompts
    ]
    assert pending(tmp_path) == []
    assert len(ended(tmp_path)) == 1


@pytest.mark.parametrize("fetched", [False, True])
def test_answers_that_a_killed_process_wrote_down_unindexed_are_not_written_again(
    serving: BatchProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fetched: bool
) -> None:
    """It was faster with the same batch, and its last lines stand in its file alone."""
    prompts = ["row 0", "row 1"]
    journal = tmp_path / "journal"

    def leave_lines(what: str = "fetched") -> None:
        if what == "fetched":
            (batch,) = pending(tmp_path)
            taken = {"answered": True, "cause": "ok", "text": "theirs", "dollars": 0.25, "batch": batch.id}
            entries = [entry.model_copy(update=taken) for entry in Pending(journal).entries(batch)]
            (journal / "gone-1-1.jsonl").write_bytes(b"".join(line_of(json_of(entry)) for entry in entries))

    def killed(*given: Any, **named: Any) -> None:
        raise Killed

    if fetched:
        with monkeypatch.context() as patched:
            patched.setattr(Batches, "_into_journal", killed)
            with pytest.raises(Killed):
                answers(prompts, context(tmp_path, serving), by=batching())
        leave_lines()
    else:
        serving.on = leave_lines
    assert texts(answers(prompts, context(tmp_path, serving), by=batching())) == ["theirs"] * 2
    session_at(tmp_path).journal.flush()
    assert [entry.dollars for entry in Journal(journal) if entry.answered] == [0.25] * 2
    assert [each["dollars"] for each in ended(tmp_path)] == [0.5]
