"""The teacher under every fault: each request ends as one answer or one typed failure, and none is paid twice."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import json
import logging
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import virtual_time
from conftest import HANG
from provider import Provider

from speed.core.errors import UserError
from speed.core.ledger import total
from speed.core.store import Store
from speed.data.records import Kind
from speed.ports import Answer, Ask
from speed.runtime import Context, Runtime
from speed.teaching.ask import REFUSED
from speed.teaching.errors import Patience, Reply, TransportError, public_url, redacted, retry_after
from speed.teaching.journal import Journal
from speed.teaching.litellm_teacher import LitellmTeacher
from speed.teaching.openai_teacher import KEY, OpenAICompatibleTeacher
from speed.teaching.requests import Call
from speed.teaching.session import session_at
from speed.teaching.spending import ledger_of
from speed.teaching.teacher import JournaledTeacher

SECRET = "planted-4f1d9c7a-secret"
QUICK = Patience(attempts=5, base=0.01, cap=0.05, timeout=30.0, window=64)
LONG = dataclasses.replace(QUICK, timeout=300.0)


class Priced(OpenAICompatibleTeacher):
    """A cent an answer of 50 tokens."""

    def dollars(self, tokens_in: int, tokens_out: int) -> float | None:
        return 0.0002 * tokens_out


def hurried(kind: type[Any]) -> type[Any]:
    """A teacher with a short limit for the prompts that are never answered, and a long one for all others."""

    class Hurried(kind):  # type: ignore[misc]
        async def send(self, call: Call, runtime: Runtime, seconds: float) -> Reply:
            return await super().send(call, runtime, 0.3 if "hang" in call.ask.prompt else seconds)

    return Hurried


def fine(_: str) -> str | None:
    return None


def good(text: str) -> str | None:
    return None if text.startswith("good") else "no_json"


def ask(prompt: str, index: int = 0, **fields: Any) -> Ask:
    given = {"temperature": 1.0, "max_tokens": 50, "purpose": "seed", "kind": Kind.STS}
    return Ask(prompt=prompt, index=index, **{**given, **fields})


def teacher(kind: type[JournaledTeacher] = OpenAICompatibleTeacher, patience: Patience = QUICK, **fields: Any) -> Any:
    made = kind(model="openai/rules" if issubclass(kind, LitellmTeacher) else "rules", **fields)
    made._patience = patience
    return made


def context(home: Path, provider: Provider, **runtime: Any) -> Context:
    store = Store(home)
    return Context(store=store.open(), runtime=Runtime(home=home, api_base=provider.url, **runtime))


def answers(
    prompts: list[str], ctx: Context, check: Callable[[str], str | None] = fine, by: Any = None
) -> list[Answer]:
    return list((by or teacher()).ask(((ask(prompt), check) for prompt in prompts), ctx))


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as serving:
        yield serving


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (KEY, "OPENAI_API_KEY"):
        monkeypatch.setenv(name, SECRET)


# -- faults ------------------------------------------------------------------------------------------------------------

TRANSIENT = [
    *("429", "429:0.05", "500", "502", "503", "529", "408", "409", "cut", "reset", "hang"),
    *("empty", "html", "html500", "malformed", "shapeless", "slow:0.1", "twice"),
]


@pytest.mark.filterwarnings("ignore::UserWarning:pydantic")  # litellm's own, on the shapeless answer
@pytest.mark.parametrize("kind", [OpenAICompatibleTeacher, LitellmTeacher])
def test_every_passing_fault_ends_in_one_answer(kind: type[Any], provider: Provider, tmp_path: Path) -> None:
    prompts = [f"row {row} | {fault} ok" for row, fault in enumerate(TRANSIENT)]
    ctx = context(tmp_path, provider)
    found = answers(prompts, ctx, by=teacher(hurried(kind), patience=LONG))
    assert [answer.cause for answer in found] == ["ok"] * len(prompts)
    assert [answer.text.partition(" to ")[2] for answer in found] == prompts
    assert set(provider.paid.values()) == {1}
    resent = {entry.messages[-1]["content"]: entry.resent for entry in Journal(tmp_path / "journal")}
    needed = {prompt: int(fault not in ("slow:0.1", "twice")) for prompt, fault in zip(prompts, TRANSIENT, strict=True)}
    hangs = prompts[TRANSIENT.index("hang")]  # has a short limit, which a busy machine may reach once more
    assert resent.pop(hangs) >= needed.pop(hangs)
    assert resent == needed
    assert {prompt: provider.arrivals[prompt] for prompt in needed} == {prompt: 1 + needed[prompt] for prompt in needed}
    assert ctx.tally.cost == {
        "calls": len(prompts),
        "resent": sum(entry.resent for entry in Journal(tmp_path / "journal")),
        "tokens_in": 100 * len(prompts),
        "tokens_out": 50 * len(prompts),
    }


def test_a_second_run_asks_only_for_what_failed(provider: Provider, tmp_path: Path) -> None:
    lasting = {"500": "http_5xx", "409": "http_4xx", "cut": "connection", "hang": "timeout", "html": "bad_response"}
    prompts = [f"row {row} | {fault}" for row, fault in enumerate(lasting)] + [f"fine {row}" for row in range(20)]
    quick = teacher(hurried(OpenAICompatibleTeacher), patience=dataclasses.replace(LONG, attempts=2))
    ctx = context(tmp_path, provider)
    found = answers(prompts, ctx, by=quick)
    assert [answer.cause for answer in found] == [*lasting.values(), *["ok"] * 20]
    assert all(answer.detail for answer in found[: len(lasting)])
    causes = {cause: ctx.tally.cost[cause] for cause in lasting.values()}
    assert causes == dict.fromkeys(lasting.values(), 1)
    assert ctx.tally.cost["calls"] == 25
    first = provider.arrivals.copy()
    again = context(tmp_path, provider)
    answers(prompts, again, by=quick)
    asked = provider.arrivals - first
    assert set(asked) == {prompt for prompt in prompts if "|" in prompt}
    assert again.tally.cost["cached"] == 20
    assert again.tally.cost["calls"] == 5
    lines = ledger_of(Journal(tmp_path / "journal"))
    assert total(lines).calls == 25 + 5
    assert {line.cause: line.calls for line in lines} == {"ok": 20, **dict.fromkeys(lasting.values(), 2)}


def test_retry_after_is_obeyed_and_backoff_is_jittered(provider: Provider, tmp_path: Path) -> None:
    answers([f"a {row} | 429:0.3 ok" for row in range(3)], context(tmp_path, provider))
    for first, second in provider.times.values():
        assert second - first >= 0.3
    patience, trouble = Patience(base=1.0, cap=8.0), TransportError("http_5xx", "")
    pauses = [[patience.pause(trouble, resent) for _ in range(50)] for resent in range(6)]
    for resent, drawn in enumerate(pauses):
        highest = min(8.0, 2.0**resent)
        assert all(highest / 2 <= pause <= highest for pause in drawn)
        assert len(set(drawn)) == 50


def test_rate_limits_are_borne_for_longer_than_failures() -> None:
    limited, failing = TransportError("http_4xx", "", limited=True), TransportError("http_5xx", "")

    def sendings(troubles: list[TransportError]) -> int:
        sent = []

        async def send(resent: int) -> None:
            sent.append(resent)
            raise troubles[resent]

        with pytest.raises(TransportError):
            virtual_time.run(Patience(attempts=3, base=0.0).resend(send))
        assert sent == list(range(len(sent)))
        return len(sent)

    assert sendings([failing] * 9) == 3
    assert sendings([limited] * 5 + [failing] * 9) == 8
    assert sendings([TransportError("too_long", "", again=False)]) == 1


def test_retry_after_is_read_in_all_its_forms() -> None:
    assert retry_after({"Retry-After": "7"}) == 7.0
    assert retry_after({"retry-after-ms": "250", "retry-after": "7"}) == 0.25
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({}) is None


def test_21_bad_answers_in_512_trip_nothing(provider: Provider, tmp_path: Path) -> None:
    prompts = [f"row {row}" + (" | 500" if row % 25 == 0 else "") for row in range(512)]
    quick = teacher(patience=Patience(attempts=1, base=0.01, window=8))
    found = answers(prompts, context(tmp_path, provider), by=quick)
    assert [answer.cause for answer in found].count("http_5xx") == 21
    assert [answer.cause for answer in found].count("ok") == 491
    first = provider.arrivals.copy()
    assert first.total() == 512
    again = context(tmp_path, provider)
    answers(prompts, again, by=teacher(patience=dataclasses.replace(QUICK, attempts=1)))
    assert set(provider.arrivals - first) == {prompt for prompt in prompts if "|" in prompt}
    assert {line.cause: (line.calls, line.cached) for line in again.tally.ledger.lines()} == {
        "http_5xx": (21, 0), "ok": (0, 491),
    }  # fmt: skip


STEPS = {"500": "http_5xx", "503": "http_5xx", "409": "http_4xx", "cut": "connection", "reset": "connection"}
STEPS |= {"empty": "bad_response", "html": "bad_response", "malformed": "bad_response"}


def test_a_thousand_faults_at_once_add_up(provider: Provider, tmp_path: Path) -> None:
    """Up to four faults a row, three sendings each: what comes of it, and how often, stands in its prompt."""
    draw, prompts, causes, sendings = random.Random(7), [], [], []
    for row in range(400):
        steps = draw.choices(list(STEPS), k=draw.randrange(5))
        prompts.append(f"row {row} | {' '.join([*steps, 'ok'])}")
        causes.append("ok" if len(steps) < 3 else STEPS[steps[2]])
        sendings.append(min(3, len(steps) + 1))
    ctx = context(tmp_path, provider)
    found = answers(prompts, ctx, by=teacher(patience=dataclasses.replace(QUICK, attempts=3, window=1000)))
    assert [answer.cause for answer in found] == causes
    assert [provider.arrivals[prompt] for prompt in prompts] == sendings
    assert ctx.tally.cost["resent"] == sum(sendings) - 400
    assert ctx.tally.cost["calls"] == 400
    told = {line.cause: line.calls for line in ctx.tally.ledger.lines()}
    assert told == {cause: causes.count(cause) for cause in set(causes)}
    assert set(provider.paid) == {prompt for prompt, cause in zip(prompts, causes, strict=True) if cause == "ok"}
    assert set(provider.paid.values()) == {1}


def test_a_provider_that_is_gone_ends_the_run(provider: Provider, tmp_path: Path) -> None:
    quick = teacher(patience=Patience(attempts=2, base=0.001, window=20))
    with pytest.raises(UserError, match=r"is gone.*\n.*same command again"):
        answers([f"row {row} | 500" for row in range(5000)], context(tmp_path, provider), by=quick)
    assert len(provider.arrivals) < 300


@pytest.mark.parametrize("seconds", [0.8, pytest.param(10.0, marks=pytest.mark.slow)])
def test_a_server_that_dies_and_returns_loses_nothing(provider: Provider, tmp_path: Path, seconds: float) -> None:
    provider.latency = 0.02
    patient = teacher(patience=Patience(attempts=500, base=0.02, cap=0.1, timeout=30.0, window=10_000))
    threading.Timer(0.1, setattr, (provider, "dead", True)).start()
    threading.Timer(0.1 + seconds, setattr, (provider, "dead", False)).start()
    prompts = [f"row {row}" for row in range(400)]
    found = answers(prompts, context(tmp_path, provider, concurrency=4), by=patient)
    assert [answer.cause for answer in found] == ["ok"] * 400
    assert set(provider.paid.values()) == {1}


def test_the_same_answer_of_another_server_is_no_echo(tmp_path: Path) -> None:
    for name in ("one", "another"):
        with Provider() as serving:
            answers(["same"], context(tmp_path / name, serving))
            assert serving.paid["same"] == 1, name


def test_an_answer_that_comes_twice_is_never_given_to_the_next_prompt(tmp_path: Path) -> None:
    """A raw server repeats each answer 20 ms later on the kept-alive connection."""
    import asyncio

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served = 0
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
                prompt = json.loads(await reader.readexactly(length))["messages"][-1]["content"]
                served += 1
                choice = {"message": {"content": prompt}, "finish_reason": "stop"}
                body = json.dumps({"id": f"{id(writer)}-{served}", "choices": [choice]}).encode()
                message = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
                writer.write(message)
                await asyncio.sleep(0.02)
                writer.write(message)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    with asyncio.Runner() as runner:  # which ends what still serves, and closes its loop
        loop = runner.get_loop()
        server = runner.run(asyncio.start_server(serve, "127.0.0.1", 0))
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        ctx = Context(Store(tmp_path).open(), Runtime(api_base=url, concurrency=3))
        prompts = [f"row {row}" for row in range(60)]
        patient = teacher(patience=Patience(attempts=30, base=0.001, cap=0.01, timeout=5.0))
        try:
            found = answers(prompts, ctx, by=patient)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            server.close()
    assert [answer.text for answer in found] == prompts


# -- content -----------------------------------------------------------------------------------------------------------


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


# -- never twice -------------------------------------------------------------------------------------------------------


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


# -- limits ------------------------------------------------------------------------------------------------------------


def test_the_cap_holds_and_the_same_command_goes_on(provider: Provider, tmp_path: Path) -> None:
    provider.latency = 0.01
    prompts = [f"row {row}" for row in range(100)]
    with pytest.raises(UserError, match=r"max_usd=0.2 is reached.*\n.*larger runtime.max_usd") as stopped:
        answers(prompts, context(tmp_path, provider, max_usd=0.2, concurrency=16), by=teacher(Priced))
    assert sum(provider.paid.values()) == 20, "a cent each, twenty cents"
    assert "$0.2000 paid under this root" in str(stopped.value)
    causes = {line.cause: line.calls for line in ledger_of(Journal(tmp_path / "journal"))}
    assert causes.keys() == {"ok", "budget"}
    assert causes["ok"] == 20
    assert 1 <= causes["budget"] <= 16, "each request that the cap kept from being sent"
    found = answers(prompts, context(tmp_path, provider), by=teacher(Priced))
    assert [answer.cause for answer in found] == ["ok"] * 100
    assert set(provider.paid.values()) == {1}


@pytest.mark.parametrize(("cap", "answers_bought"), [("max_calls", 20), ("max_tokens", 20), ("max_usd", 20)])
def test_each_cap_bounds_what_the_root_ever_paid(
    cap: str, answers_bought: int, provider: Provider, tmp_path: Path
) -> None:
    """A hundred tokens in, fifty out, a cent. The estimate before a call is one of at most 168 tokens."""
    provider.latency = 0.01
    size = {"max_calls": 20, "max_tokens": 20 * 150 + 30, "max_usd": 0.2}[cap]
    program = [f"row {row} {'x' * 250}" for row in range(100)]
    answers(program[:5], context(tmp_path, provider), by=teacher(Priced))
    for _ in range(2):
        with pytest.raises(UserError, match=rf"runtime\.{cap}={size:g} is reached.*in all its runs"):
            answers(program, context(tmp_path, provider, concurrency=16, **{cap: size}), by=teacher(Priced))
        assert sum(provider.paid.values()) == answers_bought
    found = answers(program, context(tmp_path, provider, **{cap: 10_000_000}), by=teacher(Priced))
    assert {answer.cause for answer in found} == {"ok"}
    assert set(provider.paid.values()) == {1}


def test_processes_that_share_a_root_share_the_places_in_flight(tmp_path: Path) -> None:
    with Provider(latency=0.05) as provider:
        asked: list[tuple[float, str, int]] = []

        def answer(prompt: str) -> str:
            asked.append((time.monotonic(), prompt.split()[0], provider.in_flight))
            return f"answer to {prompt}"

        provider.answer = answer
        running = [capped(provider, tmp_path, name, 1200, 1_000_000) for name in ("one", "two")]
        go(running)
        for process in running:
            process.communicate(timeout=HANG)
        assert [process.returncode for process in running] == [0, 0]
    began = max(next(at for at, name, _ in asked if name == wanted) for wanted in ("one", "two"))
    ended = min(max(at for at, name, _ in asked if name == wanted) for wanted in ("one", "two"))
    settled = (began + ended) / 2  # each looks for others once a second
    together = [places for at, _, places in asked if settled < at < ended]
    assert len(together) > 100, "both asked at once for a while"
    assert max(together) <= 16, "runtime.concurrency is for all processes together"
    assert max(places for *_, places in asked) <= 2 * 16


CAPPED = """
import aiohttp, sys  # which takes a second, before they begin together
from pathlib import Path
from types import SimpleNamespace
from speed.teaching.openai_teacher import OpenAICompatibleTeacher
from speed.runtime import Context, Runtime
from speed.core.errors import UserError
from speed.core.store import Store
from speed.ports import Ask
url, home, name, rows, cap = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
ctx = Context(Store(home).open(), Runtime(home=home, api_base=url, concurrency=16, max_calls=cap))
asks = (Ask(prompt=f"{name} {row}", temperature=1.0, max_tokens=9, purpose="seed") for row in range(rows))
print("ready", flush=True)
input()
try:
    for answer in OpenAICompatibleTeacher(model="m").ask(((ask, lambda _: None) for ask in asks), ctx):
        pass
