"""A look at what is built, for plans and previews: nothing is asked, and nothing is written into the store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from speed.core.cache import write_aside
from speed.core.row import Row
from speed.core.stage import Context, Stage, Take
from speed.core.store import Store
from speed.runtime import Runtime

R = TypeVar("R", bound=Row)


@dataclass
class Glance(Context[Runtime]):
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
            with write_aside(out) as aside:  # the next who asks does not take half of it for built
                aside.mkdir()
                stage.run(aside, Context(self.store, self.runtime))
        return out
