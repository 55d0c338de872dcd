"""What the teacher would be sent: five prompts of each kind, for each of its four tasks. Nothing is asked or built.

Each stage gives its own (`sample_prompts`): recorded prompts where rows are built, otherwise prompts drawn as they will
be; what a model has yet to write (a task, an answer) is marked by a stand-in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from speed.core.escape import escape
from speed.core.graph import Goal
from speed.core.stage import Context, Row, Stage, Take
from speed.core.store import Store
from speed.data.costs.prices import estimated_tokens
from speed.runtime import Runtime

EACH = 5
"""Prompts shown of each kind."""
ROWS = 500
"""Rows looked at: enough for five of the rarest kind."""

R = TypeVar("R", bound=Row)


@dataclass
class _Glance(Context[Runtime]):
    """A look at what is there: takes end where no more rows are built, and light stages that are missing (the topics)
    are built in a folder that is deleted."""

    store: Store
    runtime: Runtime
    scratch: Path = field(kw_only=True)

    def rows(self, take: Take[R], start: int = 0) -> Iterator[R]:
        rows = 0
        for span in self.store.shards(take.pool):
            if span.start > rows:
                break
            rows = max(rows, span.stop)
        return super().rows(take.pool.take(min(rows, take.rows)), start)

    def folder(self, stage: Stage[Any]) -> Path:
        if self.store.manifest(stage) is not None:
            return super().folder(stage)
        out = self.scratch / stage.key
        if not out.exists():
            out.mkdir()
            stage.run(out, Context(self.store, self.runtime))
        return out


def previews(order: Iterable[Goal], store: Store, runtime: Runtime) -> Iterator[str]:
    """The prompts, one text each under a line that says what it is."""
    with TemporaryDirectory() as scratch:
        glance = _Glance(store, runtime, scratch=Path(scratch))
        for goal in order:
            seen: Counter[str] = Counter()
            for kind, text in goal.node.sample_prompts(min(goal.rows, ROWS), glance):
                seen[kind] += 1
                if seen[kind] <= EACH:
                    about = f"{goal.label}, {kind}, {seen[kind]} of {EACH}, about {estimated_tokens(text):,} tokens"
                    yield f"=== {about}\n{escape(text)}\n"
