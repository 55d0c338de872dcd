"""Render prompts: the exact text that is sent, and all values that were drawn for it.

Slots, choices and weights are those of E5-mistral's Tables 8-13 and of the SPEED authors' code. The same arguments and
the same state of `rng` always give the same prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from random import Random
from typing import Literal

from pydantic import Field, model_validator

from speed.core.content import Content
from speed.core.spec import Json, Spec, fields_of
from speed.data.draws import permutation
from speed.data.prompts.released import released
from speed.data.prompts.slots import Choices, Lengths
from speed.data.prompts.template_files import OURS, SLOTS, Template, Wording, list_items, templates
from speed.data.records import STS_INSTRUCTION, Ground, Kind, Prompt

PromptRole = Literal["brainstorm", "synthesis", "judge", "revise", "grounded", "relevance", "graded"]
"""Purpose of a prompt."""

BRAINSTORMED = (Kind.RETRIEVAL, Kind.CLASSIFICATION, Kind.SHORT_SHORT, Kind.LONG_LONG)
"""Kinds whose tasks are brainstormed; all STS examples have the same task."""


class PromptsConfig(Spec):
    """Templates, slots and weights of all prompts."""

    wording: Wording = "paper"
    """Which of the package's templates are used. Not part of a key: the text of the templates is."""
    path: Content | None = None
    """Folder with own templates (`judge.jinja`, `synthesis/sts.jinja` ...); for the rest, the package's are used. With
    `wording: released` a checkout of the authors' repository."""
    language: str = "English"
    lengths: Lengths = Lengths()
    query_type: Choices = Choices(values=("extremely long-tail", "long-tail", "common"), weights=(0.4, 0.5, 0.1))
    query_length: Choices = Choices(
        values=("less than 5 words", "5 to 15 words", "at least 10 words"), weights=(0.4, 0.4, 0.2)
    )
    clarity: Choices = Choices(
        values=("clear", "understandable with some effort", "ambiguous"), weights=(0.6, 0.2, 0.2)
    )
    difficulty: Choices = Choices(values=("high school", "college", "PhD"))
    """For retrieval and classification."""
    sts_difficulty: Choices = Choices(values=("elementary school", "high school", "college"))
    difficulty_share: float = Field(0.5, ge=0, le=1)
    """Share of prompts with the difficulty guideline (retrieval, classification, STS)."""
    unit: Choices = Choices(values=("sentence", "phrase", "passage"), weights=(0.9, 0.05, 0.05))
    high_scores: tuple[int | float, ...] = Field((4, 4.5, 5), min_length=1)
    """Similarity of S1 and S2 (SPEED, Appendix C.1)."""
    low_scores: tuple[int | float, ...] = Field((2.5, 3, 3.5), min_length=1)
    """Similarity of S1 and S3 (SPEED, Appendix C.1)."""

    @model_validator(mode="after")
    def _as_released(self) -> PromptsConfig:
        """The authors' words are drawn into as the authors draw."""
        if self.wording != "released":
            return self
        if self.path is None:
            raise ValueError("wording=released needs path: a checkout of github.com/haon-chen/SPEED")
        for kind, tables in self.tables.items():
            theirs = released(self.path.path).get(f"synthesis/{kind}")
            for slot, (key, choices) in tables.items():
                draw = theirs and theirs.draws.get(slot)
                if theirs and draw and draw != (choices.values, choices.weights):
                    raise ValueError(f"{theirs.where} draws {slot} from {draw}: set prompts.{key} to that")
            if theirs and theirs.share not in (None, self.difficulty_share):
                raise ValueError(
                    f"{theirs.where} asks for difficulty at another rate: set difficulty_share={theirs.share}"
                )
        return self

    @cached_property
    def tables(self) -> dict[Kind, dict[str, tuple[str, Choices]]]:
        """Slot -> its key and what it is drawn from, for each kind. Their order decides the values: a new slot goes to
        the end."""
        lengths = self.lengths
        return {
            Kind.RETRIEVAL: {
                "query_type": ("query_type", self.query_type),
                "query_length": ("query_length", self.query_length),
                "clarity": ("clarity", self.clarity),
                "num_words": ("lengths.retrieval_words", _uniform(lengths.retrieval_words)),
                "difficulty": ("difficulty", self.difficulty),
            },
            Kind.CLASSIFICATION: {
                "num_words": ("lengths.classification_words", lengths.classification_words),
                "clarity": ("clarity", self.clarity),
                "difficulty": ("difficulty", self.difficulty),
            },
            Kind.STS: {
                "unit": ("unit", self.unit),
                "high_score": ("high_scores", _uniform(self.high_scores)),
                "low_score": ("low_scores", _uniform(self.low_scores)),
                "difficulty": ("sts_difficulty", self.sts_difficulty),
            },
            Kind.SHORT_SHORT: {},
            Kind.LONG_LONG: {"num_words": ("lengths.long_words", _uniform([lengths.long_words]))},
        }

    def draw(self, kind: Kind, rng: Random) -> dict[str, str]:
        """Draw the slots of a kind; difficulty is empty where its guideline is left out."""
        drawn = {}
        for slot, (_, choices) in self.tables[kind].items():
            shown = slot != "difficulty" or rng.random() < self.difficulty_share
            value = choices.draw(rng)
            drawn[slot] = value if shown else ""
        return drawn

    def recipe(self) -> Json:
        """Identity: all slot tables and the text of all templates, but not the folder of the templates."""
        return self._recipe([name for name in SLOTS if name not in OURS])

    def of(self, role: PromptRole) -> RolePrompts:
        """The prompts of one role; their recipe leaves out the templates of the other roles."""
        return RolePrompts(role=role, config=self)

    def template(self, name: str) -> Template:
        """Template of a name.

        Raises:
            UserError: if the user's own templates cannot be used.
        """
        return templates(self.wording, self.path.path if self.path else None)[name]

    def _recipe(self, names: Sequence[str]) -> Json:
        fields = fields_of(self.model_copy(update={"path": None}))
        del fields["wording"]
        return {**fields, "templates": {name: self.template(name).sha256 for name in names}}


