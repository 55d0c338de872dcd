"""A task is evaluated on the split that published scores are measured on, from a folder as from the hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import mteb
import pytest
from mteb.abstasks.aggregated_task import AbsTaskAggregate
from tiny_generator import context, make_base
from tiny_tasks import WORDS, write

from speed.backends.evaluation.evaluator import LocalEvaluator, MtebEvaluator
from speed.backends.evaluation.jobs import benchmark_jobs
from speed.backends.evaluation.local_tasks import mteb_task
from speed.backends.evaluation.task_folder import TaskType, task_folders
from speed.core.spec import Json, digest
from speed.data.evaluation_splits import SEVERAL, of_published_scores, published_splits


def a_copy(root: Path, name: str, *splits: str) -> Path:
    """A tiny copy of a classification task or of a search of mteb."""
    card = f"- mteb task: {name}\n"
    if name == "MSMARCO":
        write(root / name / "corpus.jsonl", [{"_id": f"d{i}", "text": word} for i, word in enumerate(WORDS)])
        write(root / name / "queries.jsonl", [{"_id": "q0", "text": "water"}])
    for split in splits:
        if name == "MSMARCO":
            write(root / name / f"qrels/{split}.jsonl", [{"query-id": "q0", "corpus-id": "d1", "score": 1}])
        else:
            rows = [{"text": f"{word} {split} {i}", "label": i % 2} for i in range(10) for word in WORDS[:4]]
            write(root / name / f"{split}.jsonl", rows)
    (root / name / "README.md").write_text(card)
    return root


@pytest.mark.parametrize(
    ("name", "splits", "wanted"),
    [
        ("AmazonReviewsClassification", ("train", "validation", "test"), "test"),
        ("MTOPDomainClassification", ("train", "test", "validation"), "test"),
        ("AmazonReviewsClassification", ("train", "validation"), "validation"),
        ("EmotionClassification", ("train", "validation", "test"), "test"),
        ("MSMARCO", ("dev", "test", "train"), "dev"),
    ],
)
def test_a_folder_of_one_of_mtebs_tasks(tmp_path: Path, name: str, splits: tuple[str, ...], wanted: str) -> None:
    [task] = task_folders(a_copy(tmp_path, name, *splits))
    assert mteb_task(task).eval_splits == [wanted]


def test_benchmarks_and_single_tasks_of_the_hub() -> None:
    for benchmark in ("mteb_v1", "mteb_v2"):
        for job in benchmark_jobs(benchmark):
            assert list(job.task.eval_splits) == [of_published_scores(job.task.metadata.name)]
    names = ["AmazonReviewsClassification", "MassiveIntentClassification", "MSMARCO", "STS13"]
    assert [list(job.task.eval_splits) for job in benchmark_jobs("any", names)] == [
        ["test"],
        ["test"],
        ["dev"],
        ["test"],
    ]


def test_the_list_of_tasks_with_other_splits_is_mtebs() -> None:
    found = {}
    for task in mteb.get_tasks(languages=["eng"], task_types=list(get_args(TaskType))):
        splits = () if isinstance(task, AbsTaskAggregate) else tuple(task.eval_splits)
        if splits and published_splits(splits) != list(splits):
            found[task.metadata.name] = splits
    assert found == SEVERAL


def test_a_score_of_another_split_is_not_taken_for_this_one(tmp_path: Path) -> None:
    """Neither from a result file, nor from the store; what did not change keeps its key."""
    model, name = make_base(tmp_path / "model"), "AmazonReviewsClassification"
    root = a_copy(tmp_path / "tasks", name, "train", "validation", "test")
    evaluator = LocalEvaluator(tasks=root)
    first = evaluator.evaluate(model, tmp_path / "out", context(tmp_path / "home"))
    [file] = (tmp_path / "out").rglob(f"{name}.json")
    result = json.loads(file.read_text())
    assert list(result["scores"]) == ["test"]
    wrong = [{**result["scores"]["test"][0], "main_score": 0.123}]
    file.write_text(json.dumps({**result, "scores": {"validation": wrong}}))
    ctx = context(tmp_path / "home")
    assert evaluator.evaluate(model, tmp_path / "out", ctx) == first
    assert ctx.tally.metrics["judged"]["pins"]["splits"] == {name: "test"}

    def recipe(*present: str) -> Json:
        folder = a_copy(tmp_path / "-".join(present), name, *present)
        return LocalEvaluator(tasks=folder).recipe()

    assert evaluator.recipe()["splits"] == {name: "test"}
    assert "splits" not in recipe("train", "test")
    assert "splits" not in recipe("train", "validation")
    assert "splits" not in MtebEvaluator(benchmark="mteb_v1").recipe()
    one = MtebEvaluator(benchmark="any", only=("STS13",)).recipe()
    assert "splits" not in one
    assert digest(one) != digest(MtebEvaluator(benchmark="any", only=(name,)).recipe())
