"""Contrastive training of the embedder's base on words: lists of a few words meet the same lists in synonyms.

A large model has learned from its reading which words mean the same. A base of a million parameters that has only
learned to predict the next word keeps that in its embeddings, but the mean of its states says what may come next. No
sentence and no pattern of a task stands here: what counts in a text is left to the examples that are written for it.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from typing import Any

from speed.miniature.lexicon import SLOTS, lexicon
from speed.miniature.world import seeded

SEPARATORS = (" ", ", ", " and ", " of ", " for ", "; ")


def word_pair(rng: random.Random, most: int) -> tuple[str, str]:
    """Write one to `most` words, and synonyms of the same in another order."""
    slots = rng.sample(SLOTS, rng.randint(1, most))
    meant = [(slot, rng.choice(tuple(lexicon()[slot]))) for slot in slots]
    forms = [rng.sample(lexicon()[slot][concept], 2) for slot, concept in meant]
    one, two = ([form[side] for form in forms] for side in (0, 1))
    rng.shuffle(two)
    return rng.choice(SEPARATORS).join(one), rng.choice(SEPARATORS).join(two)


def train_pairs(
    model: Any,
    tokenizer: Any,
    steps: int,
    seed: int,
    say: Callable[..., None],
    rows: int = 192,
    most: int = 3,
    learning_rate: float = 2e-3,
    temperature: float = 0.05,
) -> None:
    """Train a model so that the mean of its states tells each list from all others of its batch."""
    import torch
    from torch.nn import functional

    torch.set_num_threads(1)
    rng, started = seeded("pairs", seed), time.monotonic()
    say(event="pairs", steps=steps, rows=rows, most=most, learning_rate=learning_rate, temperature=temperature)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    for step in range(steps):
        share = min(1.0, (step + 1) / 30) * (0.02 + 0.98 * (1 + math.cos(math.pi * step / steps)) / 2)
        pairs = [word_pair(rng, most) for _ in range(rows)]
        vectors = [
            functional.normalize(pooled(model, tokenizer, list(side)), dim=-1) for side in zip(*pairs, strict=True)
        ]
        likeness = vectors[0] @ vectors[1].T / temperature
        right = torch.arange(rows)
        loss = (functional.cross_entropy(likeness, right) + functional.cross_entropy(likeness.T, right)) / 2
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * share
        optimizer.step()
        model.zero_grad()
        if (step + 1) % 50 == 0 or step + 1 == steps:
            say(step=step + 1, loss=round(loss.item(), 4), seconds=round(time.monotonic() - started, 1))


def pooled(model: Any, tokenizer: Any, texts: list[str]) -> Any:
    """Mean of the last states of each text's tokens, BOS and EOS among them, as the embedder pools them."""
    import torch

    ids = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in texts]
    width = max(map(len, ids))
    padded = torch.tensor([row + [0] * (width - len(row)) for row in ids])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids])
    states = model.model(input_ids=padded, attention_mask=mask, use_cache=False).last_hidden_state
    return (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
