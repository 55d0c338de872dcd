"""What a user can get wrong in an embedder's training: one clear error each."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from contrastive_examples import examples, figures, small
from gradient_of_ranks import scaled
from tiny_generator import context, make_base
from transformers import AutoTokenizer

from speed.backends.embedder.ranks import Ranks
from speed.backends.embedder.settings import Source
from speed.backends.encoding.token_rows import training_frame
from speed.core.errors import UserError


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


def written(file: Path, lines: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def test_records_that_share_one_label_have_nothing_to_teach(base: Path, tmp_path: Path) -> None:
    line = {"kind": "classification", "task": "t", "positive": "yes"}
    same = [line | {"query": f"text {i}"} for i in range(9)]
    with pytest.raises(UserError, match="all 9 records .* have one positive, 'yes', and no negatives"):
        small(base).train(written(tmp_path / "a.jsonl", same), tmp_path / "out", 0, context(tmp_path / "home"))


def test_a_batch_of_one_label_is_said_and_does_no_harm(base: Path, tmp_path: Path) -> None:
    lines = [{"kind": "classification", "query": f"text {i}", "positive": ("Yes", " yes")[i % 2]} for i in range(8)]
    ctx = context(tmp_path / "home")
    small(base).train(written(tmp_path / "a.jsonl", lines), tmp_path / "out", 0, ctx)
    assert figures(ctx, "loss") == [0.0]
    assert [event for event in ctx.events if event["event"] == "say" and "had no negatives" in event["message"]]  # type: ignore[attr-defined]


def test_a_text_of_ten_megabytes_is_a_text(base: Path, tmp_path: Path) -> None:
    lines = [{"kind": "retrieval", "query": f"q {i}", "positive": f"{i} stone " * 1_200_000} for i in range(2)]
    ctx = context(tmp_path / "home")
    small(base, batch_size=2).train(written(tmp_path / "a.jsonl", lines), tmp_path / "out", 0, ctx)
    assert ctx.tally.metrics["truncated"] == 2


def test_a_tokenizer_that_drops_the_bos_it_promises_is_asked_about(tmp_path: Path) -> None:
    folder = make_base(tmp_path / "base")
    described = json.loads((folder / "tokenizer.json").read_text()) | {"post_processor": None}
    (folder / "tokenizer.json").write_text(json.dumps(described))
    settings = json.loads((folder / "tokenizer_config.json").read_text()) | {"add_bos_token": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with pytest.raises(UserError, match="says add_bos_token: true, and adds none"):
        training_frame(tokenizer, "last", "as_base")
    assert training_frame(tokenizer, "last", "always").before == (0,)
    assert training_frame(tokenizer, "last", "never").before == ()


def test_a_tokenizer_of_another_model_is_noticed(tmp_path: Path) -> None:
    folder = make_base(tmp_path / "base", vocab_size=200)
    with pytest.raises(UserError, match="gives token 2.., and the model knows 200 of them"):
        small(folder).train(examples(tmp_path / "a.jsonl", 8), tmp_path / "out", 0, context(tmp_path / "home"))


def test_a_diverged_training_names_the_files_of_its_records(base: Path, tmp_path: Path) -> None:
    lines = [{"kind": "sts", "query": f"q {i}", "positive": f"p {i}"} for i in range(8)]
    source = Source(path=written(tmp_path / "labelled.jsonl", lines))
    config = small(base, sources=(source,), learning_rate=1e30, max_gradient_norm=None)
    with pytest.raises(UserError, match=r"lines [\d, ]+ of .*examples.jsonl") as caught:
        config.train(examples(tmp_path / "examples.jsonl", 16), tmp_path / "out", 0, context(tmp_path / "home"))
    assert "labelled.jsonl" in str(caught.value)
    assert "there is no checkpoint yet" in str(caught.value)


def test_the_last_step_may_not_break_the_model(base: Path, tmp_path: Path) -> None:
    """No loss is computed after it, so none would tell."""
    config = small(base, learning_rate=1e30)
    with pytest.raises(UserError, match="is no longer a number .* at step 0"):
        config.train(examples(tmp_path / "a.jsonl", 8), tmp_path / "out", 0, context(tmp_path / "home"))
    assert not (tmp_path / "out" / "model").exists()


def test_fp16_may_leave_out_steps_that_overflow_but_not_for_ever(base: Path, tmp_path: Path) -> None:
    data = examples(tmp_path / "examples.jsonl", 8)
    config, ctx = small(base, precision="fp16"), context(tmp_path / "home")
    steps = scaled(config, data, 0, ctx, Ranks(), scale=2.0**20)
    norms = [steps.take(0, data, tmp_path)["gradient_norm"] for _ in range(16)]
    assert math.isfinite(norms[-1]), "the scale has fallen until gradients fit"
    assert not math.isfinite(norms[0])
    steps = scaled(config, data, 0, ctx, Ranks(), scale=2.0**60)
    for _ in range(16):
        steps.take(0, data, tmp_path)
    with pytest.raises(UserError, match="its gradient is no longer a number"):
        steps.take(0, data, tmp_path)


def test_a_remainder_does_not_make_a_batch_of_one(base: Path, tmp_path: Path) -> None:
    ctx = context(tmp_path / "home")
    small(base, learning_rate=1e-6).train(examples(tmp_path / "a.jsonl", 33), tmp_path / "out", 0, ctx)
    norms = figures(ctx, "gradient_norm")
    assert len(norms) == 5
    assert max(norms) < 3 * sorted(norms)[2]
