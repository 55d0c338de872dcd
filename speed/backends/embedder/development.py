"""A cheap score during training: each held-out query searches the documents of all held-out records."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from speed.backends.embedder.forward import Forward
from speed.backends.embedder.plan import Plan, batch_of
from speed.model.loss import blocked


def development_figures(plan: Plan, forward: Forward) -> dict[str, float]:
    """Share of the queries whose positive comes first, and nDCG at 10; over the same documents at every step."""
    batch = batch_of(plan, plan.held_out, 0, forward.device)
    stop = batch.compared.stop
    vectors = forward.all(batch.rows[:stop], batch.lengths[:stop])
    similarity = vectors[: len(batch.records)] @ vectors[batch.compared].T
    ranks = ranks_of_positives(similarity, batch.targets, blocked(batch.ids, batch.targets))
    gain = torch.where(ranks < 10, 1 / torch.log2(ranks + 2.0), 0.0)
    return {"development_accuracy": float((ranks == 0).float().mean()), "development_ndcg": float(gain.mean())}


def ranks_of_positives(
    similarity: Annotated[Tensor, "rows documents"],
    targets: Annotated[Tensor, "rows"],
    mask: Annotated[Tensor, "rows documents"],
) -> Annotated[Tensor, "rows"]:
    """How many documents stand before each positive.

    Documents of equal similarity stand before it: a model that maps all texts to one point finds nothing.
    """
    own = similarity.gather(1, targets[:, None])
    return ((similarity >= own) & ~mask).sum(dim=1) - 1
