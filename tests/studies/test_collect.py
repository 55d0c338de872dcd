"""A study finds its runs by what their configs differ in, and says what it lacks."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from made_runs import OFF, made_run

from speed.core.errors import UserError
from speed.runs.finished_runs import finished_runs
from speed.studies.answer import Answer
from speed.studies.collect import answer
from speed.studies.definition import studies
from speed.studies.pages import main_table, markdown
from speed.studies.statistics import interval
from speed.studies.web_page import html

SENIOR = {"revisor": OFF}


def found(root: Path, name: str, **settings: object) -> Answer:
    runs, _ = finished_runs(root)
    return answer(studies()[name], runs, **settings)  # type: ignore[arg-type]


def scores(page: Answer) -> dict[str, float | None]:
    """Means of the points that have runs."""
    return {row.name: row.figures["mean"].ours for row in page.rows if row.runs}


def test_points_are_told_apart_by_their_configs_and_not_by_names(tmp_path: Path) -> None:
    made_run(tmp_path, 40, name="misleading_beta_0.3", preference__dpo__beta=0.05, **SENIOR)
    made_run(tmp_path, 50, sweep="something", preference__dpo__beta=0.1, **SENIOR)
    made_run(tmp_path, 60, preference__dpo__beta=0.3, runtime__home="/elsewhere", tracker__project="x", **SENIOR)
    page = found(tmp_path, "figure3c")
    assert scores(page) == {"0.05": 40.0, "0.1": 50.0, "0.3": 60.0}
    assert {row.name: row.missing for row in page.rows if row.missing} == {"0.15": ("0",), "0.2": ("0",)}
    assert {row.name: row.figures["mean"].paper for row in page.rows} == {
        "0.05": None, "0.1": 62.9, "0.15": None, "0.2": None, "0.3": None
    }  # fmt: skip
    assert [row.x for row in page.rows] == [0.05, 0.1, 0.15, 0.2, 0.3]


def test_runs_that_differ_in_more_than_the_axis_are_left_out_and_told(tmp_path: Path) -> None:
    for beta in (0.05, 0.1, 0.2):
        made_run(tmp_path, 50, preference__dpo__beta=beta, **SENIOR)
    made_run(tmp_path, 10, preference__dpo__beta=0.3, counts__sft=46, **SENIOR)
    made_run(tmp_path, 10, preference__dpo__beta=0.3)  # with a revisor: another study
    page = found(tmp_path, "figure3c")
    assert set(scores(page)) == {"0.05", "0.1", "0.2"}
    assert "Left out: 1 run with another counts.sft (46)." in page.remarks


def test_runs_that_only_some_of_the_others_keep_out_are_told(tmp_path: Path) -> None:
    for seed in (0, 1):
        made_run(tmp_path, 63, seed=seed)
    made_run(tmp_path, 60, preference=OFF, revisor=OFF)
    made_run(tmp_path, 10, preference__dpo__beta=0.3, revisor=OFF)
    page = found(tmp_path, "table2")
    assert set(scores(page)) == {"SPEED", "only SFT"}
    assert "Left out: 1 run with another preference.dpo.beta (0.3)." in page.remarks


def test_what_is_missing_is_made_like_the_run_that_says_most(tmp_path: Path) -> None:
    """A run without DPO says nothing of beta, though it may be of the study's own sweep."""
    apart = ("preference.enabled=false", "revisor.enabled=false")
    made_run(tmp_path, 60, apart, "ablations", preference=OFF, revisor=OFF)
    made_run(tmp_path, 61, ("preference.dpo.beta=0.3",), "beta", preference__dpo__beta=0.3, revisor=OFF)
    commands = found(tmp_path, "table2").missing
    assert commands
    assert all("preference.dpo.beta=0.3" in command for command in commands)


def test_the_group_with_most_points_answers_unless_a_run_is_named(tmp_path: Path) -> None:
    made_run(tmp_path, 50, preference__dpo__beta=0.05, **SENIOR)
    made_run(tmp_path, 51, preference__dpo__beta=0.1, **SENIOR)
    newer = made_run(tmp_path, 10, preference__dpo__beta=0.1, counts__sft=46, **SENIOR)
    assert scores(found(tmp_path, "figure3c")) == {"0.05": 50.0, "0.1": 51.0}
    like = next(run for run in finished_runs(tmp_path)[0] if run.folder == newer)
    assert scores(found(tmp_path, "figure3c", like=like)) == {"0.1": 10.0}
    with pytest.raises(UserError, match="no run of table4: preference.enabled is True"):
        found(tmp_path, "table4", like=like)


