"""Mining and filtering of hard negatives as stages, with a retriever that counts common words."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from speed.core.build import build
from speed.core.content import MERGED_FROM, Content, sha256_of
from speed.core.errors import UserError
from speed.core.graph import goals
from speed.core.manifest import Manifest, Output
from speed.core.stage import Pool, Stage, silence
from speed.core.store import Store
from speed.data.given_records import Part
from speed.data.quality.negative_rules import NegativeRules
from speed.data.records import Example, Kind, Sample
from speed.ports import Comparison, Group, Retriever
from speed.runtime import Context, Runtime
from speed.stages.dedup import Dedup
from speed.stages.filter import NegativeFilter
from speed.stages.given import FirstOfCorpus, GivenCorpus
from speed.stages.negatives import MinedNegatives
from speed.stages.own_judges import refuse_own_judge, refuse_same_records

ROWS = [
    ("a b c d", "a b c d", "far"),
    ("a b c x", "a b c x", "a b c x y"),
    ("a b y z", "a b y", None),
    ("q r s t", "nothing", "q r s t"),
]


class Words(Comparison):
    """Share of the query's words that a document has."""

    def __init__(self, queries: list[str], documents: list[str], groups: Sequence[Group]) -> None:
        self.queries, self.documents, self.groups = queries, documents, groups

    def _alike(self, query: int, document: int) -> float:
        asked = set(self.queries[query].split())
        return len(asked & set(self.documents[document].split())) / len(asked)

    def nearest(self, count: int, excluded: Callable[[int], Collection[int]]) -> Iterator[list[tuple[int, float]]]:
        for group in self.groups:
            for query in group.queries:
                left = [number for number in group.documents if number not in excluded(query)]
                found = sorted((-self._alike(query, number), number) for number in left)
                yield [(number, -value) for value, number in found[:count]]

    def similarities(self, pairs: Iterable[tuple[int, int]]) -> Iterator[float]:
        return (self._alike(*pair) for pair in pairs)

    def ranks(self, positives: Sequence[int], excluded: Callable[[int], Collection[int]]) -> Iterator[int]:
        for query, found in enumerate(self.nearest(len(self.documents), excluded)):
            yield 1 + sum(value > self._alike(query, positives[query]) for _, value in found)


class WordRetriever(Retriever):
    """Counts common words; its weights are a file that a test writes."""

    file: str = ""

    def weights(self) -> tuple[Path, ...]:
        return (Path(self.file),) if self.file else ()

    @contextmanager
    def compared(
        self,
        queries: Iterable[tuple[str, str]],
        documents: Iterable[str],
        groups: Sequence[Group],
        scratch: Path,
        ctx: Context,
    ) -> Iterator[Comparison]:
        yield Words([query for _, query in queries], list(documents), groups)


@dataclass(frozen=True)
class Corpus(Stage[Example]):
    """The records above, and more."""

    more: tuple[tuple[str, str, None], ...] = ()

    name: ClassVar[str] = "dedup"

    def run(self, out: Path, ctx: Context) -> None:
        with (out / "examples.jsonl").open("w") as file:
            for query, positive, negative in (*ROWS, *self.more):
                kind = Kind.RETRIEVAL
                made = Example(kind=kind, task="t", query=query, positive=positive, negative=negative)
                file.write(made.model_dump_json() + "\n")


def built(stage: Stage[Any], home: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]], Manifest]:
    """Records, scores and manifest of a stage that is built now."""
    store = Store(home).open()
    for goal in goals([stage]):
        build(goal, store, Runtime(home=home), silence)
    folder = store.payload(stage)
    manifest = store.manifest(stage)
    assert manifest is not None
    assert not (folder / "vectors").exists()
    records, scores = (
        [json.loads(line) for line in (folder / name).read_text().splitlines()]
        for name in ("examples.jsonl", "scores.jsonl")
    )
    return records, scores, manifest


def mined(**fields: Any) -> MinedNegatives:
    values = {"ranks": (1, 3), "count": 2, "keep_generated": False} | fields
    return MinedNegatives(corpus=Corpus(), miner=WordRetriever(), **values)


def test_the_nearest_other_positives_take_the_place_of_generated_negatives(tmp_path: Path) -> None:
    records, scores, manifest = built(mined(), tmp_path)
    assert [record["query"] for record in records] == [row[0] for row in ROWS]
    assert [record["positive"] for record in records] == [row[1] for row in ROWS]
    assert records[0]["negatives"] == ["a b c x", "a b y"]
    assert records[1]["negatives"] == ["a b c d", "a b y"]
    assert scores[0] == {
        "positive": 1.0,
        "negatives": [{"rank": 1, "similarity": 0.75}, {"rank": 2, "similarity": 0.5}],
    }
    assert {name: manifest.counts[name] for name in ("in", "out", "mined_negatives")} == {
        "in": 4, "out": 4, "mined_negatives": 8,
    }  # fmt: skip


