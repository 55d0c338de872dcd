"""Part 5: encoding unlike texts in Mistral-7B's shape, in bf16, beside two operations a weight and token."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from gpu_figures import Figures
from gpu_machine import Machine
from gpu_models import MISTRAL, TINY, base_folder, composed, corpus, matrix_weights, random_model

from speed.backends.encoding.encoder import PADDING_SHARE, Encoder
from speed.backends.encoding.token_rows import token_rows, training_frame
from speed.data.costs.memory import RESERVED
from speed.model.batching import chunks


def measure(figures: Figures, machine: Machine, place: Path) -> None:
    """Chunks of several sizes, the encoder's own among them."""
    shape = TINY if machine.tiny else MISTRAL
    figures.add(about="encoding, Mistral-7B's shape, bf16, the paper's mix of lengths, tokenisation included")
    base = base_folder(place / "base", shape, "mistral")
    trainer = composed("preset=one_gpu").embedder
    machine.release()
    model = random_model(base, machine.device, torch.bfloat16, head=False).eval()
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    frame = training_frame(tokenizer, trainer.pooling, trainer.bos)
    encoder = Encoder(model, tokenizer, frame, trainer.pooling, True, trainer.max_length, {})
    texts = corpus(shape, 40 if machine.tiny else 3000, machine.tiny)
    lengths = [len(row) for row in token_rows(tokenizer, texts, frame, trainer.max_length)]
    encoder.encode(texts[: len(texts) // 10])  # loads kernels
    floor = 2 * matrix_weights(shape) * sum(lengths)
    own, first = encoder.chunk_tokens, None
    for tokens in (own, own // 4, own * 4):
        with figures.attempt(f"chunks of {tokens}"):
            machine.release()
            encoder.chunk_tokens = tokens
            found: list[np.ndarray] = []
            spent = machine.seconds(lambda found=found: found.append(encoder.encode(texts)))
            parts = chunks(lengths, tokens, PADDING_SHARE)
            padded = sum(len(part) * lengths[part[0]] for part in parts)
            first = found[0] if first is None else first
            assert np.isfinite(found[0]).all()
            figures.add(**{f"chunks of {tokens}": {
                "texts": len(texts), "seconds": spent, "texts_per_second": len(texts) / spent,
                "tokens_per_second": sum(lengths) / spent, "padding": padded / sum(lengths) - 1,
                "flop": machine.utilisation(floor, spent), "peak_gb": machine.peak_gb(),
                "largest_difference": float(np.abs(found[0] - first).max()),
            }})  # fmt: skip
    figures.add(own_chunk_tokens=own, reserved_by_estimates_gb=RESERVED)
