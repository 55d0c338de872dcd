"""Data that mteb has loaded, from the hub or a mirror: gold that gives no score is refused like that of a folder."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import Dataset
from huggingface_hub import constants
from tiny_tasks import all_seven, write

from speed.backends.evaluation import at_hand
from speed.backends.evaluation.evaluator import MtebEvaluator
from speed.backends.evaluation.jobs import benchmark_jobs
from speed.backends.evaluation.loaded_gold import refuse_loaded
from speed.backends.evaluation.local_tasks import load, mteb_task
from speed.backends.evaluation.task_folder import task_folders
from speed.core.content import Content
from speed.core.errors import UserError
from speed.runtime import Runtime

Spoil = Callable[[Any], None]


def loaded(root: Path) -> dict[str, Any]:
    """Tasks of mteb with data in memory, whoever loaded them."""
    out = {}
    for task in task_folders(root):
        out[task.name] = mteb_task(task)
        load(out[task.name], task)
    return out


def column(name: str, value: Any, split: str = "test") -> Spoil:
    """Another column in every row of a split."""

    def change(task: Any) -> None:
        rows = [{**row, name: value} for row in task.dataset[split]]
        task.dataset[split] = Dataset.from_list(rows)

    return change


def judged(score: int, document: str = "") -> Spoil:
    """Another score and document in every judgment."""

    def change(task: Any) -> None:
        found = task.dataset["default"]["test"]["relevant_docs"]
        for query, documents in found.items():
            found[query] = {document or each: score for each in documents}

    return change


def one_document(task: Any) -> None:
    task.dataset["default"]["test"]["corpus"] = Dataset.from_list([{"id": "d0", "title": "", "text": "a"}])
    task.dataset["default"]["test"]["relevant_docs"] = {"q0": {"d0": 1}}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return all_seven(tmp_path_factory.mktemp("tasks"))


def test_sound_data_pass(root: Path) -> None:
    for task in loaded(root).values():
        assert refuse_loaded(task) == []


@pytest.mark.parametrize(
    ("name", "spoil", "reason"),
    [
        ("MySimilarity", column("score", 3.0), r"MySimilarity \(MySimilarity, test\).*its only score is 3.0 .12 rows"),
        ("MySimilarity", column("score", float("nan")), "the score of row 1 is nan"),
        ("MyClasses", column("label", 1), r"test\).*its only label is 1"),
        ("MyClasses", column("label", 1, "train"), r"train\).*its only label is 1"),
        ("MyPairs", column("labels", 0), "its only label is 0"),
        ("MyClusters", column("labels", [7] * 60), "its only label is 7"),
        ("MyClusters", column("labels", list(range(60))), "no two texts of a set share a label"),
        ("MySummaries", column("relevance", [2, 2, 2, 2]), "all values of 'relevance' are the same"),
        ("MyRetrieval", judged(0), "no document is relevant to any query"),
        ("MyReranking", judged(0), "no document is relevant to any query"),
        ("MyRetrieval", judged(1, "x"), "4 of 4 relevant documents are not in corpus"),
        ("MyRetrieval", one_document, "every document is relevant to every query"),
    ],
)
def test_gold_that_gives_no_score_is_refused(root: Path, name: str, spoil: Spoil, reason: str) -> None:
    task = loaded(root)[name]
    spoil(task)
    with pytest.raises(UserError, match=reason):
        refuse_loaded(task)


def test_pairs_and_clusters_in_the_layouts_of_the_hub(root: Path) -> None:
    """All pairs in one row, and one text a row with labels of several levels."""
    tasks = loaded(root)
    pairs, clusters = tasks["MyPairs"], tasks["MyClusters"]
    whole = {name: [list(pairs.dataset["test"][name])] for name in pairs.dataset["test"].column_names}
    pairs.dataset["test"] = Dataset.from_dict(whole)
    assert refuse_loaded(pairs) == []
    column("labels", [0] * 12)(pairs)
    with pytest.raises(UserError, match="its only label is 0 .12 rows"):
        refuse_loaded(pairs)
    rows = [{"sentences": f"text {number}", "labels": [number % 3, number]} for number in range(9)]
    clusters.dataset["test"] = Dataset.from_list(rows)
    assert refuse_loaded(clusters) == []
    clusters.dataset["test"] = Dataset.from_list([{**row, "labels": [1, 2]} for row in rows])
    with pytest.raises(UserError, match="its only label is 1 .9 rows"):
        refuse_loaded(clusters)


def test_what_is_not_known_is_not_looked_at(root: Path) -> None:
    task = loaded(root)["MySimilarity"]
    task.dataset["test"] = task.dataset["test"].rename_column("score", "grade")
    assert refuse_loaded(task) == []
    task.dataset = None
    assert refuse_loaded(task) == [], "an older task, which mteb converts later"


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """STSBenchmark as it lies on the hub."""
    folder = tmp_path / "mirror" / "mteb" / "stsbenchmark-sts"
    rows = [{"sentence1": "a", "sentence2": f"b {number}", "score": float(number % 6)} for number in range(12)]
    write(folder / "test.jsonl", rows)
    files = "configs:\n- config_name: default\n  data_files:\n  - split: test\n    path: test.jsonl\n"
    (folder / "README.md").write_text(f"---\n{files}---\n")
    return folder


def read_again(root: Path, said: list[str]) -> None:
    evaluator = MtebEvaluator(benchmark="mteb_v1", only=("STSBenchmark",), mirror=Content(path=root / "mirror"))
    evaluator.check()
    evaluator.read_inputs(Runtime(home=root / "home"), said.append)


def constant(mirror: Path) -> None:
    rows = [{"sentence1": "a", "sentence2": f"b {number}", "score": 3.0} for number in range(12)]
    write(mirror / "test.jsonl", rows)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process of its own, which takes ten seconds to import mteb."""
    monkeypatch.setattr(at_hand, "ProcessPoolExecutor", lambda workers, mp_context: ThreadPoolExecutor(workers))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", datasets.config.HF_DATASETS_CACHE)


