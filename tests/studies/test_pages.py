"""A study's page, table, numbers and picture: complete, from its answer alone, and with hostile text as text."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from made_runs import OFF, made_run

from speed.report import main
from speed.runs.finished_runs import finished_runs
from speed.studies.answer import Answer
from speed.studies.collect import answer
from speed.studies.definition import studies
from speed.studies.pages import comma_separated, latex, main_table, markdown
from speed.studies.picture import draw

HOSTILE = "=cmd()|<script>alert(1)</script>\\input{x} $\\frac$ ```\n# no\n&%_{} [x](javascript:1) \x1b[31m"


def found(home: Path, name: str) -> Answer:
    return answer(studies()[name], finished_runs(home)[0])


@pytest.fixture
def table_2(tmp_path: Path) -> Answer:
    for seed, apart in enumerate((0.0, 0.5, -0.5)):
        made_run(tmp_path, 50 + apart, seed=seed)
        made_run(tmp_path, 40 + apart, seed=seed, preference=OFF, revisor=OFF)
    made_run(tmp_path, 50.2, revisor=OFF)
    return found(tmp_path, "table2")


def test_a_row_has_the_papers_number_ours_its_interval_and_what_it_cost(table_2: Answer) -> None:
    rows = {row[0]: row[1:] for row in main_table(table_2).rows}
    assert rows["SPEED"] == ("63.2", "50.00 ± 1.24", "3", "-", "the reference", "7", "$0.50")
    paper, ours, seeds, apart, verdict, *_ = rows["only SFT"]
    assert (paper, ours, seeds, apart) == ("62.6", "40.00 ± 1.24", "3", "-10.00 (-10.00 to -10.00)")
    assert verdict.startswith("resolved over 3 seeds")
    assert rows["without revisor"][1:3] == ("50.20", "1")
    assert rows["without DPO"][:4] == ("62.8", "-", "-", "-")


def test_a_star_stands_for_what_is_resolved_over_seeds(table_2: Answer) -> None:
    rows = {row[0]: row[4] for row in main_table(table_2, narrow=True).rows}
    assert rows["only SFT"].endswith(" *")
    assert rows["without revisor"].endswith(")"), "one seed, however the tasks may be"


def test_a_page_says_what_is_missing_and_how_to_make_it(table_2: Answer) -> None:
    page = markdown(table_2, "table2.svg")
    assert "Missing: without revisor (seed 1, 2); without DPO (seed 0, 1, 2)." in page
    assert "![Table 2: what DPO and the revisor are worth](table2.svg)" in page
    assert "python -m speed.run -m preference.enabled=false revisor.enabled=true seed=0,1,2\n" in page
    assert "python -m speed.run -m preference.enabled=true revisor.enabled=false seed=1,2\n" in page
    assert "(Holm)" in page
    assert "c0ffee" in page


def test_nothing_is_a_negative_zero(tmp_path: Path) -> None:
    """As a share of flawless examples that is lower by 0.04 points would be, or an entropy of the other sign."""
    for seed, apart in enumerate((0.0, 0.004)):
        made_run(tmp_path, 50, seed=seed, flawless=0.5, entropy=-1e-5)
        made_run(tmp_path, 49.999 + apart, seed=seed, flawless=0.4996, preference=OFF)
    page = found(tmp_path, "table2")
    assert "+0.0 (+0.0 to +0.0)" in "".join("".join(row) for row in main_table(page).rows)
    by_size = found(tmp_path, "figure4")
    for each in (page, by_size):
        texts = [*markdown(each).split(), *latex(each).split()]
        assert not [text for text in texts if text.strip("()-*").replace("0", "") == "." and "-" in text]


@pytest.mark.parametrize(
    ("seeds", "told"),
    [
        ((2, 2, 2), "verdicts at 5 %, corrected for 3 comparisons (Holm)"),
        ((2, 2, 1), "verdicts at 5 %, corrected for 2 comparisons over seeds and 3 comparisons over tasks (Holm)"),
        ((2, 0, 0), "verdicts at 5 %."),
    ],
)
def test_a_page_says_for_how_many_comparisons_it_corrects(tmp_path: Path, seeds: tuple[int, ...], told: str) -> None:
    others = ({"revisor": OFF}, {"preference": OFF}, {"preference": OFF, "revisor": OFF})
    for place, (count, changes) in enumerate(zip((2, *seeds), ({}, *others), strict=True)):
        for seed in range(count):
            made_run(tmp_path, 50 + seed + place * (0.1 + seed), seed=seed, **changes)
    assert told in markdown(found(tmp_path, "table2"))


def test_the_page_follows_from_the_numbers_that_are_kept(table_2: Answer) -> None:
    kept = Answer.model_validate_json(table_2.model_dump_json())
    assert (markdown(kept), latex(kept), comma_separated(kept)) == (
        markdown(table_2), latex(table_2), comma_separated(table_2)
    )  # fmt: skip


def test_a_table_of_pairs_and_one_of_measures(tmp_path: Path) -> None:
    made_run(tmp_path, 50, scale__factor=5)
    pairs = main_table(found(tmp_path, "table1"))
    assert [row[:2] for row in pairs.rows[:3]] == [
        ("SPEED, 920K", "the paper's"), ("SPEED, 920K", "ours"), ("Mistral_gpt-4o, 230K", "the paper's")
    ]  # fmt: skip
    assert pairs.rows[0][3] == "63.4"
    assert pairs.rows[1][2:4] == ("1", "50.00")
    assert len({row[0] for row in pairs.rows}) == 13
    measures = {row[:2]: row[2:] for row in main_table(found(tmp_path, "table5")).rows}
    assert measures["SFT: tokens", "SPEED"] == ("10,000,000", "150", "1")
    assert measures["together: calls", "E5-mistral"] == ("500,000", "-", "-")


def test_hostile_text_of_a_config_stays_text(tmp_path: Path) -> None:
    home = tmp_path / "home"
    made_run(home, 50, revisor=OFF)
    typed = (f"+x={HOSTILE}", "preference.dpo.beta=0.1")
    made_run(home, 51, overrides=typed, sweep="a; b", preference__dpo__beta=HOSTILE, revisor=OFF)
    made_run(home, 52, counts__sft=HOSTILE, revisor=OFF)
    page = found(home, "figure3c")
    texts = {"md": markdown(page), "tex": latex(page), "csv": comma_separated(page)}
    for text in texts.values():
        assert "\x1b" not in text
    head, _, commands = texts["md"].partition("## What is missing\n\n```bash\n")
    assert "<script" not in head
    assert "](javascript" not in head
    assert not any(line.startswith("# no") for line in texts["md"].splitlines())
    inside, fence, after = commands.partition("\n```\n")
    assert fence
    assert all(line.startswith("python -m speed.run ") for line in inside.splitlines())
    assert "<script" not in after
    assert "\\input" not in texts["tex"]
    assert "\\frac" not in texts["tex"]
    row = next(line for line in texts["tex"].splitlines() if "textless" in line and "alert" in line)
    assert row.replace("\\&", "").count("&") == len(main_table(page, narrow=True).head) - 1
    names = {line[1] for line in csv.reader(io.StringIO(texts["csv"])) if "alert" in line[1]}
    assert len(names) == 1
    assert names.pop().startswith("'=cmd()")
    pytest.importorskip("matplotlib")
    assert draw(page, [tmp_path / "a.svg"]) is None
    tags = {element.tag.rpartition("}")[2] for element in ElementTree.parse(tmp_path / "a.svg").iter()}
    assert "script" not in tags


@pytest.mark.parametrize("name", ["table2", "figure3e", "table5"])
def test_the_command_writes_every_format(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    pytest.importorskip("matplotlib")
    home = tmp_path / "home"
    made_run(home, 50)
    made_run(home, 51, seed=1)
    main([name, "--root", str(home), "--seeds", "0,1"])
    told = capsys.readouterr().out
    assert studies()[name].title in told
    written = sorted(path.name for path in (home / "studies").iterdir())
    assert written == [f"{name}.{ending}" for ending in ("csv", "html", "json", "md", "png", "svg", "tex")]
    assert json.loads((home / "studies" / f"{name}.json").read_text())["study"]["name"] == name
    page = (home / "studies" / f"{name}.html").read_text()
    assert page.count("<svg") == 1, "the picture stands in the page"
    assert "style=" not in page
    assert f"]({name}.svg)" in (home / "studies" / f"{name}.md").read_text()
    before = (home / "studies" / f"{name}.svg").read_bytes()
    main([name, "--root", str(home), "--seeds", "0,1"])
    assert (home / "studies" / f"{name}.svg").read_bytes() == before, "the same runs give the same picture"


def test_ticks_of_a_logarithmic_axis_are_plain_numbers(tmp_path: Path) -> None:
    """Mathematics is not parsed in pictures, since names come from configs."""
    pytest.importorskip("matplotlib")
    made_run(tmp_path, 50, calls=30)
    assert draw(found(tmp_path, "table5"), [tmp_path / "a.svg"]) is None
    texts = [each.text or "" for each in ElementTree.parse(tmp_path / "a.svg").iter() if each.tag.endswith("}text")]
    assert not any("$" in text for text in texts)
    numbers = [float(text.replace(",", "")) for text in texts if text.replace(",", "").isdigit()]
    assert len(numbers) >= 2
    assert numbers == sorted(set(numbers))


def test_without_matplotlib_everything_else_is_written_and_the_remedy_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made_run(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    main(["seeds", "--root", str(tmp_path), "--to", str(tmp_path / "out")])
    assert "matplotlib is not installed; pip install" in capsys.readouterr().out
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".csv", ".html", ".json", ".md", ".tex"]
    assert "![" not in (tmp_path / "out" / "seeds.md").read_text()


def test_the_overview_says_how_much_of_each_study_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_run(tmp_path)
    main(["--root", str(tmp_path)])
    rows = {line.split("  ")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert set(studies()) <= set(rows)
    assert "1 of 4" in rows["table2"]
    assert "0 of 6" in rows["figure3a"]


@pytest.mark.parametrize("name", [(), ("table2",)])
@pytest.mark.parametrize("by", ["--root", "SPEED_HOME"])
@pytest.mark.parametrize("root", ["misspelt", "file"])
def test_a_root_that_is_no_folder_is_refused_and_not_made(
    root: str,
    by: str,
    name: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "file").write_text("")
    given = str(tmp_path / root)
    if by == "SPEED_HOME":
        monkeypatch.setenv(by, given)
    with pytest.raises(SystemExit):
        main([*name, *([by, given] if by == "--root" else [])])
    assert f"{given} is no folder: give the root of runs" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_where_nothing_was_run_yet_a_study_says_what_to_type(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPEED_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    main([])
    assert "0 of 4" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    main(["table2"])
    assert "python -m speed.run --config-dir sweeps --config-name ablations" in capsys.readouterr().out


def test_files_are_not_written_into_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_run(tmp_path)
    (tmp_path / "file").write_text("kept")
    with pytest.raises(SystemExit):
        main(["table2", "--root", str(tmp_path), "--to", str(tmp_path / "file")])
    assert f"{tmp_path / 'file'} is a file: give a folder with --to" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "kept"


def test_a_run_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["table2", "--root", str(tmp_path), "--like", "nowhere"])
    assert "nowhere is no finished run of this root" in capsys.readouterr().err


def test_a_page_of_other_runs_says_whose_expectation_and_lesson_it_tells(table_2: Answer) -> None:
    page, [first, *_] = markdown(table_2), table_2.study.learnt
    assert "## Expected, by the study's definition\n" in page
    assert f"## Learnt from the runs of the study's definition\n\n- {first}" in page
    own = markdown(table_2, ours=True)
    assert f"## Learnt\n\n- {first}" in own
    assert "## Expected\n" in own
