"""Scores of two encoders without training: one that counts words, and one that knows what all words mean.

    python -m speed.miniature.yardsticks [--write]

An embedder should beat the first; none can beat the second. `--write` puts the scores where the reports of runs find
them (`speed/data/yardsticks.json`): to be done whenever the tasks change.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from speed.data.quality.hashed_words import hashed_words
from speed.miniature.lexicon import lexicon, meaning
from speed.miniature.tasks import write_tasks

Vector = Callable[[str], list[float]]


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


def _jobs(folder: Path) -> list[Any]:
    from speed.backends.evaluation.jobs import folder_jobs

    return list(folder_jobs(folder, ()))


def scores(vector: Vector, folder: Path) -> dict[str, float]:
    """Main score of each task in `folder`, 0 to 100, as mteb computes it."""
    import numpy
    from mteb.models.abs_encoder import AbsEncoder
    from mteb.models.model_meta import ModelMeta

    class Plain(AbsEncoder):  # type: ignore[misc]
        """An encoder for mteb around a function from text to vector."""

        def __init__(self) -> None:
            self.model = None
            self.mteb_model_meta = ModelMeta.create_empty(overwrites={"name": "speed/plain", "revision": "1"})

        def encode(self, inputs: Any, **_: Any) -> Any:
            rows = [vector(text) for batch in inputs for text in batch["text"]]
            return numpy.array(rows, dtype=numpy.float32)

    by_task = {}
    for job in _jobs(folder):
        job.load()
        result = job.task.evaluate(Plain(), "test", encode_kwargs={"batch_size": 512})
        by_task[job.task.metadata.name] = 100 * float(result["default"]["main_score"])
    return by_task


ENCODERS: dict[str, tuple[str, Vector]] = {
    "hashed words": ("words counted in 1,024 places, no training", hashed_words),
    "truth": ("knows what every word means", oracle),
}


def revisions(folder: Path) -> dict[str, str]:
    """Revision of the data of each task in `folder`."""
    return {job.task.metadata.name: job.task.metadata.dataset["revision"] for job in _jobs(folder)}


def measured(folder: Path) -> dict[str, Any]:
    """Contents of `yardsticks.json` for the tasks in a folder."""
    named = revisions(folder)
    rows = []
    for name, (about, vector) in ENCODERS.items():
        by_task = {named[task]: round(score, 4) for task, score in scores(vector, folder).items()}
        rows.append({"name": name, "about": about, "scores": dict(sorted(by_task.items()))})
    return {"rows": rows}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        write_tasks(Path(made))
        tasks = {revision: name for name, revision in revisions(Path(made)).items()}
        found = measured(Path(made))
    for row in found["rows"]:
        values = row["scores"]
        print(f"{row['name']} ({row['about']}): {sum(values.values()) / len(values):.1f} over {len(values)} tasks")
        for revision, task in tasks.items():
            print(f"  {task:34} {values[revision]:5.1f}")
    if "--write" in sys.argv[1:]:
        file = Path(__file__).parents[1] / "data" / "yardsticks.json"
        file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(f"written: {file}")
