"""Stream rows through a teacher or an engine, keeping their order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, tee
from pathlib import Path
from typing import TypeVar

from speed.core.closing import closing
from speed.core.errors import UserError
from speed.data.draws import generator
from speed.data.records import Rejected
from speed.ports import Answer, Ask, Check, Engine, Generate, Generated, Sampling, Teacher
from speed.runtime import Context

T = TypeVar("T")


def ask_in_order(
    teacher: Teacher, items: Iterable[tuple[T, tuple[Ask, Check] | None]], ctx: Context
) -> Iterator[tuple[T, Answer | None]]:
    """Each item with the teacher's answer to its request, in order; None where there was nothing to ask."""
    lists = ((item, () if request is None else (request,)) for item, request in items)
    with closing(ask_all_in_order(teacher, lists, ctx)) as rows:
        for item, answers in rows:
            yield item, answers[0] if answers else None


def ask_all_in_order(
    teacher: Teacher, items: Iterable[tuple[T, Sequence[tuple[Ask, Check]]]], ctx: Context
) -> Iterator[tuple[T, list[Answer]]]:
    """Each item with the teacher's answers to its requests, in order.

    Items are consumed as the teacher asks for them, so memory holds what is in flight and no more. An error, or a
    reader who leaves, ends the asking at once.

    Raises:
        UserError: when the teacher could not be reached in spite of all retries. A row that was never answered must not
            be recorded as rejected; what was answered is in the journal.
    """
    to_ask, to_give = tee(items)
    asked = teacher.ask((request for _, requests in to_ask for request in requests), ctx)
    with closing(asked) as answers:
        for item, requests in to_give:
            found = [next(answers) for _ in requests]
            if lost := next((answer for answer in found if answer.unreachable), None):
                raise UserError(
                    f"the teacher could not be reached ({lost.cause}: {lost.detail[:200]})\n"
                    "  every answer so far is kept; run the same command again when the server answers"
                )
            yield item, found


def readable(read: Callable[[str], object]) -> Check:
    """The check that `read` makes something of an answer, rather than reject it."""

    def cause(text: str) -> str | None:
        found = read(text)
        return found.cause if isinstance(found, Rejected) else None

    return cause


def generate_in_order(
    engine: Engine, weights: Path, items: Iterable[tuple[T, Generate | None]], sampling: Sampling, ctx: Context
) -> Iterator[tuple[T, list[Generated]]]:
    """Each item with the texts of its request, in order; none where there was nothing to ask.

    Items are read, and their tokens counted in `ctx.tally`, a block of the engine's at a time.
    """
    source = iter(items)
    to_ask, to_give = tee(iter(lambda: list(islice(source, engine.block)), []))
    calls = ([request for _, request in block if request is not None] for block in to_ask)
    for block, texts in zip(to_give, engine.generate(weights, calls, sampling, ctx), strict=True):
        ctx.tally.cost["generated_tokens"] += sum(text.tokens for text in texts)
        found: dict[str, list[Generated]] = {}
        for text in texts:
            found.setdefault(text.key, []).append(text)
        for item, request in block:
            yield item, [] if request is None else found[request.key]


def request_seed(seed: int, stage: str, row: int, attempt: int = 0) -> int:
    """The seed of one row's generation: 0..2^53, a function of (seed, stage, row, attempt) alone."""
    further = (attempt,) if attempt else ()
    return int(generator(seed, "generate", stage, row, *further).random() * 2**53)
