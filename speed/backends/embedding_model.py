"""An embedding model in memory: transformer, pooling, normalisation; common to trainer and evaluator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from speed.backends.device import quietly
from speed.core.errors import UserError
from speed.model.batching import Ids, drawn_from, padded
from speed.model.pooling import Pooling, pooled


def transformer(source: str, revision: str | None, dtype: Any) -> tuple[Any, Any]:
    """(model without a language-model head, tokenizer) of a folder or hub model.

    Raises:
        UserError: when it cannot be read.
    """
    import torch
    import transformers

    try:
        with quietly(), drawn_from(0, torch.device("cpu")):  # weights that a checkpoint lacks (BERT's pooler) are drawn
            tokenizer = transformers.AutoTokenizer.from_pretrained(source, revision=revision)
            model = transformers.AutoModel.from_pretrained(source, revision=revision, dtype=dtype)
    except (OSError, ValueError) as error:
        raise UserError(
            f"the model {source!r} cannot be loaded: {error}\n"
            "  give an existing folder or a hub name; a gated model needs HF_TOKEN in the environment"
        ) from error
    return model, tokenizer


def ignores_later_tokens(model: Any) -> bool:
    """True for causal attention: then padding on the right changes nothing and no mask has to be computed."""
    config = model.config
    causal = {"llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "phi3", "olmo2"}
    return config.model_type in causal and not getattr(config, "use_bidirectional_attention", False)


def vectors(model: Any, rows: Sequence[Ids], pad: int, causal: bool, how: Pooling, normalize: bool) -> Tensor:
    """`[rows dim]` fp32 embeddings of token rows, padded on the right to the longest of them."""
    ids, mask = padded(rows, pad, model.device)
    needs_mask = not causal and bool((mask == 0).any())
    states = model(
        input_ids=ids, attention_mask=mask if needs_mask else None, **({"use_cache": False} if causal else {})
    )
    return pooled(states.last_hidden_state, mask, how, normalize)
