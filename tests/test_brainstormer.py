"""Another model may think of the tasks than writes, judges and repairs; it is planned, checked and priced as any."""

from __future__ import annotations

from typing import Any

from speed.pipeline import pipeline
from speed.stages.tasks import Tasks


def models(config: Any) -> dict[str, str]:
    """The model that each asking stage asks."""
    nodes = [goal.node for goal in pipeline(config).goals()]
    return {node.label: node.teacher.model for node in nodes if hasattr(node, "teacher")}


def test_the_brainstormer_alone_thinks_of_tasks(compose: Any) -> None:
    config = compose("teacher=openai_compatible", "teacher.model=writer", "diversity.brainstormer=thinker")
    asked = models(config)
    assert {model for label, model in asked.items() if label.startswith("tasks for")} == {"thinker"}
    assert {model for label, model in asked.items() if not label.startswith("tasks for")} == {"writer"}
    assert len(asked) >= 6
    assert [teacher.model for teacher in config.asked] == ["writer", "thinker"]


def test_without_one_the_teacher_does_and_no_key_is_another(compose: Any) -> None:
    plain = pipeline(compose("teacher=openai_compatible", "teacher.model=writer"))
    named = pipeline(compose("teacher=openai_compatible", "teacher.model=writer", "diversity.brainstormer=writer"))
    assert plain.key == named.key
    other = pipeline(compose("teacher=openai_compatible", "teacher.model=writer", "diversity.brainstormer=thinker"))
    changed = {goal.label for goal, was in zip(other.goals(), plain.goals(), strict=True) if goal.key != was.key}
    assert {goal.label for goal in plain.goals() if isinstance(goal.node, Tasks)} < changed
    assert "topics" not in changed
