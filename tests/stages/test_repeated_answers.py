"""An answer that repeats its neighbour's for another prompt is counted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speed.core.stage import Context
from speed.core.store import Store
from speed.ports import Answer, Ask
from speed.runtime import Runtime
from speed.stages.asking import REPEATED, ask_in_order


class Scripted:
    def ask(self, requests: Any, ctx: Any) -> Iterator[Answer]:
        for ask, _ in requests:
            yield Answer(text=ask.prompt[-1])


def repeated(home: Path, prompts: list[str], purpose: str = "seed") -> int:
    ctx = Context(Store(home), Runtime())
    asks = [Ask(prompt=prompt, temperature=0.0, max_tokens=1, purpose=purpose) for prompt in prompts]
    items = ((place, (ask, lambda text: None)) for place, ask in enumerate(asks))
    assert len(list(ask_in_order(Scripted(), items, ctx))) == len(prompts)  # type: ignore[arg-type]
    return ctx.tally.counts[REPEATED]


def test_a_neighbours_answer_for_another_prompt_is_counted(tmp_path: Path) -> None:
    assert repeated(tmp_path, ["1 a", "2 b", "3 b", "4 b", "5 a"]) == 2
    assert repeated(tmp_path, ["1 a", "1 a", "2 b"]) == 0
    assert repeated(tmp_path, ["1 a", "2 a"], "judge") == 0
