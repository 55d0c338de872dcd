"""Stream rows through a teacher, keeping their order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import tee
from typing import TypeVar

from speed.core.closing import closing
from speed.core.errors import UserError
from speed.data.records import Rejected
from speed.ports import Answer, Ask, Check, Teacher
from speed.runtime import Context

T = TypeVar("T")
REPEATED = "answers_repeated_for_the_next_prompt"
"""Counts answers that are word for word those to the prompt before, which was another."""


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

    Items are consumed as the teacher asks for them, so memory holds what is in flight and no more; a teacher that
    answers in batches is handed the first ones at once. An error, or a reader who leaves, ends the asking at once.

    Raises:
        UserError: when the teacher could not be reached in spite of all retries. A row that was never answered must not
            be recorded as rejected; what was answered is in the journal.
    """
    to_ask, to_give = tee(items)
    return _in_order(to_give, teacher.ask((request for _, requests in to_ask for request in requests), ctx), ctx)


def _in_order(
    to_give: Iterable[tuple[T, Sequence[tuple[Ask, Check]]]], asked: Iterator[Answer], ctx: Context
) -> Iterator[tuple[T, list[Answer]]]:
    before = ("", "")
    with closing(asked) as answers:
        for item, requests in to_give:
            ctx.asks_a_row = max(1, len(requests))
            found = [next(answers) for _ in requests]
            if lost := next((answer for answer in found if answer.unreachable), None):
                raise UserError(
                    f"the teacher could not be reached ({lost.cause}: {lost.detail[:200]})\n"
                    "  every answer so far is kept; run the same command again when the server answers"
                )
            for (ask, _), answer in zip(requests, found, strict=True):
                # Judgements are short, and may well be the same; other answers to two prompts are not.
                if (
                    ask.purpose not in ("judge", "relevance")
                    and answer.cause == "ok"
                    and answer.text == before[1]
                    and ask.prompt != before[0]
                ):
                    ctx.tally.counts[REPEATED] += 1
                before = (ask.prompt, answer.text)
            yield item, found


def readable(read: Callable[[str], object]) -> Check:
    """The check that `read` makes something of an answer, rather than reject it."""

    def cause(text: str) -> str | None:
        found = read(text)
        return found.cause if isinstance(found, Rejected) else None

    return cause
