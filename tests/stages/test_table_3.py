"""Table 3's points differ in what the paper's do, tasks of a topic and the text of long ones, and share the rest."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from speed.core.stage import Pool
from speed.data.assignment import Assignment, BrainstormPlan, drawn_tasks
from speed.data.mix import Mix
from speed.data.records import Kind, Prompt, TaskList
from speed.data.topics.sources import TopicsConfig, shorten
from speed.pipeline import pipeline
from speed.stages.topics import Topics

POINTS = ("paper", "three_tasks", "five_tasks")


def assignment_of(compose: Any, diversity: str) -> Assignment:
    found = [goal.node for goal in pipeline(compose(f"diversity={diversity}")).goals()]
    [seed] = [node for node in found if node.label == "seed data"]
    made: Assignment = seed.assignment
    return made


def brainstormed(rows: int) -> list[TaskList]:
    """The recorded calls of the first point, which keeps one task of a list of five."""
    plan = BrainstormPlan(role="seed", seed=0, mix=Mix())
    made = []
    for row in range(rows):
        kind, call = plan.kind_and_call(row)
        answer = json.dumps([f"{kind} {call}.{number}" for number in range(5)])
        kept = drawn_tasks(answer, 1, 0, "seed", row)
        prompt = Prompt(text="", template="")
        made.append(TaskList(row=row, kind=kind, topic=f"T{call}", prompt=prompt, answer=answer, tasks=kept))
    return made


def test_all_points_of_tasks_share_their_brainstorm_calls(compose: Any) -> None:
    pools: dict[str, list[tuple[str, int]]] = {}
    for diversity in POINTS:
        goals = pipeline(compose("preset=paper", f"diversity={diversity}", "revisor=none", "preference=none")).goals()
        for goal in goals:
            if isinstance(goal.node, Pool) and goal.label.startswith("tasks for"):
                pools.setdefault(goal.label, []).append((goal.key, goal.rows))
    assert {label: len({key for key, _ in found}) for label, found in pools.items()} == {
        "tasks for seed": 1,
        "tasks for synthesis": 1,
    }
    first, three, five = (rows for _, rows in pools["tasks for synthesis"])
    assert first > 2.9 * three > 4.5 * five > 0


def test_three_tasks_of_a_topic_come_from_its_recorded_list(compose: Any) -> None:
    lists = brainstormed(60)
    first, three = (assignment_of(compose, diversity) for diversity in POINTS[:2])
    rows = [draft for draft in three.drafts(0, 230, lambda row: lists[row:], ["T"]) if draft.kind is Kind.RETRIEVAL]
    abouts = [draft.about for draft in rows]
    assert None not in abouts
    assert Counter(about.topic for about in abouts if about) == {f"T{call}": 9 for call in range(7)} | {"T7": 7}
    tasks = [about.task for about in abouts[:9] if about]
    assert [tasks[0]] * 3 == list(next(each for each in lists if each.kind is Kind.RETRIEVAL).tasks) * 3
    assert [len(set(tasks[start : start + 3])) for start in (0, 3, 6)] == [1, 1, 1]
    assert len(set(tasks)) == 3
    ones = [
        draft.about for draft in first.drafts(0, 69, lambda row: lists[row:], ["T"]) if draft.kind is Kind.RETRIEVAL
    ]
    assert ones[:3] == abouts[:3], "the first task of a topic is the one that a single task is"


def test_sts_is_asked_with_the_same_requests(compose: Any) -> None:
    """So the journal answers it: seven of 23 seed examples are bought once for all points."""
    lists, prompts = brainstormed(60), []
    for diversity in POINTS:
        made = assignment_of(compose, diversity)
        drafts = made.drafts(0, 115, lambda row: lists[row:], ["A", "B"])
        prompts.append(
            [(made.sample_index(draft.row), made.prompt(draft)) for draft in drafts if draft.kind is Kind.STS]
        )
    assert len(prompts[0]) == 35
    assert prompts[0] == prompts[1] == prompts[2]


def test_untruncated_topics_are_the_same_paths(tmp_path: Path) -> None:
    path = tmp_path / "topics.txt"
    path.write_text("Arts\nArts/A/Titles/3/Film/Cast\nArts/A/Titles/4/Film/Cast\nArts/B\nArts/A/B/C/D\n")
    config = TopicsConfig(path=path)  # type: ignore[arg-type]
    short, whole = (list(Topics(config, truncate=truncate).topics()) for truncate in (True, False))
    assert [topic.path for topic in short] == [topic.path for topic in whole]
    assert [topic.topic for topic in whole] == ["Arts", "Arts/A/Titles/3/Film/Cast", "Arts/B", "Arts/A/B/C/D"]
    assert [topic.topic for topic in short] == [shorten(topic.topic) for topic in whole]
