"""The whole configuration on one page: which keys there are, and what each means. conf/ has values and sources.

Hydra composes plain data; `Config.model_validate` refuses unknown keys, wrong types and values out of range, and
reports all of them at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Literal, get_args

from pydantic import BaseModel, Field, SerializeAsAny, ValidationError, field_validator, model_validator

from speed.core.content import Content, ModelReference
from speed.core.errors import UserError
from speed.core.spec import Spec
from speed.data.answer_lengths import longest_answer
from speed.data.assignment import ROUNDS
from speed.data.given_records import Part, corpus_file
from speed.data.judging.votes import Judge
from speed.data.mix import Mix
from speed.data.prompts.rendering import PromptsConfig
from speed.data.quality.guidelines import Guidelines
from speed.data.quality.minhash import MinHashConfig
from speed.data.quality.negative_rules import NegativeRules
from speed.data.records import Kind
from speed.data.topics.sources import TopicsConfig
from speed.data.trainings import Dpo, Sft
from speed.ports import EmbedderTrainer, Engine, Evaluator, FormatName, Retriever, Sampling, Teacher, Tracker, Trainer
from speed.runtime import Runtime

FORMER_OPTIONS = {
    ("preference", "miniature"): "preference=dpo senior=miniature",
    ("preference", "smoke"): "preference=dpo senior=smoke",
}
"""Options that are kept for commands and files which users wrote, and what to write today."""


def former_options(choices: Mapping[str, Any]) -> Iterator[str]:
    """A note for each chosen option (by group) that has another name today."""
    for (group, option), today in FORMER_OPTIONS.items():
        if choices.get(group) == option:
            yield f"{group}={option} is a former name, with the same values: {today}"


class Seeds(Spec):
    """All randomness. `seed=3` sets `sample` and `train` alone, so that a sweep over seeds buys no answer again."""

    data: int = Field(0, ge=0)
    """Topics, tasks, prompts, orders: everything that the teacher's answers depend on."""
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
    """Tasks of a topic that are used."""
    tasks_requested: int = Field(ge=1)
    """Tasks that a brainstorm call asks for; `tasks_per_topic` of its list are used."""
    samples_per_task: int = Field(ge=1)
    """Examples that are written for a task."""
    truncate: bool
    """Cut topics deeper than four levels to their first two and last two (paper, Appendix D.1)."""
    brainstormer: str | None = Field(None, min_length=1)
    """Model that brainstorms in the teacher's place, at the same endpoint; null: the teacher (the paper)."""

    @model_validator(mode="after")
    def _enough(self) -> Diversity:
        if self.tasks_per_topic > self.tasks_requested:
            raise ValueError(
                f"tasks_per_topic={self.tasks_per_topic} is more than tasks_requested={self.tasks_requested}: "
                "a list cannot give more tasks than were asked for"
            )
        return self


class Counts(Spec):
    """How much the teacher is asked (paper, Table 5). Sweeps vary the factors, under any preset."""

    sft: int = Field(ge=1)
    """Seed examples that the teacher writes for the junior."""
    sft_factor: float = Field(1.0, gt=0)
    """Multiplies `sft` (Figure 3b)."""
    sft_attempts: int = Field(1, ge=1)
    """Calls that a seed example may take. 1: a rejected answer is a lost example. More: exactly `sft` examples in the
    exact mix, by at most `sft * sft_attempts` calls; what is missing after that is reported."""
    pairs: int = Field(ge=1)
    """Lists of answers that the teacher judges for the senior."""
    pairs_factor: float = Field(1.0, gt=0)
    """Multiplies `pairs` (Figure 3d)."""
    revisions: int = Field(ge=1)
    """Answers that the teacher revises for the revisor."""
    revisions_factor: float = Field(1.0, gt=0)
    """Multiplies `revisions` (Figure 3e)."""
    candidates: int = Field(ge=2)
    """Answers in a list that is judged (paper, Figure 5: 5)."""


class Scale(Spec):
    """How much the aligned models write."""

    examples: int = Field(ge=1)
    """Raw examples, before deduplication (paper: 230K in the ablations, 1.15M in Table 1)."""
    factor: float = Field(1.0, gt=0)
    """Multiplies `examples` (Figure 4)."""
    attempts: int = Field(1, ge=1)
    """Answers that an example may take, as `counts.sft_attempts`."""
    keep: int | None = Field(None, ge=2)
    """Examples of the corpus that the embedder is trained on: the first of each kind, in the proportions of the mix;
    null: all. With it, corpora that lost different shares can be compared."""
    writer: Literal["models", "teacher", "instruct"] = "models"
    """Who writes the corpus: the aligned small models (the paper), or for comparison the teacher itself, or
    `generator.base` untrained, an instruct model that is prompted through its own chat template."""
    mix: Mix
    """Proportions of the five kinds (paper, 4.1)."""


