"""Any provider, through litellm: the default teacher."""

from __future__ import annotations

import os
import re
import warnings
from contextlib import suppress
from typing import Any, ClassVar

from speed.core.errors import UserError
from speed.data.costs.prices import price
from speed.runtime import Runtime
from speed.teaching.envelope import json_in, refuse_login_page, reply_in
from speed.teaching.errors import Reply, TransportError, failure_of, public_url
from speed.teaching.requests import Call
from speed.teaching.teacher import JournaledTeacher

_PAGE = re.compile(r"Received: '(<.*)", re.DOTALL)
"""How litellm shows a body that is no JSON."""


OWN_PROGRAMS = frozenset({"hosted_vllm", "llamafile", "lm_studio", "ollama", "ollama_chat", "vllm"})
"""Providers that are programs on a machine of the user's own."""


class LitellmTeacher(JournaledTeacher):
    """Asks through `litellm.acompletion`; `model` as litellm names it (`azure/gpt-4o`, `ollama/llama3` ...)."""

    heavy: ClassVar[tuple[str, ...]] = (
        "litellm",
        *("litellm.litellm_core_utils.default_encoding", "litellm.proxy._types"),  # what its first call imports, 0.7 s
    )

    def register(self) -> None:
        """For subclasses with a provider of their own: add it to `litellm.custom_provider_map`. Called once a run."""

    def costs_money(self, runtime: Runtime) -> bool:
        """A model of a provider is paid for even where its price is unknown."""
        own = runtime.api_base is not None or self.model.partition("/")[0] in OWN_PROGRAMS
        return super().costs_money(runtime) or (self.dollars(1, 1) is None and not own)

    def options(self, call: Call) -> dict[str, Any]:
        """For subclasses: further arguments of `litellm.acompletion` for this call; they are in no key."""
        return {}

    def prepare(self, runtime: Runtime) -> None:
        """Import litellm (3 s), quiet and off the network, and look for the provider's key.

        Raises:
            UserError: when a key is missing (names its environment variable), or structured output.
        """
        litellm = _litellm()
        self.register()
        if runtime.api_base is None:
            for name in [name for name, value in os.environ.items() if name.endswith("_API_KEY") and not value]:
                del os.environ[name]  # an empty key is no key; litellm would try it, and try again
            missing = litellm.validate_environment(self.model)["missing_keys"]
            if missing:
                raise UserError(
                    f"teacher.model={self.model} needs {' and '.join(missing)} in the environment\n"
                    f"  export {missing[0]}=... and run the same command again"
                )
        self._check_structured()

    def _check_structured(self) -> None:
        """litellm leaves out what a provider does not take, and the answers would be other ones than the key says."""
        known = _litellm().get_supported_openai_params(model=self.model) or []
        if self.structured != "none" and "response_format" not in known:
            raise UserError(
                f"teacher.structured={self.structured}: {self.model} has no structured output: set it to none"
            )

    def asks_openai(self, runtime: Runtime) -> bool:
        """See `JournaledTeacher`; without a URL it is the provider that stands in front of the model's name."""
        if (runtime.api_base or os.environ.get("OPENAI_BASE_URL") or os.environ.get("OPENAI_API_BASE")) is not None:
            return super().asks_openai(runtime)
        return "/" not in self.model.removeprefix("openai/")

    def unready(self, runtime: Runtime) -> str:
        """Whether OpenAI would be asked without a key; what other providers need litellm knows, once it is imported."""
        priced = price(self.model_name) is not None
        if not (priced and self.asks_openai(runtime)) or os.environ.get("OPENAI_API_KEY"):
            return ""
        return f"teacher.model={self.model} needs OPENAI_API_KEY in the environment"

    def endpoint(self, runtime: Runtime) -> str:
        """The provider, or the server that `runtime.api_base` names."""
        return public_url(runtime.api_base) if runtime.api_base else super().endpoint(runtime)

    async def send(self, call: Call, runtime: Runtime, seconds: float) -> Reply:
        """One `acompletion`, without litellm's own retries."""
        litellm = _litellm()
        taken = ("temperature", "top_p", "max_tokens", "max_completion_tokens", "response_format")
        arguments = {name: call.params[name] for name in taken if name in call.params}
        if runtime.api_base is not None:
            arguments["api_base"] = runtime.api_base
        sent: list[str] = []
        """What the provider sent, before litellm reads it."""

        def keep(details: dict[str, Any]) -> None:
            if isinstance(body := details.get("original_response"), str):
                sent.append(body)

        try:
            response = await litellm.acompletion(
                model=self.model,
                messages=list(call.messages),
                timeout=seconds,
                num_retries=0,
                max_retries=0,
                drop_params=True,
                logger_fn=keep,
                **arguments,
                **self.options(call),
            )
        except Exception as error:
            failure: Exception | None = None
            body = _undecodable(error) or (sent[-1].encode("utf-8", "surrogatepass") if sent else b"")
            if b'"choices"' in body:  # an answer that litellm cannot read is paid for, an error is named
                try:
                    return _read(body, self.model.partition("/")[0], self._remedy(401))
                except (TransportError, UserError) as trouble:
                    failure = trouble
                except ValueError:
                    pass
            failure = failure or self._failure(error)
            if failure is None:
                raise
            raise failure from None
        return _reply(response, sent, self._remedy(401))

    def _failure(self, error: Exception) -> Exception | None:
        """The trouble behind an exception of litellm; None for a bug, which rises as it is."""
        litellm = _litellm()
        if page := _PAGE.search(str(error)):
            refuse_login_page(page[1].encode("utf-8", "replace"), self._remedy(401))
        if isinstance(error, (litellm.Timeout, TimeoutError)):
            return TransportError("timeout", "no answer in time", crowded=True)
        status, headers = _status(error)
        if status is not None and not isinstance(error, litellm.APIConnectionError):
            return failure_of(status, str(error), headers, self._remedy(status), each_alone=True)
        if isinstance(error, (litellm.exceptions.APIError, litellm.APIConnectionError, OSError)):
            return TransportError("connection", f"{type(error).__name__}: {error}")
        return None

    def _remedy(self, status: int) -> str:
        known = _litellm().validate_environment(self.model)["keys_in_environment"]
        key = f" and the key in {_key_name(self.model)}" if known or status in (401, 403) else ""
        return f"check teacher.model={self.model}{key}, then run the same command again"


