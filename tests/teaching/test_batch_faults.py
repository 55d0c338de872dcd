"""Servers of batches that are wrong about what they have, and waits that nothing would end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from batch_provider import BatchProvider
from quick_batches import batching, bought_once, pending
from quick_teacher import answers, ask, context, fine

from speed.core.errors import UserError
from speed.data.answers.schemas import example_form
from speed.data.records import Kind

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
