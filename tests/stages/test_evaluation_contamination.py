"""An evaluation searches the corpus that the embedder learned from for the texts of its tasks."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from speed.backends.evaluation.evaluator import LocalEvaluator
from speed.core.build import build
from speed.core.content import Content
from speed.core.graph import Goal
from speed.core.stage import Stage, silence
from speed.core.store import Store
from speed.data.evaluation_record import scores_of
from speed.data.quality import contaminated_records
from speed.data.records import Example, Scores
from speed.ports import EmbedderTrainer, Weights
from speed.runs.score_tables import about_the_tasks, task_table
from speed.runs.stage_lines import StageLine, stage_line
from speed.runtime import Context, Runtime
from speed.stages.evaluation import Evaluation

LONG = "the old mill by the river grinds the corn of the whole valley every autumn until the first snow falls"
COPY = f"somebody wrote that {LONG} and nobody answered"


@dataclass(frozen=True)
class Corpus(Stage[Example]):
    texts: tuple[str, ...]
    name: ClassVar[str] = "corpus"

    def run(self, out: Path, ctx: Context) -> None:
        rows = [
            {"kind": "retrieval", "task": "t", "query": f"query {n}", "positive": t} for n, t in enumerate(self.texts)
        ]
        (out / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@dataclass(frozen=True)
class Trained(Stage[Weights]):
    corpus: Stage[Example]
    trainer: EmbedderTrainer | None = None
    name: ClassVar[str] = "embedder"

    def run(self, out: Path, ctx: Context) -> None:
        (out / "weights").touch()


class Judge(LocalEvaluator):
    """Reads the tasks and scores none of them."""

    heavy: ClassVar[tuple[str, ...]] = ()

    def evaluate(self, embedder: Path, out: Path, ctx: Context) -> Scores:
        return scores_of({"Mill": 96.0, "Ships": 40.0}, {"Mill": "STS", "Ships": "STS"})


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    for name, text in (("Mill", LONG), ("Ships", "three ships lie in the harbour")):
        rows = [{"sentence1": text, "sentence2": f"{name} {score}", "score": score} for score in range(3)]
        (tmp_path / "tasks" / name).mkdir(parents=True)
        (tmp_path / "tasks" / name / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "tasks"


class LabelledTrainer(EmbedderTrainer):
    """Trains on files beside the corpus."""

    file: Content

    def labelled_files(self) -> tuple[Path, ...]:
        return (self.file.path,)

    def train(self, examples: Path, out: Path, seed: int, ctx: Context) -> None:
        raise NotImplementedError

    def steps(self, examples: int) -> int:
        return 1


def judged(tasks: Path, home: Path, *texts: str, trainer: EmbedderTrainer | None = None) -> StageLine:
    stage = Evaluation(Judge(tasks=Content(path=tasks)), Trained(Corpus(texts), trainer))
    store, runtime = Store(home).open(), Runtime(home=home)
    for node in (stage.embedder.corpus, stage.embedder, stage):  # type: ignore[attr-defined]
        build(Goal(node, 0, ()), store, runtime, silence)
    return stage_line(Goal(stage, 0, ()), store, True)


def test_an_overlap_is_counted_by_task_and_told_beside_the_scores(tasks: Path, tmp_path: Path) -> None:
    line = judged(tasks, tmp_path / "home", COPY, "water runs downhill", "Three ships lie in the harbour!")
    found = line.metrics["contamination"]
    assert (found["records"], found["every"], found["contaminated"], found["left_out"]) == (3, 1, 2, [])
    assert found["tasks"] == {"Mill": {"texts": 6, "records": 1}, "Ships": {"texts": 6, "records": 1}}
    scores = Scores.model_validate(line.metrics["scores"])
    table = task_table([line], scores)
    assert table.head == ("task", "type", "score", "examples with its texts", "")
    assert table.rows[0] == ("Mill", "-", "96.00", "1", "near its ceiling")
    [told, ceiling] = about_the_tasks([line], scores)
    assert told.startswith(
        "Contamination: 2 of 3 examples of the corpus hold a text of these tasks or nearly so (a run"
    )
    assert ": Mill 1, Ships 1. Those scores may owe something to that." in told
    assert ceiling.startswith("Near its ceiling: Mill. From a score of 95 on at most 5 points are left to win")


def test_labelled_records_beside_the_corpus_are_searched_too(
    tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "labelled.jsonl"
    rows = [
        {"query": "ships", "pos": ["three ships lie in the harbour"], "neg": []},
        {"query": COPY, "pos": ["a hill"]},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = judged(tasks, tmp_path / "home", "a river", trainer=LabelledTrainer(file=Content(path=file)))
    assert line.metrics["contamination"]["tasks"] == {
        "Mill": {"texts": 6, "records": 1}, "Ships": {"texts": 6, "records": 1},
    }  # fmt: skip
    scores = Scores.model_validate(line.metrics["scores"])
    assert about_the_tasks([line], scores)[0].startswith(
        "Contamination: 2 of 3 examples of the corpus and of 1 labelled set hold a text of these tasks"
    )
    monkeypatch.setattr(contaminated_records, "RECORDS", 1)
    line = judged(tasks, tmp_path / "sampled", "a river", trainer=LabelledTrainer(file=Content(path=file)))
    assert (line.metrics["contamination"]["records"], line.metrics["contamination"]["every"]) == (1, 3)


def test_a_clean_corpus_is_said_to_be_clean(tasks: Path, tmp_path: Path) -> None:
    line = judged(tasks, tmp_path / "home", "water runs downhill", "a river")
    scores = Scores.model_validate(line.metrics["scores"])
    assert about_the_tasks([line], scores)[0].startswith("Contamination: none of 2 examples of the corpus hold a text")
    assert [row[3] for row in task_table([line], scores).rows] == ["0", "0"]


def test_the_search_is_bounded_and_says_what_it_left_out(
    tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contaminated_records, "CHARACTERS", 300)
    monkeypatch.setattr(contaminated_records, "RECORDS", 2)
    line = judged(tasks, tmp_path / "home", "a river", COPY, "three ships lie in the harbour", "water")
    found = line.metrics["contamination"]
    assert (found["records"], found["every"], found["left_out"]) == (2, 2, ["Mill"]), "every other one, the first first"
    assert found["tasks"] == {"Ships": {"texts": 6, "records": 1}}
    told = about_the_tasks([line], Scores.model_validate(line.metrics["scores"]))
    assert told[0].startswith(
        "Contamination: 1 of the 2 examples that were searched, every second of the corpus, holds a text of these tasks"
    )
    [left] = [row for row in task_table([line], Scores.model_validate(line.metrics["scores"])).rows if row[0] == "Mill"]
    assert left[3] == "-"
    assert task_table([line], Scores.model_validate(line.metrics["scores"])).head[3] == (
        "examples with its texts (every second was searched)"
    )
    assert told[1] == ("Contamination by tasks of too much text, or of an unknown amount, was not looked for: Mill.")
    monkeypatch.setattr(contaminated_records, "CHARACTERS", 10)
    line = judged(tasks, tmp_path / "other", "a river")
    [told_now, _] = about_the_tasks([line], Scores.model_validate(line.metrics["scores"]))
    assert told_now.endswith("was not looked for: Mill, Ships.")


def test_a_corpus_that_is_gone_costs_no_scores(tasks: Path, tmp_path: Path) -> None:
    stage = Evaluation(Judge(tasks=Content(path=tasks)), Trained(Corpus((COPY,))))
    store, runtime = Store(tmp_path / "home").open(), Runtime(home=tmp_path / "home")
    told: list[Any] = []
    for node in (stage.embedder.corpus, stage.embedder):  # type: ignore[attr-defined]
        build(Goal(node, 0, ()), store, runtime, silence)
    shutil.rmtree(store.folder(stage.embedder.corpus))  # type: ignore[attr-defined]
    build(Goal(stage, 0, ()), store, runtime, told.append)
    line = stage_line(Goal(stage, 0, ()), store, True)
    assert line.metrics["scores"]["mean"] == 68.0
    assert "contamination" not in line.metrics
    [said, _] = about_the_tasks([line], Scores.model_validate(line.metrics["scores"]))
    assert said.startswith("Contamination by these tasks was not searched: ")
    assert "corpus is not built" in said
    assert any("the corpus is not searched for texts of the tasks" in str(event) for event in told)
