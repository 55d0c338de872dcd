"""Structured output: sent whole where it is asked for, and in no key where it is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from provider import Provider

from speed.core.errors import UserError
from speed.core.store import Store
from speed.data.answers.schemas import example_form
from speed.data.records import Kind
from speed.ports import Ask
from speed.runtime import Context, Runtime
from speed.teaching.journal import key
from speed.teaching.litellm_teacher import LitellmTeacher
from speed.teaching.openai_teacher import OpenAICompatibleTeacher

FORM = example_form(Kind.STS)
ASK = Ask(prompt="row 1", temperature=0.5, max_tokens=50, purpose="seed", kind=Kind.STS, form=FORM)
SCHEMA = {"type": "json_schema", "json_schema": {"name": "sts_example", "strict": True, "schema": FORM.body}}
MODELS: dict[type[Any], str] = {OpenAICompatibleTeacher: "rules", LitellmTeacher: "openai/rules"}


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-structured")
    with Provider() as serving:
        yield serving


def context(home: Path, provider: Provider) -> Context:
    return Context(Store(home).open(), Runtime(home=home, api_base=provider.url))


@pytest.mark.parametrize("kind", list(MODELS))
def test_the_form_is_sent_and_each_way_of_asking_is_another_answer(
    kind: type[Any], provider: Provider, tmp_path: Path
) -> None:
    ways = {"none": None, "json_object": {"type": "json_object"}, "json_schema": SCHEMA}
    for number, (way, sent) in enumerate(ways.items(), 1):
        for _ in range(2):  # the second time from the journal
            ctx = context(tmp_path, provider)
            found = list(kind(model=MODELS[kind], structured=way).ask([(ASK, lambda text: None)], ctx))
            assert found[0].cause == "ok"
        assert len(provider.bodies) == number
        assert provider.bodies[-1].get("response_format") == sent


def test_free_text_has_the_key_that_it_always_had() -> None:
    """Everything that was ever paid for stands under such keys: do not edit this test."""
    teacher = OpenAICompatibleTeacher(model="rules")
    messages = [
        {"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": "row 1"}
    ]  # fmt: skip
    expected = key("rules", messages, {"temperature": 0.5, "top_p": 1.0, "max_tokens": 50}, 0)
    assert teacher._call(ASK, 0, 50).key == expected
    assert teacher._call(ASK.model_copy(update={"form": None}), 0, 50).key == expected


def test_what_litellm_would_leave_out_in_silence_is_refused() -> None:
    for way in ("json_object", "json_schema"):
        with pytest.raises(UserError, match=f"teacher.structured={way}: replicate/meta/llama-2-70b-chat has no struct"):
            LitellmTeacher(model="replicate/meta/llama-2-70b-chat", structured=way)._check_structured()
    LitellmTeacher(model="replicate/meta/llama-2-70b-chat")._check_structured()
    LitellmTeacher(model="gpt-4o-2024-08-06", structured="json_schema")._check_structured()
