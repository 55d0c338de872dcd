"""Whoever fails while a teacher is asked closes the asking before the error is told: no further call goes out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import PrivateAttr
from scripted_judge import Scripted, built

from speed.core.errors import UserError
from speed.core.row import Row
from speed.core.stage import Pool
from speed.core.store import Store
from speed.ports import Answer, Ask, Check
from speed.runtime import Context, Runtime
from speed.stages.asking import ask_in_order


class Lasting(Scripted):
    """Unreachable from the second request on; knows whether it is still being asked."""

    _open: bool = PrivateAttr(default=False)

    def ask(self, requests: Iterable[tuple[Ask, Check]], ctx: Context) -> Iterator[Answer]:
        self._open = True
        try:
            for place, _ in enumerate(requests):
                yield Answer(text="", cause="timeout" if place else "ok")
        finally:
            self._open = False


def asked(teacher: Lasting, home: Path) -> Iterator[tuple[int, Answer | None]]:
    asks = ((row, (Ask(prompt="p", temperature=0.0, max_tokens=1, purpose="t"), lambda text: None)) for row in range(9))
    return ask_in_order(teacher, asks, Context(Store(home), Runtime()))


def test_a_teacher_that_is_gone(tmp_path: Path) -> None:
    teacher = Lasting()
    with pytest.raises(UserError, match="could not be reached") as caught:
        list(asked(teacher, tmp_path))
    assert not teacher._open, caught.traceback


@dataclass(frozen=True)
class Misplaced(Pool[Row]):
    """Builds a row that its builder does not take."""

    name: ClassVar[str] = "misplaced"
    row: ClassVar[type[Row]] = Row

    teacher: Lasting = field(default_factory=Lasting)

    def build(self, start: int, stop: int, ctx: Context) -> Iterator[Row]:
        for row, _ in asked(self.teacher, ctx.store.home):
            yield Row(row=row + 1)


def test_rows_that_cannot_be_kept(tmp_path: Path) -> None:
    pool = Misplaced()
    with pytest.raises(RuntimeError, match="was to build row 0 and built 1") as caught:
        built(Store(tmp_path).open(), pool, 4)
    assert not pool.teacher._open, caught.traceback
