"""A few chunks of texts, all as long as they may be, encoded by an embedder's base: what memory they take, how fast."""

from __future__ import annotations

import time

import numpy as np
import torch

from speed.backends.encoding.encoder import Encoder
from speed.backends.encoding.retriever import EmbeddingRetriever
from speed.backends.runtime.device import device_of
from speed.backends.runtime.peak_memory import finish_computing, forget_peak, peak_gigabytes
from speed.backends.runtime.precision import Precision, dtype_of
from speed.data.costs.loads import Measured
from speed.data.costs.memory import CHUNK_TOKENS
from speed.ports import EmbedderTrainer
from speed.runtime import Context

CHUNKS = 3
"""Of a probe; one text is encoded before, in which kernels are made."""


def measure_encoding(
    embedder: EmbedderTrainer, max_length: int | None, precision: Precision, ctx: Context
) -> Measured | None:
    """What encoding with the base takes; None where it has no encoder of ours.

    Args:
        max_length: tokens of a text; None as the embedder is trained.
    """
    retriever, device = embedder.untrained_retriever(), device_of(ctx)
    if not isinstance(retriever, EmbeddingRetriever):
        return None
    torch.set_num_threads(ctx.grant.threads)
    encoder = retriever.loaded("cpu")  # in fp32, which the device's memory may not hold
    if not isinstance(encoder, Encoder):
        return None
    encoder.model.to(dtype_of(precision)).to(device)
    encoder.max_length = max_length or encoder.max_length
    forget_peak(device)
    texts = random_texts(encoder, CHUNKS * max(1, CHUNK_TOKENS // encoder.max_length))
    encoder.encode(texts[:1])
    finish_computing(device)
    begun = time.perf_counter()
    encoder.encode(texts)
    finish_computing(device)
    seconds = max(time.perf_counter() - begun, 1e-9)
    cut = f"chunks of {CHUNK_TOKENS:,} tokens do not fit into memory: {encoder.chunk_tokens:,} are encoded at once"
    return Measured(
        gigabytes=peak_gigabytes(device),
        tokens_per_second=len(texts) * encoder.max_length / seconds,
        cut=cut if encoder.chunk_tokens < CHUNK_TOKENS else "",
    )


def random_texts(encoder: Encoder, count: int) -> list[str]:
    """Texts of random tokens, long enough to be cut."""
    draw, length = np.random.default_rng(0), 2 * encoder.max_length
    rows = draw.integers(0, encoder.tokenizer.vocab_size, (count, length))
    return [encoder.tokenizer.decode(row, skip_special_tokens=True) for row in rows]
