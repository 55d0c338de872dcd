"""A random language model of a few thousand weights with a byte-level tokenizer, made in a moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from speed.core.allocation import Grant
from speed.core.store import Store
from speed.data.trainings import Completion, Preference
from speed.runtime import Context, Runtime

SIZES = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}


def make_base(folder: Path, config_class: str = "LlamaConfig", spread: float = 0.2, **more: Any) -> Path:
    """A base model of the given architecture; `spread` is the width of its random weights."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<s>", "</s>", "<pad>"]
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(
        ["Write about the topic of water and stone", '{"input": "one", "output": "two"}'] * 3, trainer
    )
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    torch.manual_seed(0)
    config = getattr(transformers, config_class)(**(SIZES | {"initializer_range": spread} | more))
    model = transformers.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def context(home: Path, processes: int = 1, **runtime: Any) -> Context:
    """A context that keeps what it is told in `events`; its trainings are shared by so many processes."""
    settings, grant = Runtime(devices="cpu", threads=1, **runtime), Grant(processes=processes)
    ctx = Context(store=Store(home), runtime=settings, label="test", granted=grant)
    events: list[Any] = []
    ctx.send = events.append
    ctx.events = events  # type: ignore[attr-defined]
    return ctx


def completions(count: int) -> list[Completion]:
    """Rows of unlike lengths."""
    return [Completion(prompt=f"Write {i}", completion="abc" * (i % 4) + f"end {i}") for i in range(count)]


def preferences(count: int) -> list[Preference]:
    """Pairs of unlike lengths."""
    return [
        Preference(prompt=f"Write {i}", chosen="good" * (1 + i % 3) + str(i), rejected=f"bad {i}") for i in range(count)
    ]
