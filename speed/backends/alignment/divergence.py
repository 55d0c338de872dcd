"""How far a preference training has moved a model from its reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from speed.backends.alignment.written_samples import samples

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

SAMPLE = 32
"""Pairs that are measured."""


def kl_reference(trainer: Any, rows: Sequence[dict[str, list[int]]]) -> dict[str, float]:
    """`kl_reference`: KL(policy || reference) in nats a token, over the whole vocabulary at each position.

    The mean over the chosen completions of the first pairs. Rafailov et al. 2024 (cited by the paper) measure
    over-optimisation against it.
    """
    import torch

    trainer.model.eval()
    nats, tokens = 0.0, 0
    with torch.no_grad():
        for row in rows[:SAMPLE]:
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
    """What policy and reference write (`written_samples`), and how long the preferred answers are beside the others.

    `length_drift` is the policy's mean length over the reference's.
    """
    chosen, rejected = (sum(len(row[name]) for row in rows) / len(rows) for name in ("chosen_ids", "rejected_ids"))
    longest = max(len(row["chosen_ids"]) for row in rows)
    found = {"chosen_tokens": chosen, "rejected_tokens": rejected}
    found |= samples(trainer.model, tokenizer, prompts, longest)
    with reference(trainer) as model:
        found |= samples(getattr(model, "module", model), tokenizer, prompts, longest, "reference")
    if found.get("reference_tokens"):
        found["length_drift"] = found["written_tokens"] / found["reference_tokens"]
    return found


def bring_reference(trainer: Any, start: Callable[[], Any]) -> None:
    """Load the reference behind a training that has done without it (all weights, `precompute_reference`).

    The optimizer goes first: together the two models then take less than the training did.
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
    import torch

    logits = model(input_ids=ids, use_cache=False).logits[0, -last - 1 : -1]
    return torch.log_softmax(logits.float(), dim=-1)
