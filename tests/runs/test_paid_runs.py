"""What a teacher that costs money is not paid for unless asked: topics that recur, and models that learn nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from speed.core.graph import stage_statuses
from speed.core.store import Store
from speed.data.records import Kind
from speed.pipeline import pipeline
from speed.runs.building import Origin
from speed.runs.experiment import run
from speed.runs.refusals import refusals
from speed.runs.topic_use import TopicUse, recurring_topics
from speed.runtime import Runtime
from speed.teaching.litellm_teacher import LitellmTeacher
from speed.teaching.openai_teacher import OpenAICompatibleTeacher

FEW, SMALL = "the topics are too few to pay for", "a teacher that costs money would be paid for the miniature's models"


def use(config: Any, home: Path) -> TopicUse | None:
    return recurring_topics(stage_statuses(pipeline(config).goals(), Store(home)), Store(home))


def against(config: Any, home: Path, *typed: str) -> str:
    store = Store(home)
    return "\n".join(refusals(config, store, stage_statuses(pipeline(config).goals(), store), [], typed))


def listed(folder: Path, count: int) -> str:
    """A file with so many topics, named as an override."""
    path = folder / f"{count}.txt"
    path.write_text("".join(f"Science/Topic_{number}\n" for number in range(count)))
    return f"topics.path={path}"


def test_the_paper_on_the_built_in_topics(compose: Any, tmp_path: Path) -> None:
    found = use(compose("preset=paper"), tmp_path)
    assert found is not None
    assert (found.topics, found.draws, found.role, found.kind) == (493, 70_000, "synthesis", Kind.STS)
    assert found.times == pytest.approx(142, abs=0.1)
    assert found.brainstorming == 61_548
    for preset in ("paper", "one_gpu"):
        assert FEW in against(compose(f"preset={preset}"), tmp_path)
        assert FEW not in against(compose(f"preset={preset}", "topics.recur=true"), tmp_path)
        own = f"preset={preset}", "teacher=openai_compatible", "runtime.api_base=http://127.0.0.1:1/v1"
        assert FEW not in against(compose(*own), tmp_path), "a server of one's own asks no money"


def test_a_kind_uses_a_topic_as_often_as_it_is_drawn(compose: Any, tmp_path: Path) -> None:
    """700 of 2,300 examples are STS, each with a topic of its own; a brainstorm call serves three examples."""
    assert use(compose("preset=laptop", listed(tmp_path, 700)), tmp_path) is None
    small = ("preset=laptop", "teacher=gpt4o")
    exact, fewer = (compose(*small, listed(tmp_path, count)) for count in (140, 139))
    assert FEW not in against(exact, tmp_path), "five uses are allowed"
    assert FEW in against(fewer, tmp_path)
    found = use(fewer, tmp_path)
    assert found is not None
    assert "139 topics recur: each is used 5.0 times for the 700 examples of sts in synthesis" in str(found)


def test_a_built_list_is_not_read_again(compose: Any, tmp_path: Path) -> None:
    config = compose("+experiment=smoke", listed(tmp_path, 10), f"runtime.home={tmp_path / 'home'}")
    store = Store(tmp_path / "home")
    found = stage_statuses(pipeline(config).goals(), store)
    counted = recurring_topics(found, store)
    assert counted is not None

    class Built(Store):
        def manifest(self, stage: Any) -> Any:
            return type("Manifest", (), {"counts": {"out": 7}})()

    again = recurring_topics(found, Built(tmp_path / "home"))
    assert (counted.topics, again and again.topics) == (10, 7)


def test_recurring_topics_are_told_by_plans_and_change_no_key(
    compose: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recurring, allowed = (compose("preset=laptop", f"topics.recur={value}", "plan=true") for value in (False, True))
    assert pipeline(recurring).key == pipeline(allowed).key
    runtime = Runtime(home=tmp_path)
    assert run(recurring.model_copy(update={"runtime": runtime}), "", Origin(preset="laptop")) is None
    assert "note: 493 topics recur: each is used 1.4 times" in capsys.readouterr().err
    assert run(compose("plan=true").model_copy(update={"runtime": runtime}), "", Origin(preset="miniature")) is None
    assert "recur" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "refused"),
    [
        ("teacher=gpt4o", "generator=tiny_llama embedder=tiny"),
        ("teacher=gpt4o generator=tiny_llama", "to pay for them: embedder=tiny"),
        ("teacher=gpt4o generator=tiny_qwen embedder=tiny", ""),
        ("teacher=gpt4o embedder.base=package:miniature/bases/embedder generator=llama3_8b", ""),
        ("preset=paper +experiment=smoke", "to pay for them: generator=tiny_llama"),
        ("preset=paper", ""),
        ("teacher=openai_compatible", ""),
        ("judge.models=[miniature/rules]", ""),
        ("", ""),
    ],
)
def test_the_miniatures_models_are_paid_for_by_name_only(
    compose: Any, tmp_path: Path, overrides: str, refused: str
) -> None:
    typed = overrides.split()
    said = against(compose(*typed), tmp_path, *typed)
    assert (SMALL in said) == bool(refused)
    assert refused in said


@pytest.mark.parametrize(
    ("teacher", "url", "paid"),
    [
        (LitellmTeacher(model="gpt-4o"), None, True),
        (LitellmTeacher(model="somebody/unknown"), None, True),
        (LitellmTeacher(model="openai/unknown"), "http://127.0.0.1:1/v1", False),
        (LitellmTeacher(model="ollama/llama3"), None, False),
        (LitellmTeacher(model="miniature/rules"), None, False),
        (OpenAICompatibleTeacher(model="gpt-4o"), "https://api.openai.com/v1", True),
        (OpenAICompatibleTeacher(model="qwen2.5:7b"), "http://127.0.0.1:1/v1", False),
    ],
)
def test_who_costs_money(teacher: LitellmTeacher, url: str | None, paid: bool) -> None:
    assert teacher.costs_money(Runtime(api_base=url)) == paid
