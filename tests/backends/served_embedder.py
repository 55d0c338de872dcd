"""A trained embedder of a few thousand weights, and a server that holds it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from embeddings_server import Server
from tiny_generator import make_base
from tokenizers import Tokenizer, processors

from speed.backends.embedder.export import write_layout
from speed.backends.embedder.trainer import ContrastiveTrainer
from speed.backends.encoding.encoder import Encoder
from speed.core.manifest import Manifest
from speed.core.spec import recipe

SPECIAL = [("<s>", 0), ("</s>", 1)]
LONGEST = 64


def made(folder: Path, around: str = "<s> $A </s>", **settings: Any) -> Path:
    """The payload of a training: last-token pooling, an EOS at the end, instructions as E5's."""
    model = make_base(folder / "model")
    around_every(model, around)
    trainer = ContrastiveTrainer(base=str(model), max_length=LONGEST, **settings)
    write_layout(trainer, model, 32, {})
    described = {"trainer": recipe(trainer)}
    Manifest(key="k" * 64, stage="embedder", label="embedder", version=1, recipe=described).write(
        folder / "manifest.json"
    )
    return folder


def around_every(model: Path, template: str) -> None:
    tokens = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokens.post_processor = processors.TemplateProcessing(single=template, special_tokens=SPECIAL)
    tokens.save(str(model / "tokenizer.json"))


class EmbeddingServer(Server):
    """Serves a folder, after what a test does to the encoder and to each text."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.encoder = Encoder.load(folder)
        self.read: Callable[[str], str] = lambda text: text
        self.longest = 10**6
        self.scale = 0.0
        """Length of a vector that is added to each, drawn from its text."""

    def answer(self, body: dict[str, Any]) -> tuple[int, Any]:
        if body["model"] != "mine":
            return 404, {"error": {"message": "no such model"}}
        if max(map(len, body["input"])) > self.longest:
            return 400, {
                "error": {
                    "message": "This model's maximum context length is 64 tokens",
                    "code": "context_length_exceeded",
                }
            }
        vectors = self.encoder.encode([self.read(text) for text in body["input"]])
        if self.scale:
            draws = [np.random.default_rng(len(text)).standard_normal(vectors.shape[1]) for text in body["input"]]
            vectors = vectors + self.scale * np.array([draw / np.linalg.norm(draw) for draw in draws])
        rows = [{"index": place, "embedding": vector.tolist()} for place, vector in enumerate(vectors)]
        return 200, {"data": rows, "usage": {"prompt_tokens": 1}}
