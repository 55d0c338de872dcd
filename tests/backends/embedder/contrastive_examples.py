"""Small records for trainings of an embedder, and helpers that read the result of a training."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from speed.backends.embedder.settings import Lora
from speed.backends.embedder.trainer import ContrastiveTrainer
from speed.data.records import Example, Kind

TEXTS = ("", "a", "Write about water", "stone " * 900, "Instruct: x\nQuery: y")
WORDS = ["water", "stone", "river", "topic", "input", "output", "one", "two", "write", "about"]


def examples(file: Path, count: int, seed: int = 0) -> Path:
    """Pairs that share a word, of all kinds and unlike lengths."""
    draw = random.Random(seed)
    lines = []
    for _ in range(count):
        kind = draw.choice(list(Kind))
        word = draw.choice(WORDS)
        long = [word, *draw.choices(WORDS, k=draw.randrange(2, 14))]
        negative = None if kind in (Kind.SHORT_SHORT, Kind.LONG_LONG) else draw.choice(WORDS)
        example = Example(kind=kind, task=f"find {word}", query=" ".join(long), positive=word, negative=negative)
        lines.append(example.model_dump_json())
    file.write_text("\n".join(lines) + "\n")
    return file


def small(base: Path, **changes: Any) -> ContrastiveTrainer:
    """A trainer for a tiny base."""
    settings: dict[str, Any] = {
        "base": str(base), "lora": Lora(r=4, alpha=8), "learning_rate": 3e-3, "batch_size": 8, "max_length": 64
    }  # fmt: skip
    return ContrastiveTrainer(**(settings | changes))


def figures(ctx: Any, name: str) -> list[float]:
    """One figure of every step that a context was told of."""
    return [event["figures"][name] for event in ctx.events if event["event"] == "metric"]


def exported(out: Path) -> dict[str, bytes]:
    """The files of the trained model."""
    return {file.name: file.read_bytes() for file in (out / "model").rglob("*") if file.is_file()}
