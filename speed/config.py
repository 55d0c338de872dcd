"""The whole experiment on one page. conf/ holds the values, each with its section or table of the paper.

Hydra composes plain data; `Config.model_validate` closes the world: unknown keys, wrong types and values out of
range are all reported at once (DESIGN D1).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializeAsAny, ValidationError, model_validator

from speed.core.content import ModelReference
from speed.core.errors import UserError
from speed.core.spec import Spec
from speed.data.judging.votes import Judge
from speed.data.mix import Mix
from speed.data.prompts.rendering import PromptsConfig
from speed.data.quality.guidelines import Guidelines
from speed.data.quality.near_duplicates import MinHashConfig
from speed.data.records import Kind
from speed.data.topics.sources import TopicsConfig
from speed.ports import Dpo, EmbedderTrainer, Engine, Evaluator, Sampling, Sft, Teacher, Tracker, Trainer
from speed.runtime import Runtime


class Seeds(Spec):
    """All randomness. `seed=3` sets the last two: a seed sweep re-buys no teacher answer (DESIGN D7)."""

    data: int = Field(0, ge=0)
    """Topics, tasks, prompts, orders: everything that a teacher's answer depends on."""
    sample: int = Field(0, ge=0)
    """What small models generate."""
    train: int = Field(0, ge=0)
    """Order of training data, new adapters."""

    @model_validator(mode="before")
    @classmethod
    def _from_one(cls, value: object) -> object:
        one = isinstance(value, int) and not isinstance(value, bool)
        return {"sample": value, "train": value} if one else value


class Diversity(Spec):
    """How varied tasks are (paper, Table 3: the largest effects that it reports)."""

    tasks_per_topic: int = Field(ge=1)
    tasks_requested: int = Field(ge=1)
    """Length of the list that a brainstorm call asks for; `tasks_per_topic` of it are kept."""
    samples_per_task: int = Field(ge=1)
    truncate: bool
    """Cut topics deeper than four levels to their first two and last two (paper, Appendix D.1)."""

    @model_validator(mode="after")
    def _enough(self) -> Diversity:
        if self.tasks_per_topic > self.tasks_requested:
            raise ValueError(
                f"tasks_per_topic={self.tasks_per_topic} is more than tasks_requested={self.tasks_requested}: "
                "a list cannot give more tasks than were asked for"
            )
        return self


class Counts(Spec):
    """How much the teacher is asked (paper, Table 5). Each factor is an axis that every preset can be swept along."""

    sft: int = Field(ge=1)
    """Seed examples for the junior."""
    sft_factor: float = Field(1.0, gt=0)
    sft_attempts: int = Field(1, ge=1)
    """Candidates that a seed example may take. 1: as many examples as candidates are accepted. More: exactly `sft`
    examples in the exact mix, by at most `sft * sft_attempts` calls; what is short after that is reported."""
    pairs: int = Field(ge=1)
    """Lists judged for the senior."""
    pairs_factor: float = Field(1.0, gt=0)
    revisions: int = Field(ge=1)
    """Root answers repaired for the revisor."""
    revisions_factor: float = Field(1.0, gt=0)
    candidates: int = Field(ge=2)
    """Answers in a list, K (paper, Figure 5: 5)."""


class Scale(Spec):
    """How much the aligned models write."""

    examples: int = Field(ge=1)
    """Raw examples, before dedup (paper: 230K in ablations, 1.15M in the main table)."""
    factor: float = Field(1.0, gt=0)
    """Multiplies `examples`: the scaling law's axis."""
    attempts: int = Field(1, ge=1)
    """Candidates that a synthetic example may take, as `counts.sft_attempts`."""
    keep: int | None = Field(None, ge=2)
    """Examples of the corpus that the embedder learns from, by the mix and in order; null: all. It makes corpora
    comparable that lose different shares on the way."""
    writer: Literal["models", "teacher"] = "models"
    """Who writes the corpus: the aligned small models (the paper), or the teacher itself, as a comparison."""
    mix: Mix


class Limits(Spec):
    """Longest answers, in tokens, whoever writes them."""

    example: dict[Kind, int]
    tasks: int = Field(ge=1)
    judgement: int = Field(ge=1)
    revision: int = Field(ge=1)


class Generator(Spec):
    """The small model, and how the junior is trained."""

    base: ModelReference
    sft: Sft


