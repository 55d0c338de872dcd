"""A teacher says which documents answer, and false negatives become positives."""

from __future__ import annotations

import json
from collections.abc import Callable
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
from speed.core.stage import Send, Stage, silence
from speed.core.store import Store
from speed.data.costs.prices import estimated_tokens
from speed.data.hard_negatives import Record
from speed.data.judging.relevance import SAID, Verdict, agreed, became, relabelled
from speed.data.prompts.rendering import PromptsConfig
from speed.data.records import Example, Kind
from speed.miniature.prompt_reading import read_prompt
from speed.ports import Ask
from speed.runtime import Context, Runtime
from speed.stages.given import GivenCorpus
from speed.stages.relabelling import Relabelling

WRONG, TOO, ALONE, NEITHER = (True, False), (True, True), (False, True), (False, False)


@pytest.mark.parametrize(
    ("verdicts", "made"),
    [
        ([WRONG, WRONG], [("p", "a", "b")]),
        ([None, None], [("p", "a", "b")]),
        ([TOO, WRONG], [("p", "b"), ("a", "b")]),
        ([TOO, TOO], [("p",), ("a",), ("b",)]),
        ([ALONE, NEITHER], [("a", "p", "b")]),
        ([ALONE, ALONE], [("a", "p"), ("b", "p")]),
        ([NEITHER, None], []),
        ([ALONE, WRONG], [("p", "b"), ("a", "b")]),  # of the positive as many say yes as no: it stays
    ],
)
def test_what_becomes_of_a_record(verdicts: list[Verdict | None], made: list[tuple[str, ...]]) -> None:
    record = Record(Kind.RETRIEVAL, "t", "q", "p", ("a", "b"), "document of p")
    found = relabelled(record, verdicts)
    assert [(each.positive, *each.negatives) for each in found] == made
    assert {(each.task, each.query) for each in found} <= {("t", "q")}
    assert [each.document for each in found] == ["document of p" if each[0] == "p" else None for each in made]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (["wrong", "undecided"], ""),
        (["answers_too", "wrong"], "further_positives"),
        (["answers_alone"], "positive_replaced"),
        (["answers_alone", "wrong"], "further_positives"),
        (["answers_alone", "unread", "neither_answers"], "positive_replaced"),
        ([], ""),
    ],
)
def test_what_became_of_a_record_is_read_from_what_was_said(said: list[str], told: str) -> None:
    assert became(said) == told
    verdicts = [next((verdict for verdict, name in SAID.items() if name == each), None) for each in said]
    made = relabelled(Record(Kind.RETRIEVAL, "t", "q", "p", tuple("abc"[: len(said)])), verdicts)
    assert (made[0].positive != "p") == (told == "positive_replaced")
    assert (len(made) > 1) == (told == "further_positives")


def test_a_text_that_is_a_positive_already_is_no_further_one() -> None:
    record = Record(Kind.CLASSIFICATION, "t", "q", "Sport", ("sport", "b", "b "))
    assert [(each.positive, *each.negatives) for each in relabelled(record, [TOO, WRONG, None])] == [
        ("Sport", "b", "b ")
    ]
    assert [each.positive for each in relabelled(record, [TOO, TOO, TOO])] == ["Sport", "b"]


def test_only_verdicts_that_agree_in_both_orders_count() -> None:
    """In the second the negative stands first: whoever prefers a place says the same twice."""
    assert agreed((True, False), (False, True)) == WRONG
    assert agreed((False, True), (True, False)) == ALONE
    assert agreed((True, False), (True, False)) is agreed((False, True), (False, True)) is None
    assert agreed((True, True), (True, True)) == TOO


ROWS = [
    ("right", "right p", "n"),
    ("too", "too p", "too n"),
    ("alone", "p", "alone n"),
    ("neither", "p", "n"),
    ("place", "p", "n"),
    ("nothing to ask", "p", None),
]


@dataclass(frozen=True)
class Corpus(Stage[Example]):
    """The records above."""

    name: ClassVar[str] = "dedup"

    def run(self, out: Path, ctx: Context) -> None:
        with (out / "examples.jsonl").open("w") as file:
            for query, positive, negative in ROWS:
                made = Example(kind=Kind.RETRIEVAL, task="t", query=query, positive=positive, negative=negative)
                file.write(made.model_dump_json() + "\n")