except UserError as error:
    print(error)
    sys.exit(3)
"""


def capped(provider: Provider, home: Path, name: str, rows: int, cap: int) -> subprocess.Popen[str]:
    """A process that asks so many rows once it is told to."""
    command = [sys.executable, "-c", CAPPED, provider.url, str(home), name, str(rows), str(cap)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def go(running: list[subprocess.Popen[str]]) -> None:
    """Let processes begin together."""
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()


def test_processes_that_share_a_root_share_the_cap(provider: Provider, tmp_path: Path) -> None:
    provider.latency = 0.02
    running = [capped(provider, tmp_path, name, 200, 150) for name in ("one", "two", "three")]
    go(running)
    said = [process.communicate(timeout=HANG)[0] for process in running]
    assert [process.returncode for process in running] == [3, 3, 3]
    assert all("runtime.max_calls=150 is reached: 150 calls paid under this root" in text for text in said)
    assert sum(provider.paid.values()) == 150
    assert set(provider.paid.values()) == {1}


def test_a_silent_server_ends_the_run_with_the_reason(provider: Provider, tmp_path: Path) -> None:
    """Every sending runs into its timeout; nothing is ever said, and there is patience for hours of it."""
    patient = teacher(hurried(OpenAICompatibleTeacher), patience=dataclasses.replace(LONG, attempts=10_000))
    assert [answer.cause for answer in answers(["fine"], context(tmp_path, provider), by=patient)] == ["ok"]
    ctx = context(tmp_path, provider, watchdog_seconds=2.0)
    with pytest.raises(UserError, match=r"said nothing for \d+ s .*watchdog_seconds=2.*\n.*same command goes on"):
        answers(["fine"] + [f"row {row} | hang" for row in range(20)], ctx, by=patient)
    assert [entry.messages[-1]["content"] for entry in Journal(tmp_path / "journal")] == ["fine"]


def test_a_request_that_is_sent_again_is_told_once(provider: Provider, tmp_path: Path) -> None:
    """Of 300 s by default; here the limit is another."""
    said: list[dict[str, Any]] = []
    ctx = context(tmp_path, provider, request_seconds=0.5)
    ctx.send = said.append
    patient = teacher(patience=dataclasses.replace(QUICK, timeout=None, attempts=500))
    assert [answer.cause for answer in answers([f"row {row} | hang ok" for row in range(3)], ctx, by=patient)] == [
        "ok"
    ] * 3
    told = [event["message"] for event in said if "runtime.request_seconds" in str(event.get("message"))]
    assert len(told) == 1
    assert "has not answered a request within 0.5 s" in told[0]
    assert ctx.tally.cost["resent"] >= 3


def test_a_server_that_only_refuses_is_not_silent(
    provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks for pauses that are longer than the watchdog waits; a clock that is set forward stands for each."""
    skipped = [0.0]

    class Skipping(Patience):
        def pause(self, trouble: TransportError, resent: int) -> float:
            skipped[0] += super().pause(trouble, resent)
            return 1.5  # the watchdog looks once a second

    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + skipped[0], time=time.time)
    monkeypatch.setattr("speed.teaching.ask.time", clock)
    patient = teacher(patience=Skipping(**{**dataclasses.asdict(LONG), "attempts": 10_000}))
    ctx = context(tmp_path, provider, watchdog_seconds=1000.0)
    assert answers(["row 0 | 503:2000 503:2000 ok"], ctx, by=patient)[0].cause == "ok"
    assert skipped[0] > 4000


