"""A teacher that waits for hundredths of a second between its tries, and what tests ask it."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from provider import Provider

from speed.core.store import Store
from speed.data.records import Kind
from speed.ports import Answer, Ask
from speed.runtime import Context, Runtime
from speed.teaching.errors import Patience, Reply, TransportError
from speed.teaching.litellm_teacher import LitellmTeacher
from speed.teaching.openai_teacher import OpenAICompatibleTeacher
from speed.teaching.requests import Call
from speed.teaching.teacher import JournaledTeacher

SECRET = "planted-4f1d9c7a-secret"
QUICK = Patience(attempts=5, base=0.01, cap=0.05, timeout=30.0, window=64)
LONG = dataclasses.replace(QUICK, timeout=300.0)


class Priced(OpenAICompatibleTeacher):
    """A cent an answer of 50 tokens."""

    def dollars(self, tokens_in: int, tokens_out: int) -> float | None:
        return 0.0002 * tokens_out


def hurried(kind: type[Any], provider: Provider) -> type[Any]:
    """A teacher whose time is up as soon as the provider leaves a request unanswered, and never before."""

    class Hurried(kind):  # type: ignore[misc]
        async def send(self, call: Call, runtime: Runtime, seconds: float) -> Reply:
            before = provider.hung[call.ask.prompt]
            sending = asyncio.ensure_future(super().send(call, runtime, seconds))
            try:
                while not sending.done() and provider.hung[call.ask.prompt] == before:
                    await asyncio.wait([sending], timeout=0.01)
                if not sending.done():
                    raise TransportError("timeout", "the provider hangs", crowded=True)
                return sending.result()
            finally:
                sending.cancel()

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
