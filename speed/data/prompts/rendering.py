"""Prompts: exactly the text that is sent, and every value that was drawn to make it.

Slots, choices and weights are those of E5-mistral's tables 8-13 and of the SPEED authors' code. Each function is pure:
the same arguments and the same state of `rng` give the same prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Literal

from pydantic import Field

from speed.core.content import Content
from speed.core.spec import Json, Spec, fields_of
from speed.data.draws import permutation, weighted_choice
from speed.data.prompts.slots import Choices, Lengths
from speed.data.prompts.wording import SLOTS, Template, list_items, templates
from speed.data.records import STS_INSTRUCTION, Kind, Prompt

Role = Literal["brainstorm", "synthesis", "judge", "revise"]
"""What a prompt is for."""

BRAINSTORMED = (Kind.RETRIEVAL, Kind.CLASSIFICATION, Kind.SHORT_SHORT, Kind.LONG_LONG)
"""Kinds whose tasks are brainstormed; an STS example has one fixed task."""


class PromptsConfig(Spec):
    """Wording, slots and weights of all prompts."""

    path: Content | None = None
    """A folder with own templates (`judge.jinja`, `synthesis/sts.jinja` ...); those it lacks are the package's."""
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
    """Of retrieval and classification."""
    sts_difficulty: Choices = Choices(values=("elementary school", "high school", "college"))
    difficulty_share: float = Field(0.5, ge=0, le=1)
    """How often the difficulty guideline appears (retrieval, classification, STS)."""
    unit: Choices = Choices(values=("sentence", "phrase", "passage"), weights=(0.9, 0.05, 0.05))
    high_scores: tuple[int | float, ...] = Field((4, 4.5, 5), min_length=1)
    """Similarity of S1 and S2 (SPEED, Appendix C.1)."""
    low_scores: tuple[int | float, ...] = Field((2.5, 3, 3.5), min_length=1)
    """Similarity of S1 and S3 (SPEED, Appendix C.1)."""

    def recipe(self) -> Json:
        """Identity: every slot table, and the text of every template; not where the templates lie."""
        return self._recipe(tuple(SLOTS))

    def of(self, role: Role) -> RolePrompts:
        """The part that concerns one role; its recipe is silent about the templates of the others."""
        return RolePrompts(role=role, config=self)

    def template(self, name: str) -> Template:
        """One template by name.

        Raises:
            UserError: when the user's own templates cannot be used.
        """
        return templates(self.path.path if self.path else None)[name]

    def _recipe(self, names: Sequence[str]) -> Json:
        fields = fields_of(self.model_copy(update={"path": None}))
        return {**fields, "templates": {name: self.template(name).sha256 for name in names}}


class RolePrompts(Spec):
    """The prompts of one role, as a stage holds them: rewording the judge leaves the seed data alone."""

    role: Role
    config: PromptsConfig

    def recipe(self) -> Json:
        """Identity: the templates of this role; the slot tables only where they are drawn from."""
        names = [name for name in SLOTS if name.split("/")[0] == self.role]
        if self.role == "synthesis":
            return self.config._recipe(names)
        shas = {name: self.config.template(name).sha256 for name in names}
        return {"templates": shas, "language": self.config.language}


def brainstorm_prompt(kind: Kind, topic: str, request: int, config: PromptsConfig, rng: Random) -> Prompt:
    """Asks the teacher for about `request` tasks of a kind for a topic (paper, Appendix C.1).

    Raises:
        ValueError: for STS, whose task is fixed.
    """
    if kind not in BRAINSTORMED:
        raise ValueError(f"{kind} tasks are not brainstormed: its task is {STS_INSTRUCTION!r}")
    return _prompt(f"brainstorm/{kind}", kind, "", topic, {"request": str(request)}, config, rng)


def data_prompt(kind: Kind, task: str, topic: str, config: PromptsConfig, rng: Random) -> Prompt:
    """Asks for one example of a task; for STS of a topic, whose task is `STS_INSTRUCTION` (paper, Appendix C.1)."""
    slots = _drawn(kind, config, rng)
    task = STS_INSTRUCTION if kind is Kind.STS else task
    return _prompt(f"synthesis/{kind}", kind, task, topic, slots, config, rng)


def judge_prompt(data_prompt: str, shown: Sequence[str], config: PromptsConfig) -> Prompt:
    """Asks the teacher for the best and the worst of the answers, numbered from 0 as shown (paper, Figure 5)."""
    numbered = "\n".join(f"{index}. {text}" for index, text in enumerate(shown))
    return _filled("judge", {"data_prompt": data_prompt, "data_list": numbered}, config)


def revise_prompt(data_prompt: str, example: str, config: PromptsConfig) -> Prompt:
    """Asks for the faults of an answer and for a better one (paper, Figure 6)."""
    return _filled("revise", {"data_prompt": data_prompt, "data_example": example}, config)


def _drawn(kind: Kind, config: PromptsConfig, rng: Random) -> dict[str, str]:
    """The slots of a kind. The order of the draws is part of the recipe: a new slot goes to the end of its kind."""
    lengths = config.lengths
    if kind is Kind.RETRIEVAL:
        return {
            "query_type": config.query_type.draw(rng),
            "query_length": config.query_length.draw(rng),
            "clarity": config.clarity.draw(rng),
            "num_words": str(weighted_choice(rng, lengths.retrieval_words)),
            "difficulty": _difficulty(config.difficulty, config, rng),
        }
    if kind is Kind.CLASSIFICATION:
        return {
            "num_words": lengths.classification_words.draw(rng),
            "clarity": config.clarity.draw(rng),
            "difficulty": _difficulty(config.difficulty, config, rng),
        }
    if kind is Kind.STS:
        return {
            "unit": config.unit.draw(rng),
            "high_score": f"{weighted_choice(rng, config.high_scores):g}",
            "low_score": f"{weighted_choice(rng, config.low_scores):g}",
            "difficulty": _difficulty(config.sts_difficulty, config, rng),
        }
    return {"num_words": str(lengths.long_words)} if kind is Kind.LONG_LONG else {}


def _difficulty(choices: Choices, config: PromptsConfig, rng: Random) -> str:
    """A level, or nothing where the guideline is left out."""
    shown, level = rng.random() < config.difficulty_share, choices.draw(rng)
    return level if shown else ""


def _prompt(
    name: str, kind: Kind, task: str, topic: str, drawn: dict[str, str], config: PromptsConfig, rng: Random
) -> Prompt:
    template = config.template(name)
    drawn = {**drawn, "language": config.language}
    slots = {slot: value for slot, value in drawn.items() if value and slot in template.slots}

    def shuffle(block: str, text: str) -> str:
        items = list_items(text)
        order = permutation(rng, len(items))
        slots[f"{block}_order"] = " ".join(map(str, order))
        return "".join([items[index] for index in order])

    values = {**drawn, "task": task, "topic": topic, "_shuffle": shuffle}
    text = template.filled(values)
    return Prompt(text=text, template=template.label, kind=kind, task=task, topic=topic, slots=slots)


def _filled(name: str, values: dict[str, str], config: PromptsConfig) -> Prompt:
    template = config.template(name)
    text = template.filled({**values, "language": config.language, "_shuffle": lambda block, text: text})
    return Prompt(text=text, template=template.label)


__all__ = [
    "BRAINSTORMED",
    "Choices",
    "Lengths",
    "PromptsConfig",
    "Role",
    "RolePrompts",
    "brainstorm_prompt",
    "data_prompt",
    "judge_prompt",
    "revise_prompt",
]
