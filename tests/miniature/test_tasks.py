"""Evaluation tasks: readable by mteb, the same on all machines, about the held-out half only, and not lexical."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from speed.backends.evaluation.jobs import folder_jobs
from speed.backends.evaluation.task_folder import TaskFolder, task_folders
from speed.core.content import sha256_of
from speed.core.store import Store
from speed.data.quality.hashed_words import hashed_words
from speed.data.yardsticks import known_yardsticks, yardsticks
from speed.miniature.evaluation import MiniatureEvaluator
from speed.miniature.lexicon import meaning
from speed.miniature.tasks import write_tasks
from speed.miniature.world import world
from speed.miniature.yardsticks import ENCODERS, measured, oracle, scores
from speed.runtime import Context, Runtime


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tasks")
    write_tasks(made)
    return made


def texts_of(task: TaskFolder) -> list[str]:
    """Every text of a task."""

    def strings(value: Any) -> list[str]:
        if isinstance(value, str):
            return [value]
        if isinstance(value, dict):
            return [text for key, inner in value.items() if not key.endswith(("id", "ids")) for text in strings(inner)]
        return [text for inner in value for text in strings(inner)] if isinstance(value, list) else []

    parts = [(config, split) for config, files in task.files.items() for split in files]
    return [text for config, split in parts for row in task.rows(split, config) for text in strings(row)]


def test_all_seven_types(folder: Path) -> None:
    tasks = task_folders(folder)
    assert Counter(task.type for task in tasks) == {
        "Classification": 2,
        "Clustering": 1,
        "PairClassification": 1,
        "Reranking": 1,
        "Retrieval": 1,
        "STS": 1,
        "Summarization": 1,
    }
    assert all(task.mteb is None and task.instruction for task in tasks)


def test_the_same_tasks_everywhere(folder: Path, tmp_path: Path) -> None:
    write_tasks(tmp_path / "again")
    write_tasks(tmp_path / "other", world_seed=1)
    assert sha256_of(tmp_path / "again") == sha256_of(folder) != sha256_of(tmp_path / "other")


def test_nothing_of_the_training_half_is_asked_about(folder: Path) -> None:
    for task in task_folders(folder):
        words = {word for text in texts_of(task) for word in re.findall(r"[a-z]+", text.lower())}
        assert not words & set(world().train), task.name


def test_every_label_has_enough_rows(folder: Path) -> None:
    for task in task_folders(folder):
        if task.type == "Classification":
            for split in ("train", "test"):
                counts = Counter(row["label"] for row in task.rows(split))
                assert len(counts) == (8 if "Intent" in task.name else 6)
                assert min(counts.values()) >= 8


def test_the_truth_of_each_task(folder: Path) -> None:
    tasks = {task.name: task for task in task_folders(folder)}
    for row in tasks["MiniatureParaphrasePairs"].rows("test"):
        assert (meaning(row["sentence1"]) == meaning(row["sentence2"])) is bool(row["labels"])
    retrieval = tasks["MiniatureRetrieval"]
    corpus = {row["_id"]: meaning(row["text"]) for row in retrieval.only_rows("corpus")}
    queries = {row["_id"]: meaning(row["text"]) for row in retrieval.only_rows("queries")}
    for row in retrieval.rows("test"):
        asked = queries[row["query-id"]]
        fitting = [
            key for key, said in corpus.items() if all(asked[slot] <= said.get(slot, frozenset()) for slot in asked)
        ]
        assert fitting == [row["corpus-id"]]


def test_the_evaluator_writes_them_once(tmp_path: Path, folder: Path) -> None:
    ctx = Context(store=Store(tmp_path), runtime=Runtime(home=tmp_path))
    first = MiniatureEvaluator().task_folder(ctx)
    assert sha256_of(first) == sha256_of(folder)
    marked = first / "MiniatureSTS" / "README.md"
    before = marked.stat().st_mtime_ns
    assert MiniatureEvaluator().task_folder(ctx) == first
    assert marked.stat().st_mtime_ns == before
    assert MiniatureEvaluator(world_seed=1).recipe() != MiniatureEvaluator().recipe()


def test_tasks_for_choosing_settings_share_no_entity_with_the_test(tmp_path: Path, folder: Path) -> None:
    made = MiniatureEvaluator(half="train").task_folder(Context(store=Store(tmp_path), runtime=Runtime(home=tmp_path)))
    assert {task.name for task in made.iterdir() if task.is_dir()} == {task.name for task in folder.iterdir()}
    for half, other in ((made, "held"), (folder, "train")):
        texts = " ".join(file.read_text() for file in half.rglob("*.jsonl"))
        assert not [each.name for each in world().half(other) if f" {each.name} " in texts]  # type: ignore[arg-type]
    assert MiniatureEvaluator(half="train").recipe() == {**MiniatureEvaluator().recipe(), "half": "train"}  # type: ignore[dict-item]


def test_the_yardsticks_are_those_of_these_tasks(folder: Path) -> None:
    datasets = {job.task.metadata.name: job.task.metadata.dataset["revision"] for job in folder_jobs(folder, ())}
    known = yardsticks(datasets)
    assert {name: set(row) for name, row in known.items()} == {name: set(datasets) for name in ENCODERS}
    assert yardsticks({**datasets, "MiniatureSTS": "local-other"}) == {}
    assert yardsticks({}) == {}


@pytest.mark.slow
def test_a_bag_of_words_is_far_below_an_oracle(folder: Path) -> None:
    """At or below 70 %, type by type below the oracle; an untruthful task would show as a low oracle."""
    kinds = {task.name: task.type for task in task_folders(folder)}

    def by_type(vector: Callable[[str], list[float]]) -> dict[str, float]:
        found: dict[str, list[float]] = {}
        for name, score in scores(vector, folder).items():
            found.setdefault(kinds[name], []).append(score)
        return {kind: sum(values) / len(values) for kind, values in found.items()}

    words, truth = by_type(hashed_words), by_type(oracle)
    assert len(truth) == 7
    assert sum(truth.values()) / 7 > 90
    assert sum(words.values()) <= 0.7 * sum(truth.values())
    assert all(words[kind] < truth[kind] for kind in truth)


@pytest.mark.slow
def test_the_yardsticks_that_come_with_this_version_are_measured(folder: Path) -> None:
    known = {row.name: row.scores for row in known_yardsticks()}
    assert {row["name"]: pytest.approx(row["scores"], abs=0.01) for row in measured(folder)["rows"]} == known
