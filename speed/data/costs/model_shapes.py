"""Sizes of the base models that conf/ names, so that a plan can estimate memory without loading a model."""

from __future__ import annotations

import json
from pathlib import Path

from speed.core.content import package_folder
from speed.core.spec import Spec


class Shape(Spec):
    """A decoder of the Llama family: gated feed-forward layers, grouped keys and values."""

    vocabulary: int
    hidden: int
    feed_forward: int
    layers: int
    heads: int
    key_heads: int
    """Heads of keys and values."""
    head: int
    """Width of a head."""
    tied: bool = False
    """Whether input and output embeddings are one matrix."""
    attention_bias: bool = False
    """Whether queries, keys and values have biases (Qwen-2.5)."""
    norms: int = 2
    """Normalisations of a block's width (Gemma 3: 4)."""
    head_norms: bool = False
    """Whether queries and keys are normalised (Qwen 3, Gemma 3)."""

    @property
    def linears(self) -> list[tuple[int, int]]:
        """(in, out) of the linear layers of one block."""
        queries, keys = self.heads * self.head, self.key_heads * self.head
        attention = [(self.hidden, queries), (self.hidden, keys), (self.hidden, keys), (queries, self.hidden)]
        return attention + [(self.hidden, self.feed_forward)] * 2 + [(self.feed_forward, self.hidden)]

    @property
    def parameters(self) -> int:
        """Number of weights."""
        biases = (self.heads + 2 * self.key_heads) * self.head if self.attention_bias else 0
        norms = self.norms * self.hidden + (2 * self.head if self.head_norms else 0)
        block = sum(wide * out for wide, out in self.linears) + biases + norms
        return self.embedding * (1 if self.tied else 2) + self.layers * block + self.hidden

    @property
    def shared_by(self) -> tuple[int, ...]:
        """Numbers of GPUs of one machine that can share its layers: each has as many heads (vLLM asks for that)."""
        return tuple(number for number in (1, 2, 4, 8, 16) if self.heads % number == 0)

    @property
    def embedding(self) -> int:
        """Number of weights of one embedding matrix."""
        return self.vocabulary * self.hidden

    def lora(self, r: int) -> int:
        """Number of weights of a LoRA adapter of rank r on all linear layers."""
        return self.layers * sum(r * (wide + out) for wide, out in self.linears)


KNOWN = {
    "meta-llama/Meta-Llama-3-8B": Shape(
        vocabulary=128_256, hidden=4_096, feed_forward=14_336, layers=32, heads=32, key_heads=8, head=128
    ),
    "meta-llama/Llama-2-7b-hf": Shape(
        vocabulary=32_000, hidden=4_096, feed_forward=11_008, layers=32, heads=32, key_heads=32, head=128
    ),
    "mistralai/Mistral-7B-v0.1": Shape(
        vocabulary=32_000, hidden=4_096, feed_forward=14_336, layers=32, heads=32, key_heads=8, head=128
    ),
    "google/gemma-7b": Shape(
        vocabulary=256_000, hidden=3_072, feed_forward=24_576, layers=28, heads=16, key_heads=16, head=256, tied=True
    ),
    "Qwen/Qwen2.5-7B": Shape(
        vocabulary=152_064, hidden=3_584, feed_forward=18_944, layers=28, heads=28, key_heads=4, head=128,
        attention_bias=True,
    ),
    "Qwen/Qwen2.5-0.5B": Shape(
        vocabulary=151_936, hidden=896, feed_forward=4_864, layers=24, heads=14, key_heads=2, head=64,
        tied=True, attention_bias=True,
    ),
    "HuggingFaceTB/SmolLM2-135M": Shape(
        vocabulary=49_152, hidden=576, feed_forward=1_536, layers=30, heads=9, key_heads=3, head=64, tied=True
    ),
    "HuggingFaceTB/SmolLM2-360M": Shape(
        vocabulary=49_152, hidden=960, feed_forward=2_560, layers=32, heads=15, key_heads=5, head=64, tied=True
    ),
    "Qwen/Qwen3-0.6B-Base": Shape(
        vocabulary=151_936, hidden=1_024, feed_forward=3_072, layers=28, heads=16, key_heads=8, head=128,
        tied=True, head_norms=True,
    ),
    "Qwen/Qwen3-8B-Base": Shape(
        vocabulary=151_936, hidden=4_096, feed_forward=12_288, layers=36, heads=32, key_heads=8, head=128,
        head_norms=True,
    ),
    "google/gemma-3-270m": Shape(
        vocabulary=262_144, hidden=640, feed_forward=2_048, layers=18, heads=4, key_heads=1, head=256,
        tied=True, norms=4, head_norms=True,
    ),
    "google/gemma-3-1b-pt": Shape(
        vocabulary=262_144, hidden=1_152, feed_forward=6_912, layers=26, heads=4, key_heads=1, head=256,
        tied=True, norms=4, head_norms=True,
    ),
    "meta-llama/Llama-3.2-1B": Shape(
        vocabulary=128_256, hidden=2_048, feed_forward=8_192, layers=16, heads=32, key_heads=8, head=64, tied=True
    ),
    "mistralai/Mistral-7B-v0.3": Shape(
        vocabulary=32_768, hidden=4_096, feed_forward=14_336, layers=32, heads=32, key_heads=8, head=128
    ),
}  # fmt: skip
KNOWN["meta-llama/Llama-3.1-8B"] = KNOWN["meta-llama/Meta-Llama-3-8B"]
KNOWN["meta-llama/Meta-Llama-3-8B-Instruct"] = KNOWN["meta-llama/Meta-Llama-3-8B"]
"""From config.json of each model on the hub; tests compare the sums with published numbers of parameters."""


def shape_of(base: str) -> Shape | None:
    """Shape of a base model: known by name, or read from config.json of a folder; None for any other."""
    known = KNOWN.get(base.partition("@")[0])
    if known is not None:
        return known
    folder = package_folder(base) if base.startswith("package:") else Path(base).expanduser()
    try:
        read = json.loads((folder / "config.json").read_text())
        return Shape(
            vocabulary=read["vocab_size"],
            hidden=read["hidden_size"],
            feed_forward=read["intermediate_size"],
            layers=read["num_hidden_layers"],
            heads=read["num_attention_heads"],
            key_heads=read.get("num_key_value_heads") or read["num_attention_heads"],
            head=read.get("head_dim") or read["hidden_size"] // read["num_attention_heads"],
            tied=read.get("tie_word_embeddings", False),
            attention_bias=read.get("attention_bias", False) or read.get("model_type") == "qwen2",
        )
    except (OSError, ValueError, KeyError):
        return None