def knowing(model: str, ask: Ask) -> str:
    """A document answers that begins with the query; asked about `place`, it takes the first."""
    request = read_prompt(ask.prompt)
    first, second = (document.startswith(request.query) for document in request.shown)
    said = "both" if first and second else "first" if first else "second" if second else "neither"
    return json.dumps({"reason": "so", "answer": "first" if request.query == "place" else said})


def talking(model: str, ask: Ask) -> str:
    return "Both are fine documents."


def stage(says: Callable[[str, Ask], str]) -> Relabelling:
    prompts = PromptsConfig().of("relevance")
    return Relabelling(Corpus(), Scripted.saying(says), prompts, 0.0, 100, rows=6, negatives=1)


def built(
    made: Relabelling, home: Path, send: Send = silence
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], Manifest]:
    store = Store(home).open()
    for goal in goals([made]):
        build(goal, store, Runtime(home=home), send)
    manifest = store.manifest(made)
    assert manifest is not None
    examples, verdicts = (
        [json.loads(line) for line in (store.payload(made) / f"{name}.jsonl").read_text().splitlines()]
        for name in ("examples", "verdicts")
    )
    return examples, verdicts, manifest


def test_false_negatives_become_positives_and_are_counted(tmp_path: Path) -> None:
    made = stage(knowing)
    examples, verdicts, manifest = built(made, tmp_path)
    assert [(each["query"], each["positive"], each.get("negatives")) for each in examples] == [
        ("right", "right p", ["n"]),
        ("too", "too p", None),
        ("too", "too n", None),
        ("alone", "alone n", ["p"]),
        ("place", "p", ["n"]),
        ("nothing to ask", "p", None),
    ]
    said = ["wrong", "answers_too", "answers_alone", "neither_answers", "undecided"]
    assert [each["negatives"] for each in verdicts] == [*([one] for one in said), []]
    assert [each["left_out"] for each in verdicts] == ["", "", "", "unanswered", "", ""]
    assert (manifest.counts["in"], manifest.counts["out"], manifest.rejected) == (6, 6, {"unanswered": 1})
    assert all(manifest.counts[f"negatives_{each}"] == 1 for each in said)
    [remark] = manifest.metrics["remarks"]
    assert remark.startswith("of 5 hard negatives the teacher found 20% wrong, 20% answers_too, 20% answers_alone")
    assert remark.endswith("1 positives replaced, 1 further ones, 1 of 6 records left out")
    assert isinstance(made.teacher, Scripted)
    heard = [ask for _, ask in made.teacher._heard]
    assert len(heard) == 10, "each of five hard negatives in both orders, and nothing where there is none"
    assert {(ask.purpose, ask.temperature, ask.max_tokens) for ask in heard} == {("relevance", 0.0, 100)}
    assert made.work().calls == 12, "a plan does not know which records have none"


def test_a_plan_counts_the_texts_of_a_corpus_that_is_given(tmp_path: Path) -> None:
    """Not those that the paper's prompts ask for, which may be far shorter."""
    file = tmp_path / "corpus.jsonl"
    long = {"kind": "retrieval", "task": "t", "query": "q", "positive": "word " * 2_000, "negative": "other " * 2_000}
    file.write_text(f"{json.dumps(long)}\n" * 3)
    made = replace(stage(knowing), corpus=GivenCorpus(Content(path=file)), rows=3)
    store = Store(tmp_path / "home").open()
    prompts = [prompt for _, prompt in made.sample_prompts(5, Context(store, Runtime(home=tmp_path / "home")))]
    assert len(prompts) == made.work().calls == 6
    assert made.work().tokens_in == pytest.approx(sum(map(estimated_tokens, prompts)), abs=6)
    unwritten = replace(made, corpus=GivenCorpus(Content(path=tmp_path / "none")))
    assert unwritten.work().calls == 6, "a plan is made all the same; what is missing is told by the corpus"


def test_that_nothing_can_be_read_is_said_while_it_is_paid_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("speed.stages.asked_records.LOOK", 4)
    said: list[str] = []

    def hear(event: dict[str, Any]) -> None:
        said.extend([event["message"]] if event["event"] == "say" else [])

    with pytest.raises(UserError, match="10 of 10 verdicts"):
        built(stage(talking), tmp_path, hear)
    [message] = said
    assert message.startswith("4 of the first 4 verdicts on documents cannot be read: 4 no_json")


def test_a_teacher_of_whom_nothing_can_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"(?s)10 of 10 verdicts .* cannot be read: 10 no_json.*structured") as told:
        built(stage(talking), tmp_path)
    assert "filter=none" in str(told.value)
