"""Scores of two encoders without training: one that counts words, and one that knows what all words mean.

    python -m speed.miniature.yardsticks

An embedder should beat the first; none can beat the second.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from speed.miniature.lexicon import lexicon, meaning
from speed.miniature.tasks import write_tasks

BUCKETS = 1024
Vector = Callable[[str], list[float]]


def bag_of_words(text: str) -> list[float]:
    """Vector of 1,024 counters; the place of a word is its hash."""
    counters = [0.0] * BUCKETS
    for word in re.findall(r"\w+", text.lower()):
        counters[int(hashlib.md5(word.encode()).hexdigest(), 16) % BUCKETS] += 1.0
    return counters


def oracle(text: str) -> list[float]:
    """Vector with one number for each concept: whether the text mentions it."""
    vector = [0.0] * len(_places())
    for slot, concepts in meaning(text).items():
        for concept in concepts:
            vector[_places()[slot, concept]] = 2**0.5 if slot in ("things", "aspect") else 1.0
    return vector


@cache
def _places() -> dict[tuple[str, str], int]:
    concepts = [(slot, concept) for slot in lexicon() for concept in lexicon()[slot]]
    return {concept: place for place, concept in enumerate(concepts)}


def scores(vector: Vector, folder: Path) -> dict[str, float]:
    """Main score of each task in `folder`, 0 to 100, as mteb computes it."""
    import numpy
    from mteb.models.abs_encoder import AbsEncoder
    from mteb.models.model_meta import ModelMeta

    from speed.backends.evaluation.jobs import folder_jobs

    class Plain(AbsEncoder):  # type: ignore[misc]
        """An encoder for mteb around a function from text to vector."""

        def __init__(self) -> None:
            self.model = None
            self.mteb_model_meta = ModelMeta.create_empty(overwrites={"name": "speed/plain", "revision": "1"})

        def encode(self, inputs: Any, **_: Any) -> Any:
            rows = [vector(text) for batch in inputs for text in batch["text"]]
            return numpy.array(rows, dtype=numpy.float32)

    by_task = {}
    for job in folder_jobs(folder, ()):
        job.load()
        result = job.task.evaluate(Plain(), "test", encode_kwargs={"batch_size": 512})
        by_task[job.task.metadata.name] = 100 * float(result["default"]["main_score"])
    return by_task


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        write_tasks(Path(made))
        for name, encoder in (("bag of words", bag_of_words), ("oracle", oracle)):
            by_task = scores(encoder, Path(made))
            print(f"{name}: {sum(by_task.values()) / len(by_task):.1f} over {len(by_task)} tasks")
            for task, score in by_task.items():
                print(f"  {task:34} {score:5.1f}")
