"""Graded documents in a training: rows of their own, out of the contrastive loss, with a list-wise loss beside it."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from contrastive_examples import figures, small
from gradient_of_ranks import first_gradient
from tiny_generator import context, make_base

from speed.backends.embedder.loop import table_of
from speed.backends.embedder.plan import Plan, batch_of
from speed.backends.embedder.ranks import Ranks
from speed.backends.embedder.records import labelled
from speed.backends.embedder.settings import Lora
from speed.backends.encoding.encoder import Encoder
from speed.core.errors import UserError

LEVELS = ["topic stone", "input output", "water stone", "water river"]
"""Nearest to the query by its words is the last."""
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


def corpus(file: Path, count: int = 12, graded: bool = True, share: int = 2) -> Path:
    """Every `share`-th record has graded documents; each has two hard negatives."""
    with file.open("w") as lines:
        for number in range(count):
            row: dict[str, Any] = {"kind": "retrieval", "task": "find", "query": f"water river {number}"}
            row |= {"positive": f"water {number}", "negatives": [f"stone {number}", "input"]}
            if graded and number % share == 0:
                row["graded"] = [f"{text} {number}" for text in LEVELS]
            lines.write(json.dumps(row) + "\n")
    return file


def test_they_are_rows_behind_the_negatives_and_no_negatives(base: Path, tmp_path: Path) -> None:
    config = small(base, listwise=1.0, hard_negatives=2, batch_size=12)
    rows = table_of(config, corpus(tmp_path / "examples.jsonl"), context(tmp_path / "home"))
    plan = Plan(rows.table, config, 0)
    read = [rows.tokenizer.decode(rows.table.row(row), skip_special_tokens=True) for row in rows.table.graded_of(2)]
    assert read == [f"{text} 2" for text in LEVELS]
    assert list(rows.table.graded_of(1)) == []
    assert [len(rows.table.rows_of(record)) for record in range(4)] == [4] * 4
    assert len(plan.negatives(2, 0)) == 2
    batch = batch_of(plan, plan.batch(0), 0, CPU)
    assert (batch.compared.start, batch.compared.stop) == (12, 12 + 12 + 24) == (12, len(batch.rows) - 24)
    assert len(batch.ids.document) == 36
    for place, row in zip(batch.asked.tolist(), batch.graded.tolist(), strict=True):
        assert [batch.rows[each] for each in row] == list(rows.table.graded_of(int(batch.records[place])))
    assert sorted(int(batch.records[place]) for place in batch.asked) == [0, 2, 4, 6, 8, 10]


def test_without_the_loss_they_are_not_there(base: Path, tmp_path: Path) -> None:
    """The same tokens, steps and key as of records that never had any."""
    found = {}
    for graded in (False, True):
        file = corpus(tmp_path / f"{graded}.jsonl", graded=graded)
        config = small(base)
        ctx = context(tmp_path / "home")
        table = table_of(config, file, ctx).table
        assert not table.graded.any()
        config.train(file, tmp_path / f"out {graded}", 0, ctx)
        found[graded] = (table.ids.tolist(), figures(ctx, "loss"))
        assert all("listwise" not in event["figures"] for event in ctx.events if event["event"] == "metric")
    assert found[False] == found[True]
    assert "listwise" not in small(base).recipe()
    assert small(base, listwise=0.5).recipe()["listwise"] == 0.5


def test_the_gradient_over_chunks_is_that_of_the_whole_batch(base: Path, tmp_path: Path) -> None:
    file = corpus(tmp_path / "examples.jsonl")

    def gradient(**changes: Any) -> dict[str, Any]:
        plain: dict[str, Any] = {
            "batch_size": 12,
            "chunk_tokens": 48,
            "kept_tokens": 10**9,
            "lora": Lora(r=4, dropout=0.0),
        }
        return first_gradient(small(base, **(plain | changes)), file, 3, context(tmp_path / "home"), Ranks())

    whole, twice = gradient(listwise=2.0), gradient(listwise=2.0, kept_tokens=0)
    assert (twice["gradient"] - whole["gradient"]).norm() / whole["gradient"].norm() < 1e-5
    without, one = gradient(), gradient(listwise=1.0)
    assert (one["gradient"] - without["gradient"]).norm() / without["gradient"].norm() > 1e-3
    # the loss is a sum: twice the weight adds the same gradient again
    assert torch.allclose(whole["gradient"] - one["gradient"], one["gradient"] - without["gradient"], atol=1e-4)
    assert whole["loss"] - one["loss"] == pytest.approx(float(one["loss"] - without["loss"]), rel=1e-3)


def test_a_training_learns_their_order(base: Path, tmp_path: Path) -> None:
    """Words alone say the opposite."""
    file = corpus(tmp_path / "examples.jsonl", 16, share=1)
    ordered = {}
    for weight in (0.0, 1.0):
        ctx = context(tmp_path / "home")
        small(base, listwise=weight, epochs=30, temperature=0.1).train(file, tmp_path / f"out {weight}", 0, ctx)
        encoder = Encoder.load(tmp_path / f"out {weight}" / "model")
        falls = []
        for number in range(16):
            query = encoder.encode([f"Instruct: find\nQuery: water river {number}"], normalize=True)[0]
            near = encoder.encode([f"{text} {number}" for text in LEVELS], normalize=True) @ query
            falls += [bool(one > next_one) for one, next_one in pairwise(near.tolist())]
        ordered[weight] = sum(falls) / len(falls)
    assert ordered[0.0] < 0.5 < 0.85 < ordered[1.0]
    lists = figures(ctx, "listwise")
    assert lists[-1] < 0.3 * lists[0]
    assert ctx.tally.counts["graded"] == 16


def test_a_weight_without_such_documents_is_said(base: Path, tmp_path: Path) -> None:
    ctx = context(tmp_path / "home")
    small(base, listwise=1.0).train(corpus(tmp_path / "examples.jsonl", graded=False), tmp_path / "out", 0, ctx)
    said = [event["message"] for event in ctx.events if event["event"] == "say"]
    assert "embedder.listwise=1 has no effect: no record has graded documents" in said


@pytest.mark.parametrize("graded", [["a", "b", "c"], ["a", "b", "c", " "], "abcd", ["a", "b", "c", 4], {}])
def test_lists_that_are_none_are_refused_with_their_line(tmp_path: Path, graded: Any) -> None:
    file = tmp_path / "examples.jsonl"
    good = {"kind": "retrieval", "query": "q", "positive": "p"}
    file.write_text(json.dumps(good) + "\n" + json.dumps(good | {"graded": graded}) + "\n")
    with pytest.raises(UserError, match="line 2: graded must be a list of 4 texts, the most relevant first"):
        list(labelled(file, []))
