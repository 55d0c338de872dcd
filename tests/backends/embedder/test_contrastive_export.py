"""The exported model: other libraries, in processes of their own, give the vectors of the trainer."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import HANG
from contrastive_examples import TEXTS, examples, small
from numpy.typing import NDArray
from tiny_generator import context, make_base

from speed.backends.embedder import loop
from speed.backends.encoding.embedding_model import vectors
from speed.backends.encoding.encoder import Encoder
from speed.backends.encoding.token_rows import token_rows
from speed.backends.evaluation.evaluated_model import asks_for_instructions
from speed.core.errors import UserError


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, NDArray[np.float32]]:
    """(folder of a training, vectors of TEXTS by the model in the trainer's memory)."""
    folder = tmp_path_factory.mktemp("trained")
    config = small(make_base(folder / "base"), learning_rate=5e-3, epochs=2)
    seen: list[NDArray[np.float32]] = []
    whole = loop.whole_model

    def watched(config, seed, rows, steps):  # type: ignore[no-untyped-def]
        model = whole(config, seed, rows, steps).eval()
        ids = token_rows(rows.tokenizer, TEXTS, rows.frame, config.max_length)
        with torch.no_grad():
            seen.append(vectors(model, ids, 2, True, "last", True).numpy())
        return model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "whole_model", watched)
        config.train(examples(folder / "examples.jsonl", 32), folder, 0, context(folder / "home"))
    return folder, seen[0]


@pytest.fixture(scope="module")
def fresh(trained: tuple[Path, NDArray[np.float32]]) -> dict[str, dict[str, Any]]:
    """What a process without this package's code makes of both layouts."""
    folders = [str(trained[0] / layout) for layout in ("model", "adapter")]
    script = str(Path(__file__).with_name("fresh_embedder.py"))
    done = subprocess.run(
        [sys.executable, script, *folders], input=json.dumps(TEXTS), capture_output=True, text=True, timeout=HANG
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(zip(("model", "adapter"), map(json.loads, done.stdout.splitlines()[-2:]), strict=True))


@pytest.mark.parametrize("layout", ["model", "adapter"])
def test_a_fresh_process_embeds_as_the_trainer_did(
    trained: tuple[Path, NDArray[np.float32]], fresh: dict[str, dict[str, Any]], layout: str
) -> None:
    (folder, expected), found = trained, fresh[layout]
    assert abs(np.array(found["sentence_transformers"]) - expected).max() < 1e-5
    assert abs(np.array(found["auto_model"]) - expected).max() < 1e-5
    for ids in found["ids"]:
        assert (ids[0], ids[-1], ids.count(0), ids.count(1)) == (0, 1, 1, 1), "one BOS in front, one EOS at the end"
        assert len(ids) <= 64
    assert found["prompts"]["SciFact-query"].startswith("Instruct: Given a scientific claim")
    assert found["prompts"]["STS12"] == "Instruct: Retrieve semantically similar text.\nQuery: "
    assert abs(Encoder.load(folder / layout).encode(TEXTS) - expected).max() < 1e-5


def test_the_card_says_what_the_manifest_says(trained: tuple[Path, NDArray[np.float32]]) -> None:
    for layout in ("model", "adapter"):
        card = (trained[0] / layout / "README.md").read_text()
        for line in (
            "| records | 32 |",
            "| steps | 8 |",
            "| temperature | 0.02 |",
            "| seed | 0 |",
            '"r": 4',
            "| loss | ",
        ):
            assert line in card, line
        assert str(Path.home()) not in card
        assert str(trained[0]) not in card


def test_a_training_without_instructions_leaves_a_model_that_asks_for_none(tmp_path: Path) -> None:
    make_base(tmp_path / "base")
    data = examples(tmp_path / "examples.jsonl", 8)
    config = small(tmp_path / "base", instruction="{query}")
    rows = loop.table_of(config, data, context(tmp_path / "home"))
    asked = [rows.table.row(rows.table.rows_of(record)[0]) for record in range(8)]
    queries = [json.loads(line)["query"] for line in data.read_text().splitlines()]
    assert rows.tokenizer.batch_decode(asked, skip_special_tokens=True) == queries
    config.train(data, tmp_path, 0, context(tmp_path / "home"))
    for layout in ("model", "adapter"):
        assert Encoder.load(tmp_path / layout).prompts == {}
        assert not asks_for_instructions(tmp_path / layout)
        card = (tmp_path / layout / "README.md").read_text()
        assert "Queries and documents stand alone" in card
        assert 'model.encode(["a query"])' in card
    with pytest.raises(ValueError, match="for no instructions"):
        small(tmp_path / "base", instruction="query: {query}")


def test_an_adapter_of_another_base_is_refused(trained: tuple[Path, NDArray[np.float32]], tmp_path: Path) -> None:
    folder = shutil.copytree(trained[0] / "adapter", tmp_path / "adapter")
    description = json.loads((folder / "adapter_config.json").read_text())
    other = make_base(tmp_path / "other", spread=0.1)
    (folder / "adapter_config.json").write_text(json.dumps(description | {"base_model_name_or_path": str(other)}))
    with pytest.raises(UserError, match="was trained on another base than .*other holds now"):
        Encoder.load(folder)
    (folder / "base.json").unlink()
    wider = make_base(tmp_path / "wider", hidden_size=64)
    (folder / "adapter_config.json").write_text(json.dumps(description | {"base_model_name_or_path": str(wider)}))
    with pytest.raises(UserError, match="does not fit the base"):
        Encoder.load(folder)
    (folder / "adapter_config.json").write_text(json.dumps(description | {"base_model_name_or_path": None}))
    with pytest.raises(UserError, match="names no base model"):
        Encoder.load(folder)


def test_an_adapter_is_a_base_too(trained: tuple[Path, NDArray[np.float32]], tmp_path: Path) -> None:
    config = small(trained[0] / "adapter", learning_rate=1e-9)
    config.train(examples(tmp_path / "examples.jsonl", 8), tmp_path, 0, context(tmp_path / "home"))
    assert abs(Encoder.load(tmp_path / "model").encode(TEXTS) - trained[1]).max() < 1e-4