def test_an_unknown_price_is_said_and_never_nought(provider: Provider, tmp_path: Path) -> None:
    said: list[dict[str, Any]] = []
    ctx = context(tmp_path, provider)
    ctx.send = said.append
    unknown = OpenAICompatibleTeacher(model="nobody-knows-me")
    assert len(list(unknown.ask([(ask("a"), fine)], ctx))) == 1
    assert ctx.tally.dollars is None
    assert any("price of nobody-knows-me is unknown" in event["message"] for event in said)
    assert unknown.price(1, 2, 3).dollars is None
    with pytest.raises(UserError, match="cannot be kept"):
        list(unknown.ask([(ask("b"), fine)], context(tmp_path, provider, max_usd=1.0)))


@pytest.mark.parametrize(
    ("fault", "words"),
    [("400", "400"), ("401", KEY), ("403", KEY), ("404", "teacher.model=rules"), ("broke", "no credit")],
)
def test_what_no_retry_can_mend_ends_the_run_with_the_remedy(
    fault: str, words: str, provider: Provider, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as raised:
        answers([f"row {row} | {fault}" for row in range(200)], context(tmp_path, provider, concurrency=8))
    assert words in str(raised.value)
    assert SECRET not in str(raised.value)
    assert max(provider.arrivals.values()) == 1
    assert len(provider.arrivals) <= 8 + (REFUSED if fault == "400" else 0), "a 400 may be about one prompt"


def test_litellm_names_the_missing_key(provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    ctx = Context(Store(tmp_path).open(), Runtime())
    with pytest.raises(UserError, match="needs OPENAI_API_KEY in the environment"):
        answers(["a"], ctx, by=teacher(LitellmTeacher))


def test_no_server_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"runtime\.api_base=None"):
        answers(["a"], Context(Store(tmp_path).open(), Runtime()))


# -- pace --------------------------------------------------------------------------------------------------------------


def test_a_storm_of_429_passes(tmp_path: Path) -> None:
    """Every prompt is answered once; how fast is measured in virtual time, in test_pace.py."""
    with Provider(latency=0.02, places=8) as crowded:
        ctx = context(tmp_path, crowded, concurrency=64)
        found = answers([f"row {row}" for row in range(300)], ctx)
    assert {answer.cause for answer in found} == {"ok"}
    assert set(crowded.paid.values()) == {1}
    assert sum(crowded.arrivals.values()) == 300 + ctx.tally.cost["resent"]
    assert 0 < ctx.tally.cost["resent"] < 3000


# -- secrets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [OpenAICompatibleTeacher, LitellmTeacher])
def test_a_key_stands_in_no_file_log_or_message(
    kind: type[Any],
    provider: Provider,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    ctx = context(tmp_path, provider)
    ctx.send = lambda event: said.append(repr(event))
    with pytest.raises(UserError) as raised:
        answers(["a", "b | 500 ok", "c | leak500 ok", "d | leak500", "e | leak401"], ctx, by=teacher(kind))
    assert any(SECRET in value for headers in provider.headers for value in headers.values()), "the key was used"
    chain: BaseException | None = raised.value
    while chain is not None:
        assert SECRET not in repr(chain) + str(chain)
        chain = chain.__cause__ or (None if chain.__suppress_context__ else chain.__context__)
    session_at(tmp_path).journal.flush()
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".jsonl" for path in written)
    assert [path for path in written if SECRET.encode() in path.read_bytes()] == []
    shown = capfd.readouterr()
    assert SECRET not in shown.out + shown.err + " ".join(said)
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("speed")]
    assert SECRET not in " ".join(ours)


