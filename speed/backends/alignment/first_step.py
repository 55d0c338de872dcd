"""What the first step of a preference training must show, and how far from it rounding alone may lead.

The model begins as its reference, so all log-ratios are 0 and the loss is what theory says. In 16 bits,
log-probabilities that were computed in a batch of another shape (`trainer.precompute_reference`) differ in rounding,
and more so in longer answers; a reference that is another model differs by nats. Between the two stands a tolerance,
derived thus:

1. A number in 16 bits is rounded by at most u of itself (the unit roundoff: 2^-8 in bf16, 2^-11 in fp16), evenly on
   both sides, so with a standard deviation of u / sqrt(3).
2. A decoder of L layers rounds its residual stream 2 L times (after each attention and each feed-forward part) and its
   logits once. Each time moves a logit by u / sqrt(3) of the spread Z that logits have over the vocabulary (what moves
   all of them alike changes no probability), so together by Z u sqrt((2 L + 1) / 3).
3. A log-probability is a logit minus a mean over all logits, whose errors are independent: sqrt(2) at most of one
   logit's. A log-ratio is the difference of two such computations: sqrt(2) again. So a token's log-ratio has a standard
   deviation of s = 2 Z u sqrt((2 L + 1) / 3).
4. Tokens round independently: the log-ratio of an answer of T tokens has s sqrt(T). A reward is beta times it, and
   what is logged is the mean over B pairs: beta s sqrt(sum of T) / B, with the chosen answers' tokens, the rejected
   ones', or for the margin both.
5. The loss moves with the margin by its slope at 0 (1/2 for the logistic losses, 1/4 for APO's), and by its curvature,
   with the square. IPO's is of log-ratios per token: s sqrt(sum of 1/T) / (B beta).
6. `SIGMAS` standard deviations are allowed, and never less than the floor that holds in fp32. Z is measured with the
   model itself, and only where the floor is passed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch

from speed.data.trainings import Dpo

LOSS_WITHIN = 1e-3
"""How near the first loss must be to what theory says, where rounding is negligible."""
REWARD_WITHIN = 2 * LOSS_WITHIN
"""The same of mean rewards and their margin; a loss moves by half as much."""
ROUNDOFF = {"bf16": 2.0**-8, "fp16": 2.0**-11, "fp32": 2.0**-24}
"""Largest relative error of a rounded number."""
SIGMAS = 6.0
"""Standard deviations that are allowed: rounding passes them once in 500 million trainings."""
FIGURES = {"rewards/margins": "margin", "rewards/chosen": "chosen", "rewards/rejected": "rejected"}


class FirstStep(NamedTuple):
    """The first batch of a preference training."""

    config: Dpo
    precision: Literal["fp32", "bf16", "fp16"]
    loss: float | None
    """Of a policy that equals its reference; None where nothing is known."""
    chosen: Sequence[int]
    """Tokens of the chosen answers of its pairs."""
    rejected: Sequence[int]
    ids: Sequence[int]
    """Prompt and chosen answer of one pair, on which the spread of logits is measured."""

    def check(self, logs: Mapping[str, float], model: Any) -> None:
        """Raise where a figure of the first step is further from theory than rounding explains.

        Raises:
            RuntimeError: naming the figure and its tolerance.
        """
        off = {name: float(logs.get(key, 0.0)) for key, name in FIGURES.items()}
        if self.loss is not None:
            off["loss"] = float(logs["loss"]) - self.loss
        floors = {name: LOSS_WITHIN if name == "loss" else REWARD_WITHIN for name in off}
        if all(abs(value) <= floors[name] for name, value in off.items()):
            return
        allowed = self.tolerances(logit_spread(model, self.ids), model.config.get_text_config().num_hidden_layers)
        for name, value in off.items():
            most = max(floors[name], allowed[name])
            if not abs(value) <= most:
                what = "preference loss" if name == "loss" else f"reward ({name}), a mean over pairs,"
                must = self.loss if name == "loss" else 0.0
                raise RuntimeError(
                    f"the first {what} is {value + (must or 0.0):.6f} and must be {must:.6f}, give or take {most:.6f} "
                    "for rounding: the reference model is not the model that the training started from"
                )

    def tolerances(self, spread: float, layers: int) -> dict[str, float]:
        """How far rounding alone may lead each figure from theory; see the module.

        Args:
            spread: standard deviation of a position's logits over the vocabulary.
        """
        beta, pairs = self.config.beta, len(self.chosen)
        token = 2 * spread * ROUNDOFF[self.precision] * math.sqrt((2 * layers + 1) / 3)
        tokens = {"chosen": sum(self.chosen), "rejected": sum(self.rejected)}
        tokens["margin"] = sum(tokens.values())
        found = {name: SIGMAS * beta * token * math.sqrt(count) / pairs for name, count in tokens.items()}
        if self.config.loss == "ipo":
            shares = sum(1 / count for count in (*self.chosen, *self.rejected))
            found["loss"] = SIGMAS * token * math.sqrt(shares) / (pairs * beta) + token**2 * shares / pairs
            return found
        slope = {
            "hinge": 1.0,
            "apo_zero": 0.25,
            "apo_down": 0.25,
            "robust": 0.5 / (1 - 2 * self.config.label_smoothing),
        }.get(self.config.loss, 0.5)
        curved = (beta * token) ** 2 * tokens["margin"] / pairs
        if self.config.loss == "hinge":  # margins beyond 1 alone bend it
            curved = 0.0
        return found | {"loss": slope * (found["margin"] + curved)}


def logit_spread(model: Any, ids: Sequence[int]) -> float:
    """Mean, over the positions of a text, of the standard deviation of its logits over the vocabulary."""
    training = model.training
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([list(ids)], device=model.device), use_cache=False).logits
    model.train(training)
    return float(logits.float().std(-1).mean())
