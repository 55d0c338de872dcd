"""The study with real models can be started: its points are what they are called, and nothing speaks against them."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from conftest import ROOT
from plans import config_of
from real_models import CORPORA, EMBEDDERS, common, embedders, points, tasks_taken

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
    asked = config_of(*shared, "teach_check=true")
    assert (asked.teacher.examples, asked.scale.keep, asked.eval.only) == (3, 1000, ("STSBenchmark",))  # type: ignore[attr-defined]
