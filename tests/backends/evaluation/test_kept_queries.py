"""Scores of single queries beside an evaluation's: hand-computed, their mean mteb's own score, and found again."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from test_benchmarks import a_copy_of_bright
from tiny_generator import context, make_base
from tiny_tasks import TYPES, WORDS, all_seven, write

from speed.backends.evaluation.evaluated_model import LocalModel
from speed.backends.evaluation.evaluator import LocalEvaluator, MtebEvaluator, ProtocolEvaluator
from speed.backends.evaluation.jobs import benchmark_jobs
from speed.backends.evaluation.kept_queries import of_queries, write_queries
from speed.backends.evaluation.run import run
from speed.core.content import Content
from speed.data.evaluation_record import EvaluationRecord
from speed.data.query_scores import QueryScores, queries_folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("models") / "bare")


def evaluated(
    evaluator: ProtocolEvaluator, model: Path, out: Path, home: Path, with_queries: bool = False
) -> EvaluationRecord:
    ctx = context(home)
    return run(evaluator, evaluator.jobs(ctx), LocalModel(model), out, ctx, with_queries)


def kept(out: Path, record: EvaluationRecord) -> dict[str, QueryScores]:
    folder = queries_folder(out, record.name, record.model)
    return {file.stem: QueryScores.model_validate_json(file.read_text()) for file in folder.glob("*")}


def main_score(out: Path, task: str, split: str = "test") -> float:
    """As mteb's own result file has it."""
    [file] = out.glob(f"results/*/*/{task}.json")
    return float(json.loads(file.read_text())["scores"][split][0]["main_score"])


def a_search_of_known_scores(folder: Path) -> None:
    """Each query is the text of one document, which is found first; what else is relevant decides over its score."""
    write(folder / "corpus.jsonl", [{"_id": f"d{i}", "title": "", "text": word} for i, word in enumerate(WORDS)])
    write(folder / "queries.jsonl", [{"_id": f"q{i}", "text": WORDS[i]} for i in range(4)])
    relevant = [("q0", "d0"), ("q1", "d1"), ("q2", "d2"), ("q2", "absent"), ("q3", "not there")]
    write(
        folder / "qrels" / "test.jsonl",
        [{"query-id": query, "corpus-id": document, "score": 1} for query, document in relevant],
    )


def test_a_querys_score_is_what_its_ranking_gives_and_their_mean_is_mtebs(model: Path, tmp_path: Path) -> None:
    a_search_of_known_scores(tmp_path / "tasks" / "Known")
    evaluator = LocalEvaluator(tasks=tmp_path / "tasks", protocol="native")
    found = kept(tmp_path / "out", evaluated(evaluator, model, tmp_path / "out", tmp_path / "home"))["Known"]
    half = 1 / (1 + 1 / math.log2(3))  # the first of two relevant documents at rank 1, the other nowhere
    assert found.measure == "ndcg_at_10"
    assert found.queries == {"test": {"default": pytest.approx({"q0": 1.0, "q1": 1.0, "q2": half, "q3": 0.0})}}
    assert found.mean == pytest.approx((2 + half) / 4, abs=1e-6)
    assert round(found.mean, 5) == pytest.approx(main_score(tmp_path / "out", "Known"), abs=1e-6), "mteb rounds so"


def test_every_search_task_has_them_and_no_other_type(model: Path, tmp_path: Path) -> None:
    evaluator = LocalEvaluator(tasks=all_seven(tmp_path / "tasks"))
    record = evaluated(evaluator, model, tmp_path / "out", tmp_path / "home")
    found = kept(tmp_path / "out", record)
    assert set(record.kinds) == set(TYPES)
    assert {task: one.measure for task, one in found.items()} == {
        "MyRetrieval": "ndcg_at_10", "MyReranking": "map_at_1000",
    }  # fmt: skip
    for task, one in found.items():
        assert set(one.queries["test"]["default"]) == {"q0", "q1", "q2", "q3"}
        assert round(one.mean, 5) == pytest.approx(main_score(tmp_path / "out", task), abs=1e-6)
        assert record.scores.tasks[task] == pytest.approx(100 * one.mean, abs=1e-3)
    for score in found["MyReranking"].queries["test"]["default"].values():
        assert min(abs(score - 1 / rank) for rank in (1, 2, 3)) < 1e-6, "one relevant document among three candidates"


def test_an_evaluation_from_before_is_found_again_and_scored_anew_only_where_that_is_asked_for(
    model: Path, tmp_path: Path
) -> None:
    evaluator = LocalEvaluator(tasks=all_seven(tmp_path / "tasks"), only=("MyRetrieval", "MyReranking", "MyPairs"))
    out, home = tmp_path / "out", tmp_path / "home"
    record = evaluated(evaluator, model, out, home)
    folder = queries_folder(out, record.name, record.model)
    whole = (folder / "MyRetrieval.json").read_text()
    (folder / "MyRetrieval.json").unlink()
    results = {file.stem: file for file in out.glob("results/*/*/*.json")}
    written = {task: file.stat().st_mtime_ns for task, file in results.items()}
    assert evaluated(evaluator, model, out, home) == record
    assert not (folder / "MyRetrieval.json").exists()
    assert {task: file.stat().st_mtime_ns for task, file in results.items()} == written
    assert evaluated(evaluator, model, out, home, with_queries=True) == record
    assert (folder / "MyRetrieval.json").read_text() == whole
    anew = {task for task, file in results.items() if file.stat().st_mtime_ns != written[task]}
    assert anew - {"model_meta"} == {"MyRetrieval"}