class RolePrompts(Spec):
    """The prompts of one role. A stage holds only these, so that rewording the judge does not change the seed data."""

    role: PromptRole
    config: PromptsConfig

    def recipe(self) -> Json:
        """Identity: the templates of this role, and the slot tables if they are drawn from."""
        names = [name for name in SLOTS if name.split("/")[0] == self.role]
        if self.role in ("synthesis", "grounded"):
            return self.config._recipe(names)
        shas = {name: self.config.template(name).sha256 for name in names}
        return {"templates": shas, "language": self.config.language}


def brainstorm_prompt(kind: Kind, topic: str, request: int, config: PromptsConfig, rng: Random) -> Prompt:
    """Ask the teacher for about `request` tasks of a kind for a topic (paper, Appendix C.1).

    Raises:
        ValueError: for STS, whose task is fixed.
    """
    if kind not in BRAINSTORMED:
        raise ValueError(f"{kind} tasks are not brainstormed: its task is {STS_INSTRUCTION!r}")
    return _prompt(f"brainstorm/{kind}", kind, "", topic, {"request": str(request)}, config, rng)


def data_prompt(kind: Kind, task: str, topic: str, config: PromptsConfig, rng: Random) -> Prompt:
    """Ask for one example of a task, or for STS of a topic, with the task `STS_INSTRUCTION` (paper, Appendix C.1)."""
    slots = config.draw(kind, rng)
    task = STS_INSTRUCTION if kind is Kind.STS else task
    return _prompt(f"synthesis/{kind}", kind, task, topic, slots, config, rng)


def query_prompt(task: str, topic: str, ground: Ground, config: PromptsConfig, rng: Random) -> Prompt:
    """Ask for a query that a real passage answers (ours)."""
    slots = config.draw(Kind.RETRIEVAL, rng)
    return _prompt("grounded/query", Kind.RETRIEVAL, task, topic, slots, config, rng, ground)


def judge_prompt(data_prompt: str, shown: Sequence[str], config: PromptsConfig) -> Prompt:
    """Ask a judge for the best and the worst answer, numbered from 0 in the order shown (paper, Figure 5)."""
    numbered = "\n".join(f"{index}. {text}" for index, text in enumerate(shown))
    return _fill("judge", {"data_prompt": data_prompt, "data_list": numbered}, config)


def revise_prompt(data_prompt: str, example: str, config: PromptsConfig) -> Prompt:
    """Ask for the faults of an answer and for a better one (paper, Figure 6)."""
    return _fill("revise", {"data_prompt": data_prompt, "data_example": example}, config)


def relevance_prompt(task: str, query: str, first: str, second: str, config: PromptsConfig) -> Prompt:
    """Ask which of two documents answers a query, or both, or neither (ours)."""
    return _fill("relevance", {"task": task, "query": query, "first": first, "second": second}, config)


def graded_prompt(task: str, query: str, words: int, config: PromptsConfig) -> Prompt:
    """Ask for a document of each level of relevance to a query, of about so many words (ours)."""
    return _fill("graded", {"task": task, "query": query, "num_words": str(words)}, config)


def _uniform(values: Sequence[int | float]) -> Choices:
    return Choices(values=tuple(str(value) if isinstance(value, int) else f"{value:g}" for value in values))


def _prompt(
    name: str,
    kind: Kind,
    task: str,
    topic: str,
    drawn: dict[str, str],
    config: PromptsConfig,
    rng: Random,
    ground: Ground | None = None,
) -> Prompt:
    template = config.template(name)
    drawn = {**drawn, "language": config.language}
    slots = {slot: value for slot, value in drawn.items() if value and slot in template.slots}
    slots = {slot: value for slot, value in slots.items() if template.only_with.get(slot, slot) in slots}

    def shuffle(block: str, text: str) -> str:
        items = list_items(text)
        order = permutation(rng, len(items))
        slots[f"{block}_order"] = " ".join(map(str, order))
        return "".join([items[index] for index in order])

    values = {**drawn, "task": task, "topic": topic, "_shuffle": shuffle}
    if ground is not None:
        values |= {"passage": ground.text, "document": ground.document}
    text = template.fill(values)
    return Prompt(text=text, template=template.label, kind=kind, task=task, topic=topic, slots=slots, ground=ground)


def _fill(name: str, values: dict[str, str], config: PromptsConfig) -> Prompt:
    template = config.template(name)
    text = template.fill({**values, "language": config.language, "_shuffle": lambda block, text: text})
    return Prompt(text=text, template=template.label)
