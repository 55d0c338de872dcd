"""The README names what is there."""

from __future__ import annotations

import re
from typing import Any

from conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_tree_is_the_tree() -> None:
    [tree] = [block for block in README.split("```")[1::2] if "speed/pipeline.py" in block]
    named = set(re.findall(r"\w[\w/]*(?:/|\.py)(?=[\s;,])", tree))
    backends = {name for name in named if (ROOT / "speed" / "backends" / name).is_dir()}
    paths = named - backends | {f"speed/backends/{name}" for name in backends}
    assert [path for path in paths if not (ROOT / path).exists()] == []
    packages = {f"{file.parent.relative_to(ROOT)}/" for file in (ROOT / "speed").rglob("__init__.py")}
    assert packages <= paths, "a package that the README does not name"


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