def test_settings_of_a_part_that_is_off_make_no_difference(tmp_path: Path) -> None:
    made_run(tmp_path, 63)
    made_run(tmp_path, 62, revisor={**OFF, "target": "reason+revision"})
    made_run(tmp_path, 61, preference=OFF)
    made_run(tmp_path, 60, preference=OFF, revisor=OFF)
    made_run(tmp_path, 10, scale__writer="teacher", preference=OFF, revisor=OFF)
    page = found(tmp_path, "table2")
    assert scores(page) == {"SPEED": 63.0, "without revisor": 62.0, "without DPO": 61.0, "only SFT": 60.0}
    assert page.missing == ()
    assert page.rows[0].figures["mean"].paper == 63.2


def test_two_strengths_of_dpo_are_not_mixed_in_table_2(tmp_path: Path) -> None:
    made_run(tmp_path, 63)
    made_run(tmp_path, 62, revisor=OFF)
    made_run(tmp_path, 50, revisor=OFF, preference__dpo__beta=0.3)
    made_run(tmp_path, 60, preference=OFF, revisor=OFF)
    assert scores(found(tmp_path, "table2")) == {"SPEED": 63.0, "without revisor": 62.0, "only SFT": 60.0}


def test_runs_that_differ_in_their_seed_are_one_point_with_an_interval(tmp_path: Path) -> None:
    for seed, apart in enumerate((0.0, 1.0, 2.5)):
        made_run(tmp_path, 50 + apart, seed=seed)
        made_run(tmp_path, 53 + apart, preference=OFF, seed={"data": 0, "sample": seed, "train": seed})
    made_run(tmp_path, 40, preference=OFF, revisor=OFF)
    page = found(tmp_path, "table2")
    speed, revisor, junior, sft = page.rows
    over_seeds = interval([50.0, 51.0, 52.5])
    assert over_seeds is not None
    assert (speed.figures["mean"].low, speed.figures["mean"].high) == (over_seeds.low, over_seeds.high)
    assert [run.seed for run in speed.runs] == ["0", "1", "2"]
    assert junior.difference is not None
    assert junior.difference.mean == pytest.approx(3.0)
    assert junior.difference.paired
    assert sft.difference is not None
    assert sft.difference.seeds is None, "one seed tells nothing of seeds"
    assert (junior.difference.comparisons, sft.difference.comparisons) == (1, 2), (
        "Holm: two have an interval over tasks"
    )
    assert "corrected for 2 comparisons over tasks (Holm)" in markdown(page)
    assert (revisor.missing, sft.missing) == (("0", "1", "2"), ("1", "2"))
    assert found(tmp_path, "table2", seeds=(0, 1)).rows[3].missing == ("1",)


def test_what_the_truth_says_is_compared_too(tmp_path: Path) -> None:
    for seed, apart in enumerate((0.0, 0.1, 0.25)):
        made_run(tmp_path, 50, seed=seed, flawless=0.5 + apart)
        made_run(tmp_path, 50, seed=seed, flawless=0.53 + apart, revisor=OFF)
        made_run(tmp_path, 50, seed=seed, preference=OFF)
    page = found(tmp_path, "table2")
    speed, revisor, junior, _ = page.rows
    assert revisor.figures["flawless, %"].ours == pytest.approx(53 + 35 / 3)
    found_beside = revisor.beside["flawless, %"]
    assert found_beside.mean == pytest.approx(3.0)
    assert found_beside.resolved, "paired by seed it is the same on each"
    assert (speed.beside, junior.beside) == ({}, {}), "the reference itself, and runs of which nobody knows the truth"
    table = main_table(page)
    place = table.head.index("from SPEED", table.head.index("flawless, %"))
    assert [row[place] for row in table.rows[:3]] == ["-", "+3.0 (+3.0 to +3.0) *", "-"]
    assert "those that are resolved, a number of seeds" in markdown(page)