class Limits(Spec):
    """Longest answers, in tokens, whoever writes them."""

    example: dict[Kind, int | None]
    """One example of a kind; null: what the prompts ask for (`speed.data.answer_lengths`)."""
    tasks: int = Field(ge=1)
    """A list of tasks."""
    judgement: int = Field(ge=1)
    """The best, the worst and the reason."""
    revision: int = Field(ge=1)
    """The reason and the revised example."""


class Generator(Spec):
    """The small model, and how the junior is trained."""

    base: ModelReference
    """Of junior and revisor (the senior starts from the junior): hub name, folder, `package:miniature/bases/NAME`."""
    sft: Sft
    """The junior's training."""
    peers: str
    """Options of this group that `sweeps/base_model` compares, this one among them; in no key."""


class Samplings(Spec):
    """Temperatures of everything that is sampled (paper, Appendix B: 1.0). The judge's is `judge.temperature`, the
    teacher's in revision `revisor.temperature`."""

    teacher: float = Field(ge=0, le=2)
    """Of the teacher when it brainstorms and writes seed data."""
    root: Sampling
    """Of the junior when it writes the lists of answers that are judged."""
    synthesis: Sampling
    """Of the model that writes the corpus."""
    revision: Sampling
    """Of the revisor."""


class PreferenceConfig(Spec):
    """What the senior is optimised for. How it is trained (group `senior`) stands in `dpo` too."""

    enabled: bool
    """False: there is no senior, and the junior writes the corpus."""
    pairs: Literal["judged", "verified", "fields"] = "judged"
    """Where preferences come from: the teacher's judgement (paper); the guidelines of the prompt, without a call; or
    the guidelines field by field, where the junior itself writes the better continuation of a faulty field."""
    dpo: Dpo | None = None
    """The objective and its training; null when there is no senior."""
    rounds: int = Field(1, ge=1, le=len(ROUNDS))
    """Times that answers are judged and a senior is trained, each from the one before; `counts.pairs` lists in all."""

    @model_validator(mode="after")
    def _complete(self) -> PreferenceConfig:
        if self.rounds > 1 and not self.enabled:
            raise ValueError(f"rounds={self.rounds} has no effect: there is no senior; take another preference")
        if self.enabled and self.dpo is None:
            raise ValueError("enabled: true needs dpo; take an option of the groups preference and senior")
        return self


class JudgeConfig(Judge):
    """Who judges lists, and how."""

    retriever: SerializeAsAny[Retriever] | None = None
    """Embedder that judges in the teacher's place; null: the teacher judges."""

    @model_validator(mode="after")
    def _asks_nobody(self) -> JudgeConfig:
        if self.retriever is not None and self.by_votes != Judge():
            raise ValueError(
                "retriever judges alone: votes, decide, margin, verified, models and temperature have no effect beside "
                "it; take judge=retriever without them"
            )
        return self

    @property
    def by_votes(self) -> Judge:
        """How a teacher judges."""
        return Judge.model_validate(self.model_dump(exclude={"retriever"}))


class RevisorConfig(Spec):
    """The revisor and its training."""

    enabled: bool
    """False: there is no revisor, and the corpus stays as it was written."""
    sft: Sft | None = None
    """Its training; null when there is no revisor."""
    temperature: float = Field(1.0, ge=0, le=2)
    """Of the teacher when it revises."""
    target: Literal["reason+revision", "revision"] = "revision"
    """What the revisor learns to write."""
    on_failure: Literal["keep_original", "drop"] = "keep_original"
    """What becomes of an example whose revision cannot be read."""
    trainer: SerializeAsAny[Trainer] | None = None
    """Trainer of the revisor; null: the generators' own (`trainer`)."""

    @model_validator(mode="after")
    def _complete(self) -> RevisorConfig:
        if self.enabled and self.sft is None:
            raise ValueError("enabled: true needs sft; take an option of the group revisor")
        return self


