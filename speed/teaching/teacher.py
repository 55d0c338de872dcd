"""A teacher behind the call journal: what every provider has in common."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field, PrivateAttr

from speed.core.errors import UserError
from speed.core.spec import Json, fields_of
from speed.core.work import Work
from speed.data.costs import prices as cost
from speed.data.prompts.worked_examples import MOST, identity, worked_examples
from speed.data.records import Kind
from speed.ports import Answer, Ask, Check, Teacher
from speed.runtime import Context, Runtime
from speed.teaching.ask import Asking
from speed.teaching.entry import key
from speed.teaching.errors import Patience, Reply
from speed.teaching.journal import answered_keys, holds_answers
from speed.teaching.requests import Call, Request
from speed.teaching.session import Session, session_at

PROVIDERS = frozenset(
    {
        *("anthropic", "azure", "azure_ai", "bedrock", "cerebras", "cohere", "cohere_chat", "custom_openai"),
        *("databricks", "deepinfra", "deepseek", "fireworks_ai", "gemini", "github", "groq", "hosted_vllm"),
        *("litellm_proxy", "llamafile", "lm_studio", "mistral", "nvidia_nim", "ollama", "ollama_chat", "openai"),
        *("openai_like", "openrouter", "perplexity", "sambanova", "together_ai", "vertex_ai", "vllm", "xai"),
    }
)
"""First words of a model's name that say who serves it, not what it is."""


Structured = Literal["none", "json_object", "json_schema"]


