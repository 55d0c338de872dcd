"""Which records form a step: each as often as the weight of its source says, mixed or in groups."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contrastive_examples import examples, figures, small
from tiny_generator import context, make_base

from speed.backends.embedder.loop import table_of
from speed.backends.embedder.plan import Plan, batch_of
from speed.backends.embedder.settings import Batching, Development, Masks, Source
from speed.backends.embedder.token_table import KINDS
from speed.backends.embedder.trainer import ContrastiveTrainer
from speed.core.errors import UserError

MIX = {"retrieval": 70, "classification": 70, "sts": 70, "short_short": 10, "long_long": 10}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


def corpus(file: Path, **more: Any) -> Path:
    lines = [
        {"kind": kind, "task": f"{kind} {i % 7}", "query": f"{kind} {i}", "positive": f"{i} of {kind}", **more}
        for kind, count in MIX.items()
        for i in range(count)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def plan_of(config: ContrastiveTrainer, file: Path, seed: int = 0) -> Plan:
    return Plan(table_of(config, file, context(file.parent / "home")).table, config, seed)


def flat(parts: list[list[int]]) -> list[int]:
    return [record for part in parts for record in part]


def batches(plan: Plan) -> list[list[int]]:
    return [plan.batch(step).tolist() for step in range(len(plan))]


def test_every_record_once_an_epoch_in_the_papers_mix(base: Path, tmp_path: Path) -> None:
    plan = plan_of(small(base, batch_size=46, epochs=2), corpus(tmp_path / "examples.jsonl"))
    assert len(plan) == 10
    found = batches(plan)
    for epoch in (found[:5], found[5:]):
        assert sorted(flat(epoch)) == list(range(230))
        for batch in epoch:
            kinds = Counter(KINDS[plan.table.groups("kind")[record]] for record in batch)
            assert [kinds[kind] for kind in ("retrieval", "classification", "sts")] == pytest.approx([14] * 3, abs=1)
            assert kinds["short_short"] + kinds["long_long"] == pytest.approx(4, abs=2)
    assert found[:5] != found[5:]
    assert [plan.batch(step).tolist() for step in (7, 2, 7)] == [found[7], found[2], found[7]], (
        "in any order, as resumed"
    )


@pytest.mark.parametrize(("by", "groups"), [("kind", 5), ("task", 35)])
def test_homogeneous_batches_hold_one_group(base: Path, tmp_path: Path, by: str, groups: int) -> None:
    config = small(base, batch_size=10, batching=Batching(homogeneous=1.0, by=by))
    plan = plan_of(config, corpus(tmp_path / "examples.jsonl"))
    codes = plan.table.groups(by)
    found = batches(plan)
    assert len(set(codes.tolist())) == groups
    assert sorted(flat(found)) == list(range(230))
    sizes = Counter(codes.tolist())
    for batch in found:
        together = {int(codes[record]) for record in batch}
        assert len(together) == 1 or all(2 * sizes[code] < 10 for code in together)


def test_a_source_weighs_how_often_its_records_are_seen(base: Path, tmp_path: Path) -> None:
    file = corpus(tmp_path / "examples.jsonl")
    rare, often = corpus(tmp_path / "rare.jsonl"), corpus(tmp_path / "often.jsonl", negative="other")
    sources = (Source(path=rare, weight=0.1), Source(path=often, weight=2.5))
    plan = plan_of(small(base, batch_size=64, epochs=2, sources=sources), file)
    codes = plan.table.groups("source")
    epochs = [flat(batches(plan)[part]) for part in (slice(0, len(plan) // 2), slice(len(plan) // 2, None))]
    for records in epochs:
        assert Counter(codes[records].tolist()) == {-1: 230, 0: 23, 1: 575}
        seen = Counter(records)
        assert {seen[record] for record in np.flatnonzero(codes == -1)} == {1}
        assert {seen[record] for record in np.flatnonzero(codes == 1)} == {2, 3}
        for batch in batches(plan):
            assert Counter(codes[batch].tolist())[1] / len(batch) == pytest.approx(575 / 828, abs=0.1)
    drawn = [{record for record in records if codes[record] == 0} for records in epochs]
    assert drawn[0] != drawn[1], "another tenth each epoch"


def test_hard_negatives_are_as_many_as_asked_and_drawn_anew(base: Path, tmp_path: Path) -> None:
    file = corpus(tmp_path / "examples.jsonl", negatives=["one", "two", "three"])
    plan = plan_of(small(base, batch_size=23, hard_negatives=2, epochs=2), file)
    for step in (0, 12):
        batch = batch_of(plan, plan.batch(step), step, torch.device("cpu"))
        assert len(batch.rows) == 23 * 4
        owners = Counter(batch.ids.owner[23:].tolist())
        assert owners == dict.fromkeys(plan.batch(step).tolist(), 2), "each brings its own two"
    chosen = [[plan.negatives(record, step) for record in range(50)] for step in (0, 12)]
    assert chosen[0] != chosen[1]
    assert chosen[0] == [plan.negatives(record, 5) for record in range(50)], "within an epoch they stay"
    assert plan_of(small(base, hard_negatives=0), file).negatives(3, 0) == []


def test_held_out_records_are_never_trained_on(base: Path, tmp_path: Path) -> None:
    file = corpus(tmp_path / "examples.jsonl")
    plan = plan_of(small(base, batch_size=16, development=Development(records=30, every=5)), file)
    trained = flat(batches(plan))
    assert sorted([*trained, *plan.held_out.tolist()]) == list(range(230))
    assert len(plan.held_out) == 30
    with pytest.raises(UserError, match="hold out more than half of 230"):
        plan_of(small(base, development=Development(records=200)), file)


def test_the_development_score_is_in_the_curves(base: Path, tmp_path: Path) -> None:
    ctx = context(tmp_path / "home")
    config = small(base, development=Development(records=12, every=3))
    config.train(examples(tmp_path / "examples.jsonl", 60), tmp_path, 0, ctx)
    scored = [e["step"] for e in ctx.events if e["event"] == "metric" and "development_ndcg" in e["figures"]]  # type: ignore[attr-defined]
    assert scored == [2, 5]
    for name in ("development_accuracy", "development_ndcg"):
        assert 0 <= ctx.tally.metrics["development"][name] <= 1


def test_a_guide_leaves_out_what_it_scores_above_the_positive(base: Path, tmp_path: Path) -> None:
    from speed.backends.embedder.guide import Guide
    from speed.backends.embedder.loop import content
    from speed.backends.embedder.ranks import Ranks
    from speed.backends.embedder.records import labelled
    from speed.backends.encoding.encoder import Encoder

    small(base).train(examples(tmp_path / "guide.jsonl", 16), tmp_path, 0, context(tmp_path / "home"))
    file, guide = corpus(tmp_path / "examples.jsonl"), tmp_path / "model"
    config = small(base, masks=Masks(guide=str(guide)))
    ctx, cpu = context(tmp_path / "home"), torch.device("cpu")
    plan = plan_of(config, file)
    batch = batch_of(plan, plan.batch(0), 0, cpu)
    judge = Guide(config, lambda: labelled(file, ()), content(config, file), ctx, cpu, Ranks())
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    encoder = Encoder.load(guide)
    queries = encoder.encode([lines[record]["query"] for record in plan.batch(0)])
    documents = encoder.encode([lines[record]["positive"] for record in plan.batch(0)])
    assert abs(judge.similarity(batch).numpy() - queries @ documents.T).max() < 1e-5, "bare queries, row for row"
    masked: list[float] = []
    for margin in (2.0, 0.0, -2.0):
        ctx = context(tmp_path / "home")
        masks = Masks(
            identical_positives=False, own_duplicates=False, same_label=False, guide=str(guide), guide_margin=margin
        )
        small(base, masks=masks).train(examples(tmp_path / "few.jsonl", 8), tmp_path / str(margin), 0, ctx)
        masked += figures(ctx, "masked")
    assert masked[0] == 0.0 < masked[1] < masked[2]
    assert masked[2] < 1.0, "the positive always counts"


def test_a_query_that_is_held_out_is_not_trained_on_in_another_record(base: Path, tmp_path: Path) -> None:
    """Relabelling, and sources with several positives, give a query several records."""
    file = tmp_path / "examples.jsonl"
    rows = [{"kind": "retrieval", "task": "t", "query": f"q {i % 20}", "positive": f"p {i}"} for i in range(60)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = small(base, batch_size=8, development=Development(records=8))
    plan = plan_of(config, file)
    held = {record % 20 for record in plan.held_out.tolist()}
    trained = {record % 20 for record in flat(batches(plan))}
    assert len(plan.held_out) == 8
    assert held
    assert trained == set(range(20)) - held
    assert config.recipe() != {**small(base, batch_size=8).recipe(), "development": {"every": 50, "records": 8}}
    assert "held_out" not in small(base).recipe()


def test_equal_steps_for_corpora_of_unequal_size(base: Path, tmp_path: Path) -> None:
    """A smaller corpus is repeated, in another order each time; a larger one ends within an epoch."""
    config = small(base, batch_size=46, epochs=3, max_steps=12)
    plan = plan_of(config, corpus(tmp_path / "examples.jsonl"))
    found = batches(plan)
    assert len(plan) == config.steps(230) == 12
    assert [sorted(flat(epoch)) == list(range(230)) for epoch in (found[:5], found[5:10], found[10:])] == [
        True, True, False,
    ]  # fmt: skip
    assert found[:5] != found[5:10]
    assert found == batches(plan_of(config.model_copy(update={"max_steps": 99}), tmp_path / "examples.jsonl"))[:12]
    assert found[:2] == batches(plan_of(config.model_copy(update={"max_steps": 2}), tmp_path / "examples.jsonl"))
    assert config.seen(230) == 12 * 46
    usual = small(base, batch_size=46, epochs=3)
    assert "max_steps" not in usual.recipe()
    assert config.recipe()["max_steps"] == 12
    assert config.recipe() == config.model_copy(update={"epochs": 1}).recipe(), "it has no effect beside max_steps"
    assert usual.recipe()["epochs"] == 3
    assert usual.steps(230) == len(plan_of(usual, tmp_path / "examples.jsonl")) == 15


def test_a_training_takes_the_steps_that_are_asked_for(base: Path, tmp_path: Path) -> None:
    ctx = context(tmp_path / "home")
    config = small(base, batch_size=8, max_steps=5, schedule="linear", warmup_ratio=0.0)
    config.train(examples(tmp_path / "few.jsonl", 16), tmp_path, 0, ctx)
    rates = figures(ctx, "learning_rate")
    assert len(rates) == 5
    assert rates[-1] < rates[0]
    assert "| max_steps | 5 |" in (tmp_path / "model" / "README.md").read_text()
