"""Contrastive entropy of pairs that an embedder has not seen."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from plans import config_of
from test_negatives import WordRetriever

from speed.core.build import build
from speed.core.errors import UserError
from speed.core.graph import goals
from speed.core.manifest import Manifest
from speed.core.stage import Pool, Stage, silence
from speed.core.store import Store
from speed.data.records import Example, Kind, Prompt, Sample
from speed.pipeline import pipeline
from speed.ports import EmbedderTrainer, Weights
from speed.runtime import Context, Runtime
from speed.stages.held_out_pairs import HeldOutPairs

PAIRS = [
    (Kind.RETRIEVAL, "a b", "a b"),
    (Kind.RETRIEVAL, "a c", "a"),
    (Kind.RETRIEVAL, "c d", "c d"),
    (Kind.RETRIEVAL, "c d", "d"),
    (Kind.STS, "e f", "e f"),
    (Kind.STS, "g h", "g"),
]


@dataclass(frozen=True)
class Written(Pool[Sample]):
    """The pairs above; a row that could not be read stands behind them."""

    name: ClassVar[str] = "seed data"
    row: ClassVar[type[Sample]] = Sample

    def build(self, start: int, stop: int, ctx: Context) -> Iterator[Sample]:
        for number in range(start, stop):
            prompt = Prompt(text=f"p{number}", template="", kind=Kind.RETRIEVAL, task="t")
            if number == len(PAIRS):
                yield Sample(row=number, prompt=prompt, text="{").reject("bad_syntax")
                continue
            kind, query, positive = PAIRS[number]
            example = Example(kind=kind, task="t", query=query, positive=positive)
            yield Sample(row=number, prompt=prompt, example=example)


@dataclass(frozen=True)
class Trained(Stage[Weights]):
    name: ClassVar[str] = "embedder"

    def run(self, out: Path, ctx: Context) -> None:
        (out / "model").mkdir()


class WordTrainer(EmbedderTrainer):
    """Its embedders count common words."""

    def trained_retriever(self, folder: Path) -> WordRetriever | None:
        assert (folder / "model").is_dir()
        return WordRetriever()

    def train(self, examples: Path, out: Path, seed: int, ctx: Context) -> None:
        raise NotImplementedError

    def steps(self, examples: int) -> int:
        return 1


def measured(home: Path, rows: int = len(PAIRS) + 1, **fields: Any) -> tuple[dict[str, Any], Manifest]:
    stage = HeldOutPairs(Trained(), WordTrainer(), Written().take(rows), seed=0, **fields)
    store = Store(home).open()
    for goal in goals([stage]):
        build(goal, store, Runtime(home=home), silence)
    manifest = store.manifest(stage)
    assert manifest is not None
    return json.loads((store.payload(stage) / "entropy.json").read_text()), manifest


def test_a_positive_is_told_from_those_of_other_queries_of_its_kind(tmp_path: Path) -> None:
    found, manifest = measured(tmp_path / "home")

    def loss(positive: float, *negatives: float) -> float:
        return -math.log(math.exp(positive) / sum(math.exp(each) for each in (positive, *negatives)))

    retrieval = [
        loss(1.0, 0.5, 0.0, 0.0),  # "a b" against "a", "c d" and "d"
        loss(0.5, 0.5, 0.5, 0.0),  # "a c" against "a b", "c d" and "d"
        loss(1.0, 0.0, 0.0),  # "c d", whose query has "d" as a positive, too
        loss(0.5, 0.0, 0.0),
    ]
    sts = [loss(1.0, 0.0), loss(0.5, 0.0)]
    assert found["contrastive_entropy"] == pytest.approx(sum(retrieval + sts) / 6, abs=1e-5)
    assert found["entropy_by_kind"] == {
        "retrieval": pytest.approx(sum(retrieval) / 4, abs=1e-5), "sts": pytest.approx(sum(sts) / 2, abs=1e-5),
    }  # fmt: skip
    assert (found["pairs"], found["negatives"]) == (6, 2.0)
    assert (manifest.counts["in"], manifest.counts["out"]) == (7, 6)
    assert manifest.metrics["contrastive_entropy"] == found["contrastive_entropy"]


def test_so_many_negatives_are_drawn(tmp_path: Path) -> None:
    found, _ = measured(tmp_path / "home", negatives=1)
    assert found["negatives"] == 1.0
    assert found == measured(tmp_path / "again", negatives=1)[0]


def test_too_few_pairs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="1 of 1 pairs can be read, and two of a kind with different positives are needed"
    ):
        measured(tmp_path / "home", rows=1)


def test_a_pair_that_is_alone_of_its_kind_does_not_count(tmp_path: Path) -> None:
    found, manifest = measured(tmp_path / "home", rows=5)
    assert found["pairs"] == 4, "the only example of STS is told from nothing"
    assert list(found["entropy_by_kind"]) == ["retrieval"]
    assert found["contrastive_entropy"] == found["entropy_by_kind"]["retrieval"]
    assert manifest.counts["out"] == 5


def test_it_stands_beside_the_evaluation_and_changes_no_key() -> None:
    without, beside = pipeline(config_of()), pipeline(config_of("held_out_pairs=100"))
    assert without.key == beside.key
    assert beside.held_out is not None
    assert beside.held_out.pairs.rows == 100
    assert {goal.key for goal in beside.goals()} - {goal.key for goal in without.goals()} == {beside.held_out.key}
    everything = pipeline(config_of("held_out_pairs=1000000")).held_out
    assert everything is not None
    assert everything.pairs.rows == config_of().counts.sft


def test_nothing_is_bought_only_to_measure(tmp_path: Path) -> None:
    file = tmp_path / "corpus.jsonl"
    rows = [{"query": f"q {n}", "positive": f"p {n}", "kind": "retrieval", "task": "t"} for n in range(3)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for typed in (f"given.corpus={file}", "scale.writer=instruct"):
        with pytest.raises(UserError, match="this run has no seed examples, and none are bought only to measure"):
            pipeline(config_of("held_out_pairs=10", "preference=none", "revisor=none", typed))


def test_examples_that_are_the_corpus_are_not_held_out() -> None:
    with pytest.raises(UserError, match="held_out_pairs=100: seed examples are the corpus where the teacher writes it"):
        pipeline(config_of("held_out_pairs=100", "+experiment=teacher_data"))