@pytest.mark.usefixtures("here")
def test_a_mirror_is_read_before_anything_is_built_once_for_the_same_data(mirror: Path, tmp_path: Path) -> None:
    said: list[str] = []
    read_again(tmp_path, said)
    assert said == ["reading the labels of 1 evaluation tasks whose data are at hand, before anything is built"]
    said.clear()
    read_again(tmp_path, said)
    assert said == []
    constant(mirror)
    for _ in range(2):
        with pytest.raises(UserError, match=r"STSBenchmark .*no score can come of this task: its only score is 3.0"):
            read_again(tmp_path, said)


@pytest.mark.usefixtures("here")
def test_a_copy_that_has_changed_is_not_taken_from_what_was_prepared_before(mirror: Path, tmp_path: Path) -> None:
    """`datasets` goes by the folder's name: the results would name the new copy and hold scores of the old one."""
    datasets.config.HF_DATASETS_CACHE = tmp_path / "cache"
    for score in (1.0, 2.0):
        rows = [{"sentence1": "a", "sentence2": f"b {number}", "score": score * (number % 6)} for number in range(12)]
        write(mirror / "test.jsonl", rows)
        [job] = benchmark_jobs("mteb_v1", ["STSBenchmark"], tmp_path / "mirror")
        job.load()
        assert list(job.task.dataset["test"]["score"])[:3] == [0.0, score, 2 * score]


@pytest.mark.slow
def test_the_process_of_its_own_hands_its_refusals_back(mirror: Path, tmp_path: Path) -> None:
    constant(mirror)
    with pytest.raises(UserError, match="its only score is 3.0"):
        read_again(tmp_path, [])


def test_a_mirror_that_lacks_a_task_is_refused_in_the_plan(mirror: Path, tmp_path: Path) -> None:
    root = Content(path=tmp_path / "mirror")
    with pytest.raises(UserError, match="lacks STS13: it should hold the folder mteb/sts13-sts"):
        MtebEvaluator(benchmark="mteb_v1", only=("STSBenchmark", "STS13"), mirror=root).check()


def test_without_data_at_hand_nothing_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "huggingface"))
    said: list[str] = []
    MtebEvaluator(benchmark="mteb_v1").read_inputs(Runtime(home=tmp_path / "home"), said.append)
    assert said == []


def test_real_tasks_pass(shared: Path) -> None:
    for name, task in loaded(shared / "mteb").items():
        assert all(str(remark) for remark in refuse_loaded(task)), name
