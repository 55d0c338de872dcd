"""Servers of batches that are wrong about what they have, and waits that nothing would end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from batch_provider import BatchProvider
from quick_batches import PATIENCE, Priced, batching, bought_once, ended, pending, until_later
from quick_teacher import answers, ask, context, fine

from speed.core.errors import UserError
from speed.data.answers.schemas import example_form
from speed.data.records import Kind
from speed.teaching import batches as module
from speed.teaching.batches import Batches
from speed.teaching.errors import TransportError

THREE = ["a", "b", "c"]
LATER = [f"{row} | 500 ok" for row in "def"]


def is_answers(body: bytes) -> bool:
    return b'"status_code": 200' in body


def cut(body: bytes) -> bytes:
    return body.splitlines(keepends=True)[0] if is_answers(body) else body


def repeated(body: bytes) -> bytes:
    return cut(body) * 3


def strangers(body: bytes) -> bytes:
    first, *others = body.splitlines(keepends=True)
    return first + b"".join(line.replace(b'"custom_id": "', b'"custom_id": "x') for line in others)


@pytest.mark.parametrize(
    ("prompts", "garbles"),
    [([*THREE, *LATER], cut), (THREE, repeated), (THREE, strangers)],
    ids=["cut", "repeated", "strangers"],
)
def test_other_lines_do_not_pass_for_the_answers_that_are_missing(
    serving: BatchProvider, tmp_path: Path, prompts: list[str], garbles: Callable[[bytes], bytes]
) -> None:
    serving.garbles = garbles
    with pytest.raises(UserError, match="says that 3 requests of batch batch-0 are answered, and its files hold 1"):
        answers(prompts, context(tmp_path, serving), by=batching())
    serving.garbles = lambda body: body
    assert len(answers(prompts, context(tmp_path, serving), by=batching())) == len(prompts)
    assert bought_once(serving, prompts)


def test_failures_do_not_pass_for_the_answers_of_a_file_that_is_not_named(
    serving: BatchProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = serving._finish

    def unnamed(batch: dict[str, Any]) -> None:
        whole(batch)
        batch["output_file_id"] = None

    monkeypatch.setattr(serving, "_finish", unnamed)
    with pytest.raises(UserError, match="says that 3 requests of batch batch-0 are answered, and its files hold 0"):
        answers([*THREE, *LATER], context(tmp_path, serving), by=batching())
    assert serving.paid == dict.fromkeys(THREE, 1)
    assert len(pending(tmp_path)) == 1


@pytest.mark.parametrize("status", [b'"200"', b"200.0", b'"200 OK"', b"null", b'"?"'])
def test_an_answer_is_taken_whatever_its_status_is_written_as(
    serving: BatchProvider, tmp_path: Path, status: bytes
) -> None:
    serving.garbles = lambda body: body.replace(b'"status_code": 200', b'"status_code": ' + status)
    assert [answer.cause for answer in answers(THREE, context(tmp_path, serving), by=batching())] == ["ok"] * 3
    assert bought_once(serving, THREE)


def no_max_tokens(body: dict[str, Any]) -> str:
    return "'max_tokens' is not supported: use 'max_completion_tokens'" if "max_tokens" in body else ""


def no_schema(body: dict[str, Any]) -> str:
    form = body.get("response_format", {})
    return "" if form.get("type") == "json_object" else f"response_format {form.get('type')} is not supported"


@pytest.mark.parametrize("refuses", [no_max_tokens, no_schema])
def test_words_that_one_batch_has_taught_are_no_fault_of_another_on_its_way(
    serving: BatchProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: Callable[[dict[str, Any]], str]
) -> None:
    """The second batch was sent in the old words and ends when the new ones are known."""
    whole, rows = serving._finish, ["a", "b", "c", "d"]
    monkeypatch.setattr(
        serving, "_finish", lambda batch: None if batch["id"] == "batch-1" and not serving.paid else whole(batch)
    )
    serving.refuses = refuses
    by = batching(requests=2, structured="json_schema")
    asked = ((ask(row, form=example_form(Kind.STS)), fine) for row in rows)
    assert [answer.cause for answer in by.ask(asked, context(tmp_path, serving))] == ["ok"] * 4
    assert serving.sent == dict.fromkeys(rows, 2), "once in each of both words"
    assert serving.paid == dict.fromkeys(rows, 1)


def test_a_long_retry_after_is_no_reason_to_wait_for_longer_than_the_silence_that_is_borne(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, pauses = [0.0], list[float]()

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    nothing: Any = None
    batches = Batches(nothing, nothing, nothing, nothing, "http://x", "m", nothing, nothing, PATIENCE, silence=600.0)

    def limited() -> None:
        raise TransportError("http_4xx", "429", limited=True, retry_after=500.0 if not pauses else 86_400.0)

    with pytest.raises(UserError, match="has not answered for 600 s"):
        batches.patiently(limited)
    assert len(pauses) == 2
    assert pauses[0] == pytest.approx(500.0, abs=1.0)
    assert 600.0 < sum(pauses) < 601.0


def test_nobody_waits_for_what_another_command_has_taken_meanwhile(serving: BatchProvider, tmp_path: Path) -> None:
    serving.busy = True
    asked = batching(wait=False).ask(((ask(row), fine) for row in THREE), context(tmp_path, serving))
    serving.busy = False
    answers(THREE, context(tmp_path, serving), by=batching())
    assert [answer.cause for answer in asked] == ["ok"] * 3
    assert bought_once(serving, THREE)


def test_results_that_are_gone_are_told_with_the_folder_to_delete(serving: BatchProvider, tmp_path: Path) -> None:
    serving.fault = lambda what: "404" if what == "fetched" else ""
    for _ in range(2):
        with pytest.raises(
            UserError, match="does not hand over the results of batch batch-0, where 3 requests"
        ) as told:
            answers(THREE, context(tmp_path, serving), by=batching())
    (batch,) = pending(tmp_path)
    assert f"delete {tmp_path / 'journal' / 'batches' / batch.id}, and" in str(told.value)
    assert len(serving.batches) == 1


def abandoned(serving: BatchProvider, home: Path, rows: list[str], by: Any) -> None:
    """Have a batch whose requests nobody will ask for again."""
    serving.busy = True
    with until_later():
        list(by.ask(((ask(row, max_tokens=100), fine) for row in rows), context(home, serving)))


@pytest.mark.parametrize("looks", [0, 3])
def test_a_batch_that_nobody_asks_for_any_more_is_taken_where_it_holds_the_room(
    serving: BatchProvider, tmp_path: Path, looks: int
) -> None:
    """It is held at twice what it costs."""
    abandoned(serving, tmp_path, [f"old {row}" for row in range(10)], batching(Priced, wait=False))
    before = serving.looks.total()

    def end(what: str) -> None:
        serving.busy = serving.looks.total() - before < looks

    end("")
    serving.on = end
    found = answers(THREE, context(tmp_path, serving, max_usd=0.205), by=batching(Priced))
    assert [answer.cause for answer in found] == ["ok"] * 3
    assert [each["answered"] for each in ended(tmp_path)] == [10, 3]
    assert serving.paid.total() == 13


def test_room_that_a_batch_at_another_server_holds_is_not_waited_for(serving: BatchProvider, tmp_path: Path) -> None:
    abandoned(serving, tmp_path, THREE, batching(wait=False))
    with BatchProvider() as other, pytest.raises(UserError, match=r"runtime.max_calls=3 is reached: 0 calls paid"):
        answers(["new"], context(tmp_path, other, max_calls=3), by=batching())
    assert len(pending(tmp_path)) == 1


def test_a_turn_that_a_batch_has_which_nobody_asks_for_any_more_ends(serving: BatchProvider, tmp_path: Path) -> None:
    """The server takes one request at a time."""
    abandoned(serving, tmp_path, ["old"], batching(wait=False))
    serving.busy, serving.most_requests = False, 1
    assert [answer.cause for answer in answers(THREE[:2], context(tmp_path, serving), by=batching())] == ["ok"] * 2
    assert serving.paid == dict.fromkeys(["old", *THREE[:2]], 1)
    assert pending(tmp_path) == []
