"""A finished model whose tokenizer drops the EOS or BOS that its config states: e5-mistral since transformers 5.

Without EOS the vectors of such a model have a cosine of about 0.3 with those that its authors mean.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_generator import context, make_base
from tokenizers import Tokenizer, processors

from speed.backends.embedder.export import write_layout
from speed.backends.embedder.trainer import ContrastiveTrainer
from speed.backends.encoding.encoder import Encoder
from speed.backends.encoding.token_rows import Frame
from speed.backends.evaluation.evaluated_model import LocalModel

SPECIAL = [("<s>", 0), ("</s>", 1)]
TEXTS = ["", "a", "Write about water", "stone " * 900]


def embedder(folder: Path, adds: str | None, **promises: bool) -> Path:
    """A last-token embedder whose tokenizer.json adds this, and whose tokenizer_config.json says that."""
    make_base(folder)
    tokens = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokens.post_processor = processors.TemplateProcessing(single=adds or "$A", special_tokens=SPECIAL)
    tokens.save(str(folder / "tokenizer.json"))
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | promises))
    write_layout(ContrastiveTrainer(base=str(folder)), folder, 32, {})
    return folder


def said(ctx: Any) -> list[str]:
    return [event["message"] for event in ctx.events if event["event"] == "say"]


@pytest.mark.parametrize(
    ("adds", "promises", "missing"),
    [
        ("<s> $A", {"add_bos_token": True, "add_eos_token": True}, "EOS"),
        (None, {"add_bos_token": True, "add_eos_token": True}, "BOS and EOS"),
        ("$A </s>", {"add_bos_token": True}, "BOS"),
    ],
)
def test_what_the_description_promises_is_put_in_and_said(
    tmp_path: Path, adds: str | None, promises: dict[str, bool], missing: str
) -> None:
    meant = Encoder.load(embedder(tmp_path / "meant", "<s> $A </s>")).encode(TEXTS)
    folder, ctx = embedder(tmp_path / "dropped", adds, **promises), context(tmp_path / "home")
    found = LocalModel(folder).load(None, None, "fp32", ctx)
    assert isinstance(found, Encoder)
    assert found.frame == Frame((0,), (1,))
    assert abs(found.encode(TEXTS) - meant).max() < 1e-6
    assert [message for message in said(ctx) if f"asks for {missing} and its tokenizer adds none" in message]
    bare = embedder(tmp_path / "bare", adds)
    assert abs(Encoder.load(bare).encode(TEXTS) - meant).max() > 0.1, "it must matter"


@pytest.mark.parametrize("promises", [{}, {"add_eos_token": False}, {"add_eos_token": None}])
def test_a_tokenizer_that_promises_nothing_is_taken_at_its_word(tmp_path: Path, promises: dict[str, Any]) -> None:
    folder, ctx = embedder(tmp_path / "model", "<s> $A", **promises), context(tmp_path / "home")
    found = LocalModel(folder).load(None, None, "fp32", ctx)
    assert isinstance(found, Encoder)
    assert found.frame == Frame((0,), ())
    assert not said(ctx)


def test_what_is_there_already_is_not_put_in_twice(tmp_path: Path) -> None:
    folder = embedder(tmp_path / "model", "<s> $A </s>", add_bos_token=True, add_eos_token=True)
    assert Encoder.load(folder).frame == Frame((0,), (1,))
    assert np.isfinite(Encoder.load(folder).encode(TEXTS)).all()


def test_an_empty_text_around_which_nothing_stands_is_the_zero_vector(tmp_path: Path) -> None:
    encoder = Encoder.load(embedder(tmp_path / "model", None))
    assert encoder.frame == Frame((), ())
    for texts in ([""], ["", ""], ["", "a"]):
        found = encoder.encode(texts)
        assert (found[0] == 0).all()
    assert abs(found[1] - encoder.encode(["a"])[0]).max() < 1e-6
    assert (encoder.encode([]) == np.zeros((0, 32))).all()