def test_a_value_that_nobody_expected_is_a_point_too(tmp_path: Path) -> None:
    made_run(tmp_path, 50, preference__dpo__beta=0.1, **SENIOR)
    made_run(tmp_path, 55, preference__dpo__beta=0.7, **SENIOR)
    page = found(tmp_path, "figure3c")
    assert scores(page) == {"0.1": 50.0, "0.7": 55.0}
    assert page.rows[-1].x == 0.7


def test_what_goes_with_a_base_may_differ_between_bases_and_not_within_one(tmp_path: Path) -> None:
    junior = {"preference": OFF, "revisor": OFF}
    made_run(tmp_path, 50, **junior)
    made_run(tmp_path, 52, generator={"base": "package:miniature/bases/qwen", "sft": {"learning_rate": 0.1}}, **junior)
    made_run(tmp_path, 10, seed=1, generator__sft__learning_rate=0.1, **junior)
    page = found(tmp_path, "table4")
    assert sorted(row.name for row in page.rows if row.runs or row.missing) == ["tiny Gemma", "tiny Llama", "tiny Qwen"]
    assert {row.name: len(row.runs) for row in page.rows if row.runs} == {"tiny Llama": 1, "tiny Qwen": 1}
    [told] = [remark for remark in page.remarks if remark.startswith("Left out")]
    assert told == "Left out: 1 run with another generator.sft.learning_rate (0.003)."


def test_runs_that_were_measured_otherwise_are_left_out_with_the_reason(tmp_path: Path) -> None:
    made_run(tmp_path, 63, pins={"mteb": "2.25"})
    made_run(tmp_path, 62, revisor=OFF)
    page = found(tmp_path, "table2")
    assert scores(page) == {"without revisor": 62.0}
    assert any("mteb 2.26 and 2.25" in remark for remark in page.remarks)


def test_an_undefined_score_is_a_blank(tmp_path: Path) -> None:
    made_run(tmp_path, None)
    made_run(tmp_path, 60, seed=1)
    made_run(tmp_path, 62, revisor=OFF)
    page = found(tmp_path, "table2")
    assert page.rows[0].figures["mean"].ours is None, "a mean over an undefined score"
    assert (page.rows[0].figures["mean"].seeds, len(page.rows[0].runs)) == (0, 2)
    assert main_table(page).rows[0][2:4] == ("-", "-"), "no number of seeds beside no score"
    assert page.rows[1].difference is None


def test_the_study_of_seeds_shows_the_spread_of_each_type(tmp_path: Path) -> None:
    made_run(tmp_path, 50)
    assert found(tmp_path, "seeds").spreads == {}, "one seed"
    made_run(tmp_path, 52, seed=1)
    page = found(tmp_path, "seeds")
    assert list(page.spreads) == ["mean over 5 tasks", "STS"]
    assert page.spreads["STS"].value == pytest.approx(math.sqrt(2))
    text = markdown(page)
    assert "## Spread over seeds\n\n| score | standard deviation | 95 % interval | seeds |" in text
    assert "| STS | 1.41 | 0.63 to 45.13 | 2 |" in text
    assert "<h2>Spread over seeds</h2>" in html(page)
    made_run(tmp_path, None, seed=2)
    assert found(tmp_path, "seeds").spreads == {}, "an undefined score says nothing of the others'"
    assert found(tmp_path, "table5").spreads == {}


def test_levels_over_other_tasks_are_said_not_to_compare(tmp_path: Path) -> None:
    made_run(tmp_path)
    assert any("over 5 tasks (A, B, C, D, E)" in remark for remark in found(tmp_path, "table2").remarks)
    assert not any("tasks (" in remark for remark in found(tmp_path, "seeds").remarks)


def test_a_root_without_runs_has_the_papers_numbers_and_the_whole_command(tmp_path: Path) -> None:
    page = found(tmp_path, "figure3c")
    assert page.missing == ("python -m speed.run --config-dir sweeps --config-name beta",)
    assert [row.figures["mean"].paper for row in page.rows if row.figures["mean"].paper] == [62.9]
    wanted = "python -m speed.run --config-dir sweeps --config-name beta runtime.home=/r seed=0,1"
    assert found(tmp_path, "figure3c", seeds=(0, 1), home="/r").missing == (wanted,)


