"""Task folders whose gold values give no score: each is refused with its reason, and no number is printed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_generator import context, make_base
from tiny_tasks import all_seven, write

from speed.backends.evaluation.evaluator import LocalEvaluator
from speed.backends.evaluation.local_tasks import load, mteb_task
from speed.backends.evaluation.task_folder import task_folders
from speed.core.errors import UserError

Change = Callable[[dict[str, Any]], dict[str, Any]]


def rows_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def each(file: str, **values: Any) -> Callable[[Path], None]:
    """Set columns of every row of a file."""

    def change(root: Path) -> None:
        write(root / file, [{**row, **values} for row in rows_of(root / file)])

    return change


def at(file: str, place: int, **values: Any) -> Callable[[Path], None]:
    """Set columns of one row of a file."""

    def change(root: Path) -> None:
        rows = rows_of(root / file)
        rows[place] |= values
        write(root / file, rows)

    return change


def half(file: str, column: str) -> Callable[[Path], None]:
    """Half of the rows of a file name a document that is not there."""

    def change(root: Path) -> None:
        rows = rows_of(root / file)
        write(root / file, [{**row, column: f"x{i}"} if i % 2 else row for i, row in enumerate(rows)])

    return change


def all_relevant(root: Path) -> None:
    write(root / "MyRetrieval/corpus.jsonl", [{"_id": "d0", "title": "", "text": "a"}])
    write(root / "MyRetrieval/qrels/test.jsonl", [{"query-id": "q0", "corpus-id": "d0", "score": 1}])


QRELS = "MyRetrieval/qrels/test.jsonl"
CASES: list[tuple[str, Callable[[Path], None], str]] = [
    ("constant scores", each("MySimilarity/test.jsonl", score=3), "its only score is 3.0 .12 rows"),
    (
        "a score of NaN",
        at("MySimilarity/test.jsonl", 1, score=float("nan")),
        "'score' of row 2 must be a finite number",
    ),
    ("a score in words", at("MySimilarity/test.jsonl", 1, score="high"), "'score' of row 2 must be .*; it is 'high'"),
    ("one label in the test", each("MyClasses/test.jsonl", label=1), "test.jsonl.*its only label is 1"),
    ("one label in the training", each("MyClasses/train.jsonl", label=1), "train.jsonl.*its only label is 1"),
    ("pairs of one label", each("MyPairs/test.jsonl", labels=0), "its only label is 0"),
    ("pairs of a third label", at("MyPairs/test.jsonl", 0, labels=2), "'labels' of row 1 must be 0 or 1; it is 2"),
    ("one cluster", each("MyClusters/test.jsonl", labels=[7] * 60), "its only label is 7"),
    ("a cluster a text", each("MyClusters/test.jsonl", labels=list(range(60))), "no two texts of a set share a label"),
    ("constant relevance", each("MySummaries/test.jsonl", relevance=[2] * 4), "all values of 'relevance' are the same"),
    ("no positives", each(QRELS, score=0), "no document is relevant to any query"),
    ("graded relevance", each(QRELS, score=0.5), "'score' of row 1 must be a whole number .*; it is 0.5"),
    ("half of the judged documents absent", half(QRELS, "corpus-id"), "2 of 4 relevant documents are not in corpus"),
    ("all judged documents absent", each(QRELS, **{"corpus-id": "x"}), "4 of 4 relevant documents are not in corpus"),
    ("all documents relevant", all_relevant, "every document is relevant to every query"),
    (
        "absent candidates",
        each("MyReranking/top_ranked.jsonl", **{"corpus-ids": ["d0", "x", "y"]}),
        "8 of 12 candidates are not in corpus",
    ),
    (
        "relevant candidates only",
        lambda root: write(
            root / "MyReranking/top_ranked.jsonl",
            [{"query-id": f"q{i}", "corpus-ids": [f"d{i}"]} for i in range(4)],
        ),
        "no query has a relevant and another document",
    ),
    ("labels of two types", at("MyClasses/test.jsonl", 3, label="2"), "'label' of row 4 must be a whole number like"),
    (
        "uneven lists",
        each("MyClusters/test.jsonl", labels=[1, 2]),
        "row 1 must have one length: sentences 60",
    ),
    ("a number as text", at("MySimilarity/test.jsonl", 0, sentence2=5), "'sentence2' of row 1 must be text; it is 5"),
    ("one row", lambda root: write(root / "MyPairs/test.jsonl", rows_of(root / "MyPairs/test.jsonl")[:1]), "its only"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("models") / "bare")


def read_all(root: Path) -> None:
    """Check all tasks and load them, without a model."""
    for task in task_folders(root):
        task.check()
        load(mteb_task(task), task)


@pytest.mark.parametrize(("spoil", "reason"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_score_that_means_nothing_is_no_number(tmp_path: Path, spoil: Callable[[Path], None], reason: str) -> None:
    root = all_seven(tmp_path / "tasks")
    spoil(root)
    with pytest.raises(UserError, match=reason) as refused:
        read_all(root)
    assert str(root) in str(refused.value)


def test_the_refusal_comes_before_anything_is_encoded(model: Path, tmp_path: Path) -> None:
    root = all_seven(tmp_path / "tasks")
    each("MySimilarity/test.jsonl", score=1)(root)
    with pytest.raises(UserError, match="no score can come of this task"):
        LocalEvaluator(tasks=root).check()
    with pytest.raises(UserError, match="no score can come of this task"):
        LocalEvaluator(tasks=root).evaluate(model, tmp_path / "out", context(tmp_path / "home"))
    assert not (tmp_path / "out").exists()
    LocalEvaluator(tasks=root, only=("MyPairs",)).check()


def test_numbers_of_qrels_may_be_written_in_any_way(model: Path, tmp_path: Path) -> None:
    found = []
    for place, score in enumerate((1, 1.0, "1", "1.0", True)):
        root = all_seven(tmp_path / f"tasks{place}")
        each(QRELS, score=score)(root)
        evaluator = LocalEvaluator(tasks=root, only=("MyRetrieval",))
        found.append(evaluator.evaluate(model, tmp_path / f"out{place}", context(tmp_path / "home")).mean)
    assert len(set(found)) == 1


def test_few_dangling_ids_are_counted_and_told(model: Path, tmp_path: Path) -> None:
    root = all_seven(tmp_path / "tasks")
    for name in list(root.iterdir()):
        if name.name not in ("MyRetrieval", "MyReranking"):
            shutil.rmtree(name)
    at(QRELS, 1, **{"corpus-id": "nowhere"})(root)
    at(QRELS, 2, **{"query-id": "nobody"})(root)
    at("MyReranking/top_ranked.jsonl", 1, **{"corpus-ids": ["d1", "d2", "gone"]})(root)
    ctx = context(tmp_path / "home")
    LocalEvaluator(tasks=root).evaluate(model, tmp_path / "out", ctx)
    told = "\n".join(event["message"] for event in ctx.events if event["event"] == "say")  # type: ignore[attr-defined]
    assert "1 of 3 relevant documents are not in the corpus, and count as not found" in told
    assert "1 judgments name queries that are not there, and are left out" in told
    assert "1 of 12 candidates are not in the corpus, and are left out" in told
