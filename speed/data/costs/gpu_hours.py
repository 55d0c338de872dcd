"""Estimate the GPU time of generation and of encoding, and the bytes of records, for a plan.

One A100 of 80 GB is assumed, by its data sheet. A step of generation reads all weights and the keys and values of all
texts that are written side by side; prompts and encoded texts take two operations for each weight and token. Nothing
was measured on a GPU.
"""

from __future__ import annotations

from speed.data.costs.memory import PEAKS, UTILISATION, cache_bytes, rows_at_once
from speed.data.costs.model_shapes import Shape

CARD = max(PEAKS)
"""GB of the GPU that is assumed."""
BANDWIDTH = 2.0e12
"""Bytes that it reads from its memory in a second."""
BANDWIDTH_USED = 0.6
"""Share of it that generation reaches (ours)."""
SIDE_BY_SIDE = 256
"""Texts that are written side by side at most, as in `engine=vllm`."""
PEAKS_FP32 = {24: 82.6e12, 40: 19.5e12, 80: 19.5e12}
"""GB of a GPU -> its operations a second of fp32 arithmetic, by the same data sheets as `PEAKS`."""
CHARACTERS_PER_TOKEN = 4.5
ROW_BYTES = 600
"""Of a record, beside its texts: names of fields, topic, causes (ours)."""


def generation_hours(shape: Shape, texts: int, prompt: int, answer: int) -> float:
    """GPU-hours for so many texts.

    Args:
        prompt: tokens of a prompt.
        answer: tokens of a text.
    """
    side_by_side = max(1, min(SIDE_BY_SIDE, texts, rows_at_once(shape, prompt + answer, CARD)))
    held = side_by_side * (prompt + answer / 2) * cache_bytes(shape)
    a_step = (2 * shape.parameters + held) / (BANDWIDTH * BANDWIDTH_USED)
    writing = texts * answer / side_by_side * a_step
    return (writing + encoding_seconds(shape, texts * prompt)) / 3600


def encoding_seconds(shape: Shape, tokens: int, precision: str = "bf16") -> float:
    """Seconds in which one GPU reads so many tokens."""
    return 2 * shape.parameters * tokens / (peak_of(CARD, precision) * UTILISATION)


def peak_of(gigabytes: float, precision: str) -> float:
    """Operations a second of the GPU whose memory is nearest to so many GB."""
    peaks = PEAKS_FP32 if precision == "fp32" else PEAKS
    return peaks[min(peaks, key=lambda size: abs(size - gigabytes))]


def evaluation_hours(shape: Shape, characters: int, precision: str) -> float:
    """GPU-hours in which texts of so many characters are encoded; that long ones are cut is left out."""
    return encoding_seconds(shape, round(characters / CHARACTERS_PER_TOKEN), precision) / 3600


def record_bytes(prompt: int, answer: int) -> float:
    """Bytes of a row: its prompt, and its text as it was written and as a record."""
    return ROW_BYTES + CHARACTERS_PER_TOKEN * (prompt + 2 * answer)
