"""What a plan says of memory, arithmetic and hours where models compute on cores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from speed.core.graph import stage_statuses
from speed.core.store import Store
from speed.pipeline import pipeline
from speed.runs import host
from speed.runs.host import Rates, computed, host_lines, known_rates

LAPTOP = ("preset=laptop", "trainer=lora", "embedder=qwen2_5_500m", "runtime.devices=cpu")


def lines(config: Any, home: Path) -> str:
    found = stage_statuses(pipeline(config).goals(), Store(home))
    return " ".join(" ".join(host_lines(config, found, home)).split())


def test_the_plan_says_what_memory_the_trainings_take_and_what_does_not_fit(
    compose: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "memory_gigabytes", lambda: 16.0)
    text = lines(compose(*LAPTOP), tmp_path)
    assert "in GB of this machine's 16: junior 6, senior 11, revisor 17" in text
    assert "revisor may not fit at all: set trainer.micro_batch" in text
    assert "may not fit" not in lines(compose(*LAPTOP, "trainer.micro_batch=2"), tmp_path)
    assert lines(compose(), tmp_path) == "", "the miniature is nothing to a machine"


@pytest.mark.parametrize(("able", "said"), [(True, "52% of the time"), (False, ""), (None, "")])
def test_the_plan_says_what_bf16_would_save_on_this_processor(
    able: bool | None, said: str, compose: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "processor_has_bf16", lambda: able)
    text = lines(compose(*LAPTOP, "trainer.precision=fp32", "engine.precision=fp32"), tmp_path)
    assert ("fp32 by trainer.precision, engine.precision: this processor" in text) == bool(said)
    assert said in text
    text = lines(compose(*LAPTOP), tmp_path)
    assert ("this processor does not multiply in bf16" in text) == (able is False)


def test_hours_come_from_the_first_steps_of_an_earlier_run(compose: Any, tmp_path: Path) -> None:
    config = compose(*LAPTOP)
    goals = {goal.label: goal for goal in pipeline(config).goals()}
    unknown = "hours not known yet for junior, root data, senior, synthesis, revisor, revision, embedder"
    assert unknown in lines(config, tmp_path)
    (tmp_path / "cache").mkdir()
    rates = Rates(tmp_path, {"junior": 2300.0, "root data": 2300.0}, goals)
    for step in range(1, 40):  # 100 steps of 72 s: two hours
        rates.see("junior", {"event": "progress", "done": step, "total": 100, "unit": "steps"}, 72.0 * step)
    assert list(known_rates(tmp_path)) == ["training HuggingFaceTB/SmolLM2-135M"]
    text = lines(config, tmp_path)
    assert "hours on this machine, by the first steps of earlier runs: about" in text
    assert "(junior 2.0, senior 0.8, revisor 1.6)" in text or "(junior 2.0, senior 0.7, revisor 1.6)" in text, text
    assert "hours not known yet for root data, synthesis, revision, embedder:" in text
    (tmp_path / "cache" / "rates.json").write_text("[half", encoding="utf-8")
    assert unknown in lines(config, tmp_path), "a damaged file is no reason"


def test_a_run_writes_down_how_fast_its_first_steps_went(smoke: Path) -> None:
    assert known_rates(smoke / "untouched")["training package:miniature/bases/llama"] > 1e6


def test_what_a_stage_computes_follows_from_its_model_and_rows(compose: Any) -> None:
    goals = {goal.label: goal.node for goal in pipeline(compose(*LAPTOP)).goals()}
    junior, root = computed(goals["junior"]), computed(goals["root data"])
    assert junior is not None
    assert root is not None
    assert (junior.kind, root.kind) == ("training", "writing")
    assert junior.operations == pytest.approx(2 * root.operations, rel=0.3), "four passes for two"
    assert computed(goals["seed data"]) is None
