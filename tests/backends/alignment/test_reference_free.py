"""Objectives that others put in the place of DPO's: their losses by hand, a wider lead, and no reference where none is
meant."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_generator import completions, context, make_base, preferences
from torch.nn.functional import logsigmoid
from trl.trainer import dpo_trainer

from speed.backends.alignment.options import refuse_unusable
from speed.backends.alignment.reference_free import preferred
from speed.backends.alignment.rows import dpo_rows
from speed.backends.alignment.trainer import TrlTrainer
from speed.backends.engines.weights import load
from speed.core.errors import UserError
from speed.core.spec import recipe
from speed.data.trainings import Dpo, Sft
from speed.runtime import Runtime

LORA = TrlTrainer(method="lora", r=4, alpha=8, precision="fp32", prompt_format="plain", schedule="constant")
ROWS = 6
SETTINGS: dict[str, Any] = {"learning_rate": 1e-2, "batch_size": ROWS, "max_length": 128, "warmup_ratio": 0.0}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "apo_zero": {"beta": 0.5},
    "apo_down": {"beta": 0.5},
    "simpo": {"beta": 2.0, "gamma": 1.0},
    "cpo": {"beta": 0.1, "sft_weight": 1.0},
    "orpo": {"beta": 0.1, "sft_weight": 1.0},
}


def config_of(loss: str, steps: int = 3) -> Dpo:
    return Dpo(loss=loss, epochs=float(steps), **SETTINGS, **OBJECTIVES[loss])  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def junior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base, out = make_base(tmp_path_factory.mktemp("base")), tmp_path_factory.mktemp("junior")
    sft = Sft(learning_rate=1e-2, batch_size=4, epochs=1, max_length=128, warmup_ratio=0.0)
    LORA.sft(str(base), completions(4), sft, out, context(out))
    return out


def sums(folder: Path) -> tuple[torch.Tensor, ...]:
    """Log-probabilities of all chosen and all rejected answers, from the plain logits, and their tokens."""
    model, tokenizer, _ = load(folder, "fp32", "cpu")
    columns: dict[str, list[torch.Tensor]] = {"chosen_ids": [], "rejected_ids": []}
    counts: dict[str, list[int]] = {"chosen_ids": [], "rejected_ids": []}
    for row in dpo_rows(preferences(ROWS), "plain", tokenizer, 128, context(folder)):
        for name, column in columns.items():
            ids = torch.tensor([row["prompt_ids"] + row[name]])
            with torch.no_grad():
                logits = model(input_ids=ids).logits[0, len(row["prompt_ids"]) - 1 : -1]
            column.append(torch.log_softmax(logits, -1).gather(1, torch.tensor(row[name])[:, None]).sum())
            counts[name].append(len(row[name]))
    return *map(torch.stack, columns.values()), *map(torch.tensor, counts.values())  # type: ignore[return-value]


def by_hand(loss: str, policy: tuple[torch.Tensor, ...], start: tuple[torch.Tensor, ...]) -> float:
    """The loss of a batch of all rows, as the papers write it."""
    chosen, rejected, more, less = policy
    beta = OBJECTIVES[loss]["beta"]
    up, down = beta * (chosen - start[0]), beta * (rejected - start[1])
    likelihood = -chosen.sum() / more.sum()
    p, q = (chosen / more).exp(), (rejected / less).exp()
    found = {
        "apo_zero": 1 - torch.sigmoid(up) + torch.sigmoid(down),
        "apo_down": torch.sigmoid(up) + 1 - torch.sigmoid(up - down),
        "simpo": -logsigmoid(beta * (chosen / more - rejected / less) - 1.0),
        "cpo": -logsigmoid(beta * (chosen - rejected)) + likelihood,
        "orpo": likelihood - beta * logsigmoid(torch.log(p / (1 - p)) - torch.log(q / (1 - q))),
    }[loss]
    return float(found.mean())


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in json.loads((folder / "training.json").read_text())["curve"]]


def lead(loss: str, found: tuple[torch.Tensor, ...]) -> float:
    """How much likelier the chosen answers are, as the objective counts it."""
    chosen, rejected, more, less = found
    by_token = loss in ("simpo", "orpo")
    return float((chosen / more - rejected / less if by_token else chosen - rejected).mean())


@pytest.mark.parametrize("loss", ["apo_zero", "apo_down"])
def test_apo_moves_each_answer_against_the_reference(loss: str, junior: Path, tmp_path: Path) -> None:
    for steps in (1, 3):
        LORA.dpo(junior, preferences(ROWS), config_of(loss, steps), tmp_path / str(steps), context(tmp_path))
    start, after_one, after_three = sums(junior), sums(tmp_path / "1"), sums(tmp_path / "3")
    found = losses(tmp_path / "3")
    assert len(found) == 3
    assert found[0] == pytest.approx(1.0, abs=1e-3)
    assert found[1] == pytest.approx(by_hand(loss, after_one, start), abs=1e-3)
    assert lead(loss, after_three) > lead(loss, start) + 0.1
    if loss == "apo_down":
        assert after_three[0].mean() < start[0].mean(), "both answers fall"


@pytest.mark.parametrize("loss", ["simpo", "cpo", "orpo"])
def test_without_a_reference_none_is_loaded_or_run(
    loss: str, junior: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a reference")

    for name in ("use_adapter", "create_model_from_path"):
        monkeypatch.setattr(dpo_trainer, name, refuse)
    monkeypatch.setattr(dpo_trainer.DPOTrainer, "compute_ref_log_probs", refuse)
    ctx = context(tmp_path)
    LORA.dpo(junior, preferences(ROWS), config_of(loss), tmp_path, ctx)
    start, end = sums(junior), sums(tmp_path)
    assert losses(tmp_path)[0] == pytest.approx(by_hand(loss, start, start), abs=1e-3)
    assert lead(loss, end) > lead(loss, start)
    curve = json.loads((tmp_path / "training.json").read_text())["curve"]
    beta = OBJECTIVES[loss]["beta"]
    assert curve[0]["rewards_margins"] == pytest.approx(beta * lead(loss, start), abs=1e-3), "the objective's own"
    assert curve[2]["rewards_margins"] > curve[0]["rewards_margins"]
    assert ctx.tally.metrics["kl_reference"] > 0, "how far it moved is measured all the same"


def test_terms_of_two_answers_by_hand() -> None:
    """Answers of 2 and 4 tokens with probabilities of 1/4 and 1/16."""
    pair = [torch.tensor([math.log(0.25)]), torch.tensor([math.log(1 / 16)]), torch.tensor([2]), torch.tensor([4])]
    cpo = preferred(config_of("cpo"), *pair)
    assert float(cpo.loss) == pytest.approx(math.log(1 + 4**-0.1))
    assert float(cpo.chosen - cpo.rejected) == pytest.approx(0.1 * math.log(4))
    simpo = preferred(config_of("simpo"), *pair)  # both have 1/2 a token: the margin alone is left
    assert float(simpo.loss) == pytest.approx(math.log(1 + math.e))
    orpo = preferred(config_of("orpo"), *pair)
    assert float(orpo.loss) == pytest.approx(0.1 * math.log(2))
    certain = preferred(config_of("orpo"), torch.zeros(1), *pair[1:])
    assert torch.isfinite(certain.loss).all(), "an answer that the model is sure of has finite odds"


def test_gamma_is_for_simpo_and_no_other_key_knows_it() -> None:
    with pytest.raises(ValueError, match=r"gamma=1.0 has no effect on loss=cpo: set it to 0, or loss=simpo"):
        Dpo(**(config_of("cpo").model_dump() | {"gamma": 1.0}))
    assert "gamma" not in recipe(config_of("cpo"))  # type: ignore[operator]
    assert recipe(config_of("simpo"))["gamma"] == 1.0  # type: ignore[index, call-overload]


def test_options_that_need_a_reference_are_refused() -> None:
    kept = LORA.model_copy(update={"precompute_reference": True})
    with pytest.raises(UserError, match=r"precompute_reference=true has no effect on preference\.dpo\.loss=simpo"):
        refuse_unusable(kept, config_of("simpo"), Runtime(devices="cpu"))
    whole, cut = LORA.model_copy(update={"method": "full"}), Runtime(devices="cpu", strategy="zero3")
    with pytest.raises(UserError, match=r"loss=orpo is measured against a second whole model"):
        refuse_unusable(whole, config_of("orpo"), cut)
