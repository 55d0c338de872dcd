"""One request on its way: which call comes next, when its answer is final, and what sends it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from speed.core.spec import Json
from speed.core.work import Tally
from speed.data.answers.json_in_text import json_objects
from speed.ports import Answer, Ask, Check
from speed.runtime import Runtime
from speed.teaching.entry import Entry
from speed.teaching.errors import Patience, Reply
from speed.teaching.spending import cost_of


class Call(NamedTuple):
    """What is sent once, and the key it is journaled under."""

    ask: Ask
    messages: tuple[dict[str, str], ...]
    params: dict[str, Json]
    """temperature, top_p, max_tokens; `response_format` (whole) and `retry` where they are used."""
    key: str

    def tokens_at_most(self) -> int:
        """Input tokens, rather too many: three bytes a token."""
        return sum(len(message["content"].encode("utf-8", "replace")) for message in self.messages) // 3 + 16

    def entry(self, model: str, endpoint: str, **outcome: Json) -> Entry:
        """What the journal keeps of it.

        Args:
            outcome: the fields that say what came of it.
        """
        return Entry(
            key=self.key,
            model=model,
            messages=self.messages,
            params=self.params,
            index=self.ask.index,
            purpose=self.ask.purpose,
            kind=self.ask.kind.value if self.ask.kind else "",
            endpoint=endpoint,
            **outcome,
        )


@dataclass(slots=True, eq=False)
class Request:
    """An Ask, the calls made for it, and finally its answer.

    A content retry is the same prompt under `params.retry` = 1, 2 ..., so that it never meets an intended sample
    index; after a truncated answer, or one whose reasoning never ended, it has twice the tokens, and no more if that
    one is cut short too.
    """

    ask: Ask
    check: Check
    place: int
    """Position among the requests of its `ask`."""
    retries_left: int
    call_of: Callable[[Ask, int, int], Call]
    """(ask, retry, max_tokens) -> call."""
    ask_again: list[str] = field(default_factory=list)
    """Causes for which it is asked once more than that; see `speed.teaching.teacher`."""
    call: Call = field(init=False)
    attempt: int = 0
    cached: bool = False
    """Whether its first answer was in the journal."""
    judged: list[tuple[Entry, str, bool]] = field(default_factory=list)
    """Every entry met on the way, what it was good for, and whether it was in the journal."""
    in_reasoning: bool = False
    """Whether the answer stood in the provider's field for reasoning."""
    answer: Answer | None = None
    error: BaseException | None = None
    resent: int = 0
    """Times that its present call was sent before."""
    sending: bool = False
    """Whether an answer is awaited, or not yet written down."""

    def __post_init__(self) -> None:
        self.call = self.call_of(self.ask, 0, self.ask.max_tokens)

    def take_known(self, known: Callable[[str], Entry | None]) -> bool:
        """Take the answers that the journal has, as far as they go; whether that is to the end.

        Args:
            known: the journal's answer to a key.
        """
        while (entry := known(self.call.key)) is not None:
            if self.take(entry, cached=True):
                return True
        return False

    def take(self, entry: Entry, *, cached: bool) -> bool:
        """Judge an entry. True when the answer is final; otherwise `call` is the next to make."""
        if self.attempt == 0:
            self.cached = cached
        text, cause = _readable(entry.text), entry.cause
        if cause == "empty" and entry.thought and _is_one_record(thought := _readable(entry.thought)):
            if self.check(thought) is None:
                text, cause, self.in_reasoning = thought, "ok", True
        elif cause == "ok" or (cause == "truncated" and _is_whole(text)):
            found = self.check(text) or "ok"
            cause = found if cause == "ok" or found == "ok" else cause
        self.judged.append((entry, cause, cached))
        if entry.answered and self.retries_left == 0 and cause in self.ask_again:
            self.ask_again.remove(cause)
            self.retries_left += 1
        if cause == "ok" or not entry.answered or self.retries_left == 0:
            self.answer = Answer(
                text=text,
                cause=cause,
                detail=entry.detail,
                finish_reason=entry.finish_reason,
                tokens_in=entry.tokens_in,
                tokens_out=entry.tokens_out,
            )
            return True
        self.retries_left -= 1
        self.attempt += 1
        cut_short = cause in ("truncated", "unfinished_reasoning")
        room = 2 * self.ask.max_tokens if cut_short else self.call.params["max_tokens"]
        self.call = self.call_of(self.ask, self.attempt, room)
        return False

    def count(self, tally: Tally) -> None:
        """Add what this request cost now; answers from the journal are free."""
        paid = [entry for entry, _, cached in self.judged if not cached]
        tally.cost["cached" if self.cached else "calls"] += 1
        if retries := len(paid) - (not self.cached):
            tally.cost["retries"] += retries
        for entry in paid:
            tally.cost["tokens_in"] += entry.tokens_in
            tally.cost["tokens_out"] += entry.tokens_out
            if entry.resent:
                tally.cost["resent"] += entry.resent
            tally.spend(entry.dollars)
        if self.answer is not None and self.answer.cause != "ok":
            tally.cost[self.answer.cause] += 1
        if self.in_reasoning:
            tally.cost["in_reasoning"] += 1
        for entry, cause, cached in self.judged:
            tally.ledger.add(cost_of(entry, cause, cached=cached))


def _readable(text: str) -> str:
    """A text without lone surrogates: they stay as they are escaped, which the parser rejects."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _is_one_record(thought: str) -> bool:
    """Whether a thought is one JSON value and nothing else: anything more may be a draft."""
    reading = json_objects(thought)
    return len(reading.values) == 1 and not reading.fault and not reading.unclosed and not reading.mended


def _is_whole(text: str) -> bool:
    """Whether a text that the provider cut off holds JSON that was closed before."""
    reading = json_objects(text)
    return bool(reading.values) and not reading.unclosed and not reading.fault


class Sender(Protocol):
    """What an ask needs of a teacher: see `speed.teaching.teacher`."""

    @property
    def model_name(self) -> str: ...
    @property
    def patience(self) -> Patience: ...
    @property
    def max_completion_tokens(self) -> bool | Literal["auto"]: ...
    def endpoint(self, runtime: Runtime) -> str: ...
    def prepare(self, runtime: Runtime) -> None: ...
    def request(self, ask: Ask, check: Check, place: int) -> Request: ...
    def send(self, call: Call, runtime: Runtime, seconds: float) -> Awaitable[Reply]: ...
    def dollars(self, tokens_in: int, tokens_out: int) -> float | None: ...
