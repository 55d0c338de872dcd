"""A lean road to OpenAI-compatible servers (vLLM, llama.cpp, Ollama ...): aiohttp instead of litellm's 8 ms a call."""

from __future__ import annotations

from typing import Any, ClassVar

from speed.core.errors import UserError
from speed.core.spec import Json
from speed.runtime import Runtime
from speed.teaching.errors import Reply
from speed.teaching.openai_api import posted, read_as
from speed.teaching.requests import Call
from speed.teaching.secrets import public_url
from speed.teaching.teacher import JournaledTeacher


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
        fields: dict[str, Json] = {"model": self.model, "messages": call.messages, **call.params}
        fields.pop("retry", None)
        url = f"{str(runtime.api_base).rstrip('/')}/chat/completions"
        server = self.endpoint(runtime)
        body = await posted(url, fields, seconds, f"runtime.api_base={server}, teacher.model={self.model}")
        return read_as(body, lambda answer: _reply(answer, server))


def _reply(answer: Any, provider: str) -> Reply:
    choice = answer["choices"][0]
    message = choice["message"]
    text = message.get("content") or ""
    usage = answer.get("usage") or {}
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
        served_by=str(answer.get("model") or ""),
    )
