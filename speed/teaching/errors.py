"""What can come back from a provider: a reply, a trouble worth another try, or an error that ends the run.

Keys stay in the environment: whatever of it is written or shown goes through `redacted` first.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import os
import random
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import TypeVar
from urllib.parse import urlsplit

from speed.core.errors import UserError
from speed.core.spec import Json

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as the provider gave it; paid, whatever it says."""

    text: str
    thought: str = ""
    """Reasoning that came beside the text; it is no part of it."""
    finish_reason: str = ""
    refused: bool = False
    tokens_in: int | None = None
    """None where the provider said nothing that can be true."""
    tokens_out: int | None = None
    tokens_cached: int = 0
    provider: str = ""
    served_by: str = ""

    @property
    def cause(self) -> str:
        """What can be said of it without parsing."""
        if self.finish_reason == "length":
            return "truncated"
        if self.finish_reason == "content_filter":
            return "content_filter"
        if self.refused:
            return "refusal"
        return "ok" if self.text.strip() else "empty"


class TransportError(Exception):
    """A request that brought no answer. Never carries a key."""

    def __init__(
        self,
        cause: str,
        detail: str,
        *,
        again: bool = True,
        crowded: bool = False,
        limited: bool = False,
        retry_after: float | None = None,
        remedy: str = "",
        wants: str = "",
    ) -> None:
        super().__init__(f"{cause}: {detail}")
        self.cause = cause
        """http_4xx, http_5xx, timeout, connection, bad_response, content_filter or too_long."""
        self.detail = redacted(detail)[:500]
        self.again = again
        """Whether sending it again may help."""
        self.crowded = crowded or limited
        """Whether the server may be getting too much at once: then fewer are sent."""
        self.limited = limited
        """Whether it says so itself (429): then it is asked again for longer, since it is alive and not paid."""
        self.retry_after = retry_after
        self.remedy = remedy
        """What to look at where every request meets it."""
        self.wants = wants
        """What the server asks for instead, where it can be asked so: see `speed.teaching.dialect`."""

    @property
    def refused(self) -> bool:
        """Whether the provider refuses this request for good, and perhaps no other one."""
        return self.cause in ("content_filter", "too_long")


@dataclass(frozen=True)
class Patience:
    """How long transport failures are borne. Nothing here can change an answer."""

    attempts: int = 8
    """Sendings of one request that may fail, rate limits aside."""
    limited_seconds: float = 1800.0
    """How long a request may be rejected by rate limits."""
    base: float = 0.5
    """Seconds before the first resending; doubles each time."""
    cap: float = 30.0
    """Longest pause that is our own choice, in seconds."""
    timeout: float | None = None
    """Seconds for one sending; None: what the runtime says."""
    window: int = 64
    """Failed requests in a row after which the provider counts as gone."""

    async def resend(self, send: Callable[[int], Awaitable[T]]) -> T:
        """Send a request until it is answered or there is no more patience.

        Args:
            send: takes how often it was sent before.

        Raises:
            TransportError: the last trouble.
        """
        begun, failed = time.monotonic(), 0
        for resent in count():
            try:
                return await send(resent)
            except TransportError as trouble:
                failed += not trouble.limited
                too_late = trouble.limited and time.monotonic() - begun > self.limited_seconds
                if not trouble.again or too_late or failed >= self.attempts:
                    raise
                await asyncio.sleep(self.pause(trouble, resent))
        raise AssertionError("unreachable")

    def pause(self, trouble: TransportError, resent: int) -> float:
        """Seconds to wait after a failure: exponential, one half of it drawn at random, at least Retry-After.

        After a rate limit the pauses stay short: the pacer slows down for all, and a request that is asleep when the
        server has room again leaves that room unused.
        """
        longest = min(self.cap, 4.0 * self.base) if trouble.limited else self.cap
        own = min(longest, self.base * 2.0 ** min(resent, 60)) * random.uniform(0.5, 1.0)
        return own if trouble.retry_after is None else trouble.retry_after + 0.1 * own