class Samplings(Spec):
    """Temperatures of everything that is drawn (paper, Appendix B: 1.0 for synthesis, 0.0 for the judge)."""

    teacher: float = Field(ge=0, le=2)
    """Of the teacher when it brainstorms and writes seed data."""
    root: Sampling
    synthesis: Sampling
    revision: Sampling


class PreferenceConfig(Spec):
    """The senior's training, or none."""

    enabled: bool
    pairs: Literal["judged", "verified", "fields"] = "judged"
    """Who prefers: the teacher (paper); the guidelines of the prompt alone, without a call; or the guidelines field by
    field, the junior itself writing the better continuation."""
    dpo: Dpo | None = None

    @model_validator(mode="after")
    def _complete(self) -> PreferenceConfig:
        if self.enabled and self.dpo is None:
            raise ValueError("enabled preference training needs preference.dpo; take an option of the group preference")
        return self


class RevisorConfig(Spec):
    """The revisor's training, or none."""

    enabled: bool
    sft: Sft | None = None
    temperature: float = Field(1.0, ge=0, le=2)
    """Of the teacher when it revises."""
    target: Literal["reason+revision", "revision"] = "reason+revision"
    on_failure: Literal["keep_original", "drop"] = "keep_original"
    trainer: SerializeAsAny[Trainer] | None = None
    """Trainer of the revisor alone; null: the one of the generators."""

    @model_validator(mode="after")
    def _complete(self) -> RevisorConfig:
        if self.enabled and self.sft is None:
            raise ValueError("an enabled revisor needs revisor.sft; take an option of the group revisor")
        return self


class DedupConfig(Spec):
    """What counts as a repeat."""

    minhash: MinHashConfig | None
    """Null keeps everything."""


class Config(Spec):
    """One experiment."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.+-]+$")
    """Names the run's folder and its line in the ledger."""
    plan: bool = False
    """Say what would be done and what it would cost; build nothing."""
    preview: bool = False
    """Show prompts as the teacher would be sent them; ask and build nothing."""
    status: bool = False
    """Say how the runs of this root stand; build nothing."""
    verify: bool = False
    """Check the sha256 of everything built before starting."""
    seed: Seeds
    topics: TopicsConfig
    diversity: Diversity
    prompts: PromptsConfig
    limits: Limits
    teacher: SerializeAsAny[Teacher]
    sampling: Samplings
    generator: Generator
    trainer: SerializeAsAny[Trainer]
    engine: SerializeAsAny[Engine]
    counts: Counts
    judge: Judge
    guidelines: Guidelines
    preference: PreferenceConfig
    revisor: RevisorConfig
    scale: Scale
    dedup: DedupConfig
    embedder: SerializeAsAny[EmbedderTrainer]
    eval: SerializeAsAny[Evaluator]
    tracker: SerializeAsAny[Tracker]
    runtime: Runtime

    @model_validator(mode="after")
    def _judged_as_trained(self) -> Config:
        if self.eval.instructs and not self.embedder.instructs:
            raise ValueError(
                "embedder.instruction is {query} alone, so nothing is trained with an instruction, and "
                "eval.protocol=e5 would put one in front of every query; set eval.protocol=native"
            )
        return self

    @property
    def asked(self) -> list[Teacher]:
        """Every teacher that may be asked: the one that writes, and the judges that are named."""
        return [self.teacher, *map(self.teacher.named, self.judge.models)]


def validated(values: dict[str, Any]) -> Config:
    """The config of composed values.

    Raises:
        UserError: naming every wrong key at once, with its value and what it should be.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise UserError("the config has mistakes:\n" + explanation(error)) from error


def explanation(error: ValidationError, prefix: str = "") -> str:
    """One line a mistake: the key, the value, what is wrong."""
    lines = []
    for mistake in error.errors():
        key = ".".join([prefix, *map(str, mistake["loc"])]).strip(".")
        if mistake["type"] == "extra_forbidden":
            lines.append(f"  {key}: there is no such key; see `python -m speed.run --cfg job` for those there are")
            continue
        given = "" if mistake["type"] == "missing" else f" (given: {str(mistake['input'])[:80]})"
        lines.append(f"  {key}: {mistake['msg'].removeprefix('Value error, ')}{given}")
    return "\n".join(lines)
