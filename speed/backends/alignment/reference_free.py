"""Objectives without a reference: CPO, SimPO and ORPO.

TRL 1.16.0 has them as trainers of `trl.experimental`, which tokenise prompt and answer together and keep no order of
rows. So its DPO trainer computes the log-probabilities of the policy and the likelihood term, and the rest of the loss
stands here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from speed.backends.alignment.trl_patches import REFERENCE_COLUMNS
from speed.data.trainings import Dpo

CERTAIN = -1e-6
"""Greatest mean log-probability of a token in odds, which are infinite at 0."""


class Preferred(NamedTuple):
    """What an objective makes of each pair."""

    loss: Tensor
    chosen: Tensor
    """Rewards of the chosen answers."""
    rejected: Tensor


def preferred(
    config: Dpo, chosen: Tensor, rejected: Tensor, chosen_tokens: Tensor, rejected_tokens: Tensor
) -> Preferred:
    """The preference term of each pair, without the likelihood term.

    - cpo: -log sigmoid(beta (log p_c - log p_r)) (Xu et al. 2024, arXiv 2401.08417);
    - simpo: the same of mean log-probabilities a token, less gamma (Meng et al. 2024, arXiv 2405.14734);
    - orpo: -beta log sigmoid(log odds_c - log odds_r), of mean log-probabilities a token too (Hong et al. 2024, arXiv
      2403.07691, equation 7).

    Args:
        chosen: log-probabilities `[pairs]` of the answers, summed over their tokens.
        rejected: likewise.
    """
    if config.loss != "cpo":
        chosen, rejected = chosen / chosen_tokens, rejected / rejected_tokens
    rewards = config.beta * chosen.detach(), config.beta * rejected.detach()
    if config.loss == "orpo":
        return Preferred(-config.beta * logsigmoid(_log_odds(chosen) - _log_odds(rejected)), *rewards)
    return Preferred(-logsigmoid(config.beta * (chosen - rejected) - config.gamma), *rewards)


def _log_odds(log_probs: Tensor) -> Tensor:
    """log(p / (1 - p)), from log p."""
    log_probs = log_probs.float().clamp(max=CERTAIN)
    return log_probs - torch.log(-torch.expm1(log_probs))


def without_reference(trainer_class: Any, config: Dpo) -> Any:
    """A subclass of TRL's DPO trainer for an objective without a reference: no second forward pass, no second model.

    TRL is told that the reference's log-probabilities are known, and that its loss is the likelihood term alone.
    Needless when DPOConfig has these losses (1.16.0: not yet).
    """

    class Free(trainer_class):  # type: ignore[misc]
        def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
            for column in REFERENCE_COLUMNS:
                dataset = dataset.add_column(column, [0.0] * len(dataset))
            return dataset

        def _compute_loss(self, model: Any, inputs: Any, return_outputs: bool) -> Any:
            seen = list[Any]()

            def policy(**asked: Any) -> Any:
                seen.append(model(**asked))
                return seen[-1]

            likelihood = super()._compute_loss(policy, inputs, False)
            mask = inputs["completion_mask"][..., 1:]
            log_probs = seen[0].log_probs[:, -mask.size(1) :].sum(dim=1)
            found = preferred(config, *log_probs.chunk(2), *mask.sum(dim=1).clamp(min=1).chunk(2))
            self._tell(found)
            loss = likelihood + found.loss.mean()
            return (loss, seen[0]) if return_outputs else loss

        def _tell(self, found: Preferred) -> None:
            """Put the objective's own rewards in the place of DPO's, which no one trains on."""
            chosen, rejected = (self.accelerator.gather(rewards) for rewards in (found.chosen, found.rejected))
            figures = {
                "chosen": chosen,
                "rejected": rejected,
                "accuracies": (chosen > rejected).float(),
                "margins": chosen - rejected,
            }
            metrics = self._metrics["train" if self.model.training else "eval"]
            for name, values in figures.items():
                metrics[f"rewards/{name}"][-1] = values.mean().item()

    return Free
