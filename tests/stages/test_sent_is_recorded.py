"""In every row of every stage that asks the teacher, the prompt on record is the prompt that was sent, in its form."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from pydantic import PrivateAttr
from scripted_judge import Lists, built
from scripted_writer import GivenTasks, GivenTopics

from speed.core.store import Store
from speed.data.answers.accept_or_reject import KEEP
from speed.data.answers.schemas import example_form, judgement_form, revision_form, tasks_form
from speed.data.assignment import Assignment, BrainstormPlan
from speed.data.judging.votes import Judge
from speed.data.mix import Mix
from speed.data.prompts.rendering import Choices, Lengths, PromptsConfig, data_prompt
from speed.data.quality.guidelines import Guidelines
from speed.data.records import Candidates, Kind
from speed.miniature.rules import answer_prompt
from speed.miniature.teacher import RulesTeacher
from speed.miniature.world import world
from speed.ports import Answer, Ask, Check
from speed.runtime import Context
from speed.stages.preferences import Preferences
from speed.stages.revision_data import RevisionData
from speed.stages.seed import SeedData
from speed.stages.tasks import Tasks
from speed.teaching.journal import Journal

PROMPTS = PromptsConfig(
    lengths=Lengths(retrieval_words=(12,), classification_words=Choices(values=("at least 12",)), long_words=24)
)
MIX = Mix()
LONGEST = dict.fromkeys(Kind, 400)


class Heard(RulesTeacher):
    """The rules, with an ear for what they are asked."""

    _asks: list[Ask] = PrivateAttr(default_factory=list)

    def ask(self, requests: Iterable[tuple[Ask, Check]], ctx: Context) -> Iterator[Answer]:
        def heard() -> Iterator[tuple[Ask, Check]]:
            for ask, check in requests:
                self._asks.append(ask)
                yield ask, check

        return super().ask(heard(), ctx)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home").open()


def sent(store: Store) -> Counter[str]:
    """The user's message of every journaled call."""
    return Counter(entry.messages[-1]["content"] for entry in Journal(store.home / "journal"))


def lists(count: int) -> list[Candidates]:
    found = []
    for row, entity in enumerate(world().half("train")[:count]):
        prompt = data_prompt(Kind.STS, "", entity.topic, PROMPTS, random.Random(row))
        texts = tuple(answer_prompt(prompt.text, seed) for seed in range(3))
        found.append(Candidates(row=row, prompt=prompt, texts=texts, finish_reasons=("stop",) * 3))
    return found


def test_brainstorming(store: Store) -> None:
    teacher = Heard(content_retries=0)
    plan = BrainstormPlan(role="seed", seed=0, mix=MIX)
    rows, _ = built(store, Tasks(plan, GivenTopics(), teacher, PROMPTS.of("brainstorm"), 5, 1, 1.0, 400), 64)
    assert sent(store) == Counter(row.prompt.text for row in rows)
    assert all(ask.form == tasks_form() for ask in teacher._asks)
    assert all(row.prompt.slots["request"] == "5" for row in rows)


def test_seed_data(store: Store) -> None:
    teacher = Heard(content_retries=0)
    assignment = Assignment(role="seed", seed=0, mix=MIX, prompts=PROMPTS.of("synthesis"))
    tasks = GivenTasks(BrainstormPlan(role="seed", seed=0, mix=MIX))
    pool = SeedData(
        assignment=assignment, topics=GivenTopics(), tasks=tasks, teacher=teacher, temperature=1.0, max_tokens=LONGEST,
        attempts=1, guidelines=KEEP,
    )  # fmt: skip
    rows, _ = built(store, pool, 69)
    assert sent(store) == Counter(row.prompt.text for row in rows)
    assert all(ask.form == example_form(ask.kind) for ask in teacher._asks if ask.kind)
    assert len(teacher._asks) == 69


def test_rows_are_the_same_bytes_for_one_worker_and_sixteen(tmp_path: Path) -> None:
    written = []
    for concurrency in (1, 16):
        store = Store(tmp_path / str(concurrency)).open()
        assignment = Assignment(role="seed", seed=0, mix=MIX, prompts=PROMPTS.of("synthesis"))
        tasks = GivenTasks(BrainstormPlan(role="seed", seed=0, mix=MIX))
        drops = Guidelines(drop=("query_length",))
        pool = SeedData(
            assignment=assignment, topics=GivenTopics(), tasks=tasks, teacher=RulesTeacher(), temperature=1.0,
            max_tokens=LONGEST, attempts=2, guidelines=drops,
        )  # fmt: skip
        rows, _ = built(store, pool, 46, concurrency=concurrency)
        written.append([path.read_bytes() for path in sorted(store.folder(pool).glob("*.jsonl*"))])
    assert written[0] == written[1] != []
    assert len(rows) == 46


def test_judgements(store: Store) -> None:
    teacher = Heard(content_retries=0)
    given = lists(10)
    judge = Judge(votes=2)
    rows, _ = built(store, Preferences(Lists(tuple(given)), teacher, judge, PROMPTS.of("judge"), 400, 0, KEEP), 10)
    assert sent(store) == Counter(vote.prompt for row in rows for vote in row.votes)
    assert all(ask.form == judgement_form(3) for ask in teacher._asks)
    assert [row.prompt for row in rows] == [found.prompt for found in given]


def test_revisions(store: Store) -> None:
    teacher = Heard(content_retries=0)
    pool = RevisionData(Lists(tuple(lists(10))), teacher, PROMPTS.of("revise"), 1.0, 900, 0, KEEP)
    rows, _ = built(store, pool, 10)
    assert sent(store) == Counter(row.revise_prompt for row in rows)
    assert all(ask.form == revision_form(Kind.STS) for ask in teacher._asks)
    assert len(teacher._asks) == 10