class Given(Spec):
    """What takes the place of a stage. Nothing that only this stage reads is built or paid for."""

    seed: Content | None = None
    """Seed examples (JSON lines), instead of the teacher's."""
    junior: ModelReference | None = None
    """A generator: a folder that save_pretrained, speed.export or a run's stage wrote, or a hub name."""
    senior: ModelReference | None = None
    revisor: ModelReference | None = None
    corpus: Content | None = None
    """The training corpus (JSON lines), as deduplication would leave it; or the folder of a run, for its corpus."""
    corpora: tuple[Part, ...] = ()
    """The same from several files, mixed by their weights: of several writers, or labelled sets."""
    records: int | None = Field(None, ge=2)
    """Records of the given corpus that are taken, the first ones; null: all, of several files those that keep the
    proportions."""
    prompt_format: FormatName = "plain"
    """How the given generators are prompted, where they are no payloads of a run, which state it themselves."""

    @property
    def named(self) -> list[str]:
        """What is given, a corpus of several files as `corpus`."""
        names = ("seed", "junior", "senior", "revisor")
        return [*(name for name in names if getattr(self, name) is not None), *(["corpus"] if self.parts else [])]

    @property
    def parts(self) -> tuple[Part, ...]:
        """The files of the corpus; none where it is not given."""
        return self.corpora if self.corpus is None else (Part(name="corpus", path=self.corpus),)

    @field_validator("corpus")
    @classmethod
    def _of_run(cls, path: Content | None) -> Content | None:
        return None if path is None else corpus_file(path)

    @model_validator(mode="after")
    def _one_corpus(self) -> Given:
        names = [part.name for part in self.corpora]
        if self.corpus is not None and self.corpora:
            raise ValueError("corpus and corpora are both given: take one of them")
        if len(set(names)) < len(names):
            raise ValueError(f"corpora: each needs a name of its own, and they are {', '.join(names)}")
        if self.records is not None and not self.parts:
            raise ValueError(
                f"records={self.records} has no effect: no corpus is given; of the run's own scale.keep takes so many"
            )
        return self


class DedupConfig(Spec):
    """Which examples count as repeats and are dropped."""

    minhash: MinHashConfig | None
    """Null keeps every example."""


class NegativesConfig(Spec):
    """Where the hard negatives of the embedder's training come from."""

    source: Literal["generated", "mined", "both"] = "generated"
    """Written with each example (the paper); mined among the positives of other examples; or both."""
    count: int = Field(1, ge=1)
    """Hard negatives of an example at most; `embedder.hard_negatives` of them count in a step."""
    ranks: tuple[int, int] = (1, 10)
    """First and last rank of the window that mined ones are taken from, the nearest first."""
    miner: SerializeAsAny[Retriever] | None = None
    """Embedder that finds them; null where none are mined."""
    graded: int | None = Field(0, ge=0)
    """Records of retrieval, the first ones, for whose queries the teacher writes documents of four levels of relevance;
    null: all."""
    listwise: float = Field(0.0, ge=0)
    """Weight of the embedder's list-wise loss over these documents, beside that over positives and hard negatives."""

    @model_validator(mode="after")
    def _usable(self) -> NegativesConfig:
        if self.graded != 0 and not self.listwise:
            raise ValueError(
                f"graded={self.graded} has no effect with listwise=0: nothing is trained on these documents; set "
                "listwise, or take negatives=graded"
            )
        if not 1 <= self.ranks[0] <= self.ranks[1]:
            raise ValueError(f"ranks={list(self.ranks)} is no window: give first and last rank, such as [1,10]")
        if self.source == "generated" and self.count > 1:
            raise ValueError(
                f"count={self.count} with source=generated: an example is written with one hard negative; "
                "take negatives=mined or negatives=both"
            )
        if self.source != "generated" and self.miner is None:
            raise ValueError(f"source={self.source} needs a miner; take negatives={self.source}")
        return self


class FilterConfig(NegativeRules):
    """What is left out before the embedder's training, by the judgement of an embedder that was not trained on it, and
    which hard negatives become positives, by the teacher's."""

    judge: SerializeAsAny[Retriever] | None = None
    """Embedder that judges; null where nothing is judged by one."""
    relabel: bool = False
    """Whether the teacher is asked which of positive and hard negatives answer the query."""

    @model_validator(mode="after")
    def _judged(self) -> FilterConfig:
        if self.any and self.judge is None:
            raise ValueError("nobody judges; take an option of the group filter, such as filter=positive_aware")
        return self

    @property
    def rules(self) -> NegativeRules:
        """What is decided by, without who judges."""
        return NegativeRules.model_validate(self.model_dump(exclude={"judge", "relabel"}))