class JournaledTeacher(Teacher):
    """Asks a model through `send`, never twice for the same answer. Every field decides over
    results and is part of keys."""

    identity: ClassVar[str | None] = "Teacher"
    """Name in keys. Teachers that reach the same model by another road share it; a subclass whose answers differ
    sets its own (None: its class name)."""

    model: str
    """Name of the model; a provider in front of it (`azure/gpt-4o`) is not part of any key."""
    system: str = "You are a helpful assistant."
    """System message (the authors' released code); none when empty."""
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    """The paper: 1.0 (Appendix B)."""
    content_retries: int = Field(default=1, ge=0)
    """Paid second tries when an answer is of no use."""
    structured: Structured = "none"
    """What is asked of the provider (`response_format`): free text, as in the paper; any JSON object; or the very form
    of the answer. It is in the journal's key where it is used, and only there."""

    max_completion_tokens: bool | Literal["auto"] = "auto"
    """Whether the server takes `max_completion_tokens` for `max_tokens`; auto: learnt from its first refusal. In no
    key: the same is asked."""
    examples: int = Field(default=0, ge=0, le=MOST)
    """Worked examples of the same kind in front of each prompt (ours, for weak models). Part of the key where there are
    some, and only there."""
    ask_again: tuple[str, ...] = ()
    """Causes of rejection (empty, refusal, content_filter ...) for which an answer is asked for once more than
    `content_retries` says, after a fault of the provider is mended; the journal serves all other answers. Naming a
    cause twice asks twice more. Part of the key where it is set, and only there."""

    _patience: Patience = PrivateAttr(default_factory=Patience)

    def recipe(self) -> Json:
        """Identity: the model and how it is asked, not who serves it."""
        fields = {**fields_of(self), "model": self.model_name}
        del fields["max_completion_tokens"]
        del fields["examples"]
        if self.examples:
            fields["examples"] = identity(self.examples)
        if not self.ask_again:
            del fields["ask_again"]
        return {"class": self.identity or type(self).__name__, "version": self.version, **fields}

    @property
    def model_name(self) -> str:
        """The model without those who serve it: `openrouter/openai/gpt-4o` is `gpt-4o`."""
        return _without_providers(self.model)

    def costs_money(self, runtime: Runtime) -> bool:
        """See `speed.ports.Teacher`. A model without a known price may be the user's own."""
        return bool(self.dollars(10**6, 10**6))

    @property
    def tries(self) -> int:
        """See `speed.ports.Teacher`."""
        return 1 + self.content_retries + len(self.ask_again)

    @property
    def tried_again_by(self) -> str:
        """See `speed.ports.Teacher`."""
        again = f", teacher.ask_again={','.join(self.ask_again)}" if self.ask_again else ""
        return f"teacher.content_retries={self.content_retries}{again}"

    def named(self, model: str) -> JournaledTeacher:
        """See `speed.ports.Teacher`."""
        return self.model_copy(update={"model": model})

    def remarks(self) -> list[str]:
        """An unknown price."""
        if cost.price(self.model_name) is None:
            return [f"the price of {self.model_name} is unknown (not in the table of {cost.price_table().date})"]
        return []

    def check(self, runtime: Runtime) -> None:
        """Refuse a model that its provider has retired, unless the journal has answers of it.

        Raises:
            UserError: with models that are served.
        """
        known = cost.price(self.model_name)
        if known is None or known.ends is None or known.ends > time.strftime("%Y-%m-%d"):
            return
        if self.asks_openai(runtime) and not holds_answers(runtime.home.expanduser() / "journal", self.model_name):
            raise UserError(
                f"the teacher {self.model_name} is retired: OpenAI has not served it since {known.ends}\n"
                "  take teacher=gpt4o, set teacher.model to a model that is served, or give the endpoint that still "
                "serves this one (runtime.api_base=URL)"
            )

    def asks_openai(self, runtime: Runtime) -> bool:
        """Whether requests go to OpenAI itself, whose days of retirement the price table holds."""
        return runtime.api_base is not None and urlsplit(runtime.api_base).hostname == "api.openai.com"

    def ask(self, requests: Iterable[tuple[Ask, Check]], ctx: Context) -> Iterator[Answer]:
        """See `speed.ports.Teacher`. A check runs on the teacher's thread and must be a pure function of the text."""
        session = session_at(ctx.store.home, ctx.say)
        self._check_price(session, ctx)
        yield from Asking(session, self, ctx).answers(requests)

    @property
    def patience(self) -> Patience:
        """How long transport failures are borne."""
        return self._patience

    def price(self, calls: int, tokens_in: int, tokens_out: int) -> Work:
        """The work of so many calls at list price; dollars are None where the price is unknown."""
        waiting = cost.seconds(self.model_name, calls, tokens_out)
        return Work(calls, tokens_in, tokens_out, self.dollars(tokens_in, tokens_out), waiting=waiting)

    def dollars(self, tokens_in: int, tokens_out: int) -> float | None:
        """List price from the dated table; None when the model is not in it."""
        return cost.dollars(self.model_name, tokens_in, tokens_out)

    def prepare(self, runtime: Runtime) -> None:
        """Called on the caller's thread before the first call of an `ask` is sent: imports, checks, registration."""

    def endpoint(self, runtime: Runtime) -> str:
        """Who is asked, for the record and for sharing a pace; never with a key in it."""
        return self.model.rpartition("/")[0]

    @abstractmethod
    async def send(self, call: Call, runtime: Runtime, seconds: float) -> Reply:
        """Send a call once, for at most so many seconds.

        Raises:
            TransportError: no answer came.
            UserError: no later call can be answered either.
        """

    def request(self, ask: Ask, check: Check, place: int) -> Request:
        """A request with the first call that is to be made for it."""
        return Request(ask, check, place, self.content_retries, self._call, list(self.ask_again))

    def in_front(self, purpose: str, kind: Kind | None) -> str:
        """See `speed.ports.Teacher`."""
        return worked_examples(purpose, kind, self.examples) if self.examples else ""

    def journal_key(self, ask: Ask) -> str:
        """See `speed.ports.Teacher`."""
        return self._call(ask, 0, ask.max_tokens).key

    def journaled(self, keys: Iterable[str], home: Path) -> set[str]:
        """See `speed.ports.Teacher`."""
        return answered_keys(home / "journal", keys)

    def _call(self, ask: Ask, retry: int, max_tokens: int) -> Call:
        prompt = self.in_front(ask.purpose, ask.kind) + ask.prompt
        messages: tuple[dict[str, str], ...] = ({"role": "user", "content": prompt},)
        if self.system:
            messages = ({"role": "system", "content": self.system}, *messages)
        params: dict[str, Json] = {"temperature": ask.temperature, "top_p": self.top_p, "max_tokens": max_tokens}
        if (form := _response_format(self.structured, ask)) is not None:
            params["response_format"] = form
        if retry:
            params["retry"] = retry
        return Call(ask, messages, params, key(self.model_name, messages, params, ask.index))

    def _check_price(self, session: Session, ctx: Context) -> None:
        """An unknown price is said, and cannot be capped."""
        if self.dollars(1, 1) is not None:
            return
        if ctx.runtime.max_usd is not None:
            raise UserError(
                f"runtime.max_usd={ctx.runtime.max_usd:g} cannot be kept: the price of {self.model_name} is not in the "
                "price table\n  add it there, or set runtime.max_usd=null"
            )
        if self.model_name not in session.unpriced:
            session.unpriced.add(self.model_name)
            ctx.say(f"the price of {self.model_name} is unknown: dollars are not counted")


@lru_cache(maxsize=64)
def _without_providers(model: str) -> str:
    head, slash, rest = model.partition("/")
    while slash and head in PROVIDERS:
        head, slash, rest = rest.partition("/")
    return f"{head}{slash}{rest}"


def _response_format(structured: Structured, ask: Ask) -> Json:
    """`response_format` as OpenAI words it; None where the answer is free text."""
    if structured == "json_schema" and ask.form is not None:
        schema = {"name": ask.form.name, "strict": True, "schema": ask.form.body}
        return {"type": "json_schema", "json_schema": schema}
    return {"type": "json_object"} if structured == "json_object" else None
