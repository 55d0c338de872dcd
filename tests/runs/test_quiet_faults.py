"""Faults that stop no run are told under its table, each with its figures; a sound run has none."""

from __future__ import annotations

from typing import Any

import pytest

from speed.runs.quiet_faults import quiet_faults
from speed.runs.report import remarks
from speed.runs.stage_lines import StageLine


def line(label: str, metrics: dict[str, Any] | None = None, **fields: Any) -> StageLine:
    given = {"rows_in": 92, "rows_out": 92, "rejected": {}, "seconds": 1.0, "gpu_seconds": 0.0, "cost": {}}
    return StageLine(label=label, key="k", state="built", dollars=0.0, metrics=metrics or {}, **(given | fields))


def judged(places: list[int], chance: float, flips: float | None = None) -> dict[str, Any]:
    return {"best_by_place": places, "best_by_place_p": chance, "swap_flips": flips}


@pytest.mark.parametrize(
    ("stage", "told"),
    [
        (
            line("revision", noted={"revision failed: no_json": 1, "revision failed: truncated": 90}),
            ["91 of 92 rows could not be repaired (90 truncated, 1 no_json)", "limits.revision"],
        ),
        (
            line("preferences", judged([23, 0, 0, 0, 0], 0.0)),
            ["named place 1 best in 23 of 23 lists (p < 0.0001)", "judge=swap"],
        ),
        (line("preferences", judged([0, 23, 0], 1e-9, 0.9)), ["place 2 best in 23 of 23", "Take another judge"]),
        (line("senior", {"kl_reference": 0.001}), ["hardly moved it (KL 0.001 nats a token", "counts.pairs"]),
        (
            line("revisor", {"first_loss": 2.0, "last_loss": 2.5}),
            ["did not fall (2 at the first step, 2.5 in the last"],
        ),
        (line("senior", {"first_loss": 0.7, "last_loss": 0.6, "late_loss": 0.8}), ["0.8 in the last"]),
        (line("junior", {"written_valid_json": 0.125}), ["12% of its answers", "generator.base"]),
        (
            line("evaluation", {"scores": {"mean": 27.49}, "untrained": {"mean": 27.75}}),
            ["27.49 after the embedder's training", "27.75 without any", "embedder.max_steps"],
        ),
        (line("seed data", cost={"resent": 7}), ["7 requests to the teacher were sent again", "request_seconds"]),
    ],
)
def test_a_fault_is_told(stage: StageLine, told: list[str]) -> None:
    (found,) = quiet_faults([stage])
    assert found.startswith(f"{stage.label}: ")
    assert all(part in found for part in told), found
    assert found in remarks([stage])


def test_a_judge_that_was_asked_in_both_orders_is_not_told_of_the_option() -> None:
    (found,) = quiet_faults([line("preferences", judged([0, 23, 0], 1e-9, 0.9))])
    assert "judge=swap" not in found


def test_a_sound_run_has_none() -> None:
    """A leaning of a tenth that many lists make certain is no fault of the kind."""
    sound = [
        line("junior", {"first_loss": 2.5, "last_loss": 0.4, "written_valid_json": 1.0}),
        line("preferences", judged([2200, 1950, 1950, 1950, 1950], 0.0001)),
        line("preferences", judged([5, 2, 1], 0.2)),
        line("senior", {"first_loss": 0.6931, "last_loss": 0.5, "kl_reference": 0.3, "written_valid_json": 0.875}),
        line("senior", {"first_loss": 0.6931, "last_loss": 0.8395, "late_loss": 0.6713}),
        line("revision", noted={"changed": 92}),
        line("evaluation", {"scores": {}}),
        line("evaluation", {"scores": {"mean": 54.99}, "untrained": {"mean": 27.75}}),
    ]
    assert quiet_faults(sound) == []


def test_words_that_query_and_documents_share_are_told_of_a_corpus() -> None:
    shares = {
        "query_words_in_positive": {"retrieval": 0.714, "short_short": 1.0},
        "query_words_in_negative": {"retrieval": 0.5},
    }
    (found,) = remarks([line("dedup", shares)])
    assert "its positive has 71% of retrieval (50% in its hard negative), 100% of short_short: " in found
    assert not remarks([line("dedup", {"query_words_in_positive": {}, "query_words_in_negative": {}})])
