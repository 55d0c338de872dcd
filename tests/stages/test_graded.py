"""A teacher writes documents of four levels of relevance, and a build that ends early goes on where it was."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from scripted_judge import Scripted

from speed.core.build import build
from speed.core.content import Content
from speed.core.errors import UserError
from speed.core.graph import goals
from speed.core.manifest import Manifest
from speed.core.stage import Stage, silence
from speed.core.store import Store
from speed.data.prompts.rendering import PromptsConfig
from speed.data.records import LEVELS, Example, Kind
from speed.ports import Ask
from speed.runtime import Context, Runtime
from speed.stages.asked_records import STATE
from speed.stages.given import GivenCorpus
from speed.stages.graded import GradedDocuments

COUNT = 6


@dataclass(frozen=True)
class Corpus(Stage[Example]):
    """Queries of retrieval, and a label between each two of them."""

    records: int = COUNT

    name: ClassVar[str] = "dedup"

    def run(self, out: Path, ctx: Context) -> None:
        with (out / "examples.jsonl").open("w") as file:
            for number in range(self.records):
                for kind in (Kind.RETRIEVAL, Kind.CLASSIFICATION):
                    made = Example(
                        kind=kind, task="t", query=f"q{number}", positive="p " * 34, negative=f"{kind} {number}"
                    )
                    file.write(made.model_dump_json() + "\n")


def query_of(ask: Ask) -> str:
    return ask.prompt.partition("The query is:\n")[2].split("\n")[0]


def documents(query: str) -> dict[str, str]:
    return {level: f"{level} for {query}" for level in LEVELS}


def writing(model: str, ask: Ask) -> str:
    return json.dumps(documents(query_of(ask)))


def mostly(model: str, ask: Ask) -> str:
    """Of the second query two documents are one text, and of the third one is missing."""
    found = documents(query_of(ask))
    if query_of(ask) == "q1":
        found["related"] = "Partial FOR  q1"
    if query_of(ask) == "q2":
        del found["unrelated"]
    return json.dumps(found)


def talking(model: str, ask: Ask) -> str:
    return "Here are four documents."


def stage(says: Any, **fields: Any) -> GradedDocuments:
    prompts = PromptsConfig().of("graded")
    plain = {"temperature": 1.0, "max_tokens": 100, "longest": 500, "queries": COUNT}
    return GradedDocuments(Corpus(), Scripted.saying(says), prompts, **(plain | fields))


def built(made: Stage[Any], home: Path) -> tuple[list[dict[str, Any]], Manifest]:
    store = Store(home).open()
    for goal in goals([made]):
        if store.manifest(goal.node) is None:
            build(goal, store, Runtime(home=home), silence)
    manifest = store.manifest(made)
    assert manifest is not None
    assert not (store.payload(made) / STATE).exists()
    return [json.loads(line) for line in (store.payload(made) / "examples.jsonl").read_text().splitlines()], manifest


def test_the_first_queries_of_retrieval_get_four_documents(tmp_path: Path) -> None:
    made = stage(mostly, queries=4)
    examples, manifest = built(made, tmp_path)
    assert [(each["kind"], each["query"]) for each in examples] == [
        (kind, f"q{number}") for number in range(COUNT) for kind in ("retrieval", "classification")
    ]
    assert all(each["negatives"] == [f"{each['kind']} {each['query'][1:]}"] for each in examples)
    graded = {each["query"]: each["graded"] for each in examples if "graded" in each}
    assert graded == {query: list(documents(query).values()) for query in ("q0", "q3")}
    assert {name: manifest.counts[name] for name in ("in", "out", "asked", "graded")} == {
        "in": 12, "out": 12, "asked": 4, "graded": 2,
    }  # fmt: skip
    assert (manifest.counts["graded_same_texts"], manifest.counts["graded_bad_schema"]) == (1, 1)
    [remark] = manifest.metrics["remarks"]
    assert remark.startswith("2 of 12 records have documents of 4 levels of relevance")
    assert isinstance(made.teacher, Scripted)
    asked = [ask for _, ask in made.teacher._heard]
    assert len(asked) == 4 == made.work().calls, "one call a query"
    assert all("each of about 30 words" in ask.prompt for ask in asked), "as long as the positive, about"


def test_a_teacher_of_whom_nothing_can_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"6 of 6 answers with graded documents cannot be read: 6 no_json"):
        built(stage(talking), tmp_path)


def test_a_plan_counts_the_texts_of_a_corpus_that_is_given(tmp_path: Path) -> None:
    file = tmp_path / "corpus.jsonl"
    long = {"kind": "retrieval", "task": "t", "query": "q", "positive": "word " * 2_000}
    file.write_text(f"{json.dumps(long)}\n" * 3)
    made = replace(stage(writing, queries=3), corpus=GivenCorpus(Content(path=file)))
    assert made.work().tokens_out == pytest.approx(3 * 4 * 2_000 * 5 / 4.5, rel=0.05)
    assert stage(writing).work().tokens_out < 6 * 4 * 600


@pytest.mark.parametrize("ended_at", [0, 1, 3, 5])
def test_a_build_that_ends_early_goes_on_and_tells_what_all_of_it_cost(tmp_path: Path, ended_at: int) -> None:
    heard = Counter[str]()

    def failing(model: str, ask: Ask) -> str:
        query = query_of(ask)
        heard[query] += 1
        if query == f"q{ended_at}" and heard[query] == 1:
            raise KeyboardInterrupt
        return writing(model, ask)

    with pytest.raises(KeyboardInterrupt):
        built(stage(failing), tmp_path)
    examples, manifest = built(stage(failing), tmp_path)
    assert (examples, manifest.counts) == (lambda found: (found[0], found[1].counts))(
        built(stage(writing), tmp_path / "whole")
    )
    assert heard == {f"q{number}": 1 + (number == ended_at) for number in range(COUNT)}, "nothing is asked again"
    assert manifest.cost["calls"] == COUNT, "the calls of both builds"


def test_a_state_whose_files_are_not_whole_is_left_alone(tmp_path: Path) -> None:
    """The journal then answers all that was asked."""
    heard = Counter[str]()

    def failing(model: str, ask: Ask) -> str:
        heard[query_of(ask)] += 1
        if query_of(ask) == "q4" and heard["q4"] == 1:
            raise KeyboardInterrupt
        return writing(model, ask)

    made = stage(failing)
    with pytest.raises(KeyboardInterrupt):
        built(made, tmp_path)
    file = Store(tmp_path).open().unfinished(made) / "examples.jsonl"
    assert file.stat().st_size > 10
    with file.open("r+b") as shorter:
        shorter.truncate(10)
    examples, _ = built(made, tmp_path)
    assert [each["query"] for each in examples[::2]] == [f"q{number}" for number in range(COUNT)]
    assert heard["q0"] == 2
