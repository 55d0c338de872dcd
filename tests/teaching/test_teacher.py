"""An answer is checked, kept and given to the row that asked for it, and paid once."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import HANG
from provider import Provider
from quick_teacher import answers, ask, context, fine, good, teacher

from speed.core.errors import UserError
from speed.ports import Ask
from speed.runtime import Runtime
from speed.stages.asking import ask_in_order
from speed.teaching.errors import Reply
from speed.teaching.journal import Journal
from speed.teaching.litellm_teacher import LitellmTeacher
from speed.teaching.openai_teacher import OpenAICompatibleTeacher
from speed.teaching.requests import Call

pytestmark = pytest.mark.usefixtures("secret")


def test_a_bad_answer_is_asked_once_more_and_both_are_kept(provider: Provider, tmp_path: Path) -> None:
    prompts = ["a | ok:bad ok:good", "b | ok:bad", "c"]
    ctx = context(tmp_path, provider)
    found = answers(prompts, ctx, good)
    assert [answer.cause for answer in found] == ["ok", "no_json", "ok"]
    assert found[1].text == "bad answer 2 to b | ok:bad"
    assert provider.paid == {prompts[0]: 2, prompts[1]: 2, prompts[2]: 1}
    assert ctx.tally.cost["calls"] == 3
    assert ctx.tally.cost["retries"] == 2
    assert ctx.tally.cost["no_json"] == 1
    lines = {line.cause: (line.calls, line.retries) for line in ctx.tally.ledger.lines()}
    assert lines == {"no_json": (3, 1), "ok": (2, 1)}, "causes sum to what was paid for"
    texts = {entry.text for entry in Journal(tmp_path / "journal")}
    assert len(texts) == 5
    again = context(tmp_path, provider)
    assert answers(prompts, again, good) == found
    assert again.tally.cost == {"cached": 3, "no_json": 1}
    mended = context(tmp_path, provider)
    assert [answer.cause for answer in answers(prompts, mended)] == ["ok"] * 3, "a better parser pays for nothing"
    assert sum(provider.paid.values()) == 5


def test_a_truncated_answer_gets_twice_the_room_once(provider: Provider, tmp_path: Path) -> None:
    found = answers(["a | length ok", "b | length"], context(tmp_path, provider))
    assert [answer.cause for answer in found] == ["ok", "truncated"]
    asked = [body["max_tokens"] for body in provider.bodies]
    assert sorted(asked) == [50, 50, 100, 100]  # type: ignore[type-var]
    answers(["c | length"], context(tmp_path, provider), by=teacher(content_retries=3))
    assert [body["max_tokens"] for body in provider.bodies[4:]] == [50, 100, 100, 100]


@pytest.mark.parametrize("kind", [OpenAICompatibleTeacher, LitellmTeacher])
def test_answers_without_content_are_typed(kind: type[Any], provider: Provider, tmp_path: Path) -> None:
    causes = {"filter": "content_filter", "refuse": "refusal", "void": "empty", "filtered": "content_filter"}
    causes["overlong"] = "too_long"
    prompts = [f"row {row} | {fault}" for row, fault in enumerate(causes)]
    found = answers(prompts, context(tmp_path, provider), by=teacher(kind, content_retries=0))
    assert [answer.cause for answer in found] == list(causes.values())
    assert set(provider.arrivals.values()) == {1}


def test_a_check_that_fails_is_the_callers_error_and_the_answer_is_kept(provider: Provider, tmp_path: Path) -> None:
    def broken(_: str) -> str | None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        answers(["a"], context(tmp_path, provider), broken)
    ctx = context(tmp_path, provider)
    assert answers(["a"], ctx)[0].cause == "ok"
    assert ctx.tally.cost["cached"] == 1


def test_the_same_question_is_paid_once_and_another_index_again(provider: Provider, tmp_path: Path) -> None:
    provider.latency = 0.05
    ctx = context(tmp_path, provider)
    requests = [(ask("same"), fine)] * 5 + [(ask("same", index=1), fine)]
    found = list(teacher().ask(requests, ctx))
    assert len({answer.text for answer in found}) == 2
    assert provider.paid["same"] == 2
    assert ctx.tally.cost["calls"] == 2
    assert ctx.tally.cost["cached"] == 4


def test_what_another_stage_bought_since_the_look_is_not_bought_again(provider: Provider, tmp_path: Path) -> None:
    class Prepared(OpenAICompatibleTeacher):
        """While it gets ready, with its requests looked up, another stage asks the same."""

        def prepare(self, runtime: Runtime) -> None:
            answers(["same"], context(tmp_path, provider))

    ctx = context(tmp_path, provider)
    assert answers(["same"], ctx, by=teacher(Prepared))[0].text.startswith("good answer 1")
    assert provider.paid["same"] == 1
    assert ctx.tally.cost == {"cached": 1}


def test_a_stage_that_leaves_takes_no_other_stages_answer_with_it(provider: Provider, tmp_path: Path) -> None:
    sent, held = threading.Event(), threading.Event()

    class Held(OpenAICompatibleTeacher):
        async def send(self, call: Call, runtime: Runtime, seconds: float) -> Reply:
            if call.ask.prompt == "same":
                sent.set()
                await asyncio.to_thread(held.wait, HANG)
            return await super().send(call, runtime, seconds)

    leaving, staying = context(tmp_path, provider), context(tmp_path, provider)
    with ThreadPoolExecutor() as threads:
        answer = threads.submit(answers, ["same"], staying, by=teacher(Held))
        assert sent.wait(HANG)
        stream = teacher(Held).ask(((ask(prompt), fine) for prompt in ("another", "same")), leaving)
        assert next(stream).cause == "ok"
        stream.close()  # while its second request waits for the other stage's answer
        held.set()
        assert answer.result()[0].text == "good answer 1 to same"
    assert dict(provider.paid) == {"another": 1, "same": 1}


def test_a_disk_that_fills_up_ends_the_run_with_one_message(
    provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [f"row {row}" for row in range(40)]
    write, room = os.write, [5_000]

    def full(descriptor: int, data: bytes) -> int:
        if len(data) > room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        room[0] -= len(data)
        return write(descriptor, data)

    with monkeypatch.context() as broken:
        broken.setattr("speed.teaching.journal.os.write", full)
        with pytest.raises(UserError, match=r"disk is full.*\n.*run the same command again"):
            answers(prompts, context(tmp_path, provider))
    kept = {entry.messages[-1]["content"] for entry in Journal(tmp_path / "journal")}
    assert 1 < len(kept) < 40
    assert [answer.cause for answer in answers(prompts, context(tmp_path, provider))] == ["ok"] * 40
    assert {provider.paid[prompt] for prompt in kept} == {1}


@pytest.mark.parametrize("rows", [4, 16, 23])
def test_requests_that_fail_to_be_read_leave_nothing_to_be_sent(rows: int, provider: Provider, tmp_path: Path) -> None:
    """Nobody would wait for the answers: the run ends, and they are paid and lost. Sixteen are read ahead."""
    provider.latency = 0.02

    def requests() -> Iterator[tuple[Ask, Callable[[str], str | None]]]:
        yield from ((ask(f"row {row}"), fine) for row in range(rows))
        raise KeyError("a template that cannot be filled in")

    with pytest.raises(KeyError):
        list(teacher().ask(requests(), context(tmp_path, provider, concurrency=4)))
    paid = dict(provider.paid)
    assert paid.keys() <= {f"row {row}" for row in range(rows)}
    assert bool(paid) == (rows >= 16)
    assert {entry.messages[-1]["content"] for entry in Journal(tmp_path / "journal")} == set(paid)
    assert answers(["afterwards"], context(tmp_path, provider))[0].cause == "ok"
    assert dict(provider.paid) == {**paid, "afterwards": 1}, "nothing was sent since"


def test_order_size_concurrency_provider_and_endpoint_re_pay_nothing(provider: Provider, tmp_path: Path) -> None:
    prompts = [f"row {row}" for row in range(30)]
    first = answers(prompts, context(tmp_path, provider))
    with Provider() as elsewhere:
        ctx = context(tmp_path, elsewhere, concurrency=3)
        other = teacher(LitellmTeacher)
        assert answers(prompts[::-1], ctx, by=other) == first[::-1]
        answers([*prompts, "one more"], ctx, by=other)
        assert list(elsewhere.arrivals) == ["one more"]
        list(other.ask([(ask(prompt, temperature=0.5), fine) for prompt in prompts], ctx))
        assert len(elsewhere.arrivals) == 31
    assert teacher().recipe() == other.recipe()


def test_sent_equals_recorded(provider: Provider, tmp_path: Path) -> None:
    prompts = [
        "<script>{{ 7*7 }}</script>",
        "\x1b[31mred\x1b[0m",
        "../../etc/passwd",
        "nul \x00 lone \ud800",
        "{x} %s ’",
    ]
    ctx = context(tmp_path, provider)
    found = answers(prompts, ctx)
    assert sorted(body["messages"][-1]["content"] for body in provider.bodies) == sorted(prompts)  # type: ignore[index]
    recorded = {entry.messages[-1]["content"]: entry for entry in Journal(tmp_path / "journal")}
    assert set(recorded) == set(prompts)
    assert recorded["nul \x00 lone \ud800"].text.endswith("\ud800")
    assert all(answer.model_dump_json() for answer in found), "what is handed on can be written as UTF-8"


def test_requests_are_read_lazily_and_answers_come_in_order(provider: Provider, tmp_path: Path) -> None:
    read = []

    def endless() -> Iterator[tuple[Ask, Callable[[str], str | None]]]:
        for row in range(10**9):
            read.append(row)
            yield ask(f"row {row}" + (" | slow:0.1" if row % 7 == 0 else "")), fine

    ctx = context(tmp_path, provider, concurrency=4)
    stream = teacher().ask(endless(), ctx)
    first = [next(stream) for _ in range(40)]
    assert [answer.text.partition(" to row ")[2].split(" ")[0] for answer in first] == [str(row) for row in range(40)]
    stream.close()
    assert len(read) <= 40 + 4 * 4
    assert provider.most_in_flight <= 4
    assert ctx.tally.cost["calls"] == 40
    kept = {entry.messages[-1]["content"] for entry in Journal(tmp_path / "journal")}
    assert kept == set(provider.paid), "answers that were in flight when the caller left are kept"


def test_answers_behind_a_slow_one_are_progress(tmp_path: Path, provider: Provider) -> None:
    told: list[int] = []

    class Waits(OpenAICompatibleTeacher):
        async def send(self, call: Call, runtime: Runtime, seconds: float) -> Reply:
            while call.ask.prompt == "row 1" and told[-1:] != [29]:
                await asyncio.sleep(0.01)
            return await super().send(call, runtime, seconds)

    ctx = context(tmp_path, provider, concurrency=32)
    ctx.send = lambda event: told.append(event["done"]) if event["event"] == "progress" else None
    rows = ((row, (ask(f"row {row}"), fine)) for row in range(30))
    for done, (row, answer) in enumerate(ask_in_order(teacher(Waits), rows, ctx), 1):
        assert row == done - 1
        assert answer is not None
        ctx.progress(done, 30, "calls")
    assert told[0] == 1
    assert told[-2:] == [29, 30], "29 are there while the second is waited for, and none is taken back"
    assert told == sorted(told)
