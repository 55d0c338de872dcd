"""Rounds of preference training: each senior answers tasks of its own, and the next begins with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from speed.core.errors import UserError
from speed.core.graph import Goal, read_by
from speed.export import payload_of
from speed.pipeline import pipeline
from speed.stages.senior import Senior


def by_label(compose: Any, *overrides: str) -> dict[str, Goal]:
    return {goal.label: goal for goal in pipeline(compose(*overrides)).goals()}


@pytest.mark.parametrize(
    ("pairs", "stage"),
    [
        ("judge=single", "preferences"),
        ("judge=retriever", "retriever pairs"),
        ("preference=verified_pairs", "verified pairs"),
        ("preference=field_dpo", "field pairs"),
    ],
)
def test_the_second_senior_begins_with_the_first_and_learns_from_its_answers(
    compose: Any, pairs: str, stage: str
) -> None:
    found = by_label(compose, pairs, "preference.rounds=2", "counts.pairs=9")
    first, second = found["senior"].node, found["senior 2"].node
    assert isinstance(first, Senior)
    assert isinstance(second, Senior)
    assert second.junior is first
    assert found["root data 2"].node.upstream["junior"] is first
    assert found["synthesis"].node.upstream["writer"] is second
    assert found[stage].node.upstream["root"] is found["root data"].node
    assert found[f"{stage} 2"].node.upstream["root"] is found["root data 2"].node
    assert found["revisions"].node.upstream["root"] is found["root data"].node
    assert (first.pairs.rows, second.pairs.rows) == (4, 5), "as many lists as one round has"
    assert "tasks for root 2" in found
    assert first.key != second.key


def test_the_first_round_is_the_beginning_of_one_round_alone(compose: Any) -> None:
    """Its lists and judgements are the same pool, so none is written or bought again."""
    alone, shared = by_label(compose), by_label(compose, "preference.rounds=3")
    for label in ("tasks for root", "root data", "preferences"):
        assert alone[label].key == shared[label].key
    judged = sum(goal.rows for label, goal in shared.items() if label.startswith("preferences"))
    assert judged == alone["preferences"].rows
    assert [label for label in shared if label.startswith("senior")] == ["senior", "senior 2", "senior 3"]


@pytest.mark.parametrize(
    ("trainer", "read"),
    [("full", {"senior 2"}), ("lora", {"senior 2", "senior", "junior"})],
)
def test_whoever_writes_with_an_adapter_reads_what_lies_under_it(compose: Any, trainer: str, read: set[str]) -> None:
    found = by_label(compose, f"trainer={trainer}", "preference.rounds=2")
    assert {node.label for node, _ in read_by(found["synthesis"])} == {*read, "topics", "tasks for synthesis"}


def test_of_several_seniors_the_last_is_exported(tmp_path: Path) -> None:
    for label in ("junior", "senior", "senior-2"):
        (tmp_path / "stages" / label / "model").mkdir(parents=True)
    assert payload_of(tmp_path, "senior") == payload_of(tmp_path, None) == tmp_path / "stages" / "senior-2"
    assert payload_of(tmp_path, "junior") == tmp_path / "stages" / "junior"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("preference=none", "preference.rounds=2"), "rounds=2 has no effect: there is no senior"),
        (("preference.rounds=4",), "less than or equal to 3"),
        (("preference.rounds=2", "counts.pairs=3"), r"preference.rounds=2 shares counts.pairs=3 lists"),
    ],
)
def test_rounds_that_cannot_be_are_refused(compose: Any, overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        compose(*overrides)
