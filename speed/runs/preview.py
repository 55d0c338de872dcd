"""What the teacher would be sent: five prompts of each kind, for each of its four tasks. Nothing is asked or built.

Each stage gives its own (`sample_prompts`): recorded prompts where rows are built, otherwise prompts drawn as they will
be; what a model has yet to write (a task, an answer) is marked by a stand-in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from speed.core.escape import escape
from speed.core.graph import Goal
from speed.core.store import Store
from speed.data.costs.prices import estimated_tokens
from speed.data.records import Kind
from speed.runs.glance import Glance
from speed.runtime import Runtime

EACH = 5
"""Prompts shown of each kind."""
ROWS = 500
"""Rows looked at: enough for five of the rarest kind."""


def model_prompts(order: Iterable[Goal], store: Store, runtime: Runtime) -> Iterator[str]:
    """The first prompt of each training exactly as its model will read it: text and token ids."""
    with TemporaryDirectory() as scratch:
        glance = Glance(store, runtime, scratch=Path(scratch))
        for goal in order:
            if text := goal.node.model_prompt(glance):
                yield f"=== what the model reads in its training ({goal.label}), the first prompt\n{escape(text)}\n"


def previews(order: Iterable[Goal], store: Store, runtime: Runtime) -> Iterator[str]:
    """The prompts, one text each under a line that says what it is."""
    with TemporaryDirectory() as scratch:
        glance = Glance(store, runtime, scratch=Path(scratch))
        for goal in order:
            seen: Counter[str] = Counter()
            teacher, purpose = getattr(goal.node, "teacher", None), getattr(goal.node, "purpose", "")
            for kind, prompt in goal.node.sample_prompts(min(goal.rows or ROWS, ROWS), glance):
                seen[kind] += 1
                if seen[kind] <= EACH:
                    text = (teacher.in_front(purpose, Kind(kind)) if teacher else "") + prompt
                    about = f"{goal.label}, {kind}, {seen[kind]} of {EACH}, about {estimated_tokens(text):,} tokens"
                    yield f"=== {about}\n{escape(text)}\n"
