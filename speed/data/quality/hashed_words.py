"""Words counted in hashed places: the encoder that every embedder should beat, and that needs no model."""

from __future__ import annotations

import hashlib
import re

BUCKETS = 1024


def hashed_words(text: str) -> list[float]:
    """Vector of 1,024 counters; the place of a word is its hash."""
    counters = [0.0] * BUCKETS
    for word in re.findall(r"\w+", text.lower()):
        counters[int(hashlib.md5(word.encode()).hexdigest(), 16) % BUCKETS] += 1.0
    return counters
