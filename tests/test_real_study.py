"""The study with real models can be started: its points are what they are called, and nothing speaks against them."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

from conftest import ROOT
from plans import config_of
from real_models import (
    CORPORA,
    EMBEDDERS,
    PEOPLES,
    common,
    embedders,
    peoples_records,
    points,
    scored,
    tasks_taken,
    writers,
    written_points,
)

from speed.pipeline import pipeline

LLAMA = ROOT / "speed" / "miniature" / "bases" / "llama"
MINILM = ROOT / "speed" / "miniature" / "bases" / "embedder"
"""Stand for the packages' models, which are not installed everywhere."""


def test_of_titles_only_the_first_sets_are_taken(tmp_path: Path) -> None:
    """Once more over what is there, and whatever the modes of the data."""
    titles, other = tmp_path / "mteb" / "StackOverflowTitlesClustering", tmp_path / "mteb" / "Sub" / "qrels"
    for folder in (titles, other):
        folder.mkdir(parents=True)
        (folder / "test.jsonl").write_text('{"a": "\u2028"}\n' * 9, encoding="utf-8")
    titles.joinpath("test.jsonl").chmod(0o444)
    for _ in range(2):
        tasks_taken(tmp_path / "mteb", ["StackOverflowTitlesClustering", "Sub"], tmp_path / "taken")
    taken = {file.relative_to(tmp_path / "taken").as_posix(): file for file in (tmp_path / "taken").rglob("*.jsonl")}
    assert {name: file.read_text(encoding="utf-8").count("\n") for name, file in taken.items()} == {
        "StackOverflowTitlesClustering/test.jsonl": 1,
        "Sub/qrels/test.jsonl": 9,
    }


def test_each_point_is_an_experiment_of_its_own_and_those_of_a_corpus_share_it(tmp_path: Path) -> None:
    (tmp_path / "odp").mkdir()
    task = tmp_path / "home" / "tasks" / "STSBenchmark"
    task.mkdir(parents=True)
    (task / "test.jsonl").write_text('{"sentence1": "a", "sentence2": "b", "score": 1.0}\n')
    (tmp_path / "odp" / "odp_topics.txt").write_text("Arts/Music\nScience/Physics\n")
    study = {
        "examples": 1000,
        "seed_data": 506,
        "pairs": 207,
        "revisions": 207,
        "spare": 3.0,
        "batch": 64,
        "seeds": [0],
        "only": list(CORPORA),
        "embedders": EMBEDDERS,
    }
    served = {"precision": "bf16", "concurrency": 16, "teacher": "m", "worked": 3}
    given = Namespace(home=tmp_path / "home", data=tmp_path, tasks=["STSBenchmark"], **study, **served)
    shared = common(given, LLAMA, "http://127.0.0.1:1/v1")
    made = {name: pipeline(config_of(*shared, *its)) for name, its in points(given, LLAMA, MINILM)}
    assert (
        len({point.key for point in made.values()})
        == len(made)
        == len(CORPORA) * len(embedders(LLAMA, MINILM, "bf16", 64))
        == 8
    )
    assert len({point.corpus.key for point in made.values()}) == len(CORPORA)
    written = [config_of(*shared, *its) for _, its in writers(given, LLAMA, MINILM)]
    assert len({pipeline(each).corpus.key for each in written}) == len(CORPORA), "one run writes each corpus"
    assert {(each.scale.keep, each.embedder.max_steps) for each in written} == {(None, 1)}  # type: ignore[attr-defined]
    asked = config_of(*shared, "teach_check=true")
    assert (asked.teacher.examples, asked.scale.keep, asked.eval.only) == (3, 1000, ("STSBenchmark",))  # type: ignore[attr-defined]


def test_rows_that_are_there_and_records_of_people_train_by_equal_counts_and_steps(tmp_path: Path) -> None:
    records = [
        {"source": f"{source} (human)", "task": "t", "query": f"q{i}", "positive": "p", "hard_negative": "n"}
        for source, (_, count) in PEOPLES.items()
        for i in range(count + 5)
    ]
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "records.jsonl").write_text("\n".join(map(json.dumps, records)))
    (tmp_path / "home" / "tasks" / "STSBenchmark").mkdir(parents=True)
    (tmp_path / "home" / "tasks" / "STSBenchmark" / "test.jsonl").write_text(
        '{"sentence1": "a", "sentence2": "b", "score": 1.0}\n'
    )
    taken = [json.loads(line) for line in peoples_records(tmp_path, tmp_path / "people.jsonl").read_text().splitlines()]
    assert {kind: sum(row["kind"] == kind for row in taken) for kind, _ in PEOPLES.values()} == dict(PEOPLES.values())
    assert all(row["negative"] == "n" for row in taken)
    given = Namespace(
        home=tmp_path / "home", data=tmp_path, tasks=["STSBenchmark"], written=ROOT / "experiments" / "real_models",
        records=240, steps=63, seeds=[0, 1], only=["people", "junior"], embedders=EMBEDDERS, precision="bf16", batch=16,
    )  # fmt: skip
    made = {
        name: pipeline(config_of(*scored(given, LLAMA), *its)) for name, its in written_points(given, LLAMA, MINILM)
    }
    assert len({point.key for point in made.values()}) == len(made) == 2 * 2 * 2
    given.batch = 64
    others = {name for name, _ in written_points(given, LLAMA, MINILM)}
    assert not others & made.keys(), "a summary of another batch is not taken for one of these"
    assert len({point.corpus.key for point in made.values()}) == 2
