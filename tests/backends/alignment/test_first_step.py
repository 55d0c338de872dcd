"""The first step of a preference training: rounding in bf16 passes, and a reference that is another model does not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_generator import completions, context, make_base, preferences

from speed.backends.alignment.dpo import loss_at_start
from speed.backends.alignment.first_step import LOSS_WITHIN, REWARD_WITHIN, FirstStep
from speed.backends.alignment.trainer import TrlTrainer
from speed.core.cache import SUMS, file_sha256
from speed.data.trainings import Completion, Dpo, Sft

BF16 = TrlTrainer(
    method="lora", r=4, alpha=8, precision="bf16", prompt_format="plain", precompute_reference=True, micro_batch=4
)
SETTINGS: dict[str, Any] = {"batch_size": 4, "epochs": 1, "max_length": 128, "warmup_ratio": 0.0}
DPO = Dpo(beta=20.0, learning_rate=1e-3, **SETTINGS)
"""So large a beta shows in a tiny model and short answers what 8B and long ones show at 0.1."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


def junior(base: Path, out: Path, rows: list[Completion], learning_rate: float = 1e-2) -> Path:
    BF16.sft(str(base), rows, Sft(learning_rate=learning_rate, **SETTINGS), out, context(out))
    return out


def first_line(out: Path) -> dict[str, float]:
    line: dict[str, float] = json.loads((out / "training.json").read_text())["curve"][0]
    return line


def test_another_batch_shape_passes_in_bf16_and_another_reference_does_not(base: Path, tmp_path: Path) -> None:
    one = junior(base, tmp_path / "one", completions(12))
    BF16.dpo(one, preferences(4), DPO, tmp_path / "same", context(tmp_path))
    (kept,) = (tmp_path / "cache" / "reference").glob("*/")
    alone = BF16.model_copy(update={"micro_batch": 1})
    alone.dpo(one, preferences(4), DPO, tmp_path / "alone", context(tmp_path))
    line = first_line(tmp_path / "alone")
    moved = max(abs(line[f"rewards_{name}"]) for name in ("chosen", "rejected", "margins"))
    assert moved > REWARD_WITHIN, "rounding passes what holds in fp32"

    for name, wrong in (
        ("as the base", junior(base, tmp_path / "base", completions(4), 1e-9)),
        ("of other rows", junior(base, tmp_path / "two", completions(24)[12:])),
    ):
        home = tmp_path / name
        BF16.dpo(wrong, preferences(4), DPO, home / "out", context(home))
        (other,) = (home / "cache" / "reference").glob("*/")
        file = kept / "log_probs.json"
        shutil.copy(other / file.name, file)
        (kept / SUMS).write_text(json.dumps({file.name: file_sha256(file)}))
        with pytest.raises(RuntimeError, match="the reference model is not the model that the training started from"):
            alone.dpo(one, preferences(4), DPO, home / "wrong", context(tmp_path))


def step(**changes: Any) -> FirstStep:
    config = Dpo(**{"beta": 0.1, "learning_rate": 1e-5, **SETTINGS, "batch_size": 16, **changes})
    return FirstStep(config, "bf16", loss_at_start(config), [300] * 16, [280] * 16, [0, 1])


def test_tolerances_grow_with_beta_and_length_and_fall_with_pairs() -> None:
    """LLaMA-3-8B on answers of the paper's length, with logits that spread by 3: hand-computed."""
    usual = step().tolerances(3.0, 32)
    # s = 2 * 3 * 2^-8 * sqrt(65 / 3) = 0.109; 6 * 0.1 * s * sqrt(16 * 580) / 16
    assert usual["margin"] == pytest.approx(0.394, abs=1e-3)
    assert usual["chosen"] == pytest.approx(0.283, abs=1e-3)
    assert usual["loss"] == pytest.approx(0.5 * (usual["margin"] + (0.1 * 0.1091) ** 2 * 580), rel=1e-2)
    assert step(beta=0.3).tolerances(3.0, 32)["margin"] == pytest.approx(3 * usual["margin"])
    longer = step()._replace(chosen=[1200] * 16, rejected=[1120] * 16).tolerances(3.0, 32)
    assert longer["margin"] == pytest.approx(2 * usual["margin"])
    more = step()._replace(chosen=[300] * 64, rejected=[280] * 64).tolerances(3.0, 32)
    assert more["margin"] == pytest.approx(usual["margin"] / 2)
    exact = step()._replace(precision="fp32").tolerances(3.0, 32)
    assert all(value < LOSS_WITHIN for value in exact.values()), "in fp32 the floor decides"


@pytest.mark.parametrize(
    ("loss", "expected"),
    [("sigmoid", 0.6931), ("robust", 0.6931), ("hinge", 1.0), ("apo_zero", 1.0), ("apo_down", 1.0), ("ipo", 25.0)],
)
def test_each_loss_is_known_and_moves_by_its_slope(loss: str, expected: float) -> None:
    found = step(loss=loss)
    assert found.loss == pytest.approx(expected, abs=1e-4)
    allowed = found.tolerances(3.0, 32)
    slope = {"sigmoid": 0.5, "robust": 0.5, "hinge": 1.0, "apo_zero": 0.25, "apo_down": 0.25}.get(loss)
    if slope is not None:
        assert allowed["loss"] == pytest.approx(slope * allowed["margin"], rel=0.2)
    else:  # 6 s sqrt(16 (1/300 + 1/280)) / (16 * 0.1), and the square
        assert allowed["loss"] == pytest.approx(0.136, abs=2e-3)


def test_what_is_within_the_floor_asks_no_model() -> None:
    logs = {"loss": 0.6931, "rewards/margins": 1e-3, "rewards/chosen": -1e-3, "rewards/rejected": -2e-3}
    step().check(logs, model=None)
