"""What a base model cannot do is told by the plan and refused by the run before the teacher is asked anything."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from provider import Provider
from tiny_generator import make_base

from speed.backends.engines.base_check import beginning
from speed.core.errors import UserError
from speed.core.store import Store
from speed.pipeline import pipeline
from speed.runs.building import Origin
from speed.runs.experiment import run
from speed.runs.preview import model_prompts

TURNS = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}</s>{% endfor %}"
ANSWERS = "{% if add_generation_prompt %}<|assistant|>{% endif %}"
THINKS = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}</s>{% endfor %}" + ANSWERS
)
"""Writes an empty thought in front of an answer, and not behind a prompt, as Qwen3's template does."""
MINIATURE = ["preset=miniature", "generator.sft.max_length=400", "revisor.sft.max_length=400"]


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider() as found:
        yield found


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("bases") / "llama")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder with a WordPiece vocabulary that frames every text in [CLS] and [SEP], as BERT and MiniLM have it."""
    import transformers
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "etaoin")]
    pieces = Tokenizer(models.WordPiece({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    pieces.normalizer = normalizers.BertNormalizer(lowercase=True)
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    folder = tmp_path_factory.mktemp("bases") / "encoder"
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=pieces, cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(folder)
    sizes = {"vocab_size": len(words), "hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 64}
    config = transformers.BertConfig(**sizes, num_attention_heads=2, max_position_embeddings=128)
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def copied(folder: Path, to: Path, leave_out: tuple[str, ...] = (), **tokenizer: Any) -> Path:
    """A copy of a model without some files, with some fields of its tokenizer set."""
    to.mkdir()
    for file in folder.iterdir():
        if not any(file.match(pattern) for pattern in leave_out):
            (to / file.name).write_bytes(file.read_bytes())
    described = to / "tokenizer_config.json"
    if described.exists():
        described.write_text(json.dumps(json.loads(described.read_text()) | tokenizer))
    return to


def gguf_alone(folder: Path, to: Path) -> Path:
    to.mkdir()
    (to / "model-q8_0.gguf").write_bytes(b"GGUF")
    return to


def half_of_its_shards(folder: Path, to: Path) -> Path:
    copied(folder, to)
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (to / "model.safetensors.index.json").write_text(json.dumps(index))
    return to


def of_few_tokens(folder: Path, to: Path) -> Path:
    copied(folder, to)
    config = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps(config | {"vocab_size": 2, "pad_token_id": None}))
    return to


Made = Callable[[Path, Path], Path]
GENERATORS: dict[str, tuple[Made, tuple[str, ...], str]] = {
    "GGUF alone": (gguf_alone, (), r"holds its weights as GGUF alone(?s:.)*gguf_file='model-q8_0.gguf'"),
    "no weights": (
        lambda base, to: copied(base, to, ("*.safetensors",)),
        (),
        r"its weights \(model.safetensors\) missing",
    ),
    "a shard is missing": (half_of_its_shards, (), r"lacks 1 of its files of weights \(model-00002-of-00002"),
    "no tokenizer": (lambda base, to: copied(base, to, ("tokenizer*",)), (), "cannot be loaded"),
    "no chat template": (copied, ("trainer.prompt_format=chat",), "tokenizer has no chat template"),
    "a template with thoughts": (
        lambda base, to: copied(base, to, chat_template=THINKS),
        ("trainer.prompt_format=chat",),
        r"no beginning of prompt and answer(?s:.)*assistant\|>'\n  then the template writes '<think>",
    ),
    "a short context": (copied, ("generator.sft.max_length=600",), "512 tokens at most.*max_length=600"),
    "another's tokenizer": (of_few_tokens, (), r"pad token 2, and the model knows 2 tokens"),
}


def settings(compose: Any, provider: Provider, home: Path, *overrides: str) -> Any:
    server = f"teacher=openai_compatible runtime.api_base={provider.url} runtime.home={home}".split()
    return compose(*MINIATURE, *server, "topics.recur=true", *overrides)


def refuse_alike(config: Any, provider: Provider, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Run and plan tell the same, and nobody is asked."""
    with pytest.raises(UserError) as refusal:
        run(config, "", Origin(preset="miniature"))
    told = str(refusal.value)
    assert re.search(message, told), told
    run(config.model_copy(update={"plan": True}), "", Origin(preset="miniature"))
    first = told.splitlines()[1 if told.startswith("the run is refused") else 0].removeprefix("- ")
    assert " ".join(first.split()) in " ".join(capsys.readouterr().out.split())
    assert not provider.arrivals


