"""Every setting of the embedder's trainer changes something that is computed: none is ignored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from contrastive_examples import WORDS, examples, figures, small
from gradient_of_ranks import first_gradient
from tiny_generator import context, make_base

from speed.backends.embedder.loop import table_of
from speed.backends.embedder.ranks import Ranks
from speed.backends.embedder.settings import Batching, Development, Lora, Masks, Source
from speed.backends.embedder.trainer import ContrastiveTrainer

WATCHED = ("loss", "gradient_norm", "learning_rate", "masked", "padding", "positive_similarity")
ARE_WATCHED_ELSEWHERE = {"listwise", "masks.guide", "masks.guide_margin", "sources.kind", "sources.tasks"}
"""In test_contrastive_plan, test_token_table and test_graded_documents."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two bases, records in which every mask finds something, and records of a source."""
    folder = tmp_path_factory.mktemp("settings")
    make_base(folder / "base")
    make_base(folder / "other", spread=0.1)
    lines = []
    for i in range(24):
        kind = ("classification", "retrieval", "sts", "long_long")[i % 4]
        query, label = " ".join(WORDS[: 1 + i % 7]) + f" {i % 20}", ("Yes", "yes ")[i // 4 % 2]
        positive = label if kind == "classification" else " ".join(WORDS[i % 5 :])
        negatives = [WORDS[i % 3], WORDS[3 + i % 4]]
        lines.append({"kind": kind, "task": f"t{i % 3}", "query": query, "positive": positive, "negatives": negatives})
    lines[5]["positive"] = lines[6]["query"]
    (folder / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    examples(folder / "source.jsonl", 8)
    return folder


def observed(folder: Path, **changes: Any) -> dict[str, Any]:
    """What a training computes: curves, the rows it reads, and how often layers are called."""
    settings = {"base": folder / "base", "batch_size": 12, "chunk_tokens": 128, "epochs": 2, "lora": Lora(r=4)}
    config = small(**(settings | changes))
    ctx = context(folder / "home")
    config.train(folder / "records.jsonl", folder / "out", 0, ctx)
    found: dict[str, Any] = {name: figures(ctx, name) for name in WATCHED}
    found["rows"] = table_of(config, folder / "records.jsonl", ctx).table.key
    found["calls"] = first_gradient(config, folder / "records.jsonl", 0, ctx, Ranks())["calls"]
    return found | {"development": "development" in ctx.tally.metrics}


KNOBS: dict[str, dict[str, Any]] = {
    "lora.r": {"lora": Lora(r=2)},
    "lora.alpha": {"lora": Lora(r=4, alpha=8)},
    "lora.dropout": {"lora": Lora(r=4, dropout=0.0)},
    "lora.targets": {"lora": Lora(r=4, targets=("q_proj",))},
    "lora": {"lora": None},
    "learning_rate": {"learning_rate": 1e-3},
    "temperature": {"temperature": 0.03},
    "batch_size": {"batch_size": 8},
    "epochs": {"epochs": 1},
    "max_steps": {"max_steps": 1},
    "max_length": {"max_length": 48},
    "warmup_ratio": {"warmup_ratio": 0.9},
    "weight_decay": {"weight_decay": 0.5},
    "schedule": {"schedule": "cosine"},
    "max_gradient_norm": {"max_gradient_norm": 1e-7},
    "precision": {"precision": "bf16"},
    "pooling": {"pooling": "mean"},
    "normalize": {"normalize": False},
    "bos": {"bos": "never"},
    "instruction": {"instruction": "{task}: {query}"},
    "batching.homogeneous": {"batching": Batching(homogeneous=1.0)},
    "masks.identical_positives": {"masks": Masks(identical_positives=False)},
    "masks.own_duplicates": {"masks": Masks(own_duplicates=False)},
    "masks.same_label": {"masks": Masks(same_label=False)},
    "masks.score_margin": {"masks": Masks(score_margin=0.0)},
    "hard_negatives": {"hard_negatives": 2},
    "share_hard_negatives": {"share_hard_negatives": False},
    "chunk_tokens": {"chunk_tokens": 256},
    "kept_tokens": {"kept_tokens": 0},
    "checkpointing": {"checkpointing": "all"},
    "development.records": {"development": Development(records=4)},
}


@pytest.fixture(scope="module")
def plain(folder: Path) -> dict[str, Any]:
    return observed(folder)


@pytest.mark.parametrize("knob", KNOBS)
def test_a_setting_changes_what_is_computed(folder: Path, plain: dict[str, Any], knob: str) -> None:
    assert observed(folder, **KNOBS[knob]) != plain


def test_settings_of_settings_change_what_is_computed(folder: Path, plain: dict[str, Any]) -> None:
    assert observed(folder) == plain, "nothing else changes it"
    assert observed(folder, base=folder / "other") != plain
    grouped = [observed(folder, batching=Batching(homogeneous=1.0, by=by)) for by in ("kind", "task")]
    assert grouped[0] != grouped[1]
    source = {"path": folder / "source.jsonl"}
    weighed = [observed(folder, sources=(Source(**source, weight=weight),)) for weight in (0.5, 1.0)]
    assert plain != weighed[0] != weighed[1] != plain
    every = [observed(folder, development=Development(records=4, every=n))["loss"] for n in (1, 2)]
    assert every[0] == every[1], "a score does not change the training"


def test_every_setting_is_watched() -> None:
    known = {
        "base",
        "batching.by",
        "sources.path",
        "sources.weight",
        "sources.expected",
        "development.every",
        *ARE_WATCHED_ELSEWHERE,
        *KNOBS,
    }
    nested = {"lora": Lora, "masks": Masks, "batching": Batching, "sources": Source, "development": Development}
    fields = {name for name in ContrastiveTrainer.model_fields if name not in nested}
    fields |= {f"{name}.{field}" for name, part in nested.items() for field in part.model_fields}
    assert fields == known - {"lora"}
