"""One answer as the journal keeps it: its fields, its key, what it cost, and its JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from pydantic import Field, ValidationError
from pydantic_core import PydanticSerializationError

from speed.core.spec import Json, Spec, digest
from speed.teaching.envelope import believable


class Entry(Spec):
    """One answer, or one request that failed for good."""

    key: str
    model: str
    messages: tuple[dict[str, str], ...]
    params: dict[str, Json] = {}
    index: int = 0
    purpose: str = ""
    kind: str = ""
    text: str = ""
    """Exactly what came back, before anything parsed it."""
    thought: str = ""
    """What stood in the provider's field for reasoning, where the text is empty."""
    finish_reason: str = ""
    cause: str = "ok"
    """What the transport saw: ok, truncated, refusal, content_filter, empty; or why there is no answer."""
    detail: str = ""
    answered: bool = True
    """False for a failed request: recorded for the ledger, asked again by the next run."""
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    """Input tokens that the provider had in its own cache."""
    estimated: bool = False
    """Whether the tokens are our estimate: the provider said nothing that can be true."""
    dollars: float | None = None
    """List price; None when it is unknown."""
    provider: str = ""
    endpoint: str = ""
    served_by: str = ""
    """The model's name as the provider gave it."""
    resent: int = Field(default=0, ge=0)
    """Times the request was sent again after a transport failure."""
    batch: str = ""
    """The batch that brought the answer, by our name of it; empty where it was asked for by itself."""
    seconds: float = 0.0
    time: float = 0.0
    """Seconds since the epoch."""


def key(model: str, messages: Sequence[dict[str, str]], params: dict[str, Json], index: int) -> str:
    """What an answer is an answer to: sha256 of the canonical JSON of these four."""
    return digest([model, messages, params, index])


class Spending(NamedTuple):
    """An amount: of one call, or of many."""

    dollars: float = 0.0
    """List price; what has no known price counts as nothing, and caps in dollars refuse such teachers."""
    tokens: int = 0
    """Input and output together."""
    calls: int = 0
    """Answers."""

    def plus(self, other: Spending) -> Spending:
        """The sum."""
        return Spending(self.dollars + other.dollars, self.tokens + other.tokens, self.calls + other.calls)

    def minus(self, other: Spending) -> Spending:
        """The difference."""
        return Spending(self.dollars - other.dollars, self.tokens - other.tokens, self.calls - other.calls)


def json_of(entry: Entry) -> bytes:
    """The JSON of an entry: UTF-8, or pure ASCII where a text is none (lone surrogates)."""
    try:
        return Entry.__pydantic_serializer__.to_json(entry, exclude_defaults=True)
    except PydanticSerializationError:
        fields = entry.model_dump(exclude_defaults=True)
        return json.dumps(fields, separators=(",", ":"), allow_nan=False).encode("ascii")


def entry_of(body: bytes) -> Entry | None:
    """The entry of a line's JSON, or None when it is none of ours."""
    try:
        return Entry.model_validate(believable(json.loads(body)))
    except (ValueError, ValidationError, LookupError, TypeError, AttributeError):
        return None
