"""Passing faults: each request ends as one answer or one typed failure, whatever the provider does."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import threading
from pathlib import Path
from typing import Any

import pytest
import virtual_time
from provider import Provider
from quick_teacher import LONG, QUICK, answers, context, hurried, teacher

from speed.core.errors import UserError
from speed.core.ledger import total
from speed.core.store import Store
from speed.runtime import Context, Runtime
from speed.teaching.errors import Patience, TransportError, retry_after
from speed.teaching.journal import Journal
from speed.teaching.litellm_teacher import LitellmTeacher
from speed.teaching.openai_teacher import OpenAICompatibleTeacher
from speed.teaching.spending import ledger_of

pytestmark = pytest.mark.usefixtures("secret")


TRANSIENT = [
    *("429", "429:0.05", "500", "502", "503", "529", "408", "409", "cut", "reset", "hang"),
    *("empty", "html", "html500", "malformed", "shapeless", "slow:0.1", "twice"),
]


@pytest.mark.filterwarnings("ignore::UserWarning:pydantic")  # litellm's own, on the shapeless answer
@pytest.mark.parametrize("kind", [OpenAICompatibleTeacher, LitellmTeacher])
def test_every_passing_fault_ends_in_one_answer(kind: type[Any], provider: Provider, tmp_path: Path) -> None:
    prompts = [f"row {row} | {fault} ok" for row, fault in enumerate(TRANSIENT)]
    ctx = context(tmp_path, provider)
    found = answers(prompts, ctx, by=teacher(hurried(kind, provider), patience=LONG))
    assert [answer.cause for answer in found] == ["ok"] * len(prompts)
    assert [answer.text.partition(" to ")[2] for answer in found] == prompts
    assert set(provider.paid.values()) == {1}
    resent = {entry.messages[-1]["content"]: entry.resent for entry in Journal(tmp_path / "journal")}
    needed = {prompt: int(fault not in ("slow:0.1", "twice")) for prompt, fault in zip(prompts, TRANSIENT, strict=True)}
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
    quick = teacher(hurried(OpenAICompatibleTeacher, provider), patience=dataclasses.replace(LONG, attempts=2))
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


def test_a_server_that_dies_and_returns_loses_nothing(provider: Provider, tmp_path: Path) -> None:
    """It dies after its hundredth answer, and lives again when it was asked forty times in vain."""

    def answer(prompt: str) -> str:
        provider.dead = 40 if provider.paid.total() == 100 else provider.dead
        return f"answer to {prompt}"

    provider.answer = answer
    patient = teacher(patience=Patience(attempts=500, base=0.02, cap=0.1, timeout=300.0, window=10_000))
    prompts = [f"row {row}" for row in range(400)]
    ctx = context(tmp_path, provider, concurrency=4)
    found = answers(prompts, ctx, by=patient)
    assert [answer.cause for answer in found] == ["ok"] * 400
    assert set(provider.paid.values()) == {1}
    assert (provider.dead, ctx.tally.cost["resent"], provider.arrivals.total()) == (0, 40, 440)


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
        patient = teacher(patience=Patience(attempts=30, base=0.001, cap=0.01, timeout=300.0))
        try:
            found = answers(prompts, ctx, by=patient)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            server.close()
    assert [answer.text for answer in found] == prompts


def test_a_storm_of_429_passes(tmp_path: Path) -> None:
    """Every prompt is answered once; how fast is measured in virtual time, in test_pace.py."""
    with Provider(latency=0.02, places=8) as crowded:
        ctx = context(tmp_path, crowded, concurrency=64)
        found = answers([f"row {row}" for row in range(300)], ctx)
    assert {answer.cause for answer in found} == {"ok"}
    assert set(crowded.paid.values()) == {1}
    assert sum(crowded.arrivals.values()) == 300 + ctx.tally.cost["resent"]
    assert 0 < ctx.tally.cost["resent"] < 3000
