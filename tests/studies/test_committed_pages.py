"""Pages of studies in `experiments/` say what their numbers say; the script that makes them all, without their runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from made_runs import OFF, made_run
from studies import COMMITTED, Hours, copied, goals_of, made_by, make, overview, page_of, stale

from speed.core.store import Store
from speed.studies.definition import studies

TABLE_2 = ({}, {"revisor": OFF}, {"preference": OFF}, {"preference": OFF, "revisor": OFF})


def test_the_committed_pages_follow_from_their_numbers() -> None:
    assert stale() == []


@pytest.fixture
def pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Table 2 as the script makes it, of made-up runs."""
    home, out = tmp_path / "home", tmp_path / "experiments"
    out.mkdir()
    monkeypatch.setenv("SPEED_HOME", str(home))
    asked: list[Sequence[str]] = []

    def run(typed: Sequence[str]) -> bool:
        asked.append(typed)
        for seed in (1, 2):
            for place, changes in enumerate(TABLE_2):
                made_run(home, 50.0 - place + seed, seed=seed, **changes)
        return True

    assert make(studies()["table2"], home, [1, 2], run)
    assert asked == [["--config-dir", "sweeps", "--config-name", "ablations", "seed=1,2", "tracker=none"]]
    copied("table2", home, out)
    return out


def test_a_page_has_what_was_expected_before_what_was_found(pages: Path) -> None:
    page = (pages / "table2.md").read_text()
    assert stale(pages) == []
    assert str(pages.parent) not in page + (pages / "table2.json").read_text(), "no folder of this machine"
    heads = [line for line in page.splitlines() if line.startswith("#")]
    assert heads == [f"# {studies()['table2'].title}", "## Expected", "## Command", "## Found", "## Learnt", "## Runs"]
    assert "Refuted if another row is best by the truth" in page
    assert "python -m speed.run --config-dir sweeps --config-name ablations seed=1,2\n" in page
    assert "python -m speed.report table2\n" in page
    assert "51.50 ± " in page


def test_a_number_that_was_changed_is_noticed(pages: Path) -> None:
    page, numbers = pages / "table2.md", pages / "table2.json"
    right, kept = page.read_text(), json.loads(numbers.read_text())
    page.write_text(right.replace("51.50 ± ", "51.60 ± "))
    assert stale(pages) == ["table2.md differs from table2.json: python experiments/studies.py --pages"]
    page.write_text(right)
    kept["rows"][0]["figures"]["mean"]["ours"] += 0.1
    numbers.write_text(json.dumps(kept))
    assert stale(pages) == ["table2.md differs from table2.json: python experiments/studies.py --pages"]
    page.write_text(page_of(numbers))
    assert stale(pages) == []
    kept["study"]["question"], kept["study"]["axis"] = "Another?", ["preference.enabled"]
    numbers.write_text(json.dumps(kept))
    (told,) = stale(pages)
    assert "made for another definition" in told, "its texts may change, its points may not"
    numbers.unlink()
    (told,) = stale(pages)
    assert told.startswith("table2.md: ")


def test_every_committed_study_says_what_is_expected_before_it_is_run() -> None:
    for name in COMMITTED:
        assert "Refuted if" in studies()[name].hypothesis, name
        assert made_by(studies()[name], [1, 2, 3, 4, 5])[0][-1] == "seed=1,2,3,4,5"


def test_hours_that_are_left_are_those_of_what_is_built(smoke: Path) -> None:
    from plans import config_of

    store, config = Store(smoke / "untouched"), config_of("+experiment=smoke")
    hours = Hours(store)
    goals = {seed: goals_of(config, seed) for seed in (0, 7)}
    for each in goals.values():
        hours.need(each)
    hours.measure()
    spent = {goal.label: hours.of(goal.key) for goal in goals[0]}
    left = {goal.label: hours.of(goal.key) for goal in goals[7]}
    assert {label: rest for label, (_, rest) in spent.items() if rest} == {}
    assert spent["junior"][0] > 0
    assert left["junior"] == (0.0, pytest.approx(spent["junior"][0]))
    assert left["seed data"] == spent["seed data"], "seeds share what the teacher wrote"


def test_the_overview_counts_points_and_what_is_built(tmp_path: Path) -> None:
    table, told = overview(["table2"], tmp_path, [1, 2])
    assert table.rows[0][:4] == ("table2", "4", "8", "0")
    assert "Not in them, since no such stage is built in this root: dedup, embedder" in told[1]