_FILTERED = (
    *("content_filter", "content_policy_violation", "responsibleaipolicyviolation", "content management policy"),
    *("invalid_prompt", "flagged", "moderation", "safety system", "prohibited_content"),
)
_TOO_LONG = (
    *("context_length_exceeded", "contextwindowexceeded", "maximum context length"),  # OpenAI, LiteLLM, vLLM
    *("exceed_context_size", "larger than the max context size", "too large to process"),  # llama.cpp
    "exceeds the context length",  # Ollama
    "prompt is too long",  # Anthropic
    "exceeds the maximum number of tokens",  # Gemini
)
"""How servers say that a text is longer than the model reads; llama.cpp says it of embeddings with a 500."""
_BROKE = ("insufficient_quota", "billing_hard_limit_reached", "credit balance is too low")
AGAIN = frozenset({408, 409, 425, 429})
LEARNT = {
    "max_completion_tokens": (r"max_completion_tokens", "set teacher.max_completion_tokens=true"),
    "no response_format": (
        r"response_format|json_?schema|structured.outputs?|\bgrammar",
        "set teacher.structured=none",
    ),
}
"""What a server may ask for instead -> how a 400 says so, and our setting."""
_OURS = {
    r"temperature": "give the temperature that the model takes: sampling.teacher, judge.temperature, "
    "revisor.temperature",
    r"top_p": "set teacher.top_p to a value that the model takes",
    r"\bsystem\b.{0,20}\b(?:role|message|prompt|instruction)|\brole\b.{0,30}\bsystem\b|developer instruction": "set "
    "teacher.system= (empty): then no system message is sent",
    r"\bstream(?:ing)?\b.{0,40}(?:only|must|requir|enable)|(?:only|must|requir).{0,40}\bstream": "streamed answers are "
    "not supported: set teacher.model to another, or put a proxy in front of it that gathers the stream",
}
"""How a 400 names a parameter -> our setting. Every request would meet it."""


def failure_of(
    status: int,
    body: str,
    headers: Mapping[str, str],
    remedy: str,
    who: str = "the teacher",
    *,
    each_alone: bool = False,
) -> TransportError | UserError:
    """What an HTTP error means: worth another try, lost for this request alone, or an error of the whole run.

    Args:
        remedy: which environment variable or field to look at; it never holds the key.
        who: is asked.
        each_alone: a 400 or 422 may be about this request alone, since every request is another prompt.
    """
    said = _message(body)
    small = body.lower()
    if 400 <= status < 500 and status not in (401, 402, 429) and any(mark in small for mark in _FILTERED):
        return TransportError("content_filter", f"{status} {said}", again=False, remedy=remedy)
    if (400 <= status < 500 or status == 500) and any(mark in small for mark in _TOO_LONG):
        return TransportError(
            "too_long",
            said,
            again=False,
            remedy="set teacher.model to one with a longer context, or lower the stage's limit: limits.tasks, "
            "limits.example, limits.judgement or limits.revision",
        )
    if status == 402 or (status == 429 and any(mark in small for mark in _BROKE)):
        return UserError(f"{who}'s account has no credit left: {said}\n  add credit and run the same command again")
    if status in AGAIN or status >= 500:
        return TransportError(
            "http_5xx" if status >= 500 else "http_4xx",
            f"{status} {said}",
            crowded=status in (503, 529),
            limited=status == 429,
            retry_after=retry_after(headers),
        )
    if status == 413:
        return TransportError("too_long", f"{status} {said}", again=False, remedy=remedy)
    if each_alone and status in (400, 422):
        for wants, (how, setting) in LEARNT.items():
            if re.search(how, small):
                return TransportError("content_filter", f"{status} {said}", again=False, remedy=setting, wants=wants)
        for how, setting in _OURS.items():
            if re.search(how, small):
                return UserError(f"{who} refused the request with HTTP {status}: {said}\n  {setting}")
        return TransportError("content_filter", f"{status} {said}", again=False, remedy=remedy)
    return UserError(f"{who} refused the request with HTTP {status}: {said}\n  {remedy}")


def every_one_refused(model: str, count: int, detail: str, remedy: str) -> UserError:
    """The end of a run whose requests, so many by now, are all refused for good."""
    return UserError(f"the teacher {model} refused the last {count} requests, every one: {detail}\n  {remedy}")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait: Retry-After-Ms, or Retry-After as seconds or as a date."""
    found = {name.lower(): value for name, value in headers.items()}
    try:
        if "retry-after-ms" in found:
            return max(0.0, float(found["retry-after-ms"]) / 1000)
        if "retry-after" not in found:
            return None
        said = found["retry-after"].strip()
        if said.replace(".", "", 1).isdigit():
            return float(said)
        return max(0.0, email.utils.parsedate_to_datetime(said).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _message(body: str) -> str:
    """The provider's own words, shortened, without keys."""
    said: Json = None
    try:
        said = json.loads(body)
        said = said.get("error", said) if isinstance(said, dict) else said
        said = said.get("message", said) if isinstance(said, dict) else said
    except ValueError:
        pass
    return redacted(" ".join(str(said if said else body).split()))[:300]


_NAMES = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)
_SHAPES = re.compile(r"\b(?:sk|pk|gsk|xai|hf|AIza)[-_][A-Za-z0-9*_\-]{6,}|\bBearer\s+\S+", re.IGNORECASE)


def redacted(text: str) -> str:
    """The text without any secret of the environment, and without anything shaped like an API key."""
    for name, value in os.environ.items():
        if len(value) >= 8 and _NAMES.search(name) and value in text:
            text = text.replace(value, f"[{name}]")
    return _SHAPES.sub("[key]", text)


def public_url(url: str) -> str:
    """A URL without user, password, query and fragment."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"