def test_redaction_knows_the_environment_and_the_shape_of_keys() -> None:
    assert SECRET not in redacted(f"bad key {SECRET}!")
    assert "abcdef" not in redacted("sk-proj-abcdef123456 and Bearer abcdef")
    assert public_url("https://user:pass@host:1/v1?key=x#y") == "https://host:1/v1"


# -- kills and the network ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "concurrency"), [(1500, 16), pytest.param(20_000, 64, marks=pytest.mark.slow)])
def test_kill_9_at_twenty_points_re_pays_at_most_what_was_in_flight(
    tmp_path: Path, rows: int, concurrency: int
) -> None:
    kills = 20
    with Provider(latency=0.01) as serving:
        script = Path(__file__).with_name("killable_program.py")
        command = [sys.executable, str(script), serving.url, str(tmp_path), str(rows), str(kills), str(concurrency)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=HANG, check=False)
        assert done.returncode == 0, done.stderr
        final = json.loads(done.stdout)
    assert final["killed"] == kills
    assert [text.partition(" to ")[2] for text in final["texts"]] == [f"row {row}" for row in range(rows)]
    assert len(serving.paid) == rows
    paid_again = sum(serving.paid.values()) - rows
    print(f"{rows} rows, {kills} kills, {concurrency} in flight: {paid_again} answers paid for again")
    assert paid_again <= kills * concurrency
    assert final["damaged"] == 0
    answered = [entry.key for entry in Journal(tmp_path / "journal") if entry.answered]
    assert len(answered) == len(set(answered)) == rows


