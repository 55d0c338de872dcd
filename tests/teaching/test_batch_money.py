"""What batches cost, who may know the key, and what is in no key of a journal."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from batch_provider import BatchProvider
from quick_batches import Priced, batching, ended, saying, until_later
from quick_teacher import SECRET, answers, ask, context, fine, teacher

from speed.core.errors import UserError
from speed.teaching.entry import Spending
from speed.teaching.journal import Journal
from speed.teaching.litellm_teacher import LitellmTeacher
from speed.teaching.openai_batch import OPENAI, OPENAI_KEY, OpenAIBatchTeacher, key_for
from speed.teaching.openai_teacher import KEY, OpenAICompatibleTeacher
from speed.teaching.session import session_at
from speed.teaching.spending import Account, Caps

ROWS = [f"row {row}" for row in range(30)]


def test_a_cap_refuses_before_anything_is_uploaded(serving: BatchProvider, tmp_path: Path) -> None:
    for cap in ({"max_calls": 0}, {"max_usd": 0.0099}, {"max_tokens": 49}):
        with pytest.raises(UserError, match="is reached"):
            answers(ROWS, context(tmp_path, serving, **cap), by=batching(Priced))
    assert serving.files == {}


def test_a_cap_is_kept_by_batches_of_what_can_be_paid_at_most(serving: BatchProvider, tmp_path: Path) -> None:
    answered = saying(ctx := context(tmp_path, serving, max_usd=0.45))
    with pytest.raises(UserError, match=r"runtime.max_usd=0.45 is reached: \$0.4400 paid"):
        list(
            batching(Priced).ask(
                ((ask(row, max_tokens=100), fine) for row in [*ROWS, *(f"{row}+" for row in ROWS)]), ctx
            )
        )
    assert serving.paid.total() == 44, "an answer may cost twice as much as it does, and 44 cents leave one"
    assert [each["answered"] for each in ended(tmp_path)] == [22, 11, 6, 3, 1, 1]
    assert any("room for 22 of 60 requests at their highest cost" in each for each in answered)


def test_what_a_server_has_counts_for_everybody_until_it_is_taken(serving: BatchProvider, tmp_path: Path) -> None:
    serving.busy = True
    with until_later():
        answers(ROWS, context(tmp_path, serving), by=batching(wait=False))
    for index in (tmp_path / "journal").glob("index-*"):
        index.unlink()
    journal = Journal(tmp_path / "journal")
    another = Account(journal)
    assert another.hold(Spending(calls=1), Caps(calls=31)) is None
    short = another.hold(Spending(calls=1), Caps(calls=31))
    assert short is not None
    assert (short.paid.calls, short.held.calls) == (0, 31)
    another.release(Spending(calls=1))
    with pytest.raises(UserError, match="30 calls at most held for what is in batches"):
        answers(["one", "two"], context(tmp_path, serving, max_calls=30))
    assert not serving.paid, "nobody waits a day for it"
    serving.busy = False
    answers(ROWS, context(tmp_path, serving), by=batching())
    journal.refresh()
    assert another.hold(Spending(calls=1), Caps(calls=31)) is None, "the batch is paid, and held no more"
    assert another.hold(Spending(calls=1), Caps(calls=31)) is not None


def test_an_unknown_price_cannot_be_capped(serving: BatchProvider, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="runtime.max_usd=1 cannot be kept"):
        answers(ROWS, context(tmp_path, serving, max_usd=1.0), by=batching())


def test_a_batch_costs_half() -> None:
    direct, batch = LitellmTeacher(model="gpt-4o"), OpenAIBatchTeacher(model="gpt-4o")
    assert batch.price(10, 10_000, 5_000).dollars == pytest.approx(0.5 * (direct.price(10, 10_000, 5_000).dollars or 0))
    assert OpenAIBatchTeacher(model="gpt-4-turbo").remarks() == [
        "the price of gpt-4-turbo in batches is unknown (not in the table of 2026-11-21)"
    ]
    assert batch.remarks() == []


def test_how_answers_come_is_in_no_key() -> None:
    fields = {"model": "gpt-4o", "structured": "json_object"}
    batch = OpenAIBatchTeacher(wait=False, poll_seconds=1, requests=7, megabytes=3, window="7d", **fields)
    assert batch.recipe() == OpenAICompatibleTeacher(**fields).recipe()
    assert batch.journal_key(ask("a")) == LitellmTeacher(**fields).journal_key(ask("a"))


def test_openai_is_asked_with_its_own_key_and_nobody_else() -> None:
    assert key_for(OPENAI) == key_for("https://api.openai.com") == OPENAI_KEY
    for other in ("https://api.openai.com.example.org/v1", "http://api.openai.com/v1", "http://localhost:8000/v1"):
        assert key_for(other) == KEY


def test_a_key_stands_in_no_file_log_or_message(
    serving: BatchProvider, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    serving.key = SECRET
    faults = ["500", "", "429", "500", "401"]
    serving.fault = lambda what: faults.pop(0) if faults else ""
    said = saying(ctx := context(tmp_path, serving))
    messages = []
    for _ in range(2):
        try:
            assert len(answers(ROWS, ctx, by=batching())) == 30
        except UserError as error:
            messages.append(f"{error} {error.__cause__!r}")
    assert "HTTP 401" in messages[0]
    assert any(SECRET in value for headers in serving.headers for value in headers.values()), "the key was used"
    session_at(tmp_path).journal.flush()
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in written if SECRET.encode() in path.read_bytes()] == []
    shown = capfd.readouterr()
    logged = [record.getMessage() for record in caplog.records]
    assert SECRET not in " ".join([*said, *messages, *logged, shown.out, shown.err])


def test_a_request_on_the_wire_is_what_the_direct_teacher_sends(serving: BatchProvider, tmp_path: Path) -> None:
    teachers = teacher(structured="json_object"), batching(structured="json_object")
    for place, one in enumerate(teachers):
        answers(["a"], context(tmp_path / str(place), serving), by=one)
    direct, batched = serving.bodies
    assert json.dumps(batched, sort_keys=True) == json.dumps(direct, sort_keys=True)
