"""An instruction in front of many texts is read once, and every vector is what its text alone has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_generator import make_base

from speed.backends.encoding.embedding_model import shared_start
from speed.backends.encoding.encoder import LEAST_SHARED, Encoder
from speed.backends.encoding.token_rows import training_frame
from speed.model.pooling import Pooling

INSTRUCTION = "Instruct: Given a question, retrieve passages that answer it\nQuery: "
TEXTS = ["stone", "", "water and stone " * 9, "stone", *(f"{number} stones in the water" for number in range(30))]


def encoder(base: Path, how: Pooling, max_length: int = 96) -> Encoder:
    from speed.backends.encoding.embedding_model import transformer

    model, tokenizer = transformer(str(base), None, torch.float32)
    found = Encoder(
        model.eval(), tokenizer, training_frame(tokenizer, how, "as_base"), how, True, max_length, prompts={}
    )
    found.chunk_tokens = 512
    return found


@contextmanager
def tokens_read(model: torch.nn.Module) -> Iterator[list[int]]:
    read: list[int] = []

    def note(_: torch.nn.Module, __: tuple[object, ...], given: dict[str, torch.Tensor]) -> None:
        read.append(given["input_ids"].numel())

    hook = model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield read
    finally:
        hook.remove()


@pytest.mark.parametrize("architecture", ["LlamaConfig", "MistralConfig", "Qwen2Config", "Qwen3Config", "GemmaConfig"])
def test_vectors_behind_an_instruction_are_those_of_each_text_alone(architecture: str, tmp_path: Path) -> None:
    found = encoder(make_base(tmp_path, architecture), "last")
    with tokens_read(found.model) as read:
        together = found.encode(TEXTS, INSTRUCTION)
    alone = np.concatenate([found.encode([text], INSTRUCTION) for text in TEXTS])
    assert np.abs(together - alone).max() < 1e-5
    plain = found.encode([INSTRUCTION + text for text in TEXTS])
    assert np.array_equal(together, plain), "who puts the instruction there is no matter"
    with tokens_read(found.model) as singly:
        for text in dict.fromkeys(TEXTS):
            found.encode([text], INSTRUCTION)
    assert sum(read) < 0.6 * sum(singly)


def test_mean_pooling_needs_the_states_of_the_instruction_too(tmp_path: Path) -> None:
    found = encoder(make_base(tmp_path, "LlamaConfig"), "mean")
    together = found.encode(TEXTS, INSTRUCTION)
    alone = np.concatenate([found.encode([text], INSTRUCTION) for text in TEXTS])
    assert np.abs(together - alone).max() < 1e-5


def test_a_window_narrower_than_the_instruction_is_kept_to(tmp_path: Path) -> None:
    found = encoder(make_base(tmp_path, "MistralConfig", sliding_window=6), "last")
    together = found.encode(TEXTS, INSTRUCTION)
    alone = np.concatenate([found.encode([text], INSTRUCTION) for text in TEXTS])
    assert np.abs(together - alone).max() < 1e-5


def test_instructions_in_turn_are_not_mixed_up(tmp_path: Path) -> None:
    found = encoder(make_base(tmp_path, "LlamaConfig"), "last")
    others = ["Instruct: Retrieve semantically similar text.\nQuery: ", INSTRUCTION, "a" * 3 * LEAST_SHARED + " "]
    for instruction in (*others, *others):
        together = found.encode(TEXTS, instruction)
        alone = np.concatenate([found.encode([text], instruction) for text in TEXTS])
        assert np.abs(together - alone).max() < 1e-5


def test_one_token_of_every_row_is_left() -> None:
    rows = [np.array(row, np.int32) for row in ([1, 2, 3], [1, 2, 3, 4], [1, 2, 3])]
    assert shared_start(rows) == 2
    assert shared_start([np.array(row, np.int32) for row in ([1, 2, 3], [1, 4, 3], [1, 2, 2])]) == 1
    assert shared_start([np.array(row, np.int32) for row in ([5], [5, 6])]) == 0
    assert shared_start([np.array(row, np.int32) for row in ([5, 6, 7], [5], [])]) == 0
