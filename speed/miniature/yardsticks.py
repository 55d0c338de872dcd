"""Two encoders that no training has touched: what words alone are worth on the evaluation, and what the truth is worth.

    python -m speed.miniature.yardsticks

An embedder should beat the first; nothing beats the second.
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
    """1,024 counters; a word's place is its hash."""
    counters = [0.0] * BUCKETS
    for word in re.findall(r"\w+", text.lower()):
        counters[int(hashlib.md5(word.encode()).hexdigest(), 16) % BUCKETS] += 1.0
    return counters


def oracle(text: str) -> list[float]:
    """One number a concept: what the words of the text mean."""
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
    """Main score (0..100) of each task in `folder`, as mteb computes it."""
    import numpy
    from mteb.models.abs_encoder import AbsEncoder
    from mteb.models.model_meta import ModelMeta

    from speed.backends.evaluation.jobs import folder_jobs

    class Plain(AbsEncoder):  # type: ignore[misc]
        """A function from text to vector, as mteb wants it."""

        def __init__(self) -> None:
            self.model = None
            self.mteb_model_meta = ModelMeta.create_empty(overwrites={"name": "speed/plain", "revision": "1"})

        def encode(self, inputs: Any, **_: Any) -> Any:
            rows = [vector(text) for batch in inputs for text in batch["text"]]
            return numpy.array(rows, dtype=numpy.float32)

    found = {}
    for job in folder_jobs(folder, ()):
        job.load()
        result = job.task.evaluate(Plain(), "test", encode_kwargs={"batch_size": 512})
        found[job.task.metadata.name] = 100 * float(result["default"]["main_score"])
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        write_tasks(Path(made))
        for name, encoder in (("bag of words", bag_of_words), ("oracle", oracle)):
            by_task = scores(encoder, Path(made))
            print(f"{name}: {sum(by_task.values()) / len(by_task):.1f} over {len(by_task)} tasks")
            for task, score in by_task.items():
                print(f"  {task:34} {score:5.1f}")
