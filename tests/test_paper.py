"""docs/paper.md says what is: each key of its tables holds the value given there, each file and sweep is there."""

from __future__ import annotations

import re
from functools import reduce
from importlib import import_module
from typing import Any

import pytest
import yaml
from conftest import ROOT

from speed.data.prompts.template_files import OURS, SLOTS

PAGE = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
KEY = re.compile(r"`([^`]+)`(?: \(([^)]*)\))?")


def cells(line: str) -> list[str]:
    """The cells of a row of a table."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


TABLE = [cells(line) for line in PAGE.splitlines() if line.startswith("| ")]
ROWS = [row for row in TABLE if len(row) == 5 and row[2] != "key"]


def test_the_page_holds_the_paper() -> None:
    assert len(ROWS) > 120
    assert {len(row) for row in TABLE} == {2, 4, 5}, "a row of another length: is a | in it?"
    said = " ".join(row[0] for row in ROWS)
    for place in [*(f"Table {number}" for number in range(1, 9)), *(f"Figure {number}" for number in (2, 3, 4, 5, 6))]:
        assert place in said, place


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]}: {row[2]}")
def test_a_row_is_true(raw: Any, row: list[str]) -> None:
    _, _, key, value, remark = row
    if key == "—":
        assert remark, "what is not there needs a reason"
        return
    found = KEY.fullmatch(key)
    assert found, f"{key} is no key, file or sweep in backticks"
    name, more = found[1], (found[2] or "").split()
    if "/" in name:
        assert (ROOT / name).is_file()
        if not name.startswith("sweeps/"):
            assert not value, "a file has no value here"
            return
        [points] = yaml.safe_load((ROOT / name).read_text())["hydra"]["sweeper"]["params"].values()
        assert value == f"`{points}`"
        return
    holds = reduce(lambda values, part: values[part], name.split("."), raw("preset=paper", *more))
    assert yaml.safe_load(value.strip("`")) == holds
    if row[0] == "silent" and "ours" not in remark:
        assert remark, "who chose this value, and why?"


GUIDELINES = [row for row in TABLE if len(row) == 4 and row[0] != "template"]


def test_every_guideline_of_every_template_is_compared() -> None:
    """The words of ours are in the template, and no line of a template is without its row."""
    ours: dict[str, list[str]] = {}
    for template, theirs, words, verdict in GUIDELINES:
        assert theirs
        assert verdict
        ours.setdefault(template.strip("`"), []).append(words.strip("`"))
    assert set(ours) == set(SLOTS) - set(OURS)
    for name in OURS:
        assert f"`speed/data/prompts/templates/{name}.jinja`" in PAGE, "said to be no prompt of the paper"
        text = (ROOT / "speed" / "data" / "prompts" / "templates" / f"{name}.jinja").read_text(encoding="utf-8")
        assert text.startswith("{#- Ours, not the paper's:")
    for name, told in ours.items():
        text = (ROOT / "speed" / "data" / "prompts" / "templates" / f"{name}.jinja").read_text(encoding="utf-8")
        assert [words for words in told if text.count(words) != 1] == [], name
        guidelines = text.partition("guidelines:")[2] if name.split("/")[0] != "brainstorm" else text
        lines = [line for line in guidelines.splitlines() if line.startswith("- ")]
        if name == "synthesis/sts":
            lines = lines[-1:]
        compared = [line for line in lines if any(words in line for words in told)]
        examples = text.partition("one of these:")[2].partition("guidelines:")[0] if "brainstorm" in name else ""
        assert [line for line in lines if line not in compared and line not in examples] == [], name


def test_keys_named_in_remarks_are_there(raw: Any) -> None:
    groups = "|".join(path.name for path in (ROOT / "conf").iterdir() if path.is_dir())
    named = set(re.findall(rf"`((?:{groups})\.[\w.]+)`", PAGE))
    assert named
    for name in named:
        reduce(lambda values, part: values[part], name.split("."), raw("preset=paper"))


def test_options_named_on_the_page_are_there() -> None:
    groups = "|".join(path.name for path in (ROOT / "conf").iterdir() if path.is_dir())
    for group, names in re.findall(rf"\b({groups})=([\w,]+)", PAGE):
        for name in names.split(","):
            assert (ROOT / "conf" / group / f"{name}.yaml").is_file(), f"{group}={name}"


def test_values_in_code_are_those_of_the_page() -> None:
    section = PAGE.partition("## Values that stand in code")[2]
    rows = re.findall(r"^\| (.*) \| `(speed/[\w/]+)\.py` \|$", section, re.MULTILINE)
    told = [(file, *value) for text, file in rows for value in re.findall(r"`([A-Z_]+)` ([\d.]+)", text)]
    assert len(told) > 12
    for file, name, value in told:
        assert getattr(import_module(file.replace("/", ".")), name) == float(value), f"{name} in {file}.py"