@pytest.mark.parametrize("case", GENERATORS)
def test_a_generator_that_cannot_work_costs_no_call(
    case: str, llama: Path, compose: Any, provider: Provider, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, overrides, message = GENERATORS[case]
    base = made(llama, tmp_path / "base")
    config = settings(compose, provider, tmp_path / "home", f"generator.base={base}", *overrides)
    refuse_alike(config, provider, message, capsys)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("embedder.pooling=last",), r"pooling=last, and .* is an encoder \(bert\)"),
        (("embedder.max_length=512",), r"max_length=512, and .* reads 128 tokens at most"),
        (
            ("embedder.lora={r: 8}",),
            r"targets names q_proj(?s:.)*no such layers; its own are query, key, value, dense\n.*embedder.lora=null",
        ),
        (("generator.base=BASE", "generator.sft.max_length=100"), r"no language model that writes: bert is an encoder"),
    ],
)
def test_an_encoder_is_held_to_what_it_can_do(
    overrides: tuple[str, ...],
    message: str,
    encoder: Path,
    compose: Any,
    provider: Provider,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    chosen = [override.replace("BASE", str(encoder)) for override in overrides]
    small = (f"embedder.base={encoder}", "embedder.max_length=64", "embedder.pooling=mean")
    config = settings(compose, provider, tmp_path / "home", *small, *chosen)
    refuse_alike(config, provider, message, capsys)


def test_what_can_work_passes(llama: Path, encoder: Path, compose: Any, tmp_path: Path) -> None:
    good = copied(llama, tmp_path / "chat", chat_template=TURNS + ANSWERS)
    targets = "embedder.lora={r: 8, targets: [query, value]}"
    config = compose(
        *MINIATURE, f"generator.base={good}", "trainer.prompt_format=chat", f"embedder.base={encoder}",
        "embedder.max_length=64", targets,
    )  # fmt: skip
    for goal in pipeline(config).goals():
        goal.node.check_models()


def test_the_encoders_that_conf_names_have_the_layers_that_are_trained(compose: Any) -> None:
    """Of their authors' architecture, made without weights."""
    from transformers import BertConfig, ModernBertConfig

    from speed.backends.embedder.base_check import refuse_absent_targets

    modern = compose("embedder=modernbert").embedder
    refuse_absent_targets("modernbert", ModernBertConfig(num_hidden_layers=1), modern.lora.targets)
    with pytest.raises(UserError, match="targets names Wqkv, Wo, Wi"):
        refuse_absent_targets("bert", BertConfig(num_hidden_layers=1), modern.lora.targets)
    for option in ("minilm", "bge_small", "e5_small", "modernbert"):
        config = compose(f"embedder={option}", "preset=laptop")
        assert (config.embedder.instructs, config.eval.instructs) == (False, False)
        assert config.embedder.pooling == ("cls" if option == "bge_small" else "mean")


def test_a_mark_of_a_template_is_not_called_a_bos() -> None:
    """SmolLM2-Instruct names `<|im_start|>` as its BOS, which no text of its training begins with."""

    class Tokenizer:
        bos_token_id = 1

        def __init__(self, adds: bool) -> None:
            self.adds = adds

        def __call__(self, text: str) -> dict[str, list[int]]:
            return {"input_ids": [1, 7] if self.adds else [7]}

        def convert_ids_to_tokens(self, token: int) -> str:
            return "<|im_start|>"

    assert beginning([1, 7, 1], "chat", Tokenizer(adds=False)) == "no BOS in front but the template's <|im_start|>"
    assert beginning([1, 7], "chat", Tokenizer(adds=True)) == beginning([1], "plain", Tokenizer(adds=False))
    assert beginning([1], "plain", Tokenizer(adds=False)) == "one BOS in front"
    assert beginning([7], "chat", Tokenizer(adds=True)) == "no BOS in front"


def test_a_preview_has_the_first_prompts_as_the_models_read_them(
    llama: Path, encoder: Path, compose: Any, tmp_path: Path
) -> None:
    chat = copied(llama, tmp_path / "chat", chat_template=TURNS + ANSWERS)
    models = (f"embedder.base={encoder}", "embedder.max_length=64")
    for base, layout, begin, end in (
        (llama, "plain", "<s>Write one", "\ntoken ids (0 is <s>): 0 "),
        (chat, "chat", "<|user|>Write one", "</s><|assistant|>\ntoken ids (1 is </s>): "),
    ):
        config = compose(*MINIATURE, f"generator.base={base}", f"trainer.prompt_format={layout}", *models)
        generator, embedder = model_prompts(pipeline(config).goals(), Store(tmp_path / "home"), config.runtime)
        assert f"\n{begin}" in generator
        assert end in generator
        assert "ends in 1 (</s>)" in generator
    assert "[CLS]" in embedder
    assert "token ids (2 is [CLS], 3 is [SEP]): 2 " in embedder


def test_an_embedder_that_never_saw_instructions_is_named(compose: Any, tmp_path: Path) -> None:
    config = compose(*MINIATURE)
    assert config.embedder.remarks() == [], "a language model sees its first ones in the training"
    (tmp_path / "modules.json").write_text("[]")
    base = type(config.embedder.base)(name=str(tmp_path))
    (remark,) = config.embedder.model_copy(update={"base": base}).remarks()
    assert "never saw instructions" in remark
    assert config.embedder.model_copy(update={"base": base, "instruction": "{query}"}).remarks() == []
    (tmp_path / "config_sentence_transformers.json").write_text('{"prompts": {"query": "Instruct: "}}')
    assert config.embedder.model_copy(update={"base": base}).remarks() == []


def test_a_model_whose_layers_share_a_weight_is_not_divided(llama: Path, compose: Any, tmp_path: Path) -> None:
    """Before anything is built; a model that shares one with its output alone is divided, which an embedder lacks."""
    from transformers import BartConfig, BartModel

    from speed.backends.embedder.ranks import refuse_to_divide

    small = {"vocab_size": 16, "d_model": 8, "encoder_layers": 1, "decoder_layers": 1}
    bart = BartConfig(**small, encoder_attention_heads=1, decoder_attention_heads=1)
    bart.save_pretrained(tmp_path / "bart")
    tied = json.loads((llama / "config.json").read_text()) | {"tie_word_embeddings": True}
    (tmp_path / "llama").mkdir()
    (tmp_path / "llama" / "config.json").write_text(json.dumps(tied))
    eight = {"devices": tuple(range(8)), "strategy": "zero3"}
    refused = r"zero3 cannot divide embedder.base=.*bart, of which several layers share .*\n  take runtime.strategy=ddp"
    for base, changes, match in (
        ("bart", eight, refused),
        ("bart", eight | {"devices": (0,)}, None),
        ("bart", eight | {"strategy": "ddp"}, None),
        ("bart", {"devices": (0,), "strategy": "zero3", "nodes": 2}, refused),
        ("llama", eight, None),
    ):
        config = compose(*MINIATURE, f"embedder.base={tmp_path / base}", "embedder.batch_size=64")
        runtime = config.runtime.model_copy(update=changes)
        with pytest.raises(UserError, match=match) if match else nullcontext():
            config.embedder.check(runtime)
    with pytest.raises(UserError, match="share one weight"):
        refuse_to_divide(BartModel(bart), "bart")
