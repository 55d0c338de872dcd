"""Evaluation tasks of a few rows, one of each type."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

WORDS = ["water", "stone", "river", "topic", "input", "output", "one", "two", "write", "about"]
TYPES = {
    "MyClasses": "Classification",
    "MyClusters": "Clustering",
    "MyPairs": "PairClassification",
    "MyReranking": "Reranking",
    "MyRetrieval": "Retrieval",
    "MySimilarity": "STS",
    "MySummaries": "Summarization",
}


def write(file: Path, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def all_seven(root: Path) -> Path:
    """A tiny task of each type, by columns alone: no README, no tasks.json."""
    draw = random.Random(0)

    def text(count: int = 4) -> str:
        return " ".join(draw.choices(WORDS, k=count))

    labelled = [{"text": f"{WORDS[i % 3]} {text()}", "label": i % 3} for i in range(60)]
    write(root / "MyClasses/train.jsonl", labelled)
    write(root / "MyClasses/test.jsonl", labelled[:20])
    sets = [{"sentences": [row["text"] for row in labelled], "labels": [row["label"] for row in labelled]}]
    write(root / "MyClusters/test.jsonl", sets)
    write(root / "MyPairs/test.jsonl", [{"sent1": text(), "sent2": text(), "labels": i % 2} for i in range(12)])
    graded = [{"sentence1": text(), "sentence2": text(), "score": i % 6} for i in range(12)]
    write(root / "MySimilarity/test.jsonl", graded)
    summaries = [text() for _ in range(4)]
    judged = {"human_summaries": summaries[:2], "machine_summaries": summaries}
    rows = [{"text": text(9), **judged, "relevance": [1, 2, 5, i]} for i in range(3)]
    write(root / "MySummaries/test.jsonl", rows)
    for name in ("MyRetrieval", "MyReranking"):
        write(root / name / "corpus.jsonl", [{"_id": f"d{i}", "title": text(1), "text": text(8)} for i in range(20)])
        write(root / name / "queries.jsonl", [{"_id": f"q{i}", "text": text(3)} for i in range(4)])
        relevant = [{"query-id": f"q{i}", "corpus-id": f"d{i}", "score": 1} for i in range(4)]
        write(root / name / "qrels/test.jsonl", relevant)
    ranked = [{"query-id": f"q{i}", "corpus-ids": [f"d{i}", f"d{i + 4}", f"d{i + 8}"]} for i in range(4)]
    write(root / "MyReranking/top_ranked.jsonl", ranked)
    return root
