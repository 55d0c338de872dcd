"""Pages of studies in `experiments/` say what their numbers say; the script that makes them all, without their runs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from made_runs import OFF, made_run
from studies import COMMITTED, Hours, copied, goals_of, made_by, make, overview, page_of, stale, written_again

from speed.core.store import Store
from speed.runs.finished_runs import finished_runs
from speed.studies.answer import Answer
from speed.studies.collect import answer
from speed.studies.definition import studies
from speed.studies.scaling_law import Laws

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


def test_pages_fit_todays_laws_to_the_figures_that_were_kept(tmp_path: Path) -> None:
    """All but the bands over tasks, which are kept: a JSON has scores of runs and none of single tasks."""
    draws = np.random.default_rng(0)
    for factor in (4, 0.25, 2, 1, 0.5):
        for seed in (2, 0, 1):
            score, dollars = 50 + math.log2(factor) + draws.normal(), 1 + factor
            made_run(tmp_path, score, scale__factor=factor, entropy=2 - score / 90, seed=seed, dollars=dollars)
    whole = answer(studies()["figure4"], finished_runs(tmp_path)[0])
    assert whole.laws is not None
    assert whole.laws.laws[0].points_a_doubling.tasks is not None
    assert whole.laws.laws[0].dollars_a_tenth is not None

    def changed(laws: Laws) -> Laws:
        """As an earlier version might have left them."""
        forms = [law.model_copy(update={"fit": None, "aicc": 0.0, "dollars_a_tenth": 7.0}) for law in laws.laws]
        return laws.model_copy(update={"laws": tuple(forms), "best": "power", "noise": 9.0})

    further = {name: changed(laws) for name, laws in whole.further_laws.items()}
    earlier = whole.model_copy(update={"laws": changed(whole.laws), "further_laws": further})
    numbers = tmp_path / "figure4.json"
    numbers.write_text(earlier.model_dump_json(indent=1))
    written_again(numbers)
    found = Answer.model_validate_json(numbers.read_text())
    near = partial(pytest.approx, rel=1e-5)
    assert found.laws is not None
    assert _numbers(found.laws) == near(_numbers(whole.laws))
    assert {name: _numbers(laws) for name, laws in found.further_laws.items()} == {
        name: near(_numbers(laws)) for name, laws in whole.further_laws.items()
    }
    assert (found.rows, found.study) == (whole.rows, whole.study)
    assert stale(tmp_path) == []


def _numbers(laws: Laws) -> dict[str, float]:
    """Every number of laws, by its place."""
    out: dict[str, float] = {}

    def read(value: object, path: str) -> None:
        if isinstance(value, dict | list):
            for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                read(item, f"{path}/{key}")
        elif isinstance(value, int | float):
            out[path] = value
        else:
            out[f"{path}={value}"] = 0

    read(laws.model_dump(mode="json"), "")
    return out


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
