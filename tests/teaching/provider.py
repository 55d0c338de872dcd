"""A provider with every fault a provider can have: an OpenAI-compatible server on the loopback.

What it does with a prompt stands in the prompt: `row 7 | 429 cut ok` is turned away at its first arrival, cut off at
its second and answered at its third and at every later one.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from aiohttp import web

Request = web.Request
Response = web.StreamResponse


class Provider:
    """Runs on a thread of its own between `__enter__` and `__exit__`."""

    def __init__(self, latency: float = 0.0, places: int | None = None, per_second: float | None = None) -> None:
        self.latency = latency
        self.places = places
        """Requests served at once; more are turned away with 429."""
        self.per_second = per_second
        """Answers a second (a token bucket of a tenth of it); more are turned away with 429."""
        self.arrivals: Counter[str] = Counter()
        """Requests by prompt."""
        self.paid: Counter[str] = Counter()
        """Whole answers sent, by prompt."""
        self.answered: list[float] = []
        """When each whole answer was sent."""
        self.headers: list[dict[str, str]] = []
        self.bodies: list[dict[str, object]] = []
        self.times: dict[str, list[float]] = {}
        self.answer: Callable[[str], str] | None = None
        """What is said to a prompt, instead of a few words."""
        self.steps: Callable[[str], str] = lambda prompt: prompt.partition("|")[2]
        """What is done with a prompt, arrival by arrival; where nothing is said, it is answered."""
        self.refuses: Callable[[dict[str, object]], str] = lambda body: ""
        """What is said against the fields of a request, as a 400; empty where they are taken."""
        self.key = ""
        """The only key that is let in, where there is one."""
        self.in_flight = self.most_in_flight = 0
        self.dead = 0
        """Connections that are still reset before the server lives again."""
        self.held = False
        """Whether answers are held back."""
        self.hung: Counter[str] = Counter()
        """Requests that are never answered, by prompt."""
        self._bucket, self._filled = 0.0, 0.0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.url = ""

    def __enter__(self) -> Provider:
        self._thread.start()
        assert self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application(client_max_size=1 << 30)
        self.add_roads(app)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.0)
        self._loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", 0)
        self._loop.run_until_complete(site.start())
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())

    def add_roads(self, app: web.Application) -> None:
        app.router.add_post("/v1/chat/completions", self._handle)

    async def _handle(self, request: Request) -> Response:
        body = await request.json()
        prompt = body["messages"][-1]["content"]
        arrival = self.arrivals[prompt]
        self.arrivals[prompt] += 1
        self.headers.append(dict(request.headers))
        self.bodies.append(body)
        self.times.setdefault(prompt, []).append(time.monotonic())
        if self.dead:
            self.dead -= 1
            return await _reset(request)
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            return await _leak(request, 401)
        if refused := self.refuses(body):
            return await _status(400, "", refused)(request)
        if self._too_much():
            return await _status(429)(request)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            steps = self.steps(prompt).split() or ["ok"]
            step, _, detail = steps[min(arrival, len(steps) - 1)].partition(":")
            if self.latency:
                await asyncio.sleep(self.latency)
            while self.held:
                await asyncio.sleep(0.01)
            self.hung[prompt] += step == "hang"
            if step in ("ok", "slow", "twice", "length", "filter", "refuse", "void", "say"):
                return await self._answer(request, prompt, step, detail)
            return await _FAULTS[step](detail)(request)
        finally:
            self.in_flight -= 1

    def _too_much(self) -> bool:
        if self.places is not None and self.in_flight >= self.places:
            return True
        if self.per_second is None:
            return False
        now = time.monotonic()
        self._bucket = min(self.per_second / 10, self._bucket + (now - self._filled) * self.per_second)
        self._filled = now
        if self._bucket < 1:
            return True
        self._bucket -= 1
        return False

    async def _answer(self, request: Request, prompt: str, step: str, detail: str) -> Response:
        if step == "slow":
            await asyncio.sleep(float(detail))
        self.paid[prompt] += 1
        self.answered.append(time.monotonic())
        if step == "say":
            return await _body(_SAID[detail](f"good answer {self.paid[prompt]} to {prompt}"))(request)
        finish = {"length": "length", "filter": "content_filter"}.get(step, "stop")
        text = "" if step == "void" else f"{detail or 'good'} answer {self.paid[prompt]} to {prompt}"
        text = self.answer(prompt) if self.answer is not None else text
        message = {"role": "assistant", "content": text, "refusal": "no" if step == "refuse" else None}
        body = json.dumps(
            {
                "id": f"x-{self.paid.total()}",
                "object": "chat.completion",
                "created": 1,
                "model": "served",
                "choices": [{"index": 0, "finish_reason": finish, "message": message}],
                "usage": {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150},
            }
        ).encode()
        if step == "twice":
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
            assert request.transport is not None
            request.transport.write((head + body) * 2)
            await asyncio.sleep(0.05)
            return await _reset(request)
        return web.Response(body=body, content_type="application/json")


_Said = Callable[[str], bytes]
USAGE = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}


def _said(
    message: object = None, usage: object = USAGE, raw: str | None = None, **other: Any
) -> Callable[[str], bytes]:
    """An envelope around an answer, whose text takes the place of TEXT; `raw` is put in the place of its usage."""

    def body(text: str) -> bytes:
        choice: dict[str, object] = {"index": 0, "finish_reason": other.get("finish", "stop")}
        choice["message"] = {"role": "assistant", "content": "TEXT"} if message is None else message
        fields = {"id": f"x-{text}", "object": "chat.completion", "created": 1, "model": "served", "choices": [choice]}
        fields |= {name: value for name, value in other.items() if name != "finish"}
        if usage is not None or raw is not None:
            fields["usage"] = "RAW" if raw is not None else usage
        whole = json.dumps(fields).replace('"RAW"', raw or "")
        return whole.replace("TEXT", json.dumps(text)[1:-1]).encode()

    return body


_SAID: dict[str, _Said] = {
    "plain": _said(),
    # usage
    "no_usage": _said(usage=None),
    "null_usage": _said(raw="null"),
    "list_usage": _said(usage=[1, 2]),
    "text_usage": _said(usage="many"),
    "empty_usage": _said(usage={}),
    "zero": _said(usage={"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}),
    "negative": _said(usage={"prompt_tokens": -5000, "completion_tokens": -90000, "total_tokens": -95000}),
    "nan": _said(raw='{"prompt_tokens": NaN, "completion_tokens": NaN, "total_tokens": NaN}'),
    "infinite": _said(raw='{"prompt_tokens": Infinity, "completion_tokens": 1e999, "total_tokens": 1}'),
    "strings": _said(usage={"prompt_tokens": "100", "completion_tokens": "fifty", "total_tokens": "x"}),
    "floats": _said(usage={"prompt_tokens": 100.5, "completion_tokens": 50.5, "total_tokens": 151.0}),
    "huge": _said(usage={"prompt_tokens": 10**30, "completion_tokens": 10**30, "total_tokens": 10**30}),
    "lists": _said(usage={"prompt_tokens": [100], "completion_tokens": {"n": 50}, "total_tokens": []}),
    "nulls": _said(usage={"prompt_tokens": None, "completion_tokens": None, "total_tokens": None}),
    # beside the text
    "list_details": _said(usage={**USAGE, "prompt_tokens_details": [1]}),
    "text_details": _said(usage={**USAGE, "prompt_tokens_details": "none"}),
    "null_details": _said(usage={**USAGE, "prompt_tokens_details": None, "completion_tokens_details": None}),
    "odd_details": _said(usage={**USAGE, "prompt_tokens_details": {"cached_tokens": "all"}}),
    "list_model": _said(model=["a", "b"]),
    "null_names": _said(model=None, id=None, object=None, created=None),
    "odd_finish": _said(finish={"reason": "stop"}),
    "no_finish": _said(finish=None),
    "text_created": _said(created="yesterday", system_fingerprint=[1]),
    "odd_refusal": _said({"role": None, "content": "TEXT", "refusal": None, "tool_calls": "none", "annotations": 7}),
    "unknown_fields": _said({"role": "assistant", "content": "TEXT", "audio": [], "x": {"y": 1}}, choices_count="1"),
    "empty_error": _said(error={"message": "", "code": None}),
    "null_error": _said(error=None),
    "bytes": lambda text: _said(note="NOTE")(text).replace(b"NOTE", b"\xff\xfe"),
    # content
    "parts": _said({"role": "assistant", "content": [{"type": "text", "text": "TEXT"}]}),
    "two_parts": _said(
        {"role": "assistant", "content": [{"type": "text", "text": "TEXT"}, {"type": "text", "text": ""}]}
    ),
    "thinking_part": _said(
        {
            "role": "assistant",
            "content": [{"type": "thinking", "thinking": "hm", "text": "hm"}, {"type": "text", "text": "TEXT"}],
        }
    ),
    "one_part": _said({"role": "assistant", "content": {"type": "text", "text": "TEXT"}}),
    "list_of_texts": _said({"role": "assistant", "content": ["TEXT"]}),
    "thought_beside": _said({"role": "assistant", "content": "TEXT", "reasoning_content": "hm"}),
    "thought_instead": _said({"role": "assistant", "content": "", "reasoning_content": '{"a": "TEXT"}'}),
    "reasoning_instead": _said({"role": "assistant", "content": None, "reasoning": '{"a": "TEXT"}'}),
    "draft_instead": _said({"role": "assistant", "content": "", "reasoning_content": 'Maybe {"a": "TEXT"}'}),
    "odd_thought_beside": _said({"role": "assistant", "content": "TEXT", "reasoning_content": [1], "reasoning": {}}),
    # no content
    "safety": _said({"role": "assistant", "content": None}, finish="safety"),
    "prohibited": _said({"role": "assistant", "content": None}, finish="PROHIBITED_CONTENT"),
    "prohibited_colon": _said({"role": "assistant", "content": None}, finish="content_filter: PROHIBITED_CONTENT"),
    "null_content": _said({"role": "assistant", "content": None}),
    "no_parts": _said({"role": "assistant", "content": []}),
    "only_thinking": _said({"role": "assistant", "content": [{"type": "thinking", "thinking": "hm"}]}),
}
"""What a 200 may look like around one and the same text."""


async def _leak_body(request: Request) -> Response:
    """Something that is no answer and repeats the key, as a proxy does that shows what it was sent."""
    return web.Response(body=repr(dict(request.headers)).encode(), content_type="application/json")


async def _leak(request: Request, status: int) -> Response:
    """An error that repeats the key, as some providers do."""
    message = f"Incorrect API key provided: {request.headers.get('Authorization')}"
    return web.json_response({"error": {"message": message}}, status=status)


Fault = Callable[[Request], Awaitable[Response]]


def _status(status: int, detail: str = "", text: str = "told off") -> Fault:
    async def respond(_: Request) -> Response:
        headers = {"Retry-After": detail} if detail else {}
        return web.json_response({"error": {"message": text, "code": None}}, status=status, headers=headers)

    return respond


async def _reset(request: Request) -> Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def _body(body: bytes, kind: str = "application/json", status: int = 200) -> Fault:
    async def respond(_: Request) -> Response:
        return web.Response(body=body, content_type=kind, status=status)

    return respond


async def _cut(request: Request) -> Response:
    response = web.StreamResponse(headers={"Content-Length": "5000", "Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(b'{"choices": [{"mess')
    assert request.transport is not None
    request.transport.abort()
    return response


async def _hang(_: Request) -> Response:
    await asyncio.sleep(60)
    return web.Response()


def _error(error: object, **fields: object) -> bytes:
    return json.dumps({"id": None, "choices": None, "usage": None, "error": error, **fields}).encode()


_ERRORS = {
    "401": _error({"message": "No auth credentials found", "code": 401}),
    "402": _error({"message": "Insufficient credits", "code": 402}),
    "429": _error({"message": "Rate limited upstream", "code": 429}),
    "500": _error({"message": "Internal error", "code": 500}),
    "502": _error({"message": "Provider returned error", "code": "502"}),
    "in_words": _error("the engine is overloaded, try again"),
    "403": _error({"message": "Input was flagged", "code": 403}),
    "unnamed": _error({"message": "this request cannot be answered"}, choices=[]),
    "in_choice": _error(None, choices=[{"index": 0, "error": {"message": "Provider down", "code": 503}}]),
    "null": _error(None),
    "none": _error(None, choices=[]),
}
"""Errors inside a 200."""

_FAULTS: dict[str, Callable[[str], Fault]] = {
    **{str(code): lambda detail, code=code: _status(code, detail) for code in (400, 401, 403, 404, 408, 409, 422)},
    **{str(code): lambda detail, code=code: _status(code, detail) for code in (429, 500, 502, 503, 529)},
    "leak401": lambda _: partial(_leak, status=401),
    "leak500": lambda _: partial(_leak, status=500),
    "leak200": lambda _: _leak_body,
    "reset": lambda _: _reset,
    "cut": lambda _: _cut,
    "hang": lambda _: _hang,
    "empty": lambda _: _body(b""),
    "html": lambda _: _body(b"<html><h1>502 Bad Gateway</h1></html>", "text/html"),
    "html500": lambda _: _body(b"<html><h1>502 Bad Gateway</h1></html>", "text/html", 502),
    "malformed": lambda _: _body(b'{"choices": [{"message": {"content": "half'),
    "shapeless": lambda _: _body(b'{"choices": [{"message": {"content": {"not": "text"}}}]}'),
    "filtered": lambda _: _status(400, "", "blocked by content_policy_violation"),
    "flagged": lambda _: _status(403, "", "Your input was flagged by moderation"),
    "invalid": lambda _: _status(400, "", "invalid_prompt: this request is against our usage policy"),
    "login": lambda _: _body(b"<html><title>Sign in</title><form>password</form></html>", "text/html"),
    "error": lambda detail: _body(_ERRORS[detail]),
    "overlong": lambda _: _status(400, "", "this model's maximum context length is 8192 tokens"),
    "broke": lambda _: _status(429, "", "You exceeded your current quota: insufficient_quota"),
}
