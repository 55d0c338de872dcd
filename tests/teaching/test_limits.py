"""Caps, places in flight and silence; what no retry can mend ends the run with the remedy."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import HANG
from provider import Provider
from quick_teacher import LONG, QUICK, SECRET, Priced, answers, ask, context, fine, hurried, teacher

from speed.core.errors import UserError
from speed.core.store import Store
from speed.runtime import Context, Runtime
from speed.teaching.ask import REFUSED
from speed.teaching.errors import Patience, TransportError
from speed.teaching.journal import Journal
from speed.teaching.litellm_teacher import LitellmTeacher
from speed.teaching.openai_teacher import KEY, OpenAICompatibleTeacher
from speed.teaching.spending import ledger_of

pytestmark = pytest.mark.usefixtures("secret")


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
        together: list[tuple[str, int]] = []

        def answer(prompt: str) -> str:
            together.append((prompt, provider.in_flight))
            return f"answer to {prompt}"

        provider.answer, provider.held = answer, True
        one, two = (capped(provider, tmp_path, name, 200, 1_000_000) for name in ("one", "two"))
        go([one])
        wait_until(lambda: provider.in_flight == 16)
        go([two])
        wait_until(lambda: provider.in_flight == 16 + 8)
        assert one.stdout is not None
        assert [one.stdout.readline(), one.stdout.readline()] == ["16 places\n", "8 places\n"]
        provider.held = False  # from here on each sends only where it has fewer than eight in flight
        said = [process.communicate(timeout=HANG)[0] for process in (one, two)]
        assert [process.returncode for process in (one, two)] == [0, 0]
    assert said[1].startswith("8 places\n")
    first = {f"one {row}" for row in range(16)}
    later = [places for prompt, places in together if prompt.startswith("one") and prompt not in first]
    assert len(later) == 200 - 16
    assert max(later) <= 16, "runtime.concurrency is for all processes together"


CAPPED = """
import aiohttp, sys  # which takes a second, before they begin together
from pathlib import Path
from speed.teaching import pace, spending
from speed.teaching.openai_teacher import OpenAICompatibleTeacher
from speed.runtime import Context, Runtime
from speed.core.errors import UserError
from speed.core.store import Store
from speed.ports import Ask
url, home, name, rows, cap = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
ctx = Context(Store(home).open(), Runtime(home=home, api_base=url, concurrency=16, max_calls=cap))
asks = (Ask(prompt=f"{name} {row}", temperature=1.0, max_tokens=9, purpose="seed") for row in range(rows))
pace.FIRST = 16  # all places at once
spending.LATELY = 1e9  # however slow the machine is, the other process is not taken for gone
share, told = spending.Neighbours.share, []

def tell(self, concurrency):
    places = share(self, concurrency)
    if told[-1:] != [places]:
        print(places, "places", flush=True)
    told.append(places)
    return places

spending.Neighbours.share = tell
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


def wait_until(happened: Callable[[], bool]) -> None:
    """Wait for another thread or process."""
    deadline = time.monotonic() + HANG
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


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
    kind = hurried(OpenAICompatibleTeacher, provider)
    patient = teacher(kind, patience=dataclasses.replace(LONG, attempts=10_000, base=0.3, cap=0.3))
    assert [answer.cause for answer in answers(["fine"], context(tmp_path, provider), by=patient)] == ["ok"]
    ctx = context(tmp_path, provider, watchdog_seconds=2.0)
    with pytest.raises(UserError, match=r"said nothing for \d+ s .*watchdog_seconds=2.*\n.*same command goes on"):
        answers(["fine"] + [f"row {row} | hang" for row in range(20)], ctx, by=patient)
    assert [entry.messages[-1]["content"] for entry in Journal(tmp_path / "journal")] == ["fine"]


@pytest.mark.parametrize("kind", [OpenAICompatibleTeacher, LitellmTeacher])
def test_a_request_that_is_sent_again_is_told_once(kind: type[Any], provider: Provider, tmp_path: Path) -> None:
    """Of 300 s by default; here the limit is another."""
    said: list[dict[str, Any]] = []
    ctx = context(tmp_path, provider, request_seconds=0.5)
    ctx.send = said.append
    patient = teacher(kind, patience=dataclasses.replace(QUICK, timeout=None, attempts=500))
    found = answers([f"row {row} | hang ok" for row in range(3)], ctx, by=patient)
    assert [answer.cause for answer in found] == ["ok"] * 3
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
