"""Calls and examples that conf/, sweeps/, README and docs/ name are those of the plan."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from conftest import ROOT
from plans import Planned, config_of, planned, points, together, work_of

from speed.core.content import noted_absence
from speed.data.assignment import BrainstormPlan
from speed.data.quality.contaminated_records import RECORDS
from speed.data.records import Kind
from speed.data.topics.sources import TopicsConfig, read_topics
from speed.pipeline import pipeline

FILES = [*sorted((ROOT / "conf").rglob("*.yaml")), *sorted((ROOT / "sweeps").glob("*.yaml"))]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COUNTS = r"[\d,]+(?: · [\d,]+)*"
SAID = re.compile(
    rf"At preset=(\w+): ({COUNTS}) (?:raw|given) examples; ({COUNTS}) calls to the teacher, and ({COUNTS}) for "
    rf"brainstorming(?:; all points together: ([\d,]+) and ([\d,]+))?\."
)
"""How a preset, an experiment or a sweep says its size; a sweep's points in their order, or once where all have one."""
COUNT = re.compile(r"(?<![\w.])(\d[\d,.]*[KM]?) (?:more )?(?:raw |seed |judged )?(calls|examples|revisions)\b")
KNOWN = {
    "conf/counts/paper.yaml": {"10K calls": 10_000},
    "conf/diversity/paper.yaml": {"3.3 examples": None},
    "conf/embedder/mistral_7b.yaml": {"230K examples": 230_000},
    "conf/experiment/teacher_data.yaml": {"205,000 calls": 230_000 - 25_000},
    "conf/scale/paper_1150k.yaml": {"1.15M examples": 1_150_000},
    "conf/scale/paper_230k.yaml": {"230K examples": 230_000},
    "docs/design.md": {"28,750 examples": 28_750},
    "docs/evaluate.md": {"250,000 examples": RECORDS},
    "docs/laptop.md": {"2,300 examples": 2_300},
    "docs/paper.md": {
        "920K examples": None,
        "230,000 calls": 230_000,
        "500K calls": None,
        "10K calls": 10_000,
        "100K examples": 100_000,
        "50K revisions": 50_000,
        "1.15M examples": 1_150_000,
        "230K examples": 230_000,
        "1,150,000 examples": 1_150_000,
    },
    "docs/teachers.md": {"2 examples": None, "10 examples": None},  # of a check of twenty calls
    "docs/topics_and_data.md": {"1.15M examples": 1_150_000},
    "sweeps/tasks_per_topic.yaml": {"17,392 examples": 17_392},
}
"""Counts within sentences, and what the plans below say of them; None: no plan's, but the paper's or a screen's."""


def prose(path: Path) -> str:
    """A page's text, or the comments of a file of options, in one line."""
    text = path.read_text(encoding="utf-8")
    lines = [line.partition("#")[2] for line in text.splitlines()] if path.suffix == ".yaml" else text.splitlines()
    return " ".join(line.strip() for line in lines)


def numbers(said: str) -> list[int]:
    """`4,500 · 60` as numbers."""
    return [int(each.replace(",", "")) for each in said.split(" · ")]


def size(count: str) -> float:
    """`1.15M` as a number."""
    unit = {"K": 1_000, "M": 1_000_000}.get(count[-1], 1)
    return round(float(count.rstrip("KM").replace(",", "")) * unit, 6)


SPEAKING = [path for path in FILES if path.parent.name in ("preset", "experiment", "sweeps")]


