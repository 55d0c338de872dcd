"""Generators on disk: references that survive a move, bases that cannot be swapped, formats that are told apart."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny_generator import completions, context, make_base

from speed.backends.alignment.trainer import TrlTrainer
from speed.backends.engines.given_weights import adopt
from speed.backends.engines.prompt_format import completion_ids, prompt_format, prompt_ids, rendered
from speed.backends.engines.weights import CARD, base_of, load, read_card
from speed.core.content import locate_model, package_folder
from speed.core.errors import UserError
from speed.data.trainings import Sft

LORA = TrlTrainer(method="lora", r=4, alpha=8, precision="fp32", prompt_format="plain")
SFT = Sft(learning_rate=1e-2, batch_size=4, epochs=1, max_length=64)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


def logits(source: Path | str) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = load(source, "fp32", "cpu").model(input_ids=torch.arange(3, 40)[None]).logits
    return found


def test_an_adapter_merges_into_what_peft_computes(base: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    LORA.sft(str(base), completions(8), SFT, tmp_path, context(tmp_path))
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "model").eval()
    with torch.no_grad():
        expected = adapted(input_ids=torch.arange(3, 40)[None]).logits
    assert torch.allclose(logits(tmp_path), expected, atol=1e-4)
    assert not torch.allclose(logits(base), expected, atol=1e-2)
    trainable = load(tmp_path, "fp32", "cpu", for_training=True).model
    assert all(weight.requires_grad == ("lora_" in name) for name, weight in trainable.named_parameters())


def test_a_store_may_be_moved(base: Path, tmp_path: Path) -> None:
    """Adapter on the payload of an earlier training of all weights, both below one root."""
    full, adapter = tmp_path / "here/junior/k1.partial", tmp_path / "here/senior/k2.partial"
    for folder in (full, adapter):
        folder.mkdir(parents=True)
    LORA.model_copy(update={"method": "full"}).sft(str(base), completions(8), SFT, full, context(tmp_path))
    full = full.rename(full.with_name("k1"))
    LORA.sft(str(full), completions(8), SFT, adapter, context(tmp_path))
    adapter = adapter.rename(adapter.with_name("k2"))
    before = logits(adapter)
    shutil.move(tmp_path / "here", tmp_path / "there")
    moved = tmp_path / "there/senior/k2"
    assert str(tmp_path) not in (moved / CARD).read_text()
    assert torch.equal(logits(moved), before)
    assert not torch.allclose(logits(tmp_path / "there/junior/k1"), before, atol=1e-3)
    third = tmp_path / "there/deeper/down/k3"
    third.mkdir(parents=True)
    LORA.sft(str(moved), completions(8), SFT, third, context(tmp_path))
    assert logits(third).isfinite().all()
    config = json.loads((tmp_path / "there/junior/k1/model/config.json").read_text())
    config["rms_norm_eps"] = 1e-3
    (tmp_path / "there/junior/k1/model/config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="other weights"):
        logits(moved)


def test_an_adapter_refuses_another_base(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    out = tmp_path / "out"
    out.mkdir()
    LORA.sft(str(base), completions(8), SFT, out, context(tmp_path))
    make_base(base, spread=0.3)
    with pytest.raises(UserError, match="trained on another base"):
        load(out, "fp32", "cpu")


@pytest.mark.parametrize("layers", [2, 3])
def test_an_adapter_is_no_base(layers: int, tmp_path: Path) -> None:
    """transformers would put it on whatever base it names, and train another one on top."""
    base = make_base(tmp_path / "base")
    LORA.sft(str(base), completions(8), SFT, tmp_path / "junior", context(tmp_path))
    adapter = tmp_path / "junior" / "model"
    described = json.loads((adapter / "adapter_config.json").read_text())
    other = make_base(tmp_path / "other", num_hidden_layers=layers)
    (adapter / "adapter_config.json").write_text(json.dumps(described | {"base_model_name_or_path": str(other)}))
    with pytest.raises(
        UserError, match=f"{adapter} is an adapter .*{other}.*, and a generator's base is a whole model"
    ):
        LORA.sft(str(adapter), completions(8), SFT, tmp_path / "out", context(tmp_path))


def test_bases_of_the_package_are_named_by_it(base: Path, tmp_path: Path) -> None:
    folder = package_folder("package:data/prompts/templates")
    assert locate_model("package:data/prompts/templates") == (str(folder), None)
    assert base_of(folder, tmp_path, None)[0] == "package:data/prompts/templates"
    assert base_of(base, tmp_path, None)[0] == str(base)
    assert locate_model("meta-llama/Meta-Llama-3-8B@main") == ("meta-llama/Meta-Llama-3-8B", "main")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("package:miniature/bases/none", "not part of this installation"),
        ("no such model", "no base model"),
        ("/nowhere/at/all", "no base model"),
    ],
)
def test_a_missing_base_is_said(name: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        load(name, "fp32", "cpu")


def test_a_hub_model_out_of_reach_is_said_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"accept its licence at https://huggingface\.co/org/gated"):
        load("org/gated", "fp32", "cpu")


def test_a_broken_folder_or_card_is_said(base: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="save_pretrained"):
        load(tmp_path, "fp32", "cpu")
    (tmp_path / CARD).write_text('{"layout": 2, "new": true}')
    with pytest.raises(UserError, match="cannot be read by this version"):
        load(tmp_path, "fp32", "cpu")
    assert read_card(base) is None


def test_formats_are_told_apart(base: Path) -> None:
    tokenizer = load(base, "fp32", "cpu").tokenizer
    names = ("plain", "inst", "released")
    assert len({prompt_format(name, tokenizer).sha256 for name in names}) == 3
    assert rendered("Say {prompt}", "released", tokenizer) == "Say {prompt} [/INST]"
    tokenizer.chat_template = "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}:"
    first = prompt_format("chat", tokenizer)
    ids = prompt_ids("hello", "chat", tokenizer)
    assert tokenizer.decode(ids) == "<s><user>hello:"
    assert ids.count(tokenizer.bos_token_id) == 1
    tokenizer.chat_template += " "
    assert prompt_format("chat", tokenizer) != first


@pytest.mark.parametrize("text", ["one", "one</s>", 'a "quote" and ünïcode ☃'])
def test_a_completion_ends_once(text: str, base: Path) -> None:
    tokenizer = load(base, "fp32", "cpu").tokenizer
    ids = completion_ids(text, tokenizer)
    assert ids.index(tokenizer.eos_token_id) == len(ids) - 1
    assert tokenizer.decode(ids[:-1]) == text.removesuffix("</s>")


def test_an_instruct_model_writes_as_it_came_through_its_own_template(base: Path, tmp_path: Path) -> None:
    instruct, payload = tmp_path / "instruct", tmp_path / "payload"
    shutil.copytree(base, instruct)
    payload.mkdir()
    with pytest.raises(UserError, match="has no chat template, so it is no instruct model"):
        adopt(str(instruct), payload)
    assert not list(payload.iterdir())
    (instruct / "chat_template.jinja").write_text("<user>{{ messages[0]['content'] }}</user>")
    adopt(str(instruct), payload)
    assert [path.name for path in payload.iterdir()] == [CARD], "nothing is copied"
    loaded = load(payload, "fp32", "cpu")
    assert loaded.card is not None
    assert rendered("a", loaded.card.prompt_format.name, loaded.tokenizer) == "<user>a</user>"
    assert torch.equal(logits(payload), logits(base))
    weights = instruct / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    with pytest.raises(UserError, match="another base than .* holds now"):
        load(payload, "fp32", "cpu")
