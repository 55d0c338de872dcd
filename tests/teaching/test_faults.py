"""Every shape of an answer, one row each: what comes of it, how often it is sent, and what it is charged with."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from provider import Provider
from quick_teacher import Priced, answers, ask, context, fine, teacher

from speed.core.errors import UserError
from speed.runs.ledger_table import ledger_table
from speed.teaching.errors import TransportError, failure_of
from speed.teaching.journal import Journal
from speed.teaching.lines import line_of
from speed.teaching.litellm_teacher import LitellmTeacher
from speed.teaching.openai_teacher import OpenAICompatibleTeacher
from speed.teaching.spending import ledger_of

SENDERS = [OpenAICompatibleTeacher, LitellmTeacher]
WITHOUT_USAGE = [
    *("no_usage", "null_usage", "list_usage", "text_usage", "empty_usage", "zero", "negative", "nan", "infinite"),
    *("strings", "floats", "huge", "lists", "nulls"),
]
ODD_BESIDE_THE_TEXT = [
    *("plain", "list_details", "text_details", "null_details", "odd_details", "list_model", "null_names", "odd_finish"),
    *("no_finish", "text_created", "odd_refusal", "unknown_fields", "empty_error", "null_error", "parts"),
    *("two_parts", "thinking_part", "one_part", "list_of_texts", "thought_beside", "odd_thought_beside"),
]
WITHOUT_TEXT = {
    **dict.fromkeys(("safety", "prohibited", "prohibited_colon"), "content_filter"),
    **dict.fromkeys(("null_content", "no_parts", "only_thinking"), "empty"),
}


@pytest.mark.filterwarnings("ignore::UserWarning:pydantic")  # litellm's own, on shapes that it does not know
@pytest.mark.parametrize("kind", SENDERS)
@pytest.mark.parametrize("shape", WITHOUT_USAGE)
def test_an_answer_without_usage_is_charged_by_our_estimate(
    shape: str, kind: type[Any], provider: Provider, tmp_path: Path
) -> None:
    prompt = f"{'word ' * 90}| say:{shape}"
    ctx = context(tmp_path, provider)
    (answer,) = answers([prompt], ctx, by=teacher(kind))
    assert (answer.cause, answer.text) == ("ok", f"good answer 1 to {prompt}")
    assert provider.arrivals[prompt] == 1
    (line,) = ctx.tally.ledger.lines()
    assert line.estimated == 1
    assert 100 <= line.tokens_in <= 140, "about as many as there are words"
    assert 100 <= line.tokens_out <= 140
    (journaled,) = ledger_of(Journal(tmp_path / "journal"))
    assert journaled.model_dump() == line.model_dump()
    assert "estimated" in ledger_table([line]).head


@pytest.mark.filterwarnings("ignore::UserWarning:pydantic")
@pytest.mark.parametrize("kind", SENDERS)
def test_text_that_arrived_is_an_answer_whatever_stands_beside_it(
    kind: type[Any], provider: Provider, tmp_path: Path
) -> None:
    prompts = [f"row {row} | say:{shape}" for row, shape in enumerate([*ODD_BESIDE_THE_TEXT, "bytes"])]
    ctx = context(tmp_path, provider)
    found = answers(prompts, ctx, by=teacher(kind))
    assert [(answer.cause, answer.text) for answer in found] == [("ok", f"good answer 1 to {p}") for p in prompts]
    assert set(provider.arrivals.values()) == {1}
    assert ctx.tally.cost["tokens_in"] == 100 * len(prompts)
    assert sum(line.estimated for line in ctx.tally.ledger.lines()) == 0


@pytest.mark.filterwarnings("ignore::UserWarning:pydantic")
@pytest.mark.parametrize("kind", SENDERS)
def test_an_answer_without_text_says_why(kind: type[Any], provider: Provider, tmp_path: Path) -> None:
    prompts = {f"row {row} | say:{shape}": cause for row, (shape, cause) in enumerate(WITHOUT_TEXT.items())}
    found = answers(list(prompts), context(tmp_path, provider), by=teacher(kind, content_retries=0))
    assert [answer.cause for answer in found] == list(prompts.values())
    assert set(provider.arrivals.values()) == {1}


@pytest.mark.filterwarnings("ignore::UserWarning:pydantic")
@pytest.mark.parametrize("kind", SENDERS)
def test_one_whole_record_in_the_field_for_reasoning_is_the_answer_and_is_counted(
    kind: type[Any], provider: Provider, tmp_path: Path
) -> None:
    def check(text: str) -> str | None:
        return None if text.startswith("{") else "no_json"

    shapes = ("thought_instead", "reasoning_instead", "draft_instead")
    prompts = [f"row {row} | say:{shape}" for row, shape in enumerate(shapes)]
    for cached in (False, True):
        ctx = context(tmp_path, provider)
        found = list(teacher(kind, content_retries=0).ask(((ask(p), check) for p in prompts), ctx))
        assert [answer.cause for answer in found] == ["ok", "ok", "empty"]
        assert [json.loads(answer.text)["a"] for answer in found[:2]] == [f"good answer 1 to {p}" for p in prompts[:2]]
        assert ctx.tally.cost["in_reasoning"] == 2
        assert ctx.tally.cost["cached" if cached else "calls"] == 3
    assert set(provider.arrivals.values()) == {1}


@pytest.mark.parametrize("shape", WITHOUT_USAGE)
@pytest.mark.parametrize("cap", ["max_tokens", "max_usd"])
def test_a_cap_binds_whatever_the_usage(cap: str, shape: str, provider: Provider, tmp_path: Path) -> None:
    """Each answer of 90 words is estimated at about 110 tokens, and costs 0.0002 dollars a token."""
    prompts = [f"row {row} {'word ' * 90}| say:{shape}" for row in range(40)]
    size = {"max_tokens": 2_500, "max_usd": 0.25}[cap]
    ctx = context(tmp_path, provider, concurrency=4, **{cap: size})
    with pytest.raises(UserError, match=f"runtime.{cap}={size:g} is reached"):
        answers(prompts, ctx, by=teacher(Priced))
    assert 5 <= sum(provider.paid.values()) <= 15


def test_a_journal_with_counts_that_cannot_be_true_opens(tmp_path: Path) -> None:
    """An earlier version wrote down whatever the provider said."""
    folder = tmp_path / "journal"
    folder.mkdir()
    body = {"model": "gpt-4o-2024-08-06", "messages": [{"role": "user", "content": "word " * 90}], "text": "x" * 450}
    odd = [(10**30, 5), (-5000, -90_000), (100, 50)]
    entries = [
        {"key": f"{row:064x}", **body, "tokens_in": asked, "tokens_out": said, "dollars": 0.5}
        for row, (asked, said) in enumerate(odd)
    ]
    lines = b"".join(line_of(json.dumps(entry).encode()) for entry in entries)
    (folder / "old-1-1.jsonl").write_bytes(lines)
    journal = Journal(folder)
    (line,) = ledger_of(journal)
    assert line.estimated == 2
    assert line.tokens_in == 104 + 104 + 100
    assert line.tokens_out == 5 + 100 + 50
    assert line.dollars is not None
    assert 0.5 < line.dollars < 0.51
    assert [entry.tokens_in for entry in journal] == [104, 104, 100]


REFUSED_ROWS = ["invalid", "flagged", "400", "422", "filtered", "error:403", "error:unnamed"]
PASSING = ["error:429", "error:500", "error:502", "error:in_words", "error:in_choice", "error:null", "error:none"]
FATAL = {"error:401": "HTTP 401", "error:402": "no credit left"}


@pytest.mark.parametrize("kind", SENDERS)
def test_a_row_that_the_provider_refuses_is_one_rejected_row(
    kind: type[Any], provider: Provider, tmp_path: Path
) -> None:
    prompts = [f"row {row} | {fault}" for row, fault in enumerate(REFUSED_ROWS)] + ["fine 1", "fine 2"]
    found = answers(prompts, context(tmp_path, provider), by=teacher(kind))
    assert [answer.cause for answer in found] == ["content_filter"] * len(REFUSED_ROWS) + ["ok"] * 2
    assert not any(answer.unreachable for answer in found)
    assert set(provider.arrivals.values()) == {1}


@pytest.mark.parametrize("kind", SENDERS)
@pytest.mark.parametrize("fault", REFUSED_ROWS)
def test_a_provider_that_refuses_all_ends_the_run(
    fault: str, kind: type[Any], provider: Provider, tmp_path: Path
) -> None:
    rows = [f"row {row} | {fault}" for row in range(5)]
    asked = teacher(kind).ask(((ask(row), fine) for row in rows), context(tmp_path, provider))
    with pytest.raises(UserError, match="refused the last 5 requests, every one: "):
        [next(asked) for _ in rows]  # as stages read them: never beyond the last
    answers(["fine"], context(tmp_path, provider))
    assert answers(rows[:1], context(tmp_path, provider))[0].cause == "content_filter", "it does answer that purpose"
    with pytest.raises(UserError, match=r"refused the last 2\d requests, every one: "):
        answers(
            [f"more {row} | {fault}" for row in range(100)],
            context(tmp_path, provider, concurrency=4),
            by=teacher(kind),
        )
    assert provider.arrivals.total() < 5 + 1 + 1 + 20 + 8


@pytest.mark.parametrize("kind", SENDERS)
def test_errors_inside_a_200_pass_like_their_status(kind: type[Any], provider: Provider, tmp_path: Path) -> None:
    prompts = [f"row {row} | {fault} {fault} ok" for row, fault in enumerate(PASSING)]
    found = answers(prompts, context(tmp_path, provider, concurrency=1), by=teacher(kind))
    assert [answer.cause for answer in found] == ["ok"] * len(PASSING)
    assert set(provider.arrivals.values()) == {3}


def test_an_answer_that_never_has_choices_is_one_rejected_row(provider: Provider, tmp_path: Path) -> None:
    found = answers(["row 1 | error:null", "fine"], context(tmp_path, provider, concurrency=1))
    assert [answer.cause for answer in found] == ["empty", "ok"]


@pytest.mark.parametrize("kind", SENDERS)
@pytest.mark.parametrize("fault", FATAL)
def test_errors_inside_a_200_end_the_run_like_their_status(
    fault: str, kind: type[Any], provider: Provider, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=FATAL[fault]):
        answers(
            [f"row {row} | {fault}" for row in range(50)], context(tmp_path, provider, concurrency=4), by=teacher(kind)
        )
    assert provider.arrivals.total() <= 4


@pytest.mark.parametrize("kind", SENDERS)
def test_a_login_page_ends_the_run(kind: type[Any], provider: Provider, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"web page, 'Sign in', that asks for a login.*\n.*check .*teacher.model"):
        answers(["row 1 | login"], context(tmp_path, provider), by=teacher(kind))
    assert provider.arrivals.total() == 1


def test_an_identical_error_is_no_echo(provider: Provider, tmp_path: Path) -> None:
    """On one connection; an echo would be cause `connection` and count as a failure of its own."""
    answers(["row 1 | error:500"], context(tmp_path, provider, concurrency=1))
    (entry,) = Journal(tmp_path / "journal")
    assert entry.cause == "http_5xx"


@pytest.mark.parametrize("kind", SENDERS)
def test_a_whole_record_that_the_provider_cut_behind_its_end_is_paid_once(
    kind: type[Any], provider: Provider, tmp_path: Path
) -> None:
    texts = {"whole | length": '{"a": "b"} and so', "half | length": '{"a": "b', "open | length": '{"a": "b"'}
    provider.answer = texts.__getitem__
    found = answers(list(texts), context(tmp_path, provider), by=teacher(kind))
    assert [answer.cause for answer in found] == ["ok", "truncated", "truncated"]
    bought = Counter(entry.messages[-1]["content"] for entry in Journal(tmp_path / "journal"))
    assert dict(bought) == dict(zip(texts, (1, 2, 2), strict=True))


LEARNT = {
    "max_tokens": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.",
    "response_format": "response_format is not supported by this model",
}


@pytest.mark.parametrize("kind", SENDERS)
@pytest.mark.parametrize("field", LEARNT)
def test_what_a_server_refuses_is_learnt_once_and_told(
    field: str, kind: type[Any], provider: Provider, tmp_path: Path
) -> None:
    provider.refuses = lambda body: LEARNT[field] if field in body else ""
    said: list[str] = []
    prompts = [f"row {row}" for row in range(6)]
    for prompt in prompts:
        ctx = context(tmp_path, provider, concurrency=1)
        ctx.send = lambda event: said.append(str(event))
        (answer,) = answers([prompt], ctx, by=teacher(kind, structured="json_object"))
        assert answer.cause == "ok"
    assert list(provider.arrivals.values()) == [2, 1, 1, 1, 1, 1]
    assert sum("from now on" in event for event in said) == 1
    if field == "max_tokens":
        assert provider.bodies[-1]["max_completion_tokens"] == 50
    provider.refuses = lambda body: ""
    plain = context(tmp_path / "other", provider)
    asked = answers(prompts[:1], plain, by=teacher(kind, structured="json_object", max_completion_tokens=True))
    assert asked[0].cause == "ok"
    assert "max_tokens" not in provider.bodies[-1]
    keys = {entry.key for folder in (tmp_path, tmp_path / "other") for entry in Journal(folder / "journal")}
    assert len(keys) == 6, "how it is worded is in no key"


OURS = {
    "temperature does not support 0.5, only the default (1)": "sampling.teacher",
    "the role 'system' is not supported": "teacher.system=",
    "top_p must be 0.95": "teacher.top_p",
    "this model only supports stream=true": "teacher.model",
}


@pytest.mark.parametrize("kind", SENDERS)
@pytest.mark.parametrize("said", OURS)
def test_a_400_names_our_setting(said: str, kind: type[Any], provider: Provider, tmp_path: Path) -> None:
    provider.refuses = lambda body: said
    with pytest.raises(UserError, match=OURS[said]):
        answers([f"row {row}" for row in range(30)], context(tmp_path, provider, concurrency=2), by=teacher(kind))
    assert provider.arrivals.total() <= 2


def test_rejected_answers_are_asked_again_by_name_and_all_others_come_from_the_journal(
    provider: Provider, tmp_path: Path
) -> None:
    prompts = ["a | void void ok", "b | refuse refuse ok", "c", "d | void void void ok"]
    assert [answer.cause for answer in answers(prompts, context(tmp_path, provider))] == [
        "empty",
        "refusal",
        "ok",
        "empty",
    ]
    first = provider.arrivals.copy()
    again = teacher(ask_again=["empty"])
    assert [answer.cause for answer in answers(prompts, context(tmp_path, provider), by=again)] == [
        *("ok", "refusal", "ok", "empty"),
    ]
    assert provider.arrivals - first == {prompts[0]: 1, prompts[3]: 1}
    twice = teacher(ask_again=["empty", "empty"])
    assert answers(prompts, context(tmp_path, provider), by=twice)[3].cause == "ok"
    assert provider.arrivals - first == {prompts[0]: 1, prompts[3]: 2}
    assert "ask_again" in again.recipe()
    assert teacher().recipe().keys().isdisjoint({"ask_again", "max_completion_tokens"})


def test_what_is_asked_is_the_same_for_both_senders(provider: Provider, tmp_path: Path) -> None:
    for kind in SENDERS:
        list(teacher(kind).ask([(ask("row 1 | say:plain"), fine)], context(tmp_path / kind.__name__, provider)))
    assert len(provider.bodies) == 2


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens."),
        (400, "request (5000 tokens) exceeds the available context size (4096 tokens), try increasing it"),
        (500, "input (929 tokens) is too large to process. increase the physical batch size (current batch size: 512)"),
        (400, "the input length exceeds the context length"),
        (400, "prompt is too long: 210000 tokens > 200000 maximum"),
        (400, "The input token count (1200293) exceeds the maximum number of tokens allowed (1048576)."),
        (413, "`inputs` must have less than 512 tokens. Given: 929"),
    ],
)  # fmt: skip
def test_a_text_that_the_model_cannot_read_is_too_long_in_every_servers_words(status: int, said: str) -> None:
    kind = "exceed_context_size_error" if "available context" in said else "invalid_request_error"
    found = failure_of(status, json.dumps({"error": {"message": said, "type": kind}}), {}, "")
    assert isinstance(found, TransportError)
    assert (found.cause, found.again) == ("too_long", False)
