"""Rows for benches: a pool of made-up examples, a fifth of them near copies of earlier ones, each a function of its
number; and the figures of a piece of work in this process."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from speed.core.build import build
from speed.core.graph import Goal
from speed.core.stage import Pool, silence
from speed.core.store import Store
from speed.data.draws import generator
from speed.data.records import Example, Kind, Prompt, Sample
from speed.runtime import Context, Runtime

TASK = "Given a question, retrieve documents that answer it."


def query(row: int) -> str:
    """Forty words of six thousand; every fifth row changes up to four words of one at most 40 rows before it."""
    rng = generator(0, "query", row)
    if row % 5 == 4:
        words = query(row - 1 - 5 * int(rng.random() * 8) if row > 40 else 0).split()
        for _ in range(int(rng.random() * 5)):
            words[int(rng.random() * 40)] = f"word{int(rng.random() * 6000)}"
        return " ".join(words)
    return " ".join(f"word{int(rng.random() * 6000)}" for _ in range(40))


def example(row: int) -> Example:
    """A retrieval example of 200 words."""
    positive, negative = (f"{text} {row} " * 40 for text in ("a document", "another one"))
    return Example(kind=Kind.RETRIEVAL, task=TASK, query=query(row), positive=positive, negative=negative)


@dataclass(frozen=True)
class Samples(Pool[Sample]):
    """Rows as a synthesis writes them."""

    name: ClassVar[str] = "synthesis"
    row: ClassVar[type[Sample]] = Sample

    def build(self, start: int, stop: int, ctx: Context) -> Iterator[Sample]:
        for row in range(start, stop):
            made = example(row)
            prompt = Prompt(text=f"Write one example, number {row}.", template="t", kind=made.kind, task=made.task)
            yield Sample(row=row, prompt=prompt, text="{}", finish_reason="stop", tokens=300, example=made)


def built(store: Store, node: Any, rows: int = 0) -> None:
    """Build a pool's rows, or a stage, here."""
    build(Goal(node, rows, ()), store, Runtime(home=store.home), silence)


def measured(work: Callable[[], object]) -> tuple[float, float]:
    """CPU seconds of some work, and the most memory that this process held meanwhile, in MB."""
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    begun = time.process_time()
    work()
    seconds = time.process_time() - begun
    status = Path("/proc/self/status").read_text()
    return seconds, int(status.partition("VmHWM:")[2].split()[0]) / 1024


def in_fresh_process(script: str, *arguments: object) -> dict[str, float]:
    """What a script prints last when it is called with `--child`."""
    command = [sys.executable, script, "--child", *map(str, arguments)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(shown.stdout.splitlines()[-1])
    return found
