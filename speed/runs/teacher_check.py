"""`teach_check=true`: some twenty calls that say whether this teacher is good enough for each of its roles.

It brainstorms for each kind, writes two examples of each, judges lists whose best answer is known by their making, in
one order and its reverse, and repairs one. Answers go through the journal: the same check again costs nothing, and a
run does not pay again for the prompts that are its own.
"""

from __future__ import annotations

import math
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

from speed.config import Config
from speed.core.graph import Goal
from speed.core.store import Store
from speed.core.work import Work
from speed.data.answers.parse import example_json, parse_example, parse_judgement, parse_revision, parse_tasks
from speed.data.answers.schemas import example_form, judgement_form, revision_form, tasks_form
from speed.data.assignment import load_topics
from speed.data.costs.prices import estimated_tokens
from speed.data.draws import generator
from speed.data.prompts.rendering import BRAINSTORMED, brainstorm_prompt, data_prompt, judge_prompt, revise_prompt
from speed.data.prompts.worked_examples import example_texts, worked_task
from speed.data.quality.hashed_words import hashed_words
from speed.data.records import Example, Kind, Prompt, Rejected
from speed.ports import Answer, Ask, Check, Encode, Teacher
from speed.runs.glance import Glance
from speed.runs.tables import money
from speed.runtime import Context
from speed.stages.asking import readable
from speed.stages.topics import Topics

EACH = 2
"""Examples asked for of each kind."""
QUIET = 10.0
"""Seconds after which it is said how many answers there are."""
LISTS = 3
"""Lists that are judged, each in two orders."""
CALLS = len(BRAINSTORMED) + EACH * len(Kind) + 2 * LISTS + 1


@dataclass
class Found:
    """What came of the calls."""

    valid: dict[tuple[str, Kind], list[bool]] = field(default_factory=lambda: defaultdict(list))
    causes: Counter[str] = field(default_factory=Counter)
    on_topic: list[bool] = field(default_factory=list)
    copied: int = 0
    """Examples that repeat a text of a worked example, and so are not valid."""
    places: list[int] = field(default_factory=list)
    """Place of the answer that each judgement calls the best."""
    right: list[bool] = field(default_factory=list)
    agreed: list[bool] = field(default_factory=list)
    """Of lists of which both orders were judged: whether the same answer was the best."""
    untried: tuple[str, ...] = ()
    """Settings that make answers easier to read, and that this teacher does not have yet."""

    @property
    def mend(self) -> str:
        """What may make answers readable."""
        first = "".join(f"{each}, " for each in self.untried).removesuffix(", ")
        return f"try {first} or a larger teacher.model" if first else "try a larger teacher.model"

    def share(self, *purposes: str) -> float:
        """Share of valid answers to some purposes."""
        return mean(self._validity(purposes))

    def invalid(self, *purposes: str) -> int:
        """How many answers to some purposes are not valid."""
        return self._validity(purposes).count(False)

    def _validity(self, purposes: tuple[str, ...]) -> list[bool]:
        return [each for (purpose, _), valid in self.valid.items() if purpose in purposes for each in valid]


def mean(values: Sequence[bool]) -> float:
    """Share of what is true; 0 of nothing."""
    return sum(values) / len(values) if values else 0.0


