"""Published scores are complete and agree with the published means."""

from __future__ import annotations

import pytest

from speed.data.evaluation_record import mean
from speed.data.published_scores import published

TYPES = {"Classification": 12, "Clustering": 11, "PairClassification": 3, "Reranking": 4, "Retrieval": 15, "STS": 10}


def kinds() -> dict[str, str]:
    import mteb

    return {task.metadata.name: task.metadata.type for task in mteb.get_benchmark("MTEB(eng, v1)").tasks}


def test_table_8_is_the_benchmark_and_gives_the_means_of_table_1() -> None:
    table = published()
    known = kinds()
    assert table.benchmark == set(known)
    lines = {(row.name, row.group): row for row in table.table_1.rows}
    pairs = {
        "SPEED, synthetic data only": ("SPEED", "synthetic data only"),
        "SPEED, full data": ("SPEED", "labelled data too"),
        "E5-mistral, synthetic data only": ("E5-mistral-7b", "synthetic data only"),
        "E5-mistral, full data": ("E5-mistral-7b", "labelled data too"),
    }
    for row in table.rows[:4]:
        line = lines[pairs[row.name]]
        assert mean(list(row.tasks.values())) == pytest.approx(line.mean, abs=0.06)
        for kind, score in line.types.items():
            members = [row.tasks[task] for task in known if known[task] == kind]
            assert len(members) == TYPES.get(kind, 1)
            assert mean(members) == pytest.approx(score, abs=0.1), (row.name, kind)


def test_every_row_says_where_it_is_from() -> None:
    for row in published().rows:
        assert row.source.startswith(("paper's: arXiv", "embeddings-benchmark/results (CC0) at f4cc6c8b365a"))
        assert all(0 < score < 100 for score in row.tasks.values())
    assert "Table 1" in published().table_1.source
    assert len(published().table_1.rows) == 13


def test_scores_of_the_results_repository() -> None:
    stored = {(row.name, row.source[:5]): row.tasks for row in published().rows}
    minilm = stored["all-MiniLM-L6-v2", "embed"]
    assert (minilm["SciFact"], minilm["STS13"], minilm["Banking77Classification"]) == (64.51, 80.60, 80.04)
    assert stored["E5-mistral, full data", "embed"]["STSBenchmark"] == 88.6
    assert "CQADupstackRetrieval" not in stored["SPEED, full data", "embed"], "it was stored under another protocol"
