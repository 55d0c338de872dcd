"""One contract for each port, run over every implementation that conf/ can name."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
from collections.abc import Iterator
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

import speed.backends
import speed.miniature
import speed.teaching
from speed.core.spec import Backend, canonical
from speed.core.store import Store
from speed.data.draws import generator
from speed.data.prompts.rendering import PromptsConfig, data_prompt
from speed.data.records import Kind, Scores
from speed.ports import (
    Ask,
    EmbedderTrainer,
    Engine,
    Evaluator,
    Generate,
    Sampling,
    Teacher,
    TrackedRun,
    Tracker,
    Trainer,
)
from speed.runtime import Context, Runtime

PORTS = (Teacher, Engine, Trainer, EmbedderTrainer, Evaluator, Tracker)
LLAMA = "package:miniature/bases/llama"


def implementations() -> list[type[Backend]]:
    """Every concrete class behind a port."""
    for package in (speed.backends, speed.miniature, speed.teaching):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)

    def below(port: type) -> Iterator[type]:
        for child in port.__subclasses__():
            yield child
            yield from below(child)

    found = {child for port in PORTS for child in below(port)}
    return sorted((c for c in found if not inspect.isabstract(c)), key=lambda c: c.__name__)


MADE: dict[str, Any] = {
    "RulesTeacher": {},
    "LitellmTeacher": {"model": "gpt-4o-2024-08-06"},
    "OpenAICompatibleTeacher": {"model": "some-model"},
    "OpenAIBatchTeacher": {"model": "some-model", "poll_seconds": 0.01},
    "TransformersEngine": {"precision": "fp32", "block": 4},
    "VllmEngine": {"precision": "fp32", "block": 4},
    "TrlTrainer": {"method": "lora", "precision": "fp32", "prompt_format": "plain"},
    "ContrastiveTrainer": {"base": "package:miniature/bases/embedder"},
    "MtebEvaluator": {"benchmark": "mteb_v1"},
    "LocalEvaluator": {"tasks": ROOT / "tests" / "data" / "tasks"},
    "MiniatureEvaluator": {},
    "WandbTracker": {},
    "NoTracker": {},
    "DryEngine": {},
    "DryTrainer": {},
    "DryEmbedder": {},
    "DryEvaluator": {},
}
"""How each implementation is made here; a new one must find its place in this table."""

PARTS = {part.__name__: part for part in implementations() if part.__module__.startswith("speed.")}


def test_every_implementation_is_under_contract() -> None:
    assert sorted(PARTS) == sorted(MADE)


def made(name: str) -> Any:
    return PARTS[name](**MADE[name])


@pytest.mark.parametrize("name", sorted(MADE))
class TestParts:
    """What every part owes the store, whatever its port."""

    def test_has_a_stable_identity(self, name: str) -> None:
        assert canonical(made(name).recipe()) == canonical(made(name).recipe())

    def test_survives_the_way_into_a_process(self, name: str) -> None:
        sent = ForkingPickler.dumps(made(name))
        assert ForkingPickler.loads(sent).recipe() == made(name).recipe()

    def test_refuses_unknown_fields(self, name: str) -> None:
        with pytest.raises(ValueError, match="nonsense"):
            PARTS[name](**{**MADE[name], "nonsense": 1})

    def test_is_made_without_heavy_packages(self, name: str) -> None:
        assert "torch" not in inspect.getsource(inspect.getmodule(PARTS[name])).split("class ")[0]  # type: ignore[arg-type]


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    return Context(store=Store(tmp_path / "home").open(), runtime=Runtime(concurrency=4))


@pytest.mark.parametrize("name", ["RulesTeacher", "LitellmTeacher", "OpenAICompatibleTeacher", "OpenAIBatchTeacher"])
class TestTeachers:
    """Answers come in the order of the questions, are kept, and are never bought twice."""

    @pytest.fixture
    def teacher(self, name: str, ctx: Context, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
        if name == "RulesTeacher":
            yield made(name)
            return
        from batch_provider import BatchProvider

        monkeypatch.setenv("OPENAI_API_KEY", "sk-contract")
        with BatchProvider() as provider:
            ctx.runtime = ctx.runtime.model_copy(update={"api_base": provider.url})
            yield made(name)

    def requests(self, count: int) -> list[tuple[Ask, Any]]:
        prompts = [
            data_prompt(Kind.STS, "", "Arts/Music", PromptsConfig(), generator(0, "contract", place)).text
            for place in range(count)
        ]
        return [
            (Ask(prompt=f"{text}\n", temperature=1.0, max_tokens=300, purpose="seed", index=place), lambda text: None)
            for place, text in enumerate(prompts)
        ]

    def test_answers_in_order_and_once(self, teacher: Any, ctx: Context) -> None:
        asked = self.requests(12)
        first = list(teacher.ask(iter(asked), ctx))
        assert [answer.cause for answer in first] == ["ok"] * 12
        assert ctx.tally.cost["calls"] == 12
        with ctx.fresh_tally() as tally:
            assert list(teacher.ask(reversed(asked), ctx))[::-1] == first
        assert (tally.cost["calls"], tally.cost["cached"], tally.dollars) == (0, 12, 0.0)

    def test_prices_what_a_plan_adds_up(self, teacher: Any) -> None:
        work = teacher.price(10, 1_000_000, 100_000)
        assert work.calls == 10
        known = {"RulesTeacher": 0.0, "LitellmTeacher": 3.5}
        assert work.dollars == known.get(type(teacher).__name__)


def test_engines_answer_every_request_the_same_way_again(ctx: Context) -> None:
    engine = made("TransformersEngine")
    calls = [[Generate(key=str(k), prompt=f"Notes on {k}", seed=k, n=2, max_tokens=12) for k in range(3)]]
    first, again = (list(engine.generate(LLAMA, calls, Sampling(temperature=1.0), ctx)) for _ in range(2))
    assert first == again
    assert [(text.key, text.index) for text in first[0]] == [(str(k), n) for k in range(3) for n in range(2)]
    assert all(text.tokens <= 12 and text.finish_reason in ("stop", "length") for text in first[0])


def test_engines_read_a_call_when_the_one_before_is_answered(ctx: Context) -> None:
    """Rows that are tried again depend on what came of them."""
    answered: list[list[Any]] = []

    def calls() -> Iterator[list[Generate]]:
        for number in range(3):
            assert len(answered) == number
            yield [Generate(key=str(number), prompt=f"Notes on {number}", seed=number, max_tokens=4)]

    for texts in made("TransformersEngine").generate(LLAMA, calls(), Sampling(temperature=1.0), ctx):
        answered.append(texts)
    assert [texts[0].key for texts in answered] == ["0", "1", "2"]


@pytest.mark.parametrize("name", ["NoTracker", "WandbTracker"])
def test_trackers_never_fail_a_run(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nothing = tmp_path / "nothing is here"
    run = TrackedRun(folder=nothing, key="k" * 64, preset="", sweep=None, home=tmp_path, directory=tmp_path)
    follower = made(name).follow(run)
    follower.event("senior", {"event": "metric", "step": 1, "figures": {"loss": 1.0}})
    follower.finish()
    said = capsys.readouterr().err
    assert ("W&B was not written" in said) == (name == "WandbTracker")


def test_scores_hold_every_type_and_both_means() -> None:
    """The contract of evaluators' results; the evaluators themselves are run in tests/backends and by the smoke run."""
    scores = Scores(tasks={"a": 10.0, "b": 20.0}, types={"STS": 15.0}, mean=15.0, mean_of_types=15.0)
    assert json.loads(scores.model_dump_json())["types"] == {"STS": 15.0}
