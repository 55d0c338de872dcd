"""Comparing evaluations: only what was measured alike, and published scores beside the same tasks alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from speed.compare import comparison, frame, main, printed
from speed.core.errors import UserError
from speed.data.evaluation_record import EvaluationRecord, Pins, read_evaluation, scores_of
from speed.data.evaluation_splits import of_published_scores
from speed.data.published_scores import published
from speed.data.query_scores import QueryScores

KINDS = {"STS13": "STS", "STSBenchmark": "STS", "SciFact": "Retrieval", "MyOwn": "Retrieval"}


def made(
    name: str = "mine", tasks: dict[str, float] | None = None, protocol: str = "e5", **pins: Any
) -> EvaluationRecord:
    scores = tasks or {"STS13": 50.0, "STSBenchmark": 60.0, "SciFact": 30.0}
    types = sorted(published().table_1.rows[0].types)
    kinds = {task: KINDS.get(task, types[place % 7]) for place, task in enumerate(scores)}
    fields = {"mteb": "2.26", "precision": "fp32", "batch": "b", "instructions": "i", **pins}
    fields.setdefault("datasets", dict.fromkeys(scores, "r1"))
    fields.setdefault("splits", {task: of_published_scores(task) for task in scores})
    return EvaluationRecord(
        name=name, model="0" * 40, protocol=protocol, max_length=None, pins=Pins(**fields), kinds=kinds,
        scores=scores_of(scores, kinds),
    )  # fmt: skip


def rows(parts: list[Any], place: int) -> dict[str, list[str]]:
    skipped = 3 if parts[place].head[0] == "task" else 2
    return {row[0]: list(row[skipped:]) for row in parts[place].rows}


@pytest.mark.parametrize(
    ("pins", "named"),
    [
        ({"mteb": "2.27"}, "mteb 2.26 and 2.27"),
        ({"precision": "bf16"}, "precision fp32 and bf16"),
        ({"batch": "another"}, "batch b and another"),
        ({"instructions": "j"}, "instructions i and j"),
        ({"splits": {"STS13": "validation"}}, "split of STS13 test and validation"),
        ({"datasets": {"STS13": "r1", "STSBenchmark": "r2", "SciFact": "r1"}}, "data of STSBenchmark r1 and r2"),
    ],
)
def test_runs_with_other_pins_are_refused_and_the_difference_is_named(pins: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named) as refused:
        comparison([made("one"), made("two"), made("three", **pins)])
    assert "one and three" in str(refused.value)


def test_what_belongs_to_a_model_may_differ() -> None:
    other = made("theirs", protocol="native", instructions="j")
    server = made("server", protocol="native", precision="endpoint", batch="endpoint", instructions="j")
    assert comparison([made(), other, server])
    with pytest.raises(UserError, match="precision fp32 and bf16"):
        comparison([made(), made("x", precision="bf16"), server])


def test_means_by_type_over_tasks_and_over_types() -> None:
    parts = comparison([made()], with_published=False)
    means = rows(parts, 1)
    assert means["STS"] == ["55.00"]
    assert means["Retrieval"] == ["30.00"]
    assert means["all tasks"] == ["46.67"]
    assert means["the 2 types"] == ["42.50"]


def test_a_task_near_its_ceiling_in_every_run_is_named() -> None:
    runs = [made("one", {"STS13": 96.0, "SciFact": 97.0}), made("two", {"STS13": 95.0, "SciFact": 94.9})]
    [told] = [part for part in comparison(runs, with_published=False) if str(part).startswith("Near its ceiling")]
    assert told.startswith("Near its ceiling: STS13. From a score of 95 on")


def test_published_scores_stand_beside_the_same_tasks_alone() -> None:
    run = made(tasks={"STS13": 50.0, "SciFact": 30.0, "MyOwn": 99.0})
    parts = comparison([run])
    table, means = rows(parts, 0), rows(parts, 1)
    own = parts[0].head.index("SPEED [1]") - 3
    assert table["SciFact"][own] == "71.90"
    assert table["MyOwn"][own] == "-"
    assert means["all tasks"][own] == "-", "no mean over tasks that were not published"
    assert means["all tasks"][0] == "59.67"
    assert means["tasks that all columns have"][0] == "40.00"
    assert means["tasks that all columns have"][own] == f"{(87.9 + 71.9) / 2:.2f}"
    shown = printed(parts)
    assert "Tasks that all columns have: STS13, SciFact." in shown
    assert "paper's: arXiv 2410.18634, Table 8" in shown


def test_a_validation_score_stands_beside_no_published_one() -> None:
    parts = comparison([made(splits={"STS13": "validation", "STSBenchmark": "test", "SciFact": "test"})])
    [row] = [row for row in parts[0].rows if row[0] == "STS13"]
    assert list(row[2:4]) == ["validation", "50.00"]
    assert set(row[4:]) == {"-"}
    assert "Not measured on the split of the published scores, so without them: STS13." in printed(parts)


def test_a_mean_over_languages_stands_beside_no_published_score_and_no_other_mean() -> None:
    many = made(subsets={"STS13": 11})
    parts = comparison([many])
    [row] = [row for row in parts[0].rows if row[0] == "STS13"]
    assert set(row[4:]) == {"-"}
    assert "while published scores are of English, so without them: STS13." in printed(parts)
    with pytest.raises(UserError, match="languages of STS13 1 and 11 subsets"):
        comparison([made("english", subsets={"STS13": 1, "SciFact": 1}), many])
    comparison([made("before they were counted"), many])
    [row] = [row for row in comparison([made(subsets={"STS13": 1})])[0].rows if row[0] == "STS13"]
    assert set(row[4:]) != {"-"}, "a score of one language stands beside published ones"


def test_a_record_without_splits_is_refused_where_the_split_was_another_one_once() -> None:
    tasks = {"AmazonReviewsClassification": 40.0, "SciFact": 30.0}
    with pytest.raises(UserError, match="split of AmazonReviewsClassification not recorded and test") as refused:
        comparison([made("old", tasks, splits={}), made("new", tasks)])
    assert "SciFact" not in str(refused.value)


def test_nothing_is_published_about_tasks_of_ones_own() -> None:
    [table, _, remark] = comparison([made(tasks={"MyOwn": 10.0})])
    assert table.head == ("task", "type", "split", "mine")
    assert "fp32" in remark


def test_local_copies_are_said_to_be_such() -> None:
    pins = {"STS13": "local-1", "STSBenchmark": "r1", "SciFact": "local-2"}
    assert "may differ from the data of the published scores: 2 tasks" in printed(comparison([made(datasets=pins)]))


def test_runs_of_other_tasks_are_compared_on_what_they_share() -> None:
    parts = comparison([made("a"), made("b", {"STS13": 70.0, "MyOwn": 1.0})], with_published=False)
    assert rows(parts, 0) == {"STS13": ["50.00", "70.00"]}
    assert "left out: MyOwn, STSBenchmark, SciFact" in printed(parts)
    with pytest.raises(UserError, match="no task in common"):
        comparison([made("a"), made("b", {"MyOwn": 1.0})])


def test_two_runs_of_one_name_stay_two_columns() -> None:
    parts = comparison([made(), made(tasks={"STS13": 1.0})], with_published=False)
    assert rows(parts, 0)["STS13"] == ["50.00", "1.00"]


def test_table_1_is_for_the_whole_benchmark() -> None:
    whole = dict.fromkeys(sorted(published().benchmark), 50.0)
    shown = printed(comparison([made(tasks=whole)]))
    assert "text-embedding-3-large" in shown
    whole.popitem()
    assert "text-embedding-3-large" not in printed(comparison([made(tasks=whole)]))


def test_the_report_of_a_run_says_how_its_scores_were_measured() -> None:
    from speed.runs.report import markdown
    from speed.runs.stage_lines import StageLine

    one = made(datasets={"STS13": "r7"}, splits={"STS13": "test"})
    line = StageLine(
        label="evaluation", key="k", state="built", rows_in=None, rows_out=3, rejected={}, seconds=1.0, gpu_seconds=0.0,
        cost={}, dollars=0.0, metrics={"judged": one.model_dump(mode="json")},
    )  # fmt: skip
    assert "mteb 2.26, fp32, protocol e5, batches of b. Data: STS13 r7 (test)." in markdown(
        "run", {}, [line], one.scores
    )


def test_runs_are_read_from_their_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = made("one", {"MyOwn": 10.0})
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "evaluation.json").write_text(one.model_dump_json())
    (tmp_path / "b").mkdir()
    stages = [{"metrics": {}}, {"metrics": {"judged": one.model_dump(mode="json")}}]
    (tmp_path / "b" / "summary.json").write_text(json.dumps({"name": "experiment", "stages": stages}))
    assert read_evaluation(tmp_path / "b").name == "experiment"
    main([str(tmp_path / "a"), str(tmp_path / "b")])
    assert "experiment" in capsys.readouterr().out
    main([str(tmp_path / "a"), "--against", str(tmp_path / "b")])
    assert "one - experiment" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([str(tmp_path / "a"), str(tmp_path)])
    assert "holds no evaluation" in capsys.readouterr().err
    (tmp_path / "b" / "summary.json").write_text(json.dumps({"name": "experiment", "stages": stages[:1]}))
    with pytest.raises(UserError, match="no record of an evaluation with its pins"):
        read_evaluation(tmp_path / "b")


def test_a_name_is_text_and_never_markup() -> None:
    from speed.compare import markdown

    assert "<img" not in markdown(comparison([made("<img src=x>|`a`")]))


def differences(parts: list[Any]) -> dict[str, list[str]]:
    [table] = [part for part in parts if not isinstance(part, str) and part.head[0] == "difference"]
    return {row[0]: list(row[1:]) for row in table.rows}


def test_two_runs_have_their_difference_with_its_interval() -> None:
    speed, e5 = (
        next(row.tasks for row in published().rows if row.name == f"{model}, synthetic data only")
        for model in ("SPEED", "E5-mistral")
    )
    parts = comparison([made("speed", speed), made("e5", e5)], with_published=False)
    [tasks, change, over_seeds, over_tasks, verdict] = differences(parts)["speed - e5"]
    assert (tasks, change, over_seeds) == ("56", "+0.29", "-")
    low, high = over_tasks.split(" to ")
    assert (float(low), float(high)) == (pytest.approx(-0.50, abs=0.03), pytest.approx(1.07, abs=0.03))
    assert verdict == "spread over seeds unknown (one seed); unresolved over 56 tasks"
    assert "scores of single queries are missing in speed, e5: " in printed(parts)
    assert "Holm" not in printed(parts)


def test_three_runs_are_compared_with_the_first_and_corrected() -> None:
    tasks = [{f"STS{number}": 50.0 + moved * number for number in range(12, 17)} for moved in (0.0, 0.1, 0.2)]
    parts = comparison([made(name, each) for name, each in zip("abc", tasks, strict=True)], with_published=False)
    assert set(differences(parts)) == {"a - b", "a - c"}
    assert "corrected for 2 comparisons at once (Holm)" in printed(parts)
    same = comparison([made("a"), made("b"), made("c")], with_published=False)
    assert "Holm" not in printed(same), "of three times the same figures nothing was asked"


def test_several_seeds_of_two_recipes() -> None:
    def seeds(name: str, *moved: float) -> list[EvaluationRecord]:
        return [made(f"{name}{n}", {"STS13": 50 + more, "SciFact": 30 + more}) for n, more in enumerate(moved)]

    parts = comparison(seeds("a", 2.0, 3.1, 2.4), with_published=False, against=seeds("b", 0.9, 2.0, 1.4))
    [row] = differences(parts).values()
    assert list(differences(parts)) == ["a0 and 2 more - b0 and 2 more"]
    assert row == ["2", "+1.07", "+0.92 to +1.21", "-", "resolved over 3 seeds"]


def test_an_undefined_score_is_in_no_difference() -> None:
    broken = made("b", {"STS13": 70.0, "STSBenchmark": 60.0, "SciFact": 30.0})
    scores = scores_of({**broken.scores.tasks, "SciFact": None}, broken.kinds)
    parts = comparison([made("a"), broken.model_copy(update={"scores": scores})], with_published=False)
    assert differences(parts)["a - b"][:2] == ["2", "-10.00"]
    assert "Undefined in a run, so in no difference: SciFact." in printed(parts)
    whole = {"STS13": None}
    nothing = broken.model_copy(update={"scores": scores_of(dict(whole), {"STS13": "STS"}), "kinds": {"STS13": "STS"}})
    assert "difference" not in printed(comparison([nothing, nothing], with_published=False))


# -- queries -----------------------------------------------------------------------------------------------------------


def with_queries(score: float, moved: Sequence[float] = (), count: int = 25) -> QueryScores:
    """Queries with one score, 0 to 100, but for the first ones, which are moved."""
    every = [score + more for more in [*moved, *[0.0] * (count - len(moved))]]
    return QueryScores(
        measure="ndcg_at_10", queries={"test": {"default": {f"q{place}": one / 100 for place, one in enumerate(every)}}}
    )


def over_queries(parts: list[Any]) -> dict[tuple[str, str], list[str]]:
    found = [part for part in parts if not isinstance(part, str) and part.head[:2] == ("difference", "on")]
    return {(row[0], row[1]): list(row[2:]) for table in found for row in table.rows}


TASKS = {"STS13": 50.0, "SciFact": 30.0, "MyOwn": 40.0}


def test_two_runs_have_the_interval_over_queries_of_each_search_task_and_of_their_mean() -> None:
    ours = {"SciFact": with_queries(32.0), "MyOwn": with_queries(30.0, [50.0, 50.0, 50.0, 50.0, 50.0])}
    theirs = {"SciFact": with_queries(30.0), "MyOwn": with_queries(30.0)}
    parts = comparison([made("a", TASKS), made("b", TASKS)], with_published=False, queries=[ours, theirs])
    found = over_queries(parts)
    assert list(found) == [("a - b", "mean of 2 of 3 tasks"), ("a - b", "MyOwn"), ("a - b", "SciFact")]
    assert found["a - b", "SciFact"] == ["25", "+2.00", "+2.00 to +2.00", "resolved over 25 queries"]
    low, high = map(float, found["a - b", "MyOwn"][2].split(" to "))  # 2 points for each of a binomial count, 25 at 0.2
    assert (low, high) == (2.0, 20.0)
    assert found["a - b", "mean of 2 of 3 tasks"] == ["50", "+6.00", "+2.00 to +11.00", "resolved over 50 queries"]
    assert [part.head[3:] for part in parts[2:4]] == [
        ("over seeds", "over tasks", "verdict"), ("mean", "over queries", "verdict"),
    ], "one beside the other"  # fmt: skip
    shown = printed(parts)
    assert "over tasks and over queries by a paired bootstrap" in shown
    assert "Verdicts on single tasks are corrected for all 2 at once (Holm)." in shown
    assert "missing" not in shown


def test_where_a_run_has_no_scores_of_queries_that_is_said_with_the_remedy() -> None:
    ours = {"SciFact": with_queries(32.0), "MyOwn": with_queries(40.0)}
    parts = comparison(
        [made("a", TASKS), made("old", TASKS)], with_published=False, queries=[ours, {"MyOwn": with_queries(41.0)}]
    )
    assert list(over_queries(parts)) == [("a - old", "mean of 1 of 3 tasks"), ("a - old", "MyOwn")]
    [told] = [part for part in parts if str(part).startswith("Not over queries")]
    assert told == (
        "Not over queries, since scores of single queries are missing in old: SciFact. "
        "python -m speed.evaluate with --queries gives them, where a task's score is the mean of its queries'."
    )
    parts = comparison([made("a", TASKS), made("old", TASKS)], with_published=False)
    assert over_queries(parts) == {}
    assert "are missing in a, old: SciFact, MyOwn." in printed(parts)


def test_without_a_search_task_nothing_is_known_over_queries() -> None:
    tasks = {"STS13": 50.0, "STSBenchmark": 60.0}
    shown = printed(comparison([made("a", tasks), made("b", tasks)], with_published=False))
    assert "Over queries nothing is known: no task is a mean over queries" in shown
    assert "Over queries" not in printed(comparison([made("a", tasks)], with_published=False))


def test_a_task_with_few_or_other_queries_is_named() -> None:
    ours = {"SciFact": with_queries(32.0, count=19), "MyOwn": with_queries(40.0, count=30)}
    theirs = {"SciFact": with_queries(32.0, count=19), "MyOwn": with_queries(40.0, count=29)}
    shown = printed(comparison([made("a", TASKS), made("b", TASKS)], with_published=False, queries=[ours, theirs]))
    assert "Not over queries, since runs have other queries or there are fewer than 20: MyOwn, SciFact." in shown


def test_a_querys_scores_of_several_seeds_are_averaged_first() -> None:
    """Two queries gain 20 points in one seed and lose 20 in the other: nothing is left over both."""
    up, down = {"MyOwn": with_queries(40.0, [20.0, -20.0])}, {"MyOwn": with_queries(40.0, [-20.0, 20.0])}
    base = {"MyOwn": with_queries(39.0)}
    runs = [made(f"r{place}", {"MyOwn": 40.0}) for place in range(4)]
    parts = comparison(runs[:2], with_published=False, against=runs[2:], queries=[up, down, base, base])
    title = "r0 and 1 more - r2 and 1 more"
    assert over_queries(parts)[title, "MyOwn"] == ["25", "+1.00", "+1.00 to +1.00", "resolved over 25 queries"]


def test_the_command_reads_them_from_the_folders_of_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = made("one", {"MyOwn": 40.0})
    for name, place in (("a", "queries"), ("b", f"stages/evaluation/queries/speed__embedder/{one.model}")):
        folder = tmp_path / name
        (folder / place).mkdir(parents=True)
        (folder / place / "MyOwn.json").write_text(with_queries(40.0).model_dump_json())
    (tmp_path / "a" / "evaluation.json").write_text(one.model_dump_json())
    stages = [{"metrics": {"judged": one.model_dump(mode="json")}}]
    (tmp_path / "b" / "summary.json").write_text(json.dumps({"name": "experiment", "stages": stages}))
    main([str(tmp_path / "a"), str(tmp_path / "b")])
    shown = " ".join(capsys.readouterr().out.split())
    assert "one - experiment MyOwn 25 +0.00 +0.00 to +0.00 unresolved over 25 queries" in shown
    main([str(tmp_path / "a" / "evaluation.json"), "--against", str(tmp_path / "b")])
    assert "unresolved over 25 queries" in " ".join(capsys.readouterr().out.split())


# -- as a table --------------------------------------------------------------------------------------------------------


def made_folder(folder: Path, one: EvaluationRecord, queries: QueryScores | None = None) -> Path:
    (folder / "queries").mkdir(parents=True)
    (folder / "evaluation.json").write_text(one.model_dump_json())
    if queries is not None:
        (folder / "queries" / "MyOwn.json").write_text(queries.model_dump_json())
    return folder


def test_differences_as_a_table_are_those_of_the_command(tmp_path: Path) -> None:
    tasks = {f"STS{number}": 50.0 + number for number in range(12, 17)}
    ours = made_folder(tmp_path / "a", made("a", {**tasks, "MyOwn": 50.0}), with_queries(40.0, [50.0] * 5))
    theirs = made_folder(tmp_path / "b", made("b", {**tasks, "MyOwn": 40.0}), with_queries(40.0))
    table = frame(ours, theirs)
    assert list(table["on"]) == ["mean of 6 tasks", "mean of 1 tasks", "MyOwn"]
    assert list(table.over) == ["tasks", "queries", "queries"]
    assert list(table["count"]) == [6, 25, 25]
    assert table["mean"][0] == pytest.approx(10 / 6)
    assert (table.low[2], table.high[2]) == (2.0, 20.0), "as the command has it"
    assert list(table.resolved) == [bool(p < 0.05) for p in table.p]


def test_several_seeds_of_two_recipes_as_a_table(tmp_path: Path) -> None:
    runs = [
        made_folder(tmp_path / f"{name}{seed}", made(f"{name}{seed}", {"STS13": 50.0 + moved + seed}))
        for name, moved in (("a", 2.0), ("b", 0.0))
        for seed in range(3)
    ]
    table = frame(*runs[:3], against=runs[3:])
    assert len(table) == 1
    line = table.iloc[0]
    assert (line.difference, line.over, line["count"]) == ("a0 and 2 more - b0 and 2 more", "seeds", 3)
    assert line["mean"] == pytest.approx(2.0)
    assert line.resolved
    assert frame(runs[0]).empty, "nothing to compare it with"


def test_runs_that_were_not_measured_alike_have_no_table(tmp_path: Path) -> None:
    one, two = made_folder(tmp_path / "a", made("a")), made_folder(tmp_path / "b", made("b", mteb="2.27"))
    with pytest.raises(UserError, match=r"mteb 2\.26 and 2\.27"):
        frame(one, two)
