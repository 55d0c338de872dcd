"""A judge that is a retriever: what an example is worth, the pairs that come of it, and whom it refuses as a probe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scripted_judge import Lists
from test_negatives import WordRetriever
from test_pair_sources import UNREADABLE, built, figures_of

from speed.config import JudgeConfig
from speed.core.allocation import Demand
from speed.core.content import sha256_of
from speed.core.errors import UserError
from speed.core.manifest import Manifest, Output
from speed.data.judging.retrieval import Worth, worth
from speed.data.judging.votes import Judge
from speed.data.quality.guidelines import Guidelines
from speed.data.records import Candidates, Kind, Prompt
from speed.runtime import Runtime
from speed.stages.own_judges import refuse_own_probe
from speed.stages.retriever_pairs import RetrieverPairs


def sts(query: str, positive: str, negative: str) -> str:
    return json.dumps({"S1": query, "S2": positive, "S3": negative})


def listed(row: int, *texts: str) -> Candidates:
    prompt = Prompt(text=f"p{row}", template="", kind=Kind.STS, task="t")
    return Candidates(row=row, prompt=prompt, texts=texts, finish_reasons=("stop",) * len(texts))


HARD = sts("a b c d", "a b c d x", "a b c far")
EASY = sts("e f g h", "e f g h x", "e far away")
MAY_ANSWER = sts("i j k l", "i j k l x", "l k j i y")
LOST = sts("m n o p", "m at last", "m n o at last")


def pairs_of(*lists: Candidates, guidelines: Guidelines | None = None) -> RetrieverPairs:
    return RetrieverPairs(Lists(lists), WordRetriever(), guidelines or Guidelines())


def test_rank_comes_first_then_doubt_then_the_harder_one() -> None:
    assert worth(0.8, 0.5, [0.1, 0.2]) == Worth(1, False, 0.3)
    assert worth(0.8, 0.77, []) == Worth(1, True, 0.03), "0.77 is over 0.95 of 0.8"
    assert worth(0.5, 0.6, [0.7, 0.1]) == Worth(3, True, -0.1)
    assert worth(0.8, None, [0.3, 0.6]) == Worth(1, False, 0.2), "without a negative the nearest other document counts"
    assert worth(0.8, None, []) == Worth(1, False, 0.8)
    assert worth(0.8, 0.8 + 1e-6, []).rank == 1, "what a batch changes does not count"
    best_first = [Worth(1, False, 0.1), Worth(1, False, 0.3), Worth(1, True, 0.0), Worth(2, False, 0.1)]
    worst_first = best_first[::-1]
    assert sorted(worst_first) == best_first


def test_the_answer_that_teaches_most_is_chosen(tmp_path: Path) -> None:
    pool = pairs_of(
        listed(0, EASY, LOST, HARD, MAY_ANSWER),
        listed(1, MAY_ANSWER, EASY),
        listed(2, EASY, UNREADABLE, LOST),
        listed(3, UNREADABLE, UNREADABLE),
        listed(4, EASY, EASY),
        listed(5, EASY, sts("q r s t", "q r s t x", "q gone away")),
        Candidates(row=6, prompt=listed(6).prompt, rejected="too_long"),
    )
    pairs = built(pool, 7, tmp_path)
    assert [(pair.best, pair.worst) for pair in pairs[:3]] == [(2, 1), (1, 0), (0, 1)]
    assert (pairs[0].chosen, pairs[0].rejected_text) == (HARD, LOST)
    assert pairs[0].detail == (
        "best: rank 1, ahead by 0.2500; worst: rank 2, ahead by -0.5000, another one at least 0.95 times as near"
    )
    assert pairs[2].detail.endswith("worst: cannot be read")
    assert [pair.rejected for pair in pairs] == [
        None, None, None, "none_readable", "no_margin", "no_margin", "too_long",
    ]  # fmt: skip
    assert not any(pair.votes for pair in pairs)
    found = figures_of(pool, tmp_path)
    assert found["positives_found_first"] == pytest.approx(10 / 12, abs=1e-4)
    assert pool.work(0, 7).calls == 0


def test_a_list_is_judged_alike_whatever_stands_beside_it(tmp_path: Path) -> None:
    lists = [listed(0, UNREADABLE), listed(1, EASY, LOST, HARD), listed(2, HARD, MAY_ANSWER)]
    together = built(pairs_of(*lists), 3, tmp_path / "together")
    first = built(pairs_of(*lists), 2, tmp_path / "first")
    assert together[:2] == first


def test_lists_are_judged_on_all_gpus() -> None:
    assert pairs_of().demand(Runtime(devices=(0, 1, 2))) == Demand((1,), workers=True)
    assert pairs_of().demand(Runtime(devices="cpu")) == Demand((1,)), "each worker holds a probe of its own"


def test_an_answer_that_drops_is_never_chosen(tmp_path: Path) -> None:
    copied = sts("a b c d", "a b c d", "a b c far")  # the positive repeats the query
    (kept,) = built(pairs_of(listed(0, EASY, copied)), 1, tmp_path / "kept")
    assert kept.best == 1
    (strict,) = built(
        pairs_of(listed(0, EASY, copied, LOST), guidelines=Guidelines(drop="all")), 1, tmp_path / "strict"
    )
    assert strict.best == 0
    (none,) = built(pairs_of(listed(0, copied), guidelines=Guidelines(drop="all")), 1, tmp_path / "none")
    assert none.rejected == "all_faulty"


def test_probe_and_guidelines_are_part_of_the_key() -> None:
    root = Lists((listed(0, EASY, HARD),))
    made = [
        RetrieverPairs(root, WordRetriever(file=file), Guidelines(drop=drop))
        for file, drop in (("", "none"), ("other", "none"), ("", "all"))
    ]
    assert len({pool.key for pool in made}) == 3


def test_a_probe_that_was_trained_on_what_came_of_the_junior_is_refused(tmp_path: Path) -> None:
    root = Lists((listed(0, EASY, HARD),))
    weights = tmp_path / "copied" / "model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    probe = WordRetriever(file=str(weights))

    def manifest(stage: str, key: str, name: str, **recipe: object) -> None:
        folder = tmp_path / "store" / stage / key[:20]
        folder.mkdir(parents=True, exist_ok=True)
        outputs = (Output(path="model/model.safetensors", sha256=sha256_of(weights), bytes=7),)
        Manifest(key=key, stage=stage, label=stage, version=1, recipe=recipe, outputs=outputs).write(folder / name)  # type: ignore[arg-type]

    manifest("embedder", "e" * 64, "manifest.json", corpus={"stage": "dedup", "key": "d" * 64})
    manifest("dedup", "d" * 64, "manifest.json", samples={"pool": "synthesis", "key": "s" * 64, "rows": 9}, minhash={})
    refuse_own_probe(probe, root, tmp_path)
    manifest("synthesis", "s" * 64, "rows-0.json", junior={"stage": "junior", "key": root.key})
    with pytest.raises(UserError, match=r"judge\.retriever\.model=.*copied was trained on what the junior of this run"):
        refuse_own_probe(probe, root, tmp_path)
    refuse_own_probe(WordRetriever(), root, tmp_path)


def test_a_retriever_judges_alone() -> None:
    assert JudgeConfig(retriever=WordRetriever()).by_votes == Judge()
    with pytest.raises(ValueError, match="retriever judges alone"):
        JudgeConfig(retriever=WordRetriever(), votes=2)
