"""Read what a provider sent with a 200: the text in it, what it took, or the error that it holds.

A text that arrived is paid for, so nothing that stands beside it can make the answer a failure: whatever is odd there
is left out. Counts of tokens are believed where they can be true, and otherwise estimated from prompt and text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from speed.core.errors import UserError
from speed.core.spec import Json
from speed.data.costs.prices import dollars, estimated_tokens
from speed.teaching.errors import Reply, TransportError, failure_of, redacted

MOST_TOKENS = 10_000_000
"""More than any request takes; SQLite's sums stay far below 2 ** 63."""
_TOKENS_A_MESSAGE = 4
_LENGTH = frozenset({"length", "max_tokens", "max_output_tokens", "model_length"})
_FILTERED = frozenset({"content_filter", "safety", "prohibited_content", "blocklist", "spii", "recitation"})
_NO_TEXT = frozenset({"thinking", "redacted_thinking", "reasoning", "refusal"})
"""Types of the parts of a content that are no part of its text."""


class Charge(NamedTuple):
    """Tokens that an answer took."""

    tokens_in: int
    tokens_out: int
    estimated: bool
    """Whether one of them is our estimate."""


def charge_of(messages: Sequence[dict[str, str]], reply: Reply) -> Charge:
    """What an answer took: as the provider says, or estimated where it says nothing that can be true."""
    asked = reply.tokens_in or None  # no prompt is empty
    said = reply.tokens_out if reply.tokens_out or not reply.text else None
    estimated = asked is None or said is None
    if asked is None:
        asked = sum(_tokens(message["content"]) + _TOKENS_A_MESSAGE for message in messages)
    if said is None:
        said = _tokens(reply.text + reply.thought)
    return Charge(asked, said, estimated)


def answered(
    messages: Sequence[dict[str, str]], reply: Reply, price: Callable[[int, int], float | None]
) -> dict[str, Json]:
    """The fields of a journal's entry that an answer fills.

    Args:
        price: dollars of so many input and output tokens.
    """
    charge = charge_of(messages, reply)
    return {
        "text": reply.text,
        "thought": "" if reply.text.strip() else reply.thought,
        "finish_reason": reply.finish_reason,
        "cause": reply.cause,
        **charge._asdict(),
        "tokens_cached": reply.tokens_cached,
        "dollars": price(charge.tokens_in, charge.tokens_out),
        "provider": reply.provider,
        "served_by": reply.served_by,
    }


def believable(fields: dict[str, Json]) -> dict[str, Json]:
    """The fields of a journal's entry; counts that cannot be true, which earlier versions wrote down, are estimated."""
    counts = [fields.get("tokens_in", 0), fields.get("tokens_out", 0), fields.get("tokens_cached", 0)]
    if None not in map(count_in, counts):
        return fields
    tokens_in, tokens_out = (count_in(count) for count in counts[:2])
    charge = charge_of(fields["messages"], Reply(fields.get("text", ""), tokens_in=tokens_in, tokens_out=tokens_out))
    price = dollars(fields["model"], charge.tokens_in, charge.tokens_out)
    return {**fields, **charge._asdict(), "tokens_cached": count_in(counts[2]) or 0, "dollars": price}


def _tokens(text: str) -> int:
    """Estimated tokens, by bytes: a character that is no ASCII takes about as many tokens as a short word."""
    return estimated_tokens(text.encode("utf-8", "replace").decode("latin-1"))


def json_in(body: bytes) -> Json:
    """The JSON of a body; bytes that are no text are replaced, since the rest of it is paid for.

    Raises:
        ValueError: when it is no JSON.
    """
    text = body.decode(json.detect_encoding(body), "replace").strip("\ufeff\0 \t\r\n")
    return json.loads(text, strict=False)


def reply_in(answer: Json, provider: str, remedy: str) -> Reply:
    """What an answer in the form of OpenAI's chat completions says.

    Raises:
        TransportError: when it is no answer, or an error that another try may mend or that ends this request alone.
        UserError: when it holds an error that every further request would meet.
    """
    choice = _choice(answer)
    if not text_in(choice.get("message", choice.get("text"))):
        for place in (answer, choice):
            if isinstance(place, dict) and (error := place.get("error")) and (status := status_in(error)):
                raise failure_of(status, json.dumps({"error": error}), {}, remedy, each_alone=True)
    if choice.keys().isdisjoint(("message", "text", "finish_reason")):
        said = json.dumps(answer)[:200]
        raise TransportError("empty" if isinstance(answer, dict) and "choices" in answer else "bad_response", said)
    message = choice.get("message", choice.get("text"))  # as older servers word it
    text = text_in(message)
    if text is None:
        raise TransportError("bad_response", f"no text where it should be: {json.dumps(answer)[:200]}")
    fields = message if isinstance(message, dict) else {}
    usage = answer.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    details = usage.get("prompt_tokens_details")
    cached = count_in(details.get("cached_tokens")) if isinstance(details, dict) else None
    tokens_in = count_in(usage.get("prompt_tokens"))
    return Reply(
        text=text,
        thought=text_in({"content": fields.get("reasoning_content") or fields.get("reasoning")}) or "",
        finish_reason=finish_in(choice),
        refused=bool(fields.get("refusal")),
        tokens_in=tokens_in,
        tokens_out=count_in(usage.get("completion_tokens")),
        tokens_cached=min(cached or 0, tokens_in or 0),
        provider=provider,
        served_by=_name(answer.get("model")),
    )


