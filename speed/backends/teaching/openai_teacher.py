"""A lean road to OpenAI-compatible servers (vLLM, llama.cpp, Ollama ...): aiohttp instead of litellm's 8 ms a call."""

from __future__ import annotations

import json
import os
from typing import ClassVar

from speed.backends.teaching.connections import connections
from speed.backends.teaching.request import Call
from speed.backends.teaching.secrets import public_url
from speed.backends.teaching.teacher import JournaledTeacher
from speed.backends.teaching.transport import Reply, TransportError, failure_of
from speed.core.context import Runtime
from speed.core.errors import UserError
from speed.core.spec import Json

KEY = "OPENAI_COMPATIBLE_API_KEY"
"""Environment variable of the server's key. Not OPENAI_API_KEY: that one must not travel to just any URL."""


class OpenAICompatibleTeacher(JournaledTeacher):
    """Asks `<runtime.api_base>/chat/completions`; `model` as the server names it."""

    heavy: ClassVar[tuple[str, ...]] = ("aiohttp",)

    def prepare(self, runtime: Runtime) -> None:
        """Look for the server's URL.

        Raises:
            UserError: when there is none.
        """
        if runtime.api_base is None or not runtime.api_base.startswith(("http://", "https://")):
            raise UserError(
                f"runtime.api_base={runtime.api_base}: teacher=openai_compatible needs the URL of its server\n"
                "  for example runtime.api_base=http://127.0.0.1:8000/v1"
            )

    def endpoint(self, runtime: Runtime) -> str:
        """The server's URL without credentials."""
        return public_url(runtime.api_base) if runtime.api_base else ""

    async def send(self, call: Call, runtime: Runtime, seconds: float) -> Reply:
        """One POST."""
        url = f"{str(runtime.api_base).rstrip('/')}/chat/completions"
        found = await connections().post(url, self._body(call), _headers(), seconds)
        if found.status != 200:
            raise failure_of(
                found.status,
                found.body.decode("utf-8", "replace"),
                found.headers,
                f"check runtime.api_base={self.endpoint(runtime)}, teacher.model={self.model} and the key in {KEY} "
                f"({'set' if os.environ.get(KEY) else 'not set'})",
            )
        return reply_in(found.body, self.endpoint(runtime))

    def _body(self, call: Call) -> bytes:
        fields: dict[str, Json] = {"model": self.model, "messages": call.messages, **call.params}
        fields.pop("retry", None)
        return json.dumps(fields).encode("ascii")


def reply_in(body: bytes, provider: str) -> Reply:
    """The reply in the body of a 200.

    Raises:
        TransportError: when it is not the API's JSON: an empty body, an error page, half a document.
    """
    try:
        fields = json.loads(body)
        choice = fields["choices"][0]
        message = choice["message"]
        text = message.get("content") or ""
        usage = fields.get("usage") or {}
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        if not isinstance(text, str):
            raise TypeError("content is not a text")
        return Reply(
            text=text,
            finish_reason=str(choice.get("finish_reason") or ""),
            refused=bool(message.get("refusal")),
            tokens_in=int(usage.get("prompt_tokens") or 0),
            tokens_out=int(usage.get("completion_tokens") or 0),
            tokens_cached=int(cached),
            provider=provider,
            served_by=str(fields.get("model") or ""),
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        shown = body[:200].decode("utf-8", "replace")
        raise TransportError("bad_response", f"{type(error).__name__} in {len(body)} bytes: {shown!r}") from None


def _headers() -> dict[str, str]:
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get(KEY):
        headers["Authorization"] = f"Bearer {key}"
    return headers