def test_negatives_are_mined_and_left_out_with_all_devices() -> None:
    for stage in (mined(), filtered(Corpus())):
        assert stage.demand(Runtime(devices=(0, 1, 2))).devices == (1, 2, 3)
        assert stage.demand(Runtime(devices="cpu")).devices == (1,)


def test_a_window_begins_at_its_first_rank(tmp_path: Path) -> None:
    records, scores, _ = built(mined(ranks=(2, 3), count=None), tmp_path)
    assert records[0]["negatives"] == ["a b y", "nothing"]
    assert [each["rank"] for each in scores[0]["negatives"]] == [2, 3]


def test_generated_negatives_come_first_and_are_not_mined_again(tmp_path: Path) -> None:
    records, scores, manifest = built(mined(keep_generated=True), tmp_path)
    assert records[0]["negatives"] == ["far", "a b c x"]
    assert records[2]["negatives"] == ["a b c d", "a b c x"]
    assert scores[0]["negatives"][0] == {"rank": None, "similarity": None}
    assert (manifest.counts["generated_negatives"], manifest.counts["mined_negatives"]) == (3, 5)


def test_negatives_that_may_answer_are_told(tmp_path: Path) -> None:
    """Of query 4, whose positive has none of its words, every document is as near."""
    _, _, manifest = built(mined(), tmp_path)
    [remark] = manifest.metrics["remarks"]
    assert manifest.metrics["near_the_positive"] == 0.25
    assert remark.startswith("8 hard negatives mined, 2.0 a record; 25% of them are at least 0.95 times as near")
    assert remark.endswith(": filter=positive_aware leaves them out")
    _, _, whole = built(mined(count=None), tmp_path)
    assert "filter=" not in whole.metrics["remarks"][0], "a filter follows"


def filtered(corpus: Stage[Example], count: int = 1, **rules: Any) -> NegativeFilter:
    return NegativeFilter(corpus, WordRetriever(), NegativeRules(**rules), count)


def test_a_generated_negative_near_the_positive_goes_and_its_record_stays(tmp_path: Path) -> None:
    records, scores, manifest = built(filtered(Corpus(), positive_share=0.95), tmp_path)
    assert [record.get("negatives") for record in records] == [["far"], None, None, None]
    assert scores[1] == {
        "positive": 1.0, "rank": None, "left_out": "", "negatives": [{"similarity": 1.0, "left_out": "near_positive"}],
    }  # fmt: skip
    assert manifest.counts["negatives_near_positive"] == 2
    assert manifest.counts["negatives_kept"] == 1
    assert manifest.counts["records_without_negative"] == 3
    assert manifest.metrics["remarks"] == [
        "1 hard negatives kept, 0.2 a record; left out: 2 near_positive; 3 of 4 records have none"
    ]


def test_the_next_of_the_window_takes_the_place_of_what_goes(tmp_path: Path) -> None:
    records, _, manifest = built(filtered(mined(count=None), margin=(0.3, 1.0)), tmp_path)
    assert [record.get("negatives") for record in records[:2]] == [["a b y"], ["a b y"]]
    assert manifest.counts["negatives_below_margin"] > 0
    assert manifest.counts["negatives_enough"] > 0


def test_a_record_that_loses_all_its_negatives_may_go(tmp_path: Path) -> None:
    records, _, manifest = built(filtered(Corpus(), positive_share=0.95, removes="record"), tmp_path)
    assert [record["query"] for record in records] == ["a b c d", "a b y z"]
    assert manifest.rejected == {"no_negative_left": 2}


def test_a_positive_that_is_not_found_for_its_query_goes(tmp_path: Path) -> None:
    """Ties count for the positive: of query 4 all documents are as far."""
    corpus = Corpus(more=(("a b c d e", "e", None),))
    records, scores, manifest = built(filtered(corpus, top=3), tmp_path)
    assert [record["query"] for record in records] == [row[0] for row in ROWS]
    assert [score["rank"] for score in scores] == [1, 1, 1, 1, 4]
    assert scores[-1]["left_out"] == "positive_not_found"
    assert manifest.rejected == {"positive_not_found": 1}


def test_too_few_records_are_told(tmp_path: Path) -> None:
    corpus = mined(count=1)
    with pytest.raises(UserError, match="the filter leaves 0 of 4 records"):
        built(filtered(corpus, margin=(5.0, 6.0), removes="record"), tmp_path)