def test_a_benchmarks_own_measure_is_kept_for_each_query(model: Path, tmp_path: Path) -> None:
    """BRIGHT's long documents: recall@1, which is whole for the query that excludes every other document."""
    a_copy_of_bright(tmp_path / "mirror" / "mteb" / "BRIGHT")
    task = "BrightPonyLongRetrieval"
    evaluator = MtebEvaluator(benchmark="bright_long", only=(task,), mirror=Content(path=tmp_path / "mirror"))
    found = kept(tmp_path / "out", evaluated(evaluator, model, tmp_path / "out", tmp_path / "home"))[task]
    assert found.measure == "recall_at_1"
    [scores] = found.queries["long"].values()
    assert scores["q1"] == 1.0
    assert found.mean == pytest.approx(main_score(tmp_path / "out", task, "long"), abs=1e-6)


def a_copy_of_a_search(folder: Path, seed: int) -> None:
    """As the hub has a retrieval data set, of four queries."""
    configs = []
    for config, split, file in (("corpus", "corpus", "c"), ("queries", "queries", "q"), ("default", "test", "r")):
        configs += [f"- config_name: {config}", f"  data_files: [{{split: {split}, path: {file}.jsonl}}]"]
    (folder).mkdir(parents=True)
    (folder / "README.md").write_text("\n".join(["---", "configs:", *configs, "---", ""]))
    write(folder / "c.jsonl", [{"_id": f"d{i}", "title": "", "text": word} for i, word in enumerate(WORDS)])
    write(folder / "q.jsonl", [{"_id": f"q{i}", "text": f"{WORDS[i]} {seed}"} for i in range(4)])
    write(folder / "r.jsonl", [{"query-id": f"q{i}", "corpus-id": f"d{(i + seed) % 10}", "score": 1} for i in range(4)])


def test_a_task_that_is_a_mean_over_parts_has_the_queries_of_them_all(model: Path, tmp_path: Path) -> None:
    name = "CQADupstackRetrieval"
    [whole] = [job for job in benchmark_jobs("mteb_v1", (name,)) if job.parts]
    for seed, part in enumerate(whole.parts):
        a_copy_of_a_search(tmp_path / "mirror" / part.metadata.dataset["path"], seed)
    mirror = Content(path=tmp_path / "mirror")
    jobs = benchmark_jobs("mteb_v1", (name,), mirror.path)
    evaluator = MtebEvaluator(benchmark="mteb_v1", only=(name,), mirror=mirror)
    ctx = context(tmp_path / "home")
    record = run(evaluator, jobs, LocalModel(model), tmp_path / "out", ctx)
    found = kept(tmp_path / "out", record)
    assert len(found) == 13, "twelve parts, and the whole"
    assert set(found[name].queries["test"]) == {f"{part.metadata.name}/test/default" for part in whole.parts}
    assert 100 * found[name].mean == pytest.approx(record.scores.tasks[name], abs=1e-3)
    assert len({one.mean for one in found.values()}) > 2, "parts differ, or their mean could not be told from one"


def test_a_score_that_is_not_the_mean_of_its_queries_leaves_no_file(tmp_path: Path) -> None:
    class Named:
        class metadata:  # noqa: N801
            main_score = "ndcg_at_10"

    file = tmp_path / "queries" / "T.json"
    scores = {"test": {"en": {"a": 1.0, "b": 0.0}, "de": {"c": 0.25}}}
    write_queries(file, Named, scores, 0.375)
    assert QueryScores.model_validate_json(file.read_text()).mean == 0.375, "languages weigh alike"
    write_queries(file, Named, scores, 0.376)
    assert not file.exists()
    write_queries(file, Named, {}, math.nan)
    assert not file.exists()


def test_which_of_mtebs_tasks_have_them() -> None:
    """All of retrieval and reranking in the benchmarks, but for those whose main score is no mean that is at hand."""

    def without(name: str) -> dict[str, str]:
        tasks = [job.task for job in benchmark_jobs(name) if not job.parts]
        searches = [task for task in tasks if str(task.metadata.type).endswith(("Retrieval", "Reranking"))]
        assert len(searches) > 1
        return {str(task.metadata.name): task.metadata.main_score for task in searches if of_queries(task) is None}

    assert without("mteb_v1") == without("mteb_v2") == {"MindSmallReranking": "max_over_subqueries_map_at_1000"}
    assert without("rteb") == without("bright") == without("bright_long") == without("dev") == {}
    assert without("mmteb") == {
        "Core17InstructionRetrieval": "p-MRR",
        "News21InstructionRetrieval": "p-MRR",
        "Robust04InstructionRetrieval": "p-MRR",
        "WebLINXCandidatesReranking": "mrr_at_10",
    }
