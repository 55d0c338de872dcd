"""An embedding model in memory: transformer, pooling, normalisation. The training and the encoder share it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from speed.backends.runtime.device import quietly
from speed.core.content import locate_model, sha256_of
from speed.core.errors import UserError
from speed.model.batching import Ids, drawn_from, padded
from speed.model.pooling import Pooling, pooled

ADAPTER = "adapter_config.json"
"""A folder with this file is a PEFT adapter."""
BASE = "base.json"
"""Beside an adapter of ours whose base is a folder: the sha256 of that base."""


def tokenizer_of(source: str, revision: str | None) -> Any:
    """The tokenizer of a folder or hub model.

    Raises:
        UserError: when it cannot be read.
    """
    import transformers

    with quietly(), _explained(source):
        return transformers.AutoTokenizer.from_pretrained(source, revision=revision)


def config_of(source: str, revision: str | None) -> Any:
    """The config of a folder or hub model.

    Raises:
        UserError: when it cannot be read.
    """
    import transformers

    with quietly(), _explained(source):
        return transformers.AutoConfig.from_pretrained(source, revision=revision)


def transformer(
    source: str, revision: str | None, dtype: Any, empty: bool = False, pickled: bool = True
) -> tuple[Any, Any]:
    """(model without a language-model head, tokenizer) of a folder or hub model; an adapter is merged into its base.

    Args:
        empty: the same layers on torch's device `meta`, without weights, of which none are read.
        pickled: whether weights may be in `.bin` where there are none in safetensors.

    Raises:
        UserError: when it cannot be read, or an adapter belongs to another base.
    """
    import torch
    import transformers

    tokenizer = tokenizer_of(source, revision)
    if (Path(source) / ADAPTER).is_file():
        return _adapted(Path(source), dtype, empty, pickled), tokenizer
    if empty:
        config = config_of(source, revision)
        with quietly(), _explained(source), torch.device("meta"):
            return transformers.AutoModel.from_config(config, dtype=dtype), tokenizer
    with quietly(), _explained(source), drawn_from(0, torch.device("cpu")):  # weights that are missing are drawn
        only = {} if pickled else {"use_safetensors": True}
        return transformers.AutoModel.from_pretrained(source, revision=revision, dtype=dtype, **only), tokenizer


def _adapted(folder: Path, dtype: Any, empty: bool, pickled: bool) -> Any:
    """A PEFT adapter merged into the base that it was trained on."""
    from peft import PeftModel

    described = json.loads((folder / ADAPTER).read_text())
    named = str(described.get("base_model_name_or_path") or "")
    if not named:
        raise UserError(f"{folder / ADAPTER} names no base model (base_model_name_or_path); take the merged model")
    source, revision = locate_model(named)
    revision = revision or described.get("revision")  # where PEFT keeps it
    expected = json.loads((folder / BASE).read_text())["sha256"] if (folder / BASE).is_file() else None
    if expected and Path(source).is_dir() and sha256_of(Path(source)) != expected:
        raise UserError(
            f"{folder}: its adapter was trained on another base than {source} holds now\n"
            "  put the former folder back, or take the merged model"
        )
    model, _ = transformer(source, revision, dtype, empty, pickled)
    if empty:
        return model
    try:
        with quietly():
            return PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    except (RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()
        raise UserError(
            f"{folder}: its adapter does not fit the base {named}: {' '.join(first[:2])}\n"
            "  name the base that it was trained on in adapter_config.json, or take the merged model"
        ) from error


@contextmanager
def _explained(source: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise UserError(
            f"the model {source!r} cannot be loaded: {error}\n"
            "  give an existing folder or a hub name; a gated model needs HF_TOKEN in the environment"
        ) from error


def ignores_later_tokens(model: Any) -> bool:
    """True for causal attention: padding on the right then changes nothing, and no mask is needed."""
    config = model.config
    causal = {"llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "phi3", "olmo2"}
    return config.model_type in causal and not getattr(config, "use_bidirectional_attention", False)


def vectors(
    model: Any, rows: Sequence[Ids], pad: int, causal: bool, how: Pooling, normalize: bool, read: Any = None
) -> Tensor:
    """`[rows dim]` fp32 embeddings of token rows, padded on the right to the longest of them.

    Args:
        read: keys and values of what stands before each row (`keys_and_values`); causal, with pooling `last`, alone.
    """
    ids, mask = padded(rows, pad, model.device)
    needs_mask = not causal and bool((mask == 0).any())
    how_cached: dict[str, Any] = {"use_cache": False} if causal else {}
    if read is not None:
        before = deepcopy(read)
        before.batch_repeat_interleave(len(rows))
        how_cached = {"past_key_values": before, "use_cache": True}
    states = model(input_ids=ids, attention_mask=mask if needs_mask else None, **how_cached)
    return pooled(states.last_hidden_state, mask, how, normalize)


def shared_start(rows: Sequence[Ids]) -> int:
    """Tokens that all rows begin with, an instruction mostly; at least one of every row is not counted."""
    first, last = min(rows, key=tuple), max(rows, key=tuple)
    length = max(0, min(map(len, rows)) - 1)  # a model without special tokens has rows without any token
    differ = np.flatnonzero(first[:length] != last[:length])
    return int(differ[0]) if len(differ) else length


def keys_and_values(model: Any, start: Ids) -> Any:
    """What causal attention keeps of the tokens that several rows begin with, for `vectors`."""
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    model(input_ids=padded([start], 0, model.device)[0], past_key_values=cache, use_cache=True)
    return cache
