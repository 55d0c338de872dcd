"""Which call comes next for a request, and when its answer is final."""

from __future__ import annotations

import pytest

from speed.ports import Ask
from speed.teaching.entry import Entry
from speed.teaching.requests import Call, Request


def call(ask: Ask, retry: int, max_tokens: int) -> Call:
    return Call(ask, (), {"max_tokens": max_tokens, "retry": retry}, f"{retry}")


def request(found: str | None) -> Request:
    ask = Ask(prompt="p", temperature=0.0, max_tokens=100, purpose="seed")
    return Request(ask, lambda text: found, 0, 1, call)


@pytest.mark.parametrize(("found", "tokens"), [("unfinished_reasoning", 200), ("no_json", 100), ("refusal", 100)])
def test_reasoning_that_never_ended_is_not_asked_again_with_the_same_limit(found: str, tokens: int) -> None:
    asked = request(found)
    thought = Entry(key="0", model="m", messages=(), text="<think>hm", finish_reason="stop")
    assert not asked.take(thought, cached=False)
    assert asked.call.params == {"max_tokens": tokens, "retry": 1}
    assert asked.take(thought, cached=False)
    assert asked.answer is not None
    assert asked.answer.cause == found


def test_a_lone_surrogate_is_judged_alike_raw_or_escaped() -> None:
    for text in ('{"a": "\ud83d"}', '{"a": "\\ud83d"}'):
        asked = request(None)
        assert asked.take(Entry(key="0", model="m", messages=(), text=text), cached=False)
        assert asked.answer is not None
        assert asked.answer.text == '{"a": "\\ud83d"}', "as it is escaped, which the parser rejects"
