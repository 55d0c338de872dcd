"""Exported models give, in a fresh process and without this package, the logits that they had here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from tiny_generator import completions, context, make_base, preferences
from transformers import GenerationConfig

from speed.backends.alignment.trainer import TrlTrainer
from speed.backends.embedder.settings import Lora
from speed.backends.embedder.trainer import ContrastiveTrainer
from speed.backends.engines.weights import load
from speed.core.errors import UserError
from speed.core.manifest import Maker, Manifest
from speed.data.records import Example, Kind
from speed.data.trainings import Dpo, Sft
from speed.export import export, main

LORA = TrlTrainer(method="lora", r=4, alpha=8, precision="fp32", prompt_format="inst", embeddings=True)
FULL = LORA.model_copy(update={"method": "full"})
SFT = Sft(learning_rate=1e-2, batch_size=4, epochs=1, max_length=64, warmup_ratio=0.0)
DPO = Dpo(beta=0.1, learning_rate=1e-2, batch_size=4, epochs=1, max_length=64, warmup_ratio=0.0)
FRESH = """
import json, sys, torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer
assert "speed" not in sys.modules
found = {}
for kind, folder in zip(sys.argv[1::2], sys.argv[2::2]):
    loader = AutoPeftModelForCausalLM if kind == "adapter" else AutoModelForCausalLM
    model = loader.from_pretrained(folder, dtype=torch.float32).eval()
    ids = AutoTokenizer.from_pretrained(folder)("a text of some tokens", return_tensors="pt")["input_ids"]
    found[folder] = (ids.tolist(), model(input_ids=ids).logits[0, -1].tolist())
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A junior (adapter), the senior that goes on from it, and a revisor of all weights."""
    home = tmp_path_factory.mktemp("made")
    base = make_base(home / "base")
    ctx = context(home)
    LORA.sft(str(base), completions(8), SFT, home / "junior", ctx)
    LORA.dpo(home / "junior", preferences(4), DPO, home / "senior", ctx)
    FULL.sft(str(base), completions(8), SFT.model_copy(update={"learning_rate": 1e-3}), home / "revisor", ctx)
    return home


def test_merged_models_and_adapters_load_elsewhere_with_equal_logits(made: Path, tmp_path: Path) -> None:
    wanted = [("merged", "junior"), ("adapter", "junior"), ("merged", "senior"), ("adapter", "senior")]
    wanted.append(("merged", "revisor"))
    arguments: list[str] = []
    for kind, name in wanted:
        to = export(made / name, None, tmp_path / f"{name}-{kind}", kind == "adapter", "fp32")
        arguments += [kind, str(to)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", FRESH, *arguments], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    last: dict[str, torch.Tensor] = {}
    for kind, name in wanted:
        ids, logits = found[str(tmp_path / f"{name}-{kind}")]
        model, tokenizer, _ = load(made / name, "fp32", "cpu")
        assert tokenizer("a text of some tokens")["input_ids"] == ids[0]
        last[name] = model(input_ids=torch.tensor(ids)).logits[0, -1]
        assert torch.allclose(torch.tensor(logits), last[name], atol=1e-4), (kind, name)
    assert not torch.allclose(last["junior"], last["senior"], atol=1e-2)


@pytest.mark.parametrize("trainer", [LORA, FULL], ids=["adapter", "full"])
def test_an_exported_model_ends_its_texts_where_it_was_trained_to(trainer: TrlTrainer, tmp_path: Path) -> None:
    """Also where the base's own generation config names another end than its tokenizer, which trainings go by."""
    base = make_base(tmp_path / "base")
    (base / "generation_config.json").write_text(json.dumps({"bos_token_id": 0, "eos_token_id": 7, "pad_token_id": 2}))
    trainer.sft(str(base), completions(8), SFT, tmp_path / "junior", context(tmp_path))
    to = export(tmp_path / "junior", None, tmp_path / "out", False, "fp32")
    found = GenerationConfig.from_pretrained(to)
    assert sorted(found.eos_token_id) == [1, 7]
    assert found.pad_token_id == 2


