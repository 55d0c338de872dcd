"""A teacher that looks at its batches every hundredth of a second, and what tests look at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from batch_provider import BatchProvider
from quick_teacher import QUICK

from speed.core.errors import Later
from speed.ports import Answer
from speed.runtime import Context
from speed.teaching.errors import Patience
from speed.teaching.openai_batch import OpenAIBatchTeacher
from speed.teaching.pending import Pending

PATIENCE = Patience(attempts=3, base=QUICK.base, cap=QUICK.cap)


class Priced(OpenAIBatchTeacher):
    """A cent an answer of 50 tokens."""

    def dollars(self, tokens_in: int, tokens_out: int) -> float | None:
        return 0.0002 * tokens_out


def batching(kind: type[OpenAIBatchTeacher] = OpenAIBatchTeacher, **fields: Any) -> Any:
    made = kind(model="rules", poll_seconds=0.01, **fields)
    made._patience, made._settled = PATIENCE, 0.0
    return made


def pending(home: Path) -> list[Any]:
    return Pending(home / "journal").all()


def ended(home: Path) -> list[dict[str, Any]]:
    return Pending(home / "journal").ended()


def saying(ctx: Context) -> list[str]:
    """What is said from now on."""
    said: list[str] = []
    ctx.send = lambda event: said.append(str(event.get("message") or event))
    return said


def texts(answers: list[Answer]) -> list[str]:
    return [answer.text for answer in answers]


@contextmanager
def until_later() -> Iterator[list[str]]:
    """What is done inside ends with `Later`, whose message is noted."""
    said: list[str] = []
    try:
        yield said
    except Later as later:
        said.append(str(later))
    assert said, "it did not end with Later"


def bought_once(serving: BatchProvider, prompts: list[str]) -> bool:
    """Whether each prompt was answered once, in one batch that was begun, or in as many as it failed in before."""
    return serving.paid == dict.fromkeys(prompts, 1) and serving.sent == serving.arrivals