def _choice(answer: Json) -> dict[str, Json]:
    choices = answer.get("choices") if isinstance(answer, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else choices
    return choice if isinstance(choice, dict) else {}


_STATUS = {
    401: ("api_key", "api key", "authentication", "unauthorized", "unauthenticated"),
    402: ("insufficient_quota", "credit", "billing", "payment"),
    404: ("model_not_found", "not_found"),
    429: ("rate_limit", "rate limit", "too many requests", "resource_exhausted"),
    503: ("overloaded", "unavailable", "timeout", "timed out", "server_error", "internal", "try again", "temporar"),
}
"""Words of an error without a status, and the status that they mean."""


def status_in(error: Json) -> int:
    """The HTTP status that an error inside a 200 names; 400 (this request is refused) where it names none.

    0 where the error says nothing: some servers send an empty one beside every answer.
    """
    fields = error if isinstance(error, dict) else {"message": error}
    if not any(fields.values()):
        return 0
    for name in ("code", "status", "status_code", "http_code"):
        value = fields.get(name)
        if isinstance(value, (int, float, str)) and str(value).partition(".")[0].isdigit():
            number = int(str(value).partition(".")[0])
            if 400 <= number < 600:
                return number
    words = json.dumps(error).lower()
    return next((status for status, marks in _STATUS.items() if any(mark in words for mark in marks)), 400)


_LOGIN = re.compile(r"\b(?:log|sign)[ -]?(?:in|on)\b|password|<form", re.IGNORECASE)
_TITLE = re.compile(r"<title[^>]*>([^<]+)", re.IGNORECASE)


def refuse_login_page(body: bytes, remedy: str) -> None:
    """Refuse a web page that stands in place of an answer and asks for a login: every further request would meet it.

    Raises:
        UserError: with the page's title and the remedy.
    """
    text = body[:20_000].decode("utf-8", "replace")
    if not text.lstrip("\ufeff \t\r\n").startswith("<") or not _LOGIN.search(text):
        return
    found = _TITLE.search(text)
    title = " ".join(found[1].split())[:80] if found else "a login page"
    raise UserError(
        f"the teacher's server answered with a web page, {redacted(title)!r}, that asks for a login\n  {remedy}"
    )


def text_in(message: Json) -> str | None:
    """The text of a message: a string, or its parts that are no thoughts, joined; None where it is neither."""
    if isinstance(message, str):
        return message
    content = message.get("content") if isinstance(message, dict) else None
    if content is None or isinstance(content, str):
        return content or ""
    parts = content if isinstance(content, list) else [content]
    texts = [text for part in parts for text in _texts(part)]
    known = any(isinstance(part, str) or (isinstance(part, dict) and "type" in part) for part in parts)
    return "".join(texts) if texts or known or not parts else None


def _texts(part: Json) -> Iterator[str]:
    if isinstance(part, str):
        yield part
    elif isinstance(part, dict) and part.get("type") not in _NO_TEXT and not part.get("thought"):
        text = part.get("text")
        text = text.get("value") if isinstance(text, dict) else text  # as OpenAI's assistants word it
        if isinstance(text, str):
            yield text


def count_in(value: Json) -> int | None:
    """A number of tokens, or None where it cannot be one."""
    usable = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS
    return value if usable else None


def finish_in(choice: dict[str, Json]) -> str:
    """Why the text ended, in OpenAI's words where they have one for it."""
    said = _name(choice.get("finish_reason"))
    small = said.rpartition(":")[2].strip().lower()  # "content_filter: PROHIBITED_CONTENT"
    if small in _FILTERED or said.lower().startswith("content_filter"):
        return "content_filter"
    return "length" if small in _LENGTH else said


def _name(value: Json) -> str:
    return value[:200] if isinstance(value, str) else ""
