"""Topics and tasks that are given, and an engine that writes what a test wants to read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import PrivateAttr

from speed.core.stage import Pool, Stage
from speed.data.assignment import BrainstormPlan
from speed.data.records import Prompt, TaskList, Topic
from speed.ports import Engine, Generate, Generated, Sampling, Weights
from speed.runtime import Context


@dataclass(frozen=True)
class GivenTopics(Stage[Topic]):
    """Ten topics."""

    name: ClassVar[str] = "topics"

    def run(self, out: Path, ctx: Context) -> None:
        rows = (Topic(row=row, path=f"Arts/{row}", topic=f"Arts/{row}") for row in range(10))
        (out / "topics.jsonl").write_text("".join(row.model_dump_json() + "\n" for row in rows))


@dataclass(frozen=True)
class GivenTasks(Pool[TaskList]):
    """One task a call; every call whose number is in `failed` gave none."""

    plan: BrainstormPlan
    failed: tuple[int, ...] = ()

    name: ClassVar[str] = "tasks"
    row: ClassVar[type[TaskList]] = TaskList

    def build(self, start: int, stop: int, ctx: Context) -> Iterator[TaskList]:
        for row in range(start, stop):
            kind, call = self.plan.kind_and_call(row)
            made = TaskList(row=row, kind=kind, topic=f"Arts/{call}", prompt=Prompt(text="", template=""))
            task = f"{kind} task {call}"
            yield made.reject("empty") if call in self.failed else made.model_copy(update={"tasks": (task,)})


@dataclass(frozen=True)
class NoWeights(Stage[Weights]):
    """A model that nobody loads."""

    name: ClassVar[str] = "junior"

    def run(self, out: Path, ctx: Context) -> None:
        (out / "model").write_text("")


class Writer(Engine):
    """Writes by a function of the request, and reads a call when the one before is answered."""

    block: int = 23
    script: str = ""
    _writes: Callable[[Generate], str] = PrivateAttr()
    _asked: list[list[Generate]] = PrivateAttr(default_factory=list)
    _loaded: int = PrivateAttr(default=0)

    @classmethod
    def writing(cls, writes: Callable[[Generate], str]) -> Writer:
        made = cls(script=writes.__name__)
        made._writes = writes
        return made

    def generate(
        self, weights: Path, calls: Iterable[Sequence[Generate]], sampling: Sampling, ctx: Context
    ) -> Iterator[list[Generated]]:
        self._loaded += 1
        for requests in calls:
            self._asked.append(list(requests))
            yield [
                Generated(key=one.key, index=0, text=self._writes(one), finish_reason="stop", tokens=3)
                for one in requests
            ]