def test_importing_and_making_a_teacher_is_instant_and_touches_no_network() -> None:
    program = """
import socket, sys
def refuse(*_, **__): raise AssertionError("network")
socket.socket.connect = socket.getaddrinfo = refuse
from speed.teaching.litellm_teacher import LitellmTeacher
from speed.teaching.openai_teacher import OpenAICompatibleTeacher
LitellmTeacher(model="gpt-4o").recipe(), OpenAICompatibleTeacher(model="x").recipe()
heavy = {"litellm", "aiohttp", "openai", "httpx", "torch", "numpy"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=HANG)


class Rules(LitellmTeacher):
    """A provider of our own, registered with litellm."""

    identity: ClassVar[str | None] = None

    def register(self) -> None:
        import litellm
        from litellm import CustomLLM, ModelResponse

        class Handler(CustomLLM):
            async def acompletion(self, *_: Any, **arguments: Any) -> ModelResponse:
                text = f"{arguments['optional_params']['temperature']} {arguments['messages'][-1]['content']}"
                choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
                response = ModelResponse(model="rules", choices=[choice])
                response.usage = litellm.Usage(prompt_tokens=3, completion_tokens=4, total_tokens=7)
                return response

        litellm.custom_provider_map = [{"provider": "miniature", "custom_handler": Handler()}]


def test_a_provider_of_our_own_is_free_and_asked_through_litellm(tmp_path: Path) -> None:
    ctx = Context(Store(tmp_path).open(), Runtime())
    rules = Rules(model="miniature/rules")
    found = list(rules.ask([(ask(f"row {row}"), fine) for row in range(20)], ctx))
    assert [answer.text for answer in found] == [f"1.0 row {row}" for row in range(20)]
    assert ctx.tally.cost == {"calls": 20, "tokens_in": 60, "tokens_out": 80}
    assert ctx.tally.dollars == 0.0
    assert rules.recipe()["class"] == "Rules"
