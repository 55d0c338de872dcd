"""Prompts and answers under the tokenizers of the generators that conf/ names, each of their construction, made here.

SmolLM2 and Qwen: bytes, no BOS, <|endoftext|> ends texts. Llama 3: bytes, a BOS in front by its post-processor, no
padding token. Gemma and Mistral: pieces with a fallback to bytes, a BOS in front.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from speed.backends.engines.prompt_format import completion_ids, prompt_ids
from speed.backends.engines.weights import load_tokenizer

TEXTS = ["Write one example about tea and stones", '{"query": "q", "positive": "p"}', "naïve café ☕ 東京"] * 4


def bytewise(folder: Path, bos: str, eos: str, pad: str | None) -> Path:
    """Byte-level BPE; with a BOS, a template puts it in front."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = list(dict.fromkeys(filter(None, (bos, eos, pad))))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=alphabet)
    )
    if bos:
        place = bpe.token_to_id(bos)
        bpe.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, place)])
    return saved(bpe, folder, bos, eos, pad)


def piecewise(folder: Path, bos: str, eos: str, pad: str | None) -> Path:
    """BPE over pieces with ▁ for spaces, unknown characters as bytes."""
    special = list(dict.fromkeys(filter(None, (pad, eos, bos, "<unk>"))))
    learnt = Tokenizer(models.BPE(unk_token="<unk>"))
    learnt.normalizer = normalizers.Replace(" ", "▁")
    plain = trainers.BpeTrainer(
        vocab_size=200, special_tokens=[*special, *(f"<0x{byte:02X}>" for byte in range(256))], show_progress=False
    )
    learnt.train_from_iterator(TEXTS[:2], plain)
    vocabulary = learnt.get_vocab()
    bpe = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    bpe.normalizer = normalizers.Replace(" ", "▁")
    bpe.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    bpe.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, vocabulary[bos])])
    return saved(bpe, folder, bos, eos, pad)


def saved(backend: Any, folder: Path, bos: str, eos: str, pad: str | None) -> Path:
    names = {"bos_token": bos or None, "eos_token": eos, "pad_token": pad}
    given = {name: token for name, token in names.items() if token}
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **given).save_pretrained(folder)
    return folder


FAMILIES = {
    "smollm2": (bytewise, "", "<|endoftext|>", "<|endoftext|>"),
    "qwen": (bytewise, "", "<|endoftext|>", "<pad>"),
    "llama3": (bytewise, "<|begin_of_text|>", "<|end_of_text|>", None),
    "gemma": (piecewise, "<bos>", "<eos>", "<pad>"),
    "mistral": (piecewise, "<s>", "</s>", None),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_one_bos_where_the_family_has_one_and_one_eos(family: str, tmp_path: Path) -> None:
    make, bos, eos, pad = FAMILIES[family]
    tokenizer = load_tokenizer(make(tmp_path / family, bos, eos, pad))
    assert tokenizer.eos_token == eos
    assert tokenizer.pad_token == (pad or eos), "EOS pads where nothing else does"
    for text in TEXTS[:3]:
        prompt = prompt_ids(text, "plain", tokenizer)
        answer = completion_ids(text, tokenizer)
        assert prompt.count(tokenizer.bos_token_id) == (1 if bos else 0)
        assert (prompt[0] == tokenizer.bos_token_id) == bool(bos)
        assert tokenizer.eos_token_id not in prompt
        assert answer.count(tokenizer.eos_token_id) == 1
        assert answer[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(answer[:-1]) == text
        assert tokenizer.decode(prompt[1 if bos else 0 :]) == text + "\n"
