"""What README and docs/ tell a reader to type, and the files that they name, are there."""

from __future__ import annotations

import importlib
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from speed.core.graph import stage_statuses
from speed.core.store import Store
from speed.pipeline import pipeline
from speed.runs.topic_use import MOST_USES, recurring_topics

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PATH = re.compile(r"`((?:speed|conf|sweeps|tests|experiments|notebooks|docs)/[\w./-]*)`")
LINK = re.compile(r"\]\(([\w./-]+)\)")


def commands() -> list[str]:
    """Every line of every ```bash block, once."""
    blocks = [block for page in PAGES for block in FENCE.findall(page.read_text(encoding="utf-8"))]
    lines = (line for block in blocks for line in block.replace("\\\n", " ").splitlines())
    return list(dict.fromkeys(line.strip() for line in lines if line.strip() and not line.startswith("#")))


def option(words: list[str], name: str, default: str) -> str:
    """Take `--name value` out of the words."""
    if name not in words:
        return default
    place = words.index(name)
    _, value = words[place : place + 2]
    del words[place : place + 2]
    return value


def test_there_is_something_to_type() -> None:
    assert len(commands()) > 30


@pytest.mark.parametrize("command", commands())
def test_commands(compose: Any, command: str) -> None:
    """A run composes, another entry point reads its arguments, a script or make target exists."""
    words = shlex.split(command)
    if words[0] == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert [word for word in words[1:] if "=" not in word and word not in targets] == []
    elif words[0] == "pip":
        extras = re.findall(r"\.\[([\w,]+)\]", command)
        project = (ROOT / "pyproject.toml").read_text()
        assert [each for extra in extras for each in extra.split(",") if f"\n{each} = [" not in project] == []
    elif words[:3] == ["python", "-m", "speed.run"]:
        overrides = words[3:]
        folder, config = option(overrides, "--config-dir", "sweeps"), option(overrides, "--config-name", "config")
        assert folder == "sweeps"
        swept = config != "config" or "-m" in overrides
        drawn = [re.sub(r"=(tag\(log, *)?interval\(([\d.e-]+),.*", r"=\2", each) for each in overrides]
        sweep = [each.split(",")[0] if swept and "[" not in each else each for each in drawn]
        compose(
            *(each for each in sweep if each not in ("--help", "-m") and not each.startswith("hydra")), config=config
        )
    elif words[:2] == ["python", "-m"]:
        importlib.import_module(words[2]).parser().parse_args(words[3:])
    else:
        assert words[0] in ("python", "bash"), command
        assert (ROOT / words[1]).is_file(), command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_and_links(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    written = set(re.findall(r"^`([\w./-]+)`:$", text, re.MULTILINE))  # by a worked example of docs/extend.md
    named = {path for path in PATH.findall(text) if "*" not in path} - written
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []
    assert [link for link in LINK.findall(text) if not (page.parent / link).exists()] == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


DESIGN = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")


def test_the_design_answers_each_question_with_one_path() -> None:
    tables = re.findall(r"^\| question \| file \|\n\|[-|]+\|\n((?:\|.*\n)+)", DESIGN, re.MULTILINE)
    assert len(tables) == 2
    for row in "".join(tables).splitlines():
        assert len(PATH.findall(row)) == row.count("`") / 2 == 1, row


def test_the_design_says_what_every_file_of_teaching_is_for() -> None:
    files = {path.name for path in (ROOT / "speed" / "teaching").glob("*.py")} - {"__init__.py"}
    assert files == set(re.findall(r"`speed/teaching/(\w+\.py)`", DESIGN))


def test_the_layers_of_the_design_are_those_of_the_linter() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    [layers] = [each["layers"] for each in contracts["contracts"] if each["name"] == "Arrows point down"]
    [block] = re.findall(r"^## Layers\n\n```\n(.*?)^```$", DESIGN, re.MULTILINE | re.DOTALL)
    told = [re.split(r" {3,}", line)[0].split() for line in block.splitlines()]
    assert [sorted(re.sub(r"/$|\.py$", "", name) for name in names) for names in told] == [
        sorted(each.strip().removeprefix("speed.") for each in layer.split("|")) for layer in layers
    ]


def test_the_table_of_records_has_every_stage_that_writes_some() -> None:
    page = (ROOT / "docs" / "topics_and_data.md").read_text(encoding="utf-8").partition("## Records")[2]
    links = re.findall(r"`([\w-]+)`", " ".join(re.findall(r"^\| (`.*?) \|", page, re.MULTILINE)))
    code = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "speed" / "stages").glob("*.py")))
    names = set(re.findall(r'^    name: ClassVar\[str\] = "([\w ]+)"', code, re.MULTILINE))
    models = {"junior", "senior", "revisor", "given model", "instruct model", "embedder", "evaluation"}
    assert models < names
    missing = [name for name in names - models if not any(link.startswith(name.replace(" ", "-")) for link in links)]
    assert missing == []


SHOWN = [
    *PAGES,
    *sorted(ROOT.glob("conf/*/*.yaml")),
    *sorted(ROOT.glob("sweeps/*.yaml")),
    ROOT / "experiments/slurm.sh",
]
"""Where commands are shown, also in comments."""


def test_a_command_at_the_papers_scale_names_its_topics() -> None:
    """The topics that are shipped are too few to pay for; plans, probes and rules that answer at once take them."""
    lines = [line for file in SHOWN for line in file.read_text(encoding="utf-8").splitlines()]
    large = [line for line in lines if re.search(r"(speed\.run|sbatch) .*preset=(paper|one_gpu)", line)]
    runs = [line for line in large if not re.search(r"(plan|probe|preview)=true|--cfg|dry_run", line)]
    assert len(runs) > 3
    assert [line for line in runs if "topics.path=" not in line] == []


def test_a_preset_whose_topics_are_too_few_to_pay_for_says_so(compose: Any, tmp_path: Path) -> None:
    told, refused = set(), set()
    for file in sorted((ROOT / "conf" / "preset").glob("*.yaml")):
        config = compose(f"preset={file.stem}")
        found = stage_statuses(pipeline(config).goals(), Store(tmp_path / "home"))
        use = recurring_topics(found, Store(tmp_path / "home"))
        if use is not None and use.times > MOST_USES and config.teacher.costs_money(config.runtime):
            refused.add(file.stem)
            figures = f"{use.topics} topics", f"{round(use.times)} times", f"{-(-use.draws // MOST_USES):,}"
            for page in ("README.md", "docs/scale.md"):
                assert all(figure in (ROOT / page).read_text(encoding="utf-8") for figure in figures)
        if "topics.path=" in file.read_text(encoding="utf-8"):
            told.add(file.stem)
    assert told == refused == {"one_gpu", "paper"}