@pytest.mark.parametrize("path", SPEAKING, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_what_a_preset_experiment_or_sweep_says_of_itself(path: Path) -> None:
    found = SAID.search(prose(path))
    assert found, "say `At preset=...: ... raw examples; ... calls to the teacher, and ... for brainstorming.`"
    preset, *said, calls, brainstorming = found.groups()
    if path.parent.name == "sweeps":
        plans = [planned(f"preset={preset}", *point, config=path.stem) for point in points(path.stem, preset)]
        assert (*numbers(calls), *numbers(brainstorming)) == together(path.stem, preset)
    else:
        experiment = (f"+experiment={path.stem}",) if path.parent.name == "experiment" else ()
        plans = [planned(f"preset={preset}", *experiment)]
    for column, name in zip(said, Planned._fields, strict=True):
        planned_here = [getattr(plan, name) for plan in plans]
        assert numbers(column) == (planned_here[:1] if len(set(planned_here)) == 1 else planned_here), name


@pytest.mark.parametrize("path", FILES + PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_count_stands_where_no_plan_is_asked(path: Path) -> None:
    """A new count in a comment or page is either said as above, or listed in KNOWN with what it must be."""
    text = SAID.sub("", prose(path))
    found = {f"{count} {what}": size(count) for count, what in COUNT.findall(text)}
    known = KNOWN.get(str(path.relative_to(ROOT)), {})
    assert set(found) == set(known)
    assert {name: value for name, value in found.items() if known[name] is not None} == {
        name: value for name, value in known.items() if value is not None
    }


def test_the_sizes_in_sentences_are_those_of_the_plans() -> None:
    paper, counts = planned("preset=paper"), config_of("preset=paper").counts
    assert (counts.sft, counts.pairs, counts.revisions) == (25_000, 10_000, 10_000)
    assert (paper.examples, paper.calls) == (230_000, 25_000 + 10_000 + 10_000)
    assert planned("preset=paper", "+experiment=speed_920k").examples == 1_150_000
    assert planned("preset=paper", "scale=paper_1150k") == planned("preset=paper", "+experiment=speed_920k")
    assert planned("preset=paper", "+experiment=teacher_data").calls == 230_000
    sizes = [planned("preset=paper", *point, config="scaling").examples for point in points("scaling", "paper")]
    assert sizes == [28_750, 57_500, 115_000, 230_000, 460_000, 920_000, 1_150_000]
    seed = config_of("preset=paper").scale.mix.counts(25_000)
    assert 25_000 - seed[Kind.STS] == 17_392
    assert [round(25_000 * float(point[0].split("=")[1])) for point in points("sft")][-1] == 100_000
    assert [round(10_000 * float(point[0].split("=")[1])) for point in points("revisions")][-1] == 50_000


GOLDEN: dict[str, dict[str, list[int]]] = json.loads((ROOT / "tests" / "golden_plans.json").read_text())
"""Rows, calls, texts to generate and records to train on, by stage: the rows of Table 1 that can be made (as its study
has them), and the points of Table 3 and Figure 4, at preset=paper."""


def golden_commands() -> list[str]:
    """Command lines without `preset=paper`."""
    table_1 = ("teacher_data", "baseline_llama3", "baseline_llama3 scale.factor=5", "speed_920k", "full_data")
    sweeps = ("tasks_per_topic", "scaling")
    named = [f"+experiment={each}" for each in table_1]
    return named + [" ".join((f"--config-name {name}", *point)) for name in sweeps for point in points(name, "paper")]


@pytest.mark.parametrize("command", golden_commands())
def test_golden_plans(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = command.removeprefix("--config-name ").split()
    config = words.pop(0) if words != command.split() else "config"
    monkeypatch.setenv("SPEED_LABELLED", "nowhere")
    with noted_absence():
        goals = pipeline(config_of("preset=paper", *words, config=config)).goals()
        found = {goal.label: (goal, work_of(goal)) for goal in goals}
    assert {
        label: [goal.rows, work.calls, work.generated, work.trained] for label, (goal, work) in found.items()
    } == GOLDEN[command]


def test_the_topics_that_a_corpus_needs() -> None:
    """The table of docs/topics_and_data.md: brainstorm calls of a kind, and STS examples, by size."""
    page = (ROOT / "docs" / "topics_and_data.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|$", page, re.MULTILINE)
    assert [numbers(row[0])[0] for row in rows] == [230_000, 1_150_000]
    for examples, calls, sts in ([numbers(cell)[0] for cell in row] for row in rows):
        goals = pipeline(config_of("preset=paper", f"scale.examples={examples}")).goals()
        [tasks] = [goal for goal in goals if goal.label == "tasks for synthesis"]
        plan: BrainstormPlan = tasks.node.plan  # type: ignore[attr-defined]
        assert plan.asked.counts(tasks.rows)[Kind.RETRIEVAL] == calls
        assert plan.mix.counts(examples)[Kind.STS] == sts
    builtin, miniature = (len(list(read_topics(topics))) for topics in (TopicsConfig(), config_of().topics))
    for count, where in ((builtin, "`builtin` | {} paths"), (miniature, "`miniature` (default) | {} topics")):
        assert where.format(f"{count:,}") in page
