"""What the runs of a root say of themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_runs import made_run

from speed.runs.finished_runs import FinishedRun, Seeds, finished_runs, settings_of


@pytest.mark.parametrize(
    ("written", "seeds", "name", "typed"),
    [
        (3, Seeds(0, 3, 3), "3", ("seed=3",)),
        ({"data": 0, "sample": 3, "train": 3}, Seeds(0, 3, 3), "3", ("seed=3",)),
        (
            {"data": 9, "sample": 9, "train": 9},
            Seeds(9, 9, 9),
            "9/9/9",
            ("seed.data=9", "seed.sample=9", "seed.train=9"),
        ),
        ({"train": 1}, Seeds(0, 0, 1), "0/0/1", ("seed.data=0", "seed.sample=0", "seed.train=1")),
    ],
)
def test_a_seed_is_one_number_or_three(written: object, seeds: Seeds, name: str, typed: tuple[str, ...]) -> None:
    found = Seeds.of(written)
    assert (found, found.name, found.overrides) == (seeds, name, typed)


def test_what_decides_nothing_is_no_setting() -> None:
    config = {
        "name": "a", "plan": False, "seed": {"data": 1}, "runtime": {"home": "x"}, "tracker": {"project": "y"},
        "revisor": {"enabled": False, "target": "revision"}, "judge": {"votes": 1, "models": ["a"]},
        "eval": {"_target_": "speed.x"},
    }  # fmt: skip
    assert settings_of(config) == {
        "revisor.enabled": False, "judge.votes": 1, "judge.models": ["a"], "eval._target_": "speed.x"
    }  # fmt: skip


def test_a_repeated_run_takes_the_place_of_the_first(tmp_path: Path) -> None:
    made_run(tmp_path, built=2)
    again = made_run(tmp_path, built=0, name="under_another_name")
    [run], remarks = finished_runs(tmp_path)
    assert run.folder == again
    assert remarks == []
    assert (run.calls, run.calls_now, run.dollars, run.dollars_now) == (7, 0, 0.5, 0.0)


def test_what_cannot_be_read_is_told_and_left_out(tmp_path: Path) -> None:
    kept = made_run(tmp_path)
    (made_run(tmp_path, seed=1) / "config.yaml").write_text("a: [")
    (made_run(tmp_path, seed=2) / "summary.json").write_text("{}")
    (made_run(tmp_path, seed=3) / "summary.json").unlink()
    with (tmp_path / "runs" / "ledger.jsonl").open("a") as file:
        file.write('{"torn')
    runs, remarks = finished_runs(tmp_path)
    assert [run.folder for run in runs] == [kept]
    assert [remark.split(" cannot be read")[0] for remark in remarks] == [
        f"2026-01-01/00000{number}-run" for number in (1, 2, 3)
    ]
    assert finished_runs(tmp_path / "nowhere") == ([], [])


def test_figures_are_read_by_path(tmp_path: Path) -> None:
    made_run(tmp_path)
    [run], _ = finished_runs(tmp_path)
    assert run.figure("scores/mean") == 50.0
    assert run.figure("stages/seed data/cost/tokens_in + stages/seed data/cost/tokens_out") == 150.0
    for nothing in ("stages/dedup/rows_out", "scores/types/Retrieval", "stages/evaluation/rows_out", "name"):
        assert run.figure(nothing) is None
    assert run.figure("scores/mean + stages/dedup/rows_out") is None


def test_of_several_rounds_rows_and_costs_are_summed_and_nothing_else_is_one_number(tmp_path: Path) -> None:
    def stage(label: str, calls: int) -> dict[str, object]:
        return {
            "label": label,
            "rows_out": 2 * calls,
            "cost": {"calls": calls},
            "metrics": {"chosen_faulty": 0.1 * calls},
        }

    stages = [stage("preferences", 3), stage("preferences 2", 4), stage("seed data", 5)]
    run = FinishedRun(tmp_path, {}, Seeds(), {}, {"stages": stages})
    assert run.figure("stages/preferences/cost/calls") == 7
    assert run.figure("stages/preferences/cost/calls + stages/seed data/cost/calls") == 12
    assert run.figure("stages/preferences/rows_out") == 14
    assert run.figure("stages/preferences/metrics/chosen_faulty") is None
    assert run.figure("stages/seed data/metrics/chosen_faulty") == 0.5
    assert run.figure("stages/none/rows_out") is None
    assert run.figure("stages/*/rows_out") == 24, "of all of them"


def test_an_answer_that_another_run_had_paid_for_counts_where_it_is_read(tmp_path: Path) -> None:
    """Points of a study share answers: what a point stands on is not what its own run paid."""
    lines = [
        {"cause": "ok", "calls": 1, "tokens_in": 100, "tokens_out": 50, "dollars": 0.5},
        {"cause": "ok", "cached": 2, "found_tokens": 300, "found_dollars": 1.0},
    ]
    cost = {"calls": 1, "cached": 2, "tokens_in": 100, "tokens_out": 50}
    stages = [
        {"label": "preferences", "cost": cost, "dollars": 0.5, "ledger": lines},
        {"label": "dedup", "cost": {}, "dollars": 0.0, "ledger": []},
    ]
    run = FinishedRun(tmp_path, {}, Seeds(), {}, {"stages": stages})
    assert (run.calls, run.dollars) == (3, 1.5)
    assert run.figure("stages/preferences/asked/calls") == 3
    assert run.figure("stages/preferences/asked/tokens") == 450
    assert run.figure("stages/preferences/asked/calls per stages/preferences/cost/calls") == 3
    assert run.figure("stages/dedup/asked/tokens") == 0
    older = [{name: value for name, value in line.items() if not name.startswith("found_")} for line in lines]
    stages[0]["ledger"] = older
    assert run.figure("stages/preferences/asked/tokens") is None, "what a run did not note is not told"
    assert run.dollars is None
    older[1]["model"] = "miniature/rules"
    assert run.dollars == 0.5
    stages[0]["ledger"] = lines
    lines[1]["found_dollars"] = None
    assert run.dollars is None, "a price that nobody knows"
