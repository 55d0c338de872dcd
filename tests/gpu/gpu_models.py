"""Models with random weights in the shape of real ones, made on the device, and texts in the paper's mix of lengths.

A word is a token: `w17` is one of a tokenizer whose vocabulary is as large as the model's.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from speed.data.costs.model_shapes import KNOWN, Shape
from speed.data.records import Example, Kind

MISTRAL, LLAMA = KNOWN["mistralai/Mistral-7B-v0.1"], KNOWN["meta-llama/Meta-Llama-3-8B"]
TINY = Shape(vocabulary=600, hidden=32, feed_forward=64, layers=2, heads=4, key_heads=2, head=8)
SPECIAL = ("<unk>", "<s>", "</s>", "<pad>")
CONTEXT = 8192


def base_folder(folder: Path, shape: Shape, kind: str) -> Path:
    """A base without weights: its config and a tokenizer in which every word is a token.

    Args:
        kind: `mistral` or `llama`.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    config(shape, kind).save_pretrained(folder)
    words = [*SPECIAL, *(f"w{number}" for number in range(shape.vocabulary - len(SPECIAL)))]
    tokens = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokens.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokens.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    PreTrainedTokenizerFast(tokenizer_object=tokens, model_max_length=CONTEXT, **names).save_pretrained(folder)
    return folder


def config(shape: Shape, kind: str) -> Any:
    """The transformer's config."""
    from transformers import AutoConfig

    return AutoConfig.for_model(
        kind,
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        head_dim=shape.head,
        tie_word_embeddings=shape.tied,
        max_position_embeddings=CONTEXT,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
    )


def random_model(folder: Path, device: str, dtype: torch.dtype, head: bool) -> Any:
    """The model of a base folder, its weights drawn where they will stand: no copy of it ever lies in main memory.

    Args:
        head: with a language-model head.
    """
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    made = AutoModelForCausalLM if head else AutoModel
    torch.manual_seed(0)
    with torch.device(device):
        model = made.from_config(AutoConfig.from_pretrained(folder), dtype=dtype)
    wrong = {name for name, weight in model.named_parameters() if weight.dtype != dtype or weight.device.type != device}
    assert not wrong, f"weights of another type or place than {dtype} on {device}: {sorted(wrong)[:3]}"
    return model


def matrix_weights(shape: Shape) -> int:
    """Weights that every token is multiplied with: those of the blocks."""
    return shape.layers * sum(wide * out for wide, out in shape.linears)


class Words:
    """Texts of so many tokens."""

    def __init__(self, shape: Shape, seed: int) -> None:
        self.count, self.draw = shape.vocabulary - len(SPECIAL), random.Random(seed)

    def text(self, tokens: int) -> str:
        """A text."""
        return " ".join(f"w{self.draw.randrange(self.count)}" for _ in range(tokens))

    def length(self, mean: float, low: int, high: int) -> int:
        """A length around the mean, most of them below it."""
        return int(min(high, max(low, self.draw.lognormvariate(math.log(mean) - 0.18, 0.6))))

    def mixed(self, tiny: bool) -> tuple[Kind, int, int]:
        """Kind, query's and document's tokens of a record of the paper's mix: 7 : 7 : 7 : 2."""
        shrink = 8 if tiny else 1

        def some(mean: float, low: int, high: int) -> Callable[[], int]:
            return lambda: max(1, self.length(mean, low, high) // shrink)

        lengths = {
            Kind.CLASSIFICATION: (some(150, 10, 400), lambda: self.draw.randrange(1, 5)),
            Kind.STS: (some(16, 4, 40), some(16, 4, 40)),
            Kind.RETRIEVAL: (some(14, 3, 40), some(180, 20, 480)),
            Kind.LONG_LONG: (some(150, 20, 480), some(150, 20, 480)),
        }
        kind = self.draw.choices([*lengths], [7, 7, 7, 2])[0]
        query, document = lengths[kind]
        return kind, query(), document()


def example_file(file: Path, shape: Shape, count: int, tiny: bool) -> Path:
    """Records of the paper's mix for the embedder, each with a hard negative."""
    words = Words(shape, 0)
    lines = []
    for _ in range(count):
        kind, query, document = words.mixed(tiny)
        task = words.text(2 if tiny else 10)
        positive, negative = words.text(document), words.text(document)
        lines.append(
            Example(kind=kind, task=task, query=words.text(query), positive=positive, negative=negative)
            .model_dump_json()
        )  # fmt: skip
    file.write_text("\n".join(lines) + "\n")
    return file


def corpus(shape: Shape, count: int, tiny: bool) -> list[str]:
    """Queries and documents of the paper's mix, as an evaluation encodes them."""
    words = Words(shape, 1)
    texts = []
    for _ in range(count):
        _, query, document = words.mixed(tiny)
        texts.append(words.text(words.draw.choice((query, document))))
    return texts


def composed(*overrides: str) -> Any:
    """The validated config of a command line: the parts are made by conf/, wherever their classes are."""
    from hydra import compose, initialize_config_dir

    from speed.config import validated
    from speed.run import CONF
    from speed.run import composed as made

    with initialize_config_dir(CONF, version_base="1.3"):
        return validated(made(compose("config", overrides=list(overrides))))


def changed(part: Any, **fields: Any) -> Any:
    """A part of the config with other settings, checked like those of a command line."""
    return type(part)(**{**json.loads(part.model_dump_json()), **fields})


def context(home: Path, machine: Any, **runtime: Any) -> Any:
    """A context whose events are kept, each with its time, in `events`."""
    import time

    from speed.core.store import Store
    from speed.runtime import Context, Runtime

    ctx = Context(
        store=Store(home),
        runtime=Runtime(home=home, devices="cpu" if machine.device == "cpu" else "auto", **runtime),
        label="gpu",
    )
    events: list[dict[str, Any]] = []
    ctx.send = lambda event: events.append({**event, "at": time.perf_counter()})
    ctx.events = events
    return ctx
