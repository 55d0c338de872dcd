"""What is measured on a trained model, before anything is synthesised: how far it has moved, and what it writes.

The paper warns that too many pairs hurt instruction following (4.3.2), judges that favour length are known to make
writers long-winded (Park et al. 2024, arXiv 2403.19159), and Rafailov et al. 2024 (cited by the paper) measure
over-optimisation against the distance from the reference. All three show here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from speed.backends.engines.decoding import Prefix, continuations
from speed.ports import Sampling

PAIRS = 32
"""Pairs on which the distance from the reference is measured."""
PROMPTS = 8
"""Prompts that are answered."""


def kl_reference(trainer: Any, rows: Sequence[dict[str, list[int]]]) -> dict[str, float]:
    """`kl_reference`: KL(policy || reference) in nats a token, over the whole vocabulary at each position.

    The mean over the chosen completions of the first pairs.
    """
    trainer.model.eval()
    nats, tokens = 0.0, 0
    with torch.no_grad():
        for row in rows[:PAIRS]:
            ids = torch.tensor([row["prompt_ids"] + row["chosen_ids"]], device=trainer.model.device)
            policy = _log_probs(trainer.model, ids, len(row["chosen_ids"]))
            with reference(trainer) as model:
                expected = _log_probs(model, ids, len(row["chosen_ids"]))
            nats += float((policy.exp() * (policy - expected)).sum())
            tokens += len(row["chosen_ids"])
    return {"kl_reference": nats / tokens}


def drift(
    trainer: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], rows: Sequence[dict[str, list[int]]]
) -> dict[str, float]:
    """What policy and reference write (`measure_writing`), and how long the preferred answers are beside the others.

    `length_drift` is the policy's mean length over the reference's.
    """
    chosen, rejected = (sum(len(row[name]) for row in rows) / len(rows) for name in ("chosen_ids", "rejected_ids"))
    longest = max(len(row["chosen_ids"]) for row in rows)
    figures = {"chosen_tokens": chosen, "rejected_tokens": rejected}
    figures |= measure_writing(trainer.model, tokenizer, prompts, longest)
    with reference(trainer) as model:
        figures |= measure_writing(getattr(model, "module", model), tokenizer, prompts, longest, "reference")
    if figures.get("reference_tokens"):
        figures["length_drift"] = figures["written_tokens"] / figures["reference_tokens"]
    return figures


def load_reference(trainer: Any, start: Callable[[], Any]) -> None:
    """Load the reference after a training that did without it (all weights, `precompute_reference`).

    The optimizer is freed first: both models then take less memory than the training did.
    """
    if trainer.ref_model is not None or hasattr(trainer.model, "peft_config"):
        return
    trainer.optimizer = trainer.lr_scheduler = None
    trainer.accelerator.free_memory()
    trainer.ref_model = trainer.accelerator.prepare_model(start(), evaluation_mode=True)


@contextmanager
def reference(trainer: Any) -> Iterator[Any]:
    """The frozen reference of TRL's DPO trainer: a second model, a second adapter, or the base without its adapter."""
    model = trainer.model
    if trainer.ref_model is not None:
        yield trainer.ref_model
        return
    if "ref" not in model.peft_config:
        with model.disable_adapter():
            yield model
        return
    model.set_adapter("ref")
    try:
        yield model
    finally:
        model.set_adapter("default")


def _log_probs(model: Any, ids: Tensor, last: int) -> Tensor:
    """Log-probabilities (last, vocabulary) that predict the last `last` ids."""
    logits = model(input_ids=ids, use_cache=False).logits[0, -last - 1 : -1]
    return torch.log_softmax(logits.float(), dim=-1)


def measure_writing(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], longest: int, prefix: str = "written"
) -> dict[str, float]:
    """`<prefix>_valid_json`: share of greedy answers that are one JSON object; `<prefix>_tokens`: their mean length.

    Args:
        prompts: token ids; the first few are answered.
        longest: tokens that an answer may have; one that is cut off there is no JSON.
    """
    model.eval()
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    limits = [longest if context is None else min(longest, context - len(ids)) for ids in prompts[:PROMPTS]]
    asked = [Prefix(ids, 0, range(1), limit) for ids, limit in zip(prompts, limits, strict=False) if limit > 0]
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
