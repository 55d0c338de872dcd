"""Structured output: sent whole where it is asked for, and in no key where it is not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from provider import Provider

from speed.core.errors import UserError
from speed.core.store import Store
from speed.data.answers.parse import parse_example, parse_judgement, parse_revision, parse_tasks
from speed.data.answers.schemas import example_form
from speed.data.prompts.worked_examples import without_worked_examples, worked_examples
from speed.data.records import Kind, Rejected
from speed.ports import Ask
from speed.runtime import Context, Runtime
from speed.teaching.entry import key
from speed.teaching.litellm_teacher import LitellmTeacher
from speed.teaching.openai_teacher import OpenAICompatibleTeacher

FORM = example_form(Kind.STS)
ASK = Ask(prompt="row 1", temperature=0.5, max_tokens=50, purpose="seed", kind=Kind.STS, form=FORM)
SCHEMA = {"type": "json_schema", "json_schema": {"name": "sts_example", "strict": True, "schema": FORM.body}}
MODELS: dict[type[Any], str] = {OpenAICompatibleTeacher: "rules", LitellmTeacher: "openai/rules"}


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


@pytest.mark.parametrize("kind", list(MODELS))
def test_a_form_that_a_server_refuses_is_asked_for_in_weaker_words_and_no_answer_is_bought_for_that(
    kind: type[Any], provider: Provider, tmp_path: Path
) -> None:
    """From a schema to any object to free text: each step is told once, and kept for all later calls."""
    said: list[str] = []

    def asked(prompts: list[str], home: Path) -> list[str]:
        ctx = Context(Store(home).open(), Runtime(home=home, api_base=provider.url, concurrency=1))
        ctx.send = lambda event: said.append(str(event))
        asks = [(ASK.model_copy(update={"prompt": prompt}), lambda text: None) for prompt in prompts]
        before = len(provider.bodies)
        found = list(kind(model=MODELS[kind], structured="json_schema").ask(asks, ctx))
        assert [answer.cause for answer in found] == ["ok"] * len(prompts)
        return [str((body.get("response_format") or {}).get("type")) for body in provider.bodies[before:]]

    provider.refuses = lambda body: (
        "failed to parse grammar" if "json_schema" in str(body.get("response_format")) else ""
    )
    assert asked(["a", "b"], tmp_path / "objects") == ["json_schema", "json_object", "json_object"]
    assert asked(["c"], tmp_path / "objects") == ["json_object"]
    provider.refuses = lambda body: "response_format: extra fields not permitted" if "response_format" in body else ""
    assert asked(["d", "e"], tmp_path / "text") == ["json_schema", "json_object", "None", "None"]
    assert provider.paid.total() == 5, "each prompt once"
    assert sum("a schema of the answer" in event for event in said) == 2
    assert sum("without from now on" in event for event in said) == 1


def test_local_servers_are_asked_for_the_form_by_default(compose: Any) -> None:
    assert compose("preset=laptop").teacher.structured == "json_schema"
    assert compose("teacher=gpt4o").teacher.structured == compose("teacher=rules").teacher.structured == "none"


def test_worked_examples_stand_in_front_and_in_the_key(provider: Provider, tmp_path: Path) -> None:
    plain, shown = (OpenAICompatibleTeacher(model="rules", examples=count) for count in (0, 3))
    assert "examples" not in plain.recipe()
    assert shown.recipe()["examples"]["count"] == 3
    assert plain.journal_key(ASK) != shown.journal_key(ASK)
    list(shown.ask([(ASK, lambda text: None)], context(tmp_path, provider)))
    sent = str(provider.bodies[-1]["messages"][-1]["content"])  # type: ignore[index]
    assert sent == shown.in_front("seed", Kind.STS) + "row 1"
    assert sent.count("Example ") == 3
    assert without_worked_examples(sent) == "row 1"


@pytest.mark.parametrize("kind", list(Kind))
def test_worked_examples_are_answers_of_their_kind(kind: Kind) -> None:
    """Whoever repeats their form is understood by the parsers, and whoever repeats their texts has given no answer."""
    for purpose in ("brainstorm", "seed", "judge", "revise"):
        for answer in re.findall(r"^[{\[].*$", worked_examples(purpose, kind, 3), re.MULTILINE):
            found = {
                "brainstorm": lambda text: parse_tasks(text, "stop"),
                "seed": lambda text: parse_example(kind, "task", text, "stop"),
                "judge": lambda text: parse_judgement(text, 3, "stop"),
                "revise": lambda text: parse_revision(kind, "task", text, "stop"),
            }[purpose](answer)
            copied = purpose != "judge"
            assert (isinstance(found, Rejected) and found.cause == "worked_example") is copied, (purpose, found)
            assert isinstance(found, Rejected) is copied, (purpose, found)