class Config(Spec):
    """One experiment."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.+-]+$", max_length=200)
    """Name of the run, in its folder and in the ledger of runs."""
    plan: bool = False
    """Print what would be done and what it would cost; build nothing."""
    probe: bool = False
    """Carry out a few real steps of each stage that trains or computes with a model, and print the plan with the memory
    and hours that they took; ask and build nothing."""
    plan_details: bool = False
    """A plan names all that differs from what is built, and not the three most telling differences of a stage."""
    preview: bool = False
    """Print prompts as the teacher would receive them; ask and build nothing."""
    teach_check: bool = False
    """Ask the teacher some twenty questions and say which of its roles it is good enough for; build nothing."""
    status: bool = False
    """Print how far the runs of this root are; build nothing."""
    verify: bool = False
    """Check the sha256 of everything built before starting."""
    held_out_pairs: int = Field(0, ge=0)
    """Seed examples, the first ones, on which the contrastive entropy of the embedder is measured (ours); 0: none."""
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
    judge: JudgeConfig
    guidelines: Guidelines
    preference: PreferenceConfig
    revisor: RevisorConfig
    scale: Scale
    dedup: DedupConfig
    negatives: NegativesConfig = NegativesConfig()
    filter: FilterConfig = FilterConfig()
    given: Given = Given()
    embedder: SerializeAsAny[EmbedderTrainer]
    eval: SerializeAsAny[Evaluator]
    tracker: SerializeAsAny[Tracker]
    runtime: Runtime

    @model_validator(mode="after")
    def _evaluated_as_trained(self) -> Config:
        if self.eval.instructs and not self.embedder.instructs:
            raise ValueError(
                "embedder.instruction is {query} alone, so nothing is trained with an instruction, and "
                "eval.protocol=e5 would put one in front of every query; set eval.protocol=native"
            )
        return self

    @model_validator(mode="after")
    def _enough_lists(self) -> Config:
        if self.preference.rounds > 1 and min(self.lists_by_round) < 2:
            raise ValueError(
                f"preference.rounds={self.preference.rounds} shares counts.pairs={sum(self.lists_by_round)} lists, and "
                "each training needs at least two of them; take more, or fewer rounds"
            )
        return self

    @model_validator(mode="after")
    def _one_size(self) -> Config:
        if self.scale.keep is not None and self.given.parts:
            raise ValueError(
                f"scale.keep={self.scale.keep} has no effect: the corpus is given; given.records takes so many"
            )
        return self

    @property
    def lists_by_round(self) -> list[int]:
        """How many lists are judged for the senior of each round."""
        lists, rounds = round(self.counts.pairs * self.counts.pairs_factor), self.preference.rounds
        return [lists * (number + 1) // rounds - lists * number // rounds for number in range(rounds)]

    @property
    def longest(self) -> dict[Kind, int]:
        """Longest example of each kind, in tokens."""
        return {kind: self.limits.example.get(kind) or longest_answer(kind, self.prompts) for kind in Kind}

    @property
    def asked(self) -> list[Teacher]:
        """Every teacher that may be asked: the one that writes, the one that brainstorms, and those that judge."""
        others = [name for name in (self.diversity.brainstormer, *self.judge.models) if name is not None]
        return [self.teacher, *map(self.teacher.named, others)]

    @property
    def brainstormer(self) -> Teacher:
        """Who thinks of tasks."""
        name = self.diversity.brainstormer
        return self.teacher if name is None else self.teacher.named(name)


def validated(values: dict[str, Any]) -> Config:
    """The config of composed values.

    Raises:
        UserError: naming every wrong key, with its value and what it should be.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise UserError("the config has mistakes:\n" + explanation(error, Config)) from error


def explanation(error: ValidationError, model: type[BaseModel], prefix: str = "") -> str:
    """One line a mistake of a model's values: the key, behind the prefix, what is wrong with it, and its value."""
    lines = []
    for mistake in error.errors():
        key = ".".join([prefix, *map(str, mistake["loc"])]).strip(".")
        if mistake["type"] == "extra_forbidden":
            lines.append(f"  {key}: there is no such key; {_instead(key, model, mistake['loc'])}")
            continue
        # A mistake across fields has all of them as its value, and at the top no key; its message names what is meant.
        whole = mistake["type"] == "value_error" and isinstance(mistake["input"], (dict, Spec))
        given = "" if whole or mistake["type"] == "missing" else f" (given: {str(mistake['input'])[:80]})"
        lines.append(f"  {key and f'{key}: '}{mistake['msg'].removeprefix('Value error, ')}{given}")
    return "\n".join(lines)


def _instead(key: str, model: type[BaseModel], place: tuple[int | str, ...]) -> str:
    """The nearest key beside one that is none, or where all of them stand."""
    models = [model]
    for name in (str(each) for each in place[:-1] if not isinstance(each, int)):
        fields = [each.model_fields[name] for each in models if name in each.model_fields]
        models = [each for field in fields for each in _models(field.annotation)]
    if near := get_close_matches(
        str(place[-1]), {name for each in models for name in getattr(each, "model_fields", ())}, 1
    ):
        return f"did you mean {'.'.join([*key.split('.')[:-1], near[0]])}?"
    return "see `python -m speed.run --cfg job` for those there are"


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models in a type, as in `Dpo | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]