def _litellm() -> Any:
    """litellm, without its price map from the network, its telemetry and its advertisements."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    litellm.telemetry = False
    litellm.suppress_debug_info = True
    return litellm


def _status(error: BaseException) -> tuple[int | None, dict[str, str]]:
    """HTTP status and headers of the provider's own response: litellm guesses its class from the message's words."""
    cause: BaseException | None = error
    while cause is not None:
        response: Any = getattr(cause, "response", None)
        if type(cause).__module__.partition(".")[0] != "litellm" and hasattr(response, "status_code"):
            return int(response.status_code), dict(response.headers)
        cause = cause.__cause__ or cause.__context__
    response = getattr(error, "response", None)
    headers = dict(getattr(error, "litellm_response_headers", None) or getattr(response, "headers", None) or {})
    status = getattr(error, "status_code", None)
    return (int(status) if status else None), headers


def _key_name(model: str) -> str:
    return f"{model.partition('/')[0].upper()}_API_KEY"


def _reply(response: Any, sent: list[str], remedy: str) -> Reply:
    """What the answer says: as the provider sent it where that has the form of OpenAI's, else as litellm reads it."""
    provider = str((getattr(response, "_hidden_params", None) or {}).get("custom_llm_provider") or "")
    if sent:
        with suppress(TransportError, ValueError):
            return _read(sent[-1].encode("utf-8", "surrogatepass"), provider, remedy)
    with warnings.catch_warnings():  # pydantic's, on fields of other types than litellm declares
        warnings.simplefilter("ignore")
        return reply_in(response.model_dump(), provider, remedy)


def _read(body: bytes, provider: str, remedy: str) -> Reply:
    return reply_in(json_in(body), provider, remedy)


def _undecodable(error: BaseException | None) -> bytes:
    """The body that a client could not decode as UTF-8, which its exception carries; empty where that was not it."""
    while error is not None and not isinstance(error, UnicodeDecodeError):
        error = error.__cause__ or error.__context__
    return b"" if error is None else error.object
