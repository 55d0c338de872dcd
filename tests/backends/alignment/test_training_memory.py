"""A plan's estimate of memory, against what a training of a tiny model on a CPU really takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from allocated import peak
from tiny_generator import context, make_base

from speed.backends.alignment.trainer import TrlTrainer
from speed.data.costs.memory import head_bytes, training_bytes
from speed.data.costs.model_shapes import shape_of
from speed.data.trainings import Completion, Dpo, Loss, Preference, Sft

SIZES = {"hidden_size": 128, "intermediate_size": 448, "num_hidden_layers": 4, "num_key_value_heads": 2}
LENGTH, ROWS = 400, 8
PROMPT = "q" * (LENGTH - 4)
"""Answers are one letter: none is written at length after the training, and logits take nothing beside the rest."""
ONE_STEP = {"learning_rate": 1e-4, "epochs": 1.0, "max_length": LENGTH, "warmup_ratio": 0.0}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("loss", [None, "sigmoid", "cpo"])
def test_the_estimate_is_near_what_a_training_takes(
    method: str, checkpointing: bool, loss: Loss | None, tmp_path: Path
) -> None:
    base = make_base(tmp_path / "base", spread=0.02, **SIZES)
    shape = shape_of(str(base))
    assert shape is not None
    trainer = TrlTrainer(method=method, precision="fp32", prompt_format="plain", gradient_checkpointing=checkpointing)
    rows = [Completion(prompt=PROMPT, completion="a") for _ in range(ROWS)]
    pairs = [Preference(prompt=PROMPT, chosen="a", rejected="b") for _ in range(ROWS // 2)]
    ctx = context(tmp_path)

    sft = Sft(batch_size=ROWS, **ONE_STEP)
    config: Sft | Dpo = sft
    if loss:
        trainer.sft(str(base), rows, sft, tmp_path / "junior", ctx)
        config = dpo = Dpo(beta=0.1, batch_size=ROWS // 2, loss=loss, **ONE_STEP)
        measured = peak(lambda: trainer.dpo(tmp_path / "junior", pairs, dpo, tmp_path / "out", ctx))
    else:
        measured = peak(lambda: trainer.sft(str(base), rows, sft, tmp_path / "out", ctx))
    footprint = trainer.footprint()
    tokens = ROWS * LENGTH
    estimate = training_bytes(shape, footprint, config, tokens, checkpointing) - head_bytes(footprint, tokens)
    print(f"{method} checkpointing={checkpointing} loss={loss}: {measured:,} measured, {estimate:,.0f}")
    assert 0.9 < estimate / measured < 1.6
