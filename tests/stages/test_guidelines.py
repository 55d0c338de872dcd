"""A repair that breaks a guideline that drops is none: neither the teacher's, nor the revisor's."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Literal

import pytest
from scripted_judge import Lists, Scripted, built
from scripted_writer import GivenTasks, GivenTopics, NoWeights, Writer

from speed.core.store import Store
from speed.data.answers.accept_or_reject import KEEP
from speed.data.assignment import Assignment, BrainstormPlan
from speed.data.mix import Mix
from speed.data.prompts.rendering import PromptsConfig, data_prompt
from speed.data.quality.guidelines import Guidelines
from speed.data.records import Candidates, Kind
from speed.ports import Ask, Generate, Sampling
from speed.stages.revision_data import RevisionData
from speed.stages.revision_pass import RevisionPass
from speed.stages.synthesis import Synthesis

PROMPTS = PromptsConfig()
SHORTS = Mix(retrieval=0, classification=0, sts=0, short_short=1, long_long=0)
LONGEST = dict.fromkeys(Kind, 100)
CLEAN = {"input": "a proverb", "positive_document": "its lesson"}
SAME = {"input": "a proverb", "positive_document": "A proverb."}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home").open()


def repaired(row: int) -> str:
    """Every third repair says the same twice."""
    return json.dumps({"reason": "r", "revision": SAME if row % 3 == 0 else CLEAN})


def repairs(model: str, ask: Ask) -> str:
    return repaired(ask.index)


def test_of_the_teacher(store: Store) -> None:
    lists = []
    for row in range(6):
        prompt = data_prompt(Kind.SHORT_SHORT, "Match.", "Arts", PROMPTS, random.Random(row))
        lists.append(Candidates(row=row, prompt=prompt, texts=(json.dumps(CLEAN),), finish_reasons=("stop",)))

    def revisions(guidelines: Guidelines) -> list[str | None]:
        teacher, prompts = Scripted.saying(repairs), PROMPTS.of("revise")
        rows, manifests = built(store, RevisionData(Lists(tuple(lists)), teacher, prompts, 1.0, 99, 0, guidelines), 6)
        causes = [row.rejected for row in rows]
        assert manifests[0].rejected == ({"same_texts": 2} if any(causes) else {})
        # A repair that says the same twice keeps 2 of 4 words and puts in 3.
        figures = [manifests[0].metrics[name] for name in ("unchanged_share", "words_kept", "words_edited")]
        assert figures == ([1.0, 1.0, 0.0] if any(causes) else [0.6667, round(20 / 24, 4), round(10 / 6, 4)])
        return causes

    assert revisions(KEEP) == [None] * 6
    assert revisions(Guidelines(drop="all")) == ["same_texts", None, None] * 2
    assert revisions(Guidelines(drop=("unit",))) == [None] * 6


def written(one: Generate) -> str:
    """As the writer: every second example says the same twice. As the revisor: see `repaired`."""
    row = int(one.key)
    return repaired(row) if "revised version" in one.prompt else json.dumps(SAME if row % 2 else CLEAN)


@pytest.mark.parametrize(
    ("on_failure", "expected"),
    [
        # Row 0 keeps its clean original, row 3 had none; the others are repaired.
        ("keep_original", [None, None, None, "same_texts", None, None]),
        ("drop", ["same_texts", None, None, "same_texts", None, None]),
    ],
)
def test_of_the_revisor(store: Store, on_failure: Literal["keep_original", "drop"], expected: list[str | None]) -> None:
    engine, drops = Writer.writing(written), Guidelines(drop="all")
    assignment = Assignment(role="synthesis", seed=0, mix=SHORTS, prompts=PROMPTS.of("synthesis"))
    tasks = GivenTasks(BrainstormPlan(role="synthesis", seed=0, mix=SHORTS))
    warm = Sampling(temperature=1.0)
    samples = Synthesis(
        writer=NoWeights(), assignment=assignment, topics=GivenTopics(), tasks=tasks, engine=engine, sampling=warm,
        max_tokens=LONGEST, seed=0, attempts=1, guidelines=drops,
    )  # fmt: skip
    prompts = PROMPTS.of("revise")
    pool = RevisionPass(
        samples=samples, revisor=NoWeights(), engine=engine, sampling=warm, prompts=prompts, max_tokens=LONGEST,
        on_failure=on_failure, seed=0, guidelines=drops,
    )  # fmt: skip
    rows, manifests = built(store, pool, 6)
    assert [row.rejected for row in rows] == expected
    assert all(not row.faults for row in rows if row.rejected is None)
    assert manifests[0].counts["revision failed: same_texts"] == 8  # of a block of 23
    assert [row.revised for row in rows[1:3]] == [True, True]
    # Of the 15 repairs of a block 8 leave a clean original as it was; 7 keep 2 of 5 words of one that was not clean.
    figures = [manifests[0].metrics[name] for name in ("unchanged_share", "words_kept", "words_edited")]
    assert figures == [round(8 / 15, 4), round(46 / 67, 4), round(35 / 15, 4)]