def test_what_all_points_share_is_told(tmp_path: Path) -> None:
    made_run(tmp_path)
    made_run(tmp_path, revisor=OFF)
    assert "Built once, and used by all runs that have it: seed data." in found(tmp_path, "table2").remarks


def test_the_law_by_data_size_is_fitted_to_figure_4(tmp_path: Path) -> None:
    made_run(tmp_path)
    assert found(tmp_path, "figure4").laws is None, "one size"
    for factor, score in ((0.125, 47.0), (0.25, 48.0), (0.5, 49.0), (2, 51.0)):
        made_run(tmp_path, score, scale__factor=factor)
    page = found(tmp_path, "figure4")
    assert {row.size: row.x for row in page.rows if row.runs} == {58: 0.125, 115: 0.25, 230: 0.5, 460: 1.0, 920: 2.0}
    assert page.laws is not None
    assert page.laws.laws[0].form == "log-linear"
    assert page.laws.laws[0].points_a_doubling.value == pytest.approx(1.0, abs=0.02)
    assert found(tmp_path, "figure4", with_laws=False).laws is None
    assert found(tmp_path, "table2").laws is None
    assert "points a doubling" in markdown(page)


@pytest.mark.parametrize("known", [True, False])
def test_a_tenth_of_a_point_has_its_price_where_the_teachers_is_known(known: bool, tmp_path: Path) -> None:
    """A point a doubling: the next tenth takes 2^0.1 - 1 of the 920 examples more, at a cent each."""
    for factor in (0.125, 0.25, 0.5, 1, 2):
        size = 460 * factor
        made_run(tmp_path, 50 + math.log2(factor), scale__factor=factor, dollars=1 + 0.01 * size if known else None)
    laws = found(tmp_path, "figure4").laws
    assert laws is not None
    price = laws.laws[0].dollars_a_tenth
    assert price == (pytest.approx(920 * (2**0.1 - 1) * 0.01, rel=0.02) if known else None)


def test_a_law_of_contrastive_entropy_stands_beside_that_of_scores(tmp_path: Path) -> None:
    for factor in (0.125, 0.25, 0.5, 1, 2):
        made_run(tmp_path, 50 + math.log2(factor), scale__factor=factor, entropy=2 - 0.1 * math.log2(factor))
    page = found(tmp_path, "figure4")
    law = page.further_laws["contrastive entropy"].laws[0]
    assert law.points_a_doubling.value == pytest.approx(-0.1, rel=0.01)
    assert law.dollars_a_tenth is None, "a tenth of a nat has no price here"
    text = markdown(page)
    assert "- The same for contrastive entropy:\n\n| form |" in text
    assert "| 460 | 2.000 |" in text
    assert "contrastive entropy" in main_table(page).head
    assert found(tmp_path, "figure4", with_laws=False).further_laws == {}


def test_runs_at_equal_steps_are_a_study_of_their_own(tmp_path: Path) -> None:
    for factor in (1, 5):
        made_run(tmp_path, 50, scale__factor=factor, embedder__max_steps=None)
        made_run(tmp_path, 55, scale__factor=factor, embedder__max_steps=108)
    assert scores(found(tmp_path, "equal_steps")) == {"1": 55.0, "5": 55.0}
    made_run(tmp_path, 51, scale__factor=2, embedder__max_steps=None)
    assert scores(found(tmp_path, "figure4")) == {"1": 50.0, "2": 51.0, "5": 50.0}


def test_entropies_of_other_pairs_are_left_out_and_a_repeat_without_them_loses_none(tmp_path: Path) -> None:
    for factor in (0.5, 1, 2):
        made_run(tmp_path, 50, scale__factor=factor, entropy=2.0)
    made_run(tmp_path, 50, scale__factor=4, entropy=9.0, pairs=1000)
    made_run(tmp_path, 50, scale__factor=1)
    made_run(tmp_path, 50, scale__factor=2.0)  # as a sweep has it; typed it is a whole number
    page = found(tmp_path, "figure4")
    entropies = {row.name: row.figures["contrastive entropy"].ours for row in page.rows if row.runs}
    assert entropies == {"0.5": 2.0, "1": 2.0, "2": 2.0, "4": None}
    assert "Left out: contrastive entropy of 1 run that was measured on something else." in page.remarks
