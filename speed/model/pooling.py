"""From hidden states to one vector a row, each row by its own mask.

A row's vector depends on that row alone, not on the padding side or on the other rows of the batch.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize as unit

Pooling = Literal["last", "mean", "cls"]
"""`last`: the state of the last real token, an EOS (paper §4.1, after E5-mistral); `mean` and `cls` for encoders."""


def last_positions(mask: Annotated[Tensor, "rows width"]) -> Annotated[Tensor, "rows"]:
    """Column of each row's last real token, wherever the padding stands."""
    columns = torch.arange(mask.shape[1], device=mask.device)
    return (columns * (mask != 0)).argmax(dim=1)


def first_positions(mask: Annotated[Tensor, "rows width"]) -> Annotated[Tensor, "rows"]:
    """Column of each row's first real token."""
    return (mask != 0).int().argmax(dim=1)


def at(
    states: Annotated[Tensor, "rows width dim"], columns: Annotated[Tensor, "rows"]
) -> Annotated[Tensor, "rows dim"]:
    """One column of every row."""
    return states[torch.arange(states.shape[0], device=states.device), columns]


def mean(
    states: Annotated[Tensor, "rows width dim"], mask: Annotated[Tensor, "rows width"]
) -> Annotated[Tensor, "rows dim"]:
    """Mean over the real tokens, summed in fp32."""
    weights = (mask != 0).float().unsqueeze(-1)
    return (states.float() * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)


def pooled(
    states: Annotated[Tensor, "rows width dim"],
    mask: Annotated[Tensor, "rows width"],
    how: Pooling,
    normalize: bool,
) -> Annotated[Tensor, "rows dim"]:
    """One fp32 vector a row, of length 1 with `normalize`; zero for a row without a real token."""
    if how == "last":
        vectors = at(states, last_positions(mask)).float()
    elif how == "cls":
        vectors = at(states, first_positions(mask)).float()
    else:
        vectors = mean(states, mask)
    vectors = torch.where((mask != 0).any(dim=1, keepdim=True), vectors, 0.0)
    return unit(vectors, dim=-1) if normalize else vectors