def test_the_model_card_is_written_from_the_manifest(made: Path, tmp_path: Path) -> None:
    stage = tmp_path / "run" / "stages" / "junior"
    stage.parent.mkdir(parents=True)
    stage.symlink_to(made / "junior")
    manifest = Manifest(
        key="k" * 64, stage="junior", label="junior", version=1, recipe={"sft": {"learning_rate": 0.01}},
        counts={"in": 8}, rejected={"over_max_length": 2}, metrics={"last_loss": 1.25}, finished="2026-01-01",
        maker=Maker(commit="abc123", python="3.11", packages={"trl": "1.16.0"}, argv=()),
    )  # fmt: skip
    manifest.write(made / "junior" / "manifest.json")
    to = export(tmp_path / "run", "junior", tmp_path / "out", True, "fp32")
    card = (to / "README.md").read_text()
    assert ModelCard(card).data.to_dict() == {"library_name": "peft", "tags": ["speed", "synthetic-data"]}
    for part in ("library_name: peft", "section 3.2.2", "[INST] {prompt} [/INST]", "8 (left out: 2 over_max_length)"):
        assert part in card
    for part in ("last_loss: 1.25", "abc123", "trl 1.16.0", '"learning_rate": 0.01', "k" * 64):
        assert part in card
    (made / "junior" / "manifest.json").unlink()


EMBEDDER_CARD = """---
library_name: sentence-transformers
base_model: org/base
tags: [sentence-transformers]
---
# Embedder trained by speed

Queries carry an instruction.

| setting | value |
|---|---|
| temperature | 0.02 |
"""


@pytest.mark.parametrize("adapter", [False, True])
def test_the_card_of_an_embedder_keeps_what_its_training_wrote(adapter: bool, tmp_path: Path) -> None:
    """How queries are prompted and the model is loaded, and its settings; the manifest's lines come after it."""
    lora, base = Lora(r=4, alpha=8), make_base(tmp_path / "base")
    trainer = ContrastiveTrainer(base=str(base), lora=lora, batch_size=2, epochs=1, max_length=32)
    record = Example(kind=Kind.RETRIEVAL, task="find", query="water", positive="river", negative="stone")
    (tmp_path / "examples.jsonl").write_text(f"{record.model_dump_json()}\n" * 2)
    trainer.train(tmp_path / "examples.jsonl", tmp_path / "payload", 0, context(tmp_path / "home"))
    for folder in ("model", "adapter"):
        (tmp_path / "payload" / folder / "README.md").write_text(EMBEDDER_CARD)
    Manifest(
        key="k" * 64, stage="embedder", label="embedder", version=1, recipe={"seed": 3}, counts={"in": 8},
        metrics={"last_loss": 1.25}, finished="2026-01-01",
    ).write(tmp_path / "payload" / "manifest.json")  # fmt: skip
    to = export(tmp_path / "payload", None, tmp_path / "out", adapter, "fp32")
    card = ModelCard((to / "README.md").read_text())
    assert card.data.library_name == "sentence-transformers"
    assert card.data.base_model == "org/base"
    assert card.data.tags == ["sentence-transformers", "speed", "synthetic-data"]
    for part in (
        "Queries carry an instruction.",
        "| temperature | 0.02 |",
        "section 3.3",
        "last_loss: 1.25",
        "k" * 64,
        "| speed | 1.0",
    ):
        assert card.text.count(part) == 1


def test_what_cannot_be_exported_is_said(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(UserError, match="is there already"):
        export(made / "junior", None, tmp_path / "full", False, "fp32")
    with pytest.raises(UserError, match="holds all weights and no adapter"):
        export(made / "revisor", None, tmp_path / "a", True, "fp32")
    with pytest.raises(UserError, match="holds no trained model"):
        export(tmp_path, None, tmp_path / "b", False, "fp32")
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--to", str(tmp_path / "c")])
    assert "holds no trained model" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.partial"))
