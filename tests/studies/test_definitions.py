"""Each study agrees with conf/, with its sweep and with the paper's numbers, and its commands make its points."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_runs import made_run
from omegaconf import OmegaConf
from plans import points

from speed.data.paper_results import paper_tables
from speed.data.quality.retention import TABLE_6
from speed.runs.finished_runs import finished_runs, settings_of
from speed.studies.collect import answer
from speed.studies.definition import Study, studies
from speed.studies.groups import differing

SWEPT = [study for study in studies().values() if study.sweep]


def composed(composer: Callable[..., Any], *overrides: str, config: str = "config") -> dict[str, Any]:
    """What a run would write as its `config.yaml`."""
    made = OmegaConf.to_container(composer(overrides, config), resolve=True)
    assert isinstance(made, dict)
    return {str(key): value for key, value in made.items()}


def test_the_studies_are_those_of_the_paper_and_ours() -> None:
    tables, figures = (f"table{number}" for number in range(1, 7)), (f"figure3{panel}" for panel in "abcde")
    ours = {"objective", "judge", "levers", "negatives", "pair_source", "candidates", "revisor_target"}
    ours |= {"seeds", "equal_steps", "preferences"}
    assert set(studies()) == {*tables, *figures, "figure4", *ours}
    assert {name for name, study in studies().items() if study.paper is None} == ours
    assert set(paper_tables()) == set(studies()) - ours


@pytest.mark.parametrize("study", SWEPT, ids=lambda study: study.name)
def test_a_sweep_makes_the_points_of_its_study(composer: Callable[..., Any], study: Study) -> None:
    assert study.sweep
    for preset in ("miniature", "paper") if study.name == "table4" else ("miniature",):
        runs = [
            composed(composer, f"preset={preset}", *point, config=study.sweep) for point in points(study.sweep, preset)
        ]
        made = [study.point_of(settings_of(run)) for run in runs]
        assert sorted(point.name for point in made if point) == sorted(point.name for point in study.expected(preset))


@pytest.mark.parametrize("study", SWEPT, ids=lambda study: study.name)
def test_points_are_typed_as_the_sweep_types_them(study: Study) -> None:
    """Else a command for some points would run all points of the sweep."""
    assert study.sweep
    axes = {override.split("=")[0] for point in points(study.sweep) for override in point}
    for point in study.expected():
        assert {override.split("=")[0] for override in point.typed} == axes


@pytest.mark.parametrize("name", [name for name, study in studies().items() if not study.sweep])
def test_what_is_typed_for_a_point_makes_it(composer: Callable[..., Any], name: str) -> None:
    """Of studies without a sweep."""
    for point in studies()[name].expected("miniature"):
        made = studies()[name].point_of(settings_of(composed(composer, *point.typed))) if point.overrides else point
        assert made is not None
        assert made.name == point.name


@pytest.mark.parametrize("study", studies().values(), ids=lambda study: study.name)
def test_keys_of_a_definition_are_keys_of_the_config(composer: Callable[..., Any], study: Study) -> None:
    settings = settings_of(composed(composer))
    for key in (*study.where, *study.axis):
        assert key in settings or any(known.startswith(f"{key}.") for known in settings), key
    for point in study.expected():
        assert point.where.keys() <= settings.keys() or (
            point.where.keys() <= settings_of(composed(composer, *point.overrides)).keys()
        ), point.name


@pytest.mark.parametrize(
    "overrides",
    [
        ("filter=judged",),
        ("filter=margin",),
        ("filter=consistent",),
        ("filter=positive_aware", "filter.relabel=true"),
        ("negatives=graded",),
    ],
)
def test_another_filter_is_no_point_of_the_study_of_negatives(
    composer: Callable[..., Any], overrides: tuple[str, ...]
) -> None:
    """Else it would be shown as the reference, which has none."""
    assert studies()["negatives"].point_of(settings_of(composed(composer, *overrides))) is None
    older = settings_of(composed(composer))
    del older["filter.relabel"], older["negatives.listwise"]
    point = studies()["negatives"].point_of(older)
    assert point is not None
    assert point.name == "generated", "a run before there was relabelling, or were graded documents"


def test_another_beta_is_no_point_of_the_study_of_losses(composer: Callable[..., Any]) -> None:
    """Else the newest run of a sweep of beta would be shown as the reference, and the others as losses."""
    settings = settings_of(composed(composer, "revisor=none", "preference.dpo.beta=0.3"))
    assert studies()["objective"].point_of(settings) is None


@pytest.mark.parametrize("other", ["judge=retriever", "dedup=none"])
def test_a_part_that_only_one_of_two_runs_has_keeps_them_apart(
    composer: Callable[..., Any], tmp_path: Path, other: str
) -> None:
    """Null in one and a section in the other: else the newest run would stand for both."""
    for overrides, score in (("revisor=none",), 60), (("revisor=none", other), 99):
        made_run(tmp_path, score, config=composed(composer, *overrides))
    runs, _ = finished_runs(tmp_path)
    for name in ("table2", "figure3c", "figure3d", "objective"):
        page = answer(studies()[name], runs)
        assert len([row for row in page.rows if row.runs]) == 1
        assert sum(remark.startswith("Left out: 1 run with another") for remark in page.remarks) == 1, name


def test_rows_of_the_paper_are_points_of_the_studies() -> None:
    for name, table in paper_tables().items():
        names = {point.name for point in studies()[name].expected()}
        assert len(names & set(table.rows)) == min(len(names), len(table.rows)) or name in ("table4", "table1")
        measures = {measure.name for measure in studies()[name].measures}
        assert all(set(row) <= measures for row in table.rows.values()), name
    assert {"SPEED, 920K", "Mistral_gpt-4o, 230K"} <= set(paper_tables()["table1"].rows)


def test_the_papers_numbers_agree_with_one_another() -> None:
    tables = {name: table.rows for name, table in paper_tables().items()}
    cost, kept = tables["table5"]["SPEED"], tables["table6"]["SPEED"]
    for what in ("calls", "tokens"):
        assert sum(cost[f"{part}: {what}"] for part in ("SFT", "DPO", "revisor")) == cost[f"together: {what}"]
    assert sum(kept[f"{kind}: kept"] for kind in TABLE_6) == kept["together: kept"] == 920_415
    for kind, (left, raw) in TABLE_6.items():
        assert kept[f"{kind}: kept"] == left
        assert kept[f"{kind}: kept, %"] == pytest.approx(100 * left / raw, abs=0.05)
    junior, senior, speed = (tables["table2"][name]["mean"] for name in ("only SFT", "without revisor", "SPEED"))
    assert tables["table3"]["1 task a topic"]["mean"] == tables["table4"]["LLaMA-3-8B"]["mean"] == junior
    assert [tables[f"figure3{panel}"]["1"]["mean"] for panel in "abde"] == [junior, junior, senior, speed]
    assert tables["figure3c"]["0.1"]["mean"] == senior
    assert tables["figure4"] == {"1": {"mean": speed}, "5": {"mean": tables["table1"]["SPEED, 920K"]["mean"]}}


@pytest.mark.parametrize(
    ("name", "config", "typed", "missing"),
    [
        ("figure3c", "beta", ("preference.dpo.beta=0.1",), 4),
        ("figure3c", "config", ("+experiment=ablation_no_revisor", "judge=vote", "name=mine", "plan=false"), 4),
        ("table2", "config", ("+experiment=ablation_no_dpo", "revisor=none", "counts.sft=46"), 3),
        ("table3", "tasks_per_topic", ("diversity=five_tasks",), 3),
        ("table4", "base_model", ("generator=tiny_qwen", "generator.sft.epochs=3"), 2),
        ("table1", "config", ("+experiment=smoke", "scale.factor=5"), 1),
        ("table1", "config", ("preset=paper", "+experiment=speed_920k"), 4),
        ("judge", "judge", ("judge=margin", "seed=3"), 5),
        ("objective", "objective", ("preference=dpo_sft",), 9),
        ("levers", "config", ("revisor=none", "negatives=mined", "counts.sft=46"), 12),
        ("preferences", "config", ("revisor=none", "preference=simpo"), 17),
        ("levers", "judge", ("judge=retriever",), 12),  # whose sweep has other points
    ],
)
def test_the_commands_for_what_is_missing_make_just_that(
    composer: Callable[..., Any], tmp_path: Path, name: str, config: str, typed: tuple[str, ...], missing: int
) -> None:
    """From one run on: its command, without its point, gives all others, alike in everything but the axis."""
    study = studies()[name]
    made_run(tmp_path, overrides=typed, sweep=config, config=composed(composer, *typed, config=config))
    [run], _ = finished_runs(tmp_path)
    page = answer(study, [run], seeds=(int(run.seeds.name), 7))
    assert sum(len(row.missing) for row in page.rows) == 2 * missing + 1
    for overrides, of in (job for command in page.missing for job in jobs(command)):
        made_run(tmp_path, overrides=overrides, sweep=of, config=composed(composer, *overrides, config=of))
    runs, _ = finished_runs(tmp_path)
    assert len(runs) == 1 + 2 * missing + 1
    assert not any(differing(study, run, other) for other in runs)
    made = {(point.name, each.seeds.name) for each in runs[1:] if (point := study.point_of(each.settings))}
    assert made == {(row.name, seed) for row in page.rows for seed in row.missing}
    assert answer(study, runs, seeds=(int(run.seeds.name), 7)).missing == ()


def jobs(command: str) -> list[tuple[tuple[str, ...], str]]:
    """The runs of a command, as Hydra's own sweeper makes them: overrides and config."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    words = shlex.split(command)[3:]
    config, swept = "config", "-m" in words
    words = [word for word in words if word != "-m"]
    params: list[str] = []
    if words[0] == "--config-dir":
        config, words, swept = words[3], words[4:], True
        params = [override for point in points(config) for override in point]
        axes: dict[str, list[str]] = {}
        for override in params:
            key, _, value = override.partition("=")
            axes.setdefault(key, []).append(value)
        params = [f"{key}={','.join(dict.fromkeys(values))}" for key, values in axes.items()]
    typed = OverridesParser.create().parse_overrides([*params, *words])
    assert swept == any(each.is_sweep_override() for each in typed) or config != "config"
    return [(tuple(job), config) for batch in BasicSweeper.split_arguments(typed, None) for job in batch]