class TeacherCheck:
    """One check."""

    def __init__(self, config: Config, order: Sequence[Goal], store: Store) -> None:
        self._config, self._teacher = config, config.teacher
        self._ctx = Context(store, config.runtime, label="teacher check")
        self._found = Found(untried=untried(config.teacher))
        self._done, self._told = 0, time.monotonic()
        with TemporaryDirectory() as scratch:
            glance = Glance(store, config.runtime, scratch=Path(scratch))
            topics = next(goal.node for goal in order if isinstance(goal.node, Topics))
            self._topics = load_topics(glance.folder(topics))

    def cost(self) -> Work:
        """The price of the calls, about."""
        prompt = self._brainstorm(Kind.RETRIEVAL, 0)
        each = 2 * estimated_tokens(self._teacher.in_front("seed", Kind.RETRIEVAL) + prompt.text)
        return self._teacher.price(CALLS, CALLS * each, CALLS * 150)

    def run(self, encode: Encode | None) -> Found:
        """Make the calls.

        Args:
            encode: tells texts about the same from others; None: hashed words.
        """
        tasks = self._tasks()
        written = self._written(tasks)
        self._measure_topics(written, encode or (lambda texts: [hashed_words(text) for text in texts]))
        self._judged(written)
        self._repaired(written)
        return self._found

    def _brainstorm(self, kind: Kind, number: int) -> Prompt:
        rng = generator(self._config.seed.data, "teacher check", kind.value, number)
        topic = self._topics[int(rng.random() * len(self._topics))]
        return brainstorm_prompt(kind, topic, self._config.diversity.tasks_requested, self._config.prompts, rng)

    def _asked(self, requests: Sequence[tuple[Ask, Check]], teacher: Teacher | None = None) -> Iterator[Answer]:
        answers = (teacher or self._teacher).ask(requests, self._ctx)
        for (ask, check), answer in zip(requests, answers, strict=True):
            cause = answer.cause if answer.cause != "ok" else check(answer.text)
            assert ask.kind is not None
            self._found.valid[ask.purpose, ask.kind].append(not cause)
            if cause:
                self._found.causes[cause] += 1
            self._found.copied += cause == "worked_example" and ask.purpose in ("seed", "revise")
            self._done += 1
            if time.monotonic() - self._told > QUIET:
                self._told = time.monotonic()
                print(f"teacher check: {self._done} of about {CALLS} answers", file=sys.stderr, flush=True)
            yield answer if not cause else answer.model_copy(update={"cause": cause})

    def _tasks(self) -> dict[Kind, list[Prompt]]:
        """Data prompts of each kind, about tasks that the teacher gave; where it gave none, about ours."""
        limits, temperature = self._config.limits, self._config.sampling.teacher
        prompts = [self._brainstorm(kind, 0) for kind in BRAINSTORMED]
        asks = [
            Ask(
                prompt=prompt.text,
                temperature=temperature,
                max_tokens=limits.tasks,
                purpose="brainstorm",
                kind=prompt.kind,
                form=tasks_form(),
            )
            for prompt in prompts
        ]
        check = readable(lambda text: parse_tasks(text, "stop"))
        made: dict[Kind, list[Prompt]] = defaultdict(list)
        answers = self._asked([(ask, check) for ask in asks], self._config.brainstormer)
        for prompt, answer in zip(prompts, answers, strict=True):
            assert prompt.kind is not None
            tasks = parse_tasks(answer.text, "stop")
            known = () if answer.cause != "ok" or isinstance(tasks, Rejected) else tasks
            for number in range(EACH):
                task = known[number % len(known)] if known else worked_task(prompt.kind, number)
                made[prompt.kind].append(self._data_prompt(prompt.kind, task, prompt.topic, number))
        for number in range(EACH):
            rng = generator(self._config.seed.data, "teacher check", "sts", number)
            topic = self._topics[int(rng.random() * len(self._topics))]
            made[Kind.STS].append(self._data_prompt(Kind.STS, "", topic, number))
        return made

    def _data_prompt(self, kind: Kind, task: str, topic: str, number: int) -> Prompt:
        rng = generator(self._config.seed.data, "teacher check prompt", kind.value, number)
        return data_prompt(kind, task, topic, self._config.prompts, rng)

    def _written(self, tasks: dict[Kind, list[Prompt]]) -> list[tuple[Prompt, Example]]:
        """The examples that the teacher writes and that can be read."""
        requests, prompts = [], [prompt for kind in Kind for prompt in tasks[kind]]
        for prompt in prompts:
            assert prompt.kind is not None
            ask = Ask(
                prompt=prompt.text,
                temperature=self._config.sampling.teacher,
                max_tokens=self._config.longest[prompt.kind],
                purpose="seed",
                kind=prompt.kind,
                form=example_form(prompt.kind),
            )
            requests.append((ask, readable(partial(_read, prompt))))
        written = []
        for prompt, answer in zip(prompts, self._asked(requests), strict=True):
            example = _read(prompt, answer.text)
            if answer.cause == "ok" and not isinstance(example, Rejected):
                written.append((prompt, example))
        return written

    def _measure_topics(self, written: list[tuple[Prompt, Example]], encode: Encode) -> None:
        """Whether each example is nearer to its own topic than to those of the others. What all examples share with a
        task, such as its wording, tells nothing and is taken off."""
        if len({prompt.topic for prompt, _ in written}) < 2:
            return
        asked = [f"{prompt.task} {prompt.topic}" for prompt, _ in written]
        texts = [f"{example.query} {example.positive}" for _, example in written]
        vectors = encode([*asked, *texts])
        near = [[_cosine(text, about) for about in vectors[: len(asked)]] for text in vectors[len(asked) :]]
        usual = [fmean(column) for column in zip(*near, strict=True)]
        for (prompt, _), row in zip(written, near, strict=True):
            beyond = [value - level for value, level in zip(row, usual, strict=True)]
            nearest = written[beyond.index(max(beyond))][0]
            self._found.on_topic.append(nearest.topic == prompt.topic)

    def _lists(self, written: list[tuple[Prompt, Example]]) -> list[tuple[Prompt, list[str]]]:
        """Prompts with three answers of which the first alone is whole and about it: one is about something else, one
        is cut off. Where the teacher wrote nothing that can be read, ours stand for its answers."""
        by_kind: dict[Kind, list[tuple[Prompt, str]]] = defaultdict(list)
        for prompt, example in written:
            assert prompt.kind is not None
            by_kind[prompt.kind].append((prompt, example_json(example)))
        lists = []
        for kind in (Kind.RETRIEVAL, Kind.LONG_LONG, Kind.SHORT_SHORT, Kind.CLASSIFICATION):
            own, other = example_texts(kind)[:2]
            if by_kind[kind]:
                prompt, own = by_kind[kind][0]
            else:
                prompt = self._data_prompt(kind, worked_task(kind, 0), "", 0)
            lists.append((prompt, [own, other, own[: len(own) // 2]]))
        return lists[:LISTS]

    def _judged(self, written: list[tuple[Prompt, Example]]) -> None:
        config, requests, orders = self._config, [], []
        for number, (prompt, texts) in enumerate(self._lists(written)):
            first = [(number + step) % len(texts) for step in range(len(texts))]
            for order in (first, first[::-1]):
                asked = judge_prompt(prompt.text, [texts[place] for place in order], config.prompts)
                ask = Ask(
                    prompt=asked.text,
                    temperature=config.judge.temperature,
                    max_tokens=config.limits.judgement,
                    purpose="judge",
                    kind=prompt.kind,
                    form=judgement_form(len(texts)),
                )
                requests.append((ask, readable(lambda text: parse_judgement(text, 3, "stop"))))
                orders.append(order)
        bests: list[int | None] = []
        for order, answer in zip(orders, self._asked(requests), strict=True):
            verdict = parse_judgement(answer.text, len(order), "stop")
            if answer.cause != "ok" or isinstance(verdict, Rejected):
                bests.append(None)
                continue
            self._found.places.append(verdict.best)
            self._found.right.append(order[verdict.best] == 0)
            bests.append(order[verdict.best])
        pairs = zip(bests[::2], bests[1::2], strict=True)
        self._found.agreed = [one == other for one, other in pairs if one is not None and other is not None]

    def _repaired(self, written: list[tuple[Prompt, Example]]) -> None:
        prompt, texts = self._lists(written)[0]  # the answer that is cut off
        kind = prompt.kind
        assert kind is not None
        ask = Ask(
            prompt=revise_prompt(prompt.text, texts[2], self._config.prompts).text,
            temperature=self._config.revisor.temperature,
            max_tokens=self._config.limits.revision,
            purpose="revise",
            kind=kind,
            form=revision_form(kind),
        )
        list(self._asked([(ask, readable(lambda text: parse_revision(kind, prompt.task, text, "stop")))]))


def untried(teacher: Teacher) -> tuple[str, ...]:
    """Settings by which a weak teacher keeps to the form, and which this one has but does not use."""
    wanted = {"structured": "json_schema", "examples": 3}
    return tuple(
        f"teacher.{key}={value}" for key, value in wanted.items() if getattr(teacher, key, value) in ("none", 0)
    )


def announced(config: Config, cost: Work) -> str:
    """What the check will cost, before its first call."""
    return (
        f"teacher check: about {CALLS} calls to {config.teacher.__class__.__name__} "
        f"({getattr(config.teacher, 'model', '')}), about {cost.tokens_in + cost.tokens_out:,} tokens, "
        f"price {money(cost.dollars)}; answers that the journal has cost nothing"
    )


def _read(prompt: Prompt, text: str) -> Example | Rejected:
    assert prompt.kind is not None
    return parse_example(prompt.kind, prompt.task, text, "stop")


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    product = sum(left * right for left, right in zip(one, other, strict=True))
    return product / (math.hypot(*one) * math.hypot(*other) or 1.0)
