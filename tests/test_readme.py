"""The README names what is there."""

from __future__ import annotations

import re
from typing import Any

from conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_tree_is_the_tree() -> None:
    """Every file and package directly under speed/, and every folder of the root, stands in the README's tree."""
    [tree] = [block for block in README.split("```")[1::2] if "pipeline.py config.py" in block]
    named = set(re.findall(r"\w+(?:/|\.py)", tree))
    package = {f"{path.name}/" if path.is_dir() else path.name for path in (ROOT / "speed").iterdir()}
    inside = {name for name in package if re.fullmatch(r"[a-z]\w*(/|\.py)", name)}
    outside = {"conf/", "sweeps/", "experiments/", "docs/", "notebooks/", "tests/"}
    assert named - {"speed/", "bench/", "gpu/"} == inside | outside


def test_what_can_be_typed_is_there() -> None:
    """Sweeps and experiments by name, and the doors of the package."""
    for group, names in {
        "conf/experiment": re.findall(r"\+experiment=(\w+)", README),
        "sweeps": re.findall(r"--config-name (\w+)", README),
        "conf/preset": re.findall(r"preset=(\w+)", README),
    }.items():
        assert names
        assert [name for name in names if not (ROOT / group / f"{name}.yaml").is_file()] == []
    doors = {door.replace(".", "/") for door in re.findall(r"python -m (speed[\w.]*)", README)}
    assert [door for door in doors if not (ROOT / f"{door}.py").is_file()] == []


def test_presets_write_as_many_examples_as_the_table_says(compose: Any) -> None:
    told = dict(re.findall(r"^\| `(\w+)` \|.*\| ([\d,]+) \|", README, re.MULTILINE))
    assert set(told) == {file.stem for file in (ROOT / "conf" / "preset").glob("*.yaml")}
    assert told == {preset: f"{compose(f'preset={preset}').scale.examples:,}" for preset in told}
