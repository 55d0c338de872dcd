"""Two processes train what one trains, and what goes wrong in a rank is said by the parent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_generator import completions, context, make_base, preferences

from speed.backends.trl_trainer import TrlTrainer
from speed.backends.weights import read_card
from speed.core.errors import UserError
from speed.ports import Dpo, Sft

LORA = TrlTrainer(method="lora", r=4, alpha=8, precision="fp32", prompt_format="plain")
SFT = Sft(learning_rate=1e-2, batch_size=4, epochs=1, max_length=64, warmup_ratio=0.0)
DPO = Dpo(beta=0.1, learning_rate=1e-2, batch_size=4, epochs=1, max_length=64, warmup_ratio=0.0)


def losses(out: Path) -> list[float]:
    return [line["loss"] for line in json.loads((out / "training.json").read_text())["curve"]]


def test_two_processes_train_what_one_trains(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    junior, one, two = (tmp_path / name for name in ("junior", "one", "two"))
    LORA.sft(str(base), completions(12), SFT, junior, context(tmp_path))
    LORA.dpo(junior, preferences(8), DPO, one, context(tmp_path))
    ctx = context(tmp_path, processes=2, checkpoint_seconds=0.0)
    LORA.dpo(junior, preferences(8), DPO, two, ctx)
    assert losses(two) == pytest.approx(losses(one), rel=1e-4)
    assert [event["step"] for event in ctx.events if event["event"] == "metric"] == [1, 2]  # type: ignore[attr-defined]
    assert ctx.tally.metrics["steps"] == 2
    assert ctx.tally.metrics["kl_reference"] > 0
    assert {file.name for file in two.iterdir()} == {"model", "weights.json", "training.json"}
    assert read_card(two) == read_card(one)


@pytest.mark.slow
def test_two_processes_count_tokens_as_one_does(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    for processes in (1, 2):
        LORA.sft(str(base), completions(12), SFT, tmp_path / str(processes), context(tmp_path, processes=processes))
    assert losses(tmp_path / "2") == pytest.approx(losses(tmp_path / "1"), rel=1e-5)


@pytest.mark.slow
def test_a_rank_that_fails_is_heard(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    ctx = context(tmp_path, processes=2)
    with pytest.raises(UserError, match="9 over_max_length"):
        LORA.sft(str(base), completions(9), SFT.model_copy(update={"max_length": 3}), tmp_path / "out", ctx)
    assert len(list((tmp_path / "out/processes/logs").rglob("stderr.log"))) == 2
