"""An embedder's base before anything is paid for: config, tokenizer, pooling and adapters, without its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from speed.backends.embedder.settings import ContrastiveSettings
from speed.backends.runtime.device import quietly
from speed.backends.runtime.model_folder import described, refuse_unloadable
from speed.core.errors import UserError

QUERY = "(a query)"
"""Stands for a query that is yet to be written."""


def check_embedder(settings: ContrastiveSettings) -> None:
    """Refuse a base that cannot be trained as the settings say. Bases of this package are known, and models of
    the hub are checked once their config and tokenizer are on this machine.

    Raises:
        UserError: with the remedy.
    """
    base = settings.base.name
    if base.startswith("package:"):
        return
    refuse_unloadable(base, "embedder.base")
    if (folder := described(base)) is None:
        return
    from speed.backends.encoding.embedding_model import ADAPTER, config_of, tokenizer_of  # these import torch
    from speed.backends.encoding.token_rows import training_frame

    tokenizer = tokenizer_of(folder, None)
    if (Path(folder) / ADAPTER).is_file():
        training_frame(tokenizer, settings.pooling, settings.bos)
        return
    config = config_of(folder, None)
    if settings.pooling == "last" and is_encoder(config):
        raise UserError(
            f"embedder.pooling=last, and {base} is an encoder ({config.model_type}): its last token gathers no text\n"
            "  set embedder.pooling=mean (or cls, as its authors say), or take an option for encoders "
            "(embedder=minilm, bge_small, e5_small, modernbert)"
        )
    training_frame(tokenizer, settings.pooling, settings.bos)
    text = config.get_text_config()
    context = getattr(text, "max_position_embeddings", None)
    if context is not None and settings.max_length > context:
        raise UserError(
            f"embedder.max_length={settings.max_length}, and {base} reads {context} tokens at most\n"
            f"  set embedder.max_length={context} or less"
        )
    if settings.lora is not None and settings.lora.targets != ("all-linear",):
        refuse_absent_targets(base, config, settings.lora.targets)


def refuse_absent_targets(base: str, config: Any, targets: tuple[str, ...]) -> None:
    """Refuse adapters on layers that a model does not have.

    Raises:
        UserError: with the names that it has.
    """
    import torch
    import transformers

    with quietly(), torch.device("meta"):
        layers = transformers.AutoModel.from_config(config).named_modules()
        linear = [name for name, layer in layers if isinstance(layer, torch.nn.Linear)]
    absent = [target for target in targets if not any(_is_named(name, target) for name in linear)]
    if absent:
        names = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in linear if "pooler" not in name))
        raise UserError(
            f"embedder.lora.targets names {', '.join(absent)}, and {base} has no such layers; its own are {names}\n"
            "  set embedder.lora.targets to some of them (or [all-linear]), or embedder.lora=null to train all weights"
        )


def refuse_shared_weights(base: str) -> None:
    """Refuse to divide a model of which two layers share a weight, once its config is on this machine.

    Raises:
        UserError: with the remedy.
    """
    folder = None if base.startswith("package:") else described(base)
    if folder is None or not (Path(folder) / "config.json").is_file():
        return
    import torch
    import transformers

    from speed.backends.embedder.ranks import refuse_to_divide
    from speed.backends.encoding.embedding_model import config_of

    with quietly(), torch.device("meta"):
        model = transformers.AutoModel.from_config(config_of(folder, None))
    refuse_to_divide(model, base)


def read_query(settings: ContrastiveSettings, task: str) -> str:
    """A query under its instruction exactly as a training reads it, as text and as token ids;
    empty where its tokenizer is not on this machine."""
    if (folder := described(settings.base.name)) is None:
        return ""
    from speed.backends.encoding.embedding_model import tokenizer_of
    from speed.backends.encoding.token_rows import token_rows, training_frame

    tokenizer = tokenizer_of(folder, None)
    frame = training_frame(tokenizer, settings.pooling, settings.bos)
    text = settings.instruction.replace("{task}", task).replace("{query}", QUERY)
    ids = [int(token) for token in token_rows(tokenizer, [text], frame, settings.max_length)[0]]
    marks = {token: tokenizer.convert_ids_to_tokens(token) for token in (*frame.before, *frame.after)}
    added = ", ".join(f"{token} is {name}" for token, name in marks.items()) or "no special tokens"
    pooled = {"last": "the last token", "mean": "the mean over tokens", "cls": "the first token"}[settings.pooling]
    return (
        f"{settings.base.name}: {len(ids):,} tokens, of which {pooled} is the embedding\n"
        f"{tokenizer.decode(ids)}\ntoken ids ({added}): {' '.join(map(str, ids))}"
    )


def is_encoder(config: Any) -> bool:
    """Whether a model was made to fill in masked words, and reads both directions."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    return config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)


def _is_named(layer: str, target: str) -> bool:
    """As PEFT reads a target: the whole name, or its end behind a dot."""
    return layer == target or layer.endswith(f".{target}")
