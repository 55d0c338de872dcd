"""What a trained model writes on a few prompts of its own training: whether it is JSON still, and how long it is.

The paper warns that too many pairs hurt instruction following (4.3.2), and judges that favour length are known to make
writers long-winded (Park et al. 2024, arXiv 2403.19159). Both show here, before anything is synthesised.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from speed.backends.generator.decoding import Prefix, continuations
from speed.ports import Sampling

SAMPLE = 8
"""Prompts that are answered."""


def samples(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], longest: int, prefix: str = "written"
) -> dict[str, float]:
    """`<prefix>_valid_json`: share of greedy answers that are one JSON object; `<prefix>_tokens`: their mean length.

    Args:
        prompts: token ids; the first few are answered.
        longest: tokens that an answer may have; one that is cut off there is no JSON.
    """
    model.eval()
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    rooms = [longest if context is None else min(longest, context - len(ids)) for ids in prompts[:SAMPLE]]
    asked = [Prefix(ids, 0, range(1), room) for ids, room in zip(prompts, rooms, strict=False) if room > 0]
    if not asked:
        return {}
    eos = tokenizer.eos_token_id
    sharded = hasattr(next(model.parameters()), "ds_id")
    answers = continuations(model, asked, Sampling(temperature=0.0), [eos], sharded=sharded)
    valid = sum(ids[-1] == eos and is_object(tokenizer.decode(ids[:-1])) for ids in answers)
    tokens = sum(len(ids) for ids in answers) / len(answers)
    return {f"{prefix}_valid_json": valid / len(answers), f"{prefix}_tokens": tokens}


def is_object(text: str) -> bool:
    """Whether a text is one JSON object and nothing else."""
    try:
        return isinstance(json.loads(text, strict=False), dict)
    except (ValueError, RecursionError):
        return False