@dataclass(frozen=True)
class Samples(Pool[Sample]):
    """Only ever named."""

    seed: int
    name: ClassVar[str] = "synthesis"
    row: ClassVar[type[Sample]] = Sample

    def build(self, start: int, stop: int, ctx: Context) -> Iterator[Sample]:
        return iter(())


def embedder_of(corpus: Stage[Example], home: Path, file: Path, sources: Sequence[Any] = ()) -> None:
    """As if an embedder had been trained on a corpus, and its weights were in a file."""
    for stage, key, recipe, outputs in (
        ("dedup", corpus.key, dict(corpus.own_recipe), ()),
        (
            "embedder",
            "e" * 64,
            {"corpus": corpus.recipe(), "trainer": {"sources": list(sources)}},
            (Output(path="model/model.safetensors", sha256=sha256_of(file), bytes=1),),
        ),
    ):
        folder = home / "store" / stage / key[:20]
        folder.mkdir(parents=True)
        made = Manifest(key=key, stage=stage, label=stage, version=1, recipe=recipe, outputs=outputs)
        made.write(folder / "manifest.json")


def test_an_embedder_is_no_judge_of_the_records_that_it_was_trained_on(tmp_path: Path) -> None:
    """Also where it saw fewer of the same pool; its copy counts as itself, and other records are no reason."""
    file = tmp_path / "copy" / "model.safetensors"
    file.parent.mkdir()
    file.write_bytes(b"weights")
    judge = WordRetriever(file=str(file))
    embedder_of(Dedup(None, Samples(1).take(10)), tmp_path, file)
    with pytest.raises(UserError, match="was trained on the records of this run"):
        refuse_own_judge(judge, mined_from(Dedup(None, Samples(1).take(20))), tmp_path)
    refuse_own_judge(judge, Dedup(None, Samples(2).take(10)), tmp_path)
    file.write_bytes(b"other weights")
    refuse_own_judge(judge, Dedup(None, Samples(1).take(10)), tmp_path)


def example(query: str, positive: str) -> Example:
    return Example(kind=Kind.RETRIEVAL, task="t", query=query, positive=positive, negative="n")


def test_a_merge_of_own_embedders_is_no_judge_either(tmp_path: Path) -> None:
    part, merged = tmp_path / "part" / "model.safetensors", tmp_path / "merged" / "model.safetensors"
    for file, content in ((part, b"weights"), (merged, b"their mean")):
        file.parent.mkdir()
        file.write_bytes(content)
    corpus = Dedup(None, Samples(1).take(10))
    embedder_of(corpus, tmp_path, part)
    refuse_own_judge(WordRetriever(file=str(merged)), corpus, tmp_path)
    (merged.parent / MERGED_FROM).write_text(json.dumps({"sha256": [sha256_of(part)]}))
    with pytest.raises(UserError, match="was trained on the records of this run"):
        refuse_own_judge(WordRetriever(file=str(merged)), corpus, tmp_path)


def test_records_that_come_back_as_a_file_are_recognised(tmp_path: Path) -> None:
    """By the file where it was a labelled set of the judge's training, and by their texts once they are there."""
    weights = tmp_path / "copy" / "model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    judge = WordRetriever(file=str(weights))
    learnt = Dedup(None, Samples(1).take(10))
    given = tmp_path / "given.jsonl"
    given.write_text(example("q", "p").line() + "\n")
    embedder_of(learnt, tmp_path, weights, sources=[{"path": {"sha256": sha256_of(given)}, "weight": 1.0}])
    with pytest.raises(UserError, match="was trained on the records of this run"):
        refuse_own_judge(judge, mined_from(GivenCorpus(Content(path=given))), tmp_path)
    with pytest.raises(UserError, match="was trained on the records of this run"):
        refuse_own_judge(judge, FirstOfCorpus((Part(name="a", path=given),), 1), tmp_path)
    other = tmp_path / "other.jsonl"
    other.write_text(example("q2", "p2").line() + "\n")
    refuse_own_judge(judge, GivenCorpus(Content(path=other)), tmp_path)

    records = tmp_path / "store" / "dedup" / learnt.key[:20] / "examples.jsonl"
    records.write_text("".join(example(f"q{n}", f"p{n}").line() + "\n" for n in range(200)))
    few = tmp_path / "few.jsonl"
    few.write_text("".join(example(f"q{n}", f"p{n}").line() + "\n" for n in range(199, 400)))
    refuse_same_records(judge, few, tmp_path)
    few.write_text("".join(example(f"q{n}", f"p{n}").line() + "\n" for n in range(197, 400)))
    with pytest.raises(UserError, match="was trained on the records of this run"):
        refuse_same_records(judge, few, tmp_path)


def mined_from(corpus: Stage[Example]) -> MinedNegatives:
    return MinedNegatives(corpus, WordRetriever(), (1, 3), 1, False)
