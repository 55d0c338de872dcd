"""Documents of one's own: what is planned, which records name which document, and the test that is held out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from speed.core.build import build
from speed.core.errors import UserError
from speed.core.graph import Goal
from speed.core.stage import silence
from speed.core.store import Store
from speed.data.answers.parse import example_json, parse_example, parse_revision
from speed.data.assignment import load_passages, load_topics
from speed.data.records import Example, Ground, Kind, Rejected, Sample
from speed.pipeline import pipeline
from speed.runs.score_tables import own_domain_remark, own_domain_table
from speed.runs.stage_lines import StageLine
from speed.runtime import Runtime
from speed.stages.own_domain import write_task

GROUND = Ground(document="a.md", text="The passage.", negative="Another one.")


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documents")
    for name in ("red", "green", "blue", "white"):
        sections = (
            f"## {place}\n\nThe {name} {place} stands beside the river and opens at noon each day.\n" for place in "abc"
        )
        (folder / f"{name}.md").write_text("\n".join(sections))
    return folder


@pytest.fixture
def made(compose: Any, documents: Path, tmp_path: Path) -> Any:
    config = compose(
        "topics=corpus", f"topics.path={documents}", "topics.documents.held_out=0.25", "scale.writer=teacher",
        "preference=none", "revisor=none", "scale.examples=46",
    )  # fmt: skip
    return pipeline(config)


def labels(pipe: Any) -> list[str]:
    return [goal.label for goal in pipe.goals()]


def test_the_test_is_planned_with_documents_alone_and_changes_no_other_key(compose: Any, documents: Path) -> None:
    plain = pipeline(compose())
    own = pipeline(compose("topics=corpus", f"topics.path={documents}"))
    assert plain.own_domain is None
    assert set(labels(own)) == {*labels(plain), "test queries", "own domain"}
    assert labels(own)[-1] == "evaluation"
    queries = next(goal for goal in own.goals() if goal.label == "test queries")
    assert queries.rows == 3, "one document of three passages"
    assert queries.node.work(0, 3).calls == 3  # type: ignore[attr-defined]
    other = pipeline(compose("topics=corpus", f"topics.path={documents}", "topics.documents.seed=1"))
    assert own.key != other.key
    moved = compose("topics=corpus", f"topics.path={documents / 'red.md'}")
    assert next(goal for goal in pipeline(moved).goals() if goal.label == "test queries").rows == 100
    with pytest.raises(UserError, match="two are needed"):
        pipeline(moved).goals()[0].node.check(Runtime())


def test_no_held_out_text_is_in_a_prompt_and_each_record_names_its_document(made: Any, tmp_path: Path) -> None:
    store, runtime = Store(tmp_path / "home").open(), Runtime(home=tmp_path / "home")
    wanted = [
        goal
        for goal in made.goals()
        if goal.label in ("topics", "tasks for seed", "seed data", "dedup", "test queries")
    ]
    for goal in wanted:
        build(Goal(goal.node, goal.rows, ()), store, runtime, silence)
    by_label = {goal.label: goal.node for goal in wanted}
    topics = store.payload(by_label["topics"])
    passages = load_passages(topics)
    held_out = {passage.text for passage in passages if passage.held_out}
    assert (len(passages), len(held_out)) == (12, 3)
    assert set(load_topics(topics)) == {passage.topic for passage in passages if not passage.held_out}
    lines = (store.payload(by_label["dedup"]) / "examples.jsonl").read_text().splitlines()
    records = [Example.model_validate_json(line) for line in lines]
    grounded = [record for record in records if record.document is not None]
    assert {record.kind for record in grounded} == {Kind.RETRIEVAL}
    assert len(grounded) == sum(record.kind is Kind.RETRIEVAL for record in records)
    assert len(grounded) >= 5, "of nine passages; repeats have gone"
    text_of = {passage.text: passage.document for passage in passages}
    for record in grounded:
        assert text_of[record.positive] == text_of[str(record.negative)] == record.document
        assert record.positive not in held_out
    assert all('"document"' not in line for line, record in zip(lines, records, strict=True) if record.document is None)
    queries = list(store.rows(made.own_domain.queries))
    assert {row.example.positive for row in queries if row.example} == held_out


def rows() -> Iterator[Sample]:
    from speed.data.records import UNASKED

    for place, text in enumerate(("The passage.", "Another one.")):
        example = Example(kind=Kind.RETRIEVAL, task="t", query=f"q {place}", positive=text, document="a.md")
        yield Sample(row=place, prompt=UNASKED, example=example)


def test_the_task_is_one_that_the_evaluation_reads(tmp_path: Path) -> None:
    from speed.backends.evaluation.task_folder import task_folders
    from speed.data.records import Passage

    texts = ["The passage.", "Another one.", "The passage.", "A third."]
    passages = [Passage(row=place, document="a.md", topic="a", text=text) for place, text in enumerate(texts)]
    write_task(tmp_path / "OwnDocuments", passages, list(rows()))
    (task,) = task_folders(tmp_path)
    task.check()
    assert (task.name, task.type) == ("OwnDocuments", "Retrieval")
    assert task.instruction == "Given a question, find the passages of these documents that answer it."
    assert [row["text"] for row in task.only_rows("corpus")] == ["The passage.", "Another one.", "A third."]
    assert [row["corpus-id"] for row in task.rows("test")] == ["p0", "p1"]


def test_a_query_alone_is_read_where_a_passage_is_given() -> None:
    found = parse_example(Kind.RETRIEVAL, "t", '{"user_query": "q"}', "stop", ground=GROUND)
    assert not isinstance(found, Rejected)
    assert (found.query, found.positive, found.negative, found.document) == (
        "q",
        "The passage.",
        "Another one.",
        "a.md",
    )
    assert json.loads(example_json(found)) == {"user_query": "q"}
    revised = parse_revision(
        Kind.RETRIEVAL, "t", '{"reason": "r", "revision": {"user_query": "z"}}', "stop", ground=GROUND
    )
    assert not isinstance(revised, Rejected)
    assert (revised[1].query, revised[1].positive) == ("z", "The passage.")
    for text in ('{"user_query": "q", "positive_document": "p"}', '{"positive_document": "p"}'):
        assert isinstance(parse_example(Kind.RETRIEVAL, "t", text, "stop", ground=GROUND), Rejected)
    assert isinstance(parse_example(Kind.RETRIEVAL, "t", '{"user_query": "q"}', "stop"), Rejected)


def test_the_report_has_what_was_won_and_what_was_forgotten() -> None:
    from speed.data.records import Scores

    def line(label: str, **metrics: Any) -> StageLine:
        return StageLine(
            label=label, key="k", state="built", rows_in=None, rows_out=None, rejected={}, seconds=0, gpu_seconds=0,
            cost={}, dollars=0.0, metrics=metrics,
        )  # fmt: skip

    tuned = Scores(tasks={"S": 50.0}, types={"STS": 50.0}, mean=50.0, mean_of_types=50.0)
    before = Scores(tasks={"S": 60.0}, types={"STS": 60.0}, mean=60.0, mean_of_types=60.0)
    own = {"queries": 3, "passages": 12, "tuned": {"nDCG@10": 70.0}, "base": {"nDCG@10": 40.0}}
    lines = [line("own domain", own_domain=own), line("evaluation", untrained=before.model_dump(mode="json"))]
    table = own_domain_table(lines, tuned)
    assert table is not None
    assert [list(row) for row in table.rows] == [
        ["own documents: nDCG@10", "40.00", "70.00", "+30.0"],
        ["STS", "60.00", "50.00", "-10.0"],
        ["mean over 1 general tasks", "60.00", "50.00", "-10.0"],
    ]
    assert own_domain_remark(lines).startswith("3 queries by the teacher")
    assert own_domain_table([], tuned) is None
