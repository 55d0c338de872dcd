"""What several stages share: drawn prompts, a generating model, tries until a row is accepted, fine-tuning."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, Generic, TypeVar

from speed.core.allocation import Demand
from speed.core.content import HubRepository, ModelReference, hub_model
from speed.core.errors import UserError
from speed.core.machine import GIGABYTE
from speed.core.row import Row
from speed.core.spec import Json
from speed.core.stage import Node, Pool, Stage, Take
from speed.core.work import Work
from speed.data.answers.accept_or_reject import counts_by_kind, figures_by_kind
from speed.data.assignment import Assignment, Draft, TaskRows, load_topics
from speed.data.costs.call_tokens import call_tokens
from speed.data.costs.memory import host_gigabytes
from speed.data.costs.model_shapes import shape_of
from speed.data.costs.prices import EXPECTED_TOKENS, estimated_tokens
from speed.data.quality.guidelines import Guidelines
from speed.data.records import Kind, Prompt, Sample, TaskList, Topic
from speed.data.trainings import Completion, Sft
from speed.ports import Engine, Lengths, Sampling, Teacher, Trainer, Training, Weights
from speed.runtime import Context, Runtime
from speed.stages.trials import GenerationTrial, TrainingTrial, trial_of

R = TypeVar("R", bound=Row)
PADDED = 1.3
"""Length of a micro-batch's rows, all padded to the longest, by that of a row on the average (ours)."""
WEIGHT = 4
"""Bytes of a weight of a generator that writes on cores, at most."""


def price_of(teacher: Teacher, purpose: str, calls: int, tokens: tuple[int, int]) -> Work:
    """The work of so many calls with (input, output) tokens each, and what the teacher is told in front of them."""
    tokens_in, tokens_out = tokens
    tokens_in += round(fmean(estimated_tokens(teacher.in_front(purpose, kind)) for kind in Kind))
    return teacher.price(calls, tokens_in * calls, tokens_out * calls)


def tokens_about(node: Node, purpose: str) -> tuple[int, int]:
    """(input, output) tokens of a call about one row of a node, or of what it reads: the paper's where no prompt can be
    drawn for it.

    Args:
        purpose: see `speed.data.costs.call_tokens`.
    """
    pool = _assigned(node)
    if pool is None:
        return EXPECTED_TOKENS.get(purpose, EXPECTED_TOKENS["revise"])
    prompts, mix = pool.assignment.prompts.config, pool.assignment.mix
    return call_tokens(purpose, prompts, mix, getattr(pool, "candidates", 1))


def _assigned(node: Node) -> AssignedPool[Any] | None:
    """The pool whose prompts decide over the lengths of a node's texts: itself, or the nearest that it stands on."""
    if isinstance(node, AssignedPool):
        return node
    read = (upstream.pool if isinstance(upstream, Take) else upstream for upstream in node.upstream.values())
    return next(filter(None, map(_assigned, read)), None)


def in_its_round(name: str, read: Node) -> str:
    """A stage's name for the reader, with the number of the round that what it reads is of; see `ROUNDS`."""
    return name + read.label.removeprefix(read.name)


@dataclass(frozen=True, kw_only=True)
class AssignedPool(Pool[R]):
    """A pool of answers to prompts for examples, which an assignment draws from topics and tasks."""

    assignment: Assignment
    topics: Stage[Topic]
    tasks: Pool[TaskList]

    def rows_needed(self, upstream: str, rows: int) -> int:
        return self.assignment.brainstorm_rows(rows)

    def drafts(self, start: int, stop: int, ctx: Context) -> Iterator[Draft]:
        """What rows start..stop-1 are about."""
        return self.assignment.drafts(start, stop, self.task_rows(stop, ctx), load_topics(ctx.folder(self.topics)))

    def task_rows(self, stop: int, ctx: Context) -> TaskRows:
        """The task lists of rows up to `stop`."""
        take = self.tasks.take(self.assignment.brainstorm_rows(stop))
        return lambda first: ctx.rows(take, first)

    def sample_rows(self, rows: int, ctx: Context) -> Iterator[R]:
        built = list(ctx.rows(self.take(rows)))
        yield from built
        tasks = list(self.tasks.sample_rows(self.assignment.brainstorm_rows(rows), ctx))
        topics = load_topics(ctx.folder(self.topics))
        for row, prompt in self.assignment.prompts_of(len(built), rows, lambda first: tasks[first:], topics):
            if prompt is not None:
                yield self.stand_in(row, prompt)

    @abstractmethod
    def stand_in(self, row: int, prompt: Prompt) -> R:
        """A row of which only the prompt is known."""


@dataclass(frozen=True, kw_only=True)
class GeneratingPool(Pool[R]):
    """A pool that a small model writes. The make-up of an engine's batches shows in the texts: rows come in whole
    blocks."""

    engine: Engine
    sampling: Sampling
    max_tokens: dict[Kind, int]
    seed: int

    whole_blocks: ClassVar[bool] = True

    @property
    def writes_like(self) -> str:
        """Purpose of the teacher's answers whose length its texts have, for plans."""
        return "seed"

    @property
    def block(self) -> int:
        return self.engine.block

    @property
    def written_by(self) -> str:
        """The base of the model that writes it; empty where it is not known."""
        read = [node for node in self.upstream.values() if isinstance(node, Node)]
        bases = [training.base for node in read if (training := node.training()) is not None]
        return next(iter([*bases, *(node.base_under for node in read if isinstance(node, UntrainedModel))]), "")

    def demand(self, runtime: Runtime) -> Demand:
        base = self.written_by
        shape = shape_of(base) if base else None
        held = 0.0 if shape is None else WEIGHT * shape.parameters / GIGABYTE
        return Demand(self.engine.groups(base, runtime), workers=True, gigabytes=held)

    def check(self, runtime: Runtime) -> None:
        self.engine.check(runtime)

    def trial(self) -> GenerationTrial | None:
        if not self.written_by:
            return None
        prompt, answer = tokens_about(self, self.writes_like)
        lengths = Lengths(prompt, max(self.max_tokens.values()))
        return GenerationTrial(answer, self.written_by, self.engine, lengths, self.sampling)

    def hub_repositories(self) -> tuple[HubRepository, ...]:
        """The bases of adapters that write; weights that were trained as a whole need none."""
        read = [node for node in self.upstream.values() if isinstance(node, Node)]
        return tuple(repository for node in read for repository in bases_under(node))


@dataclass(frozen=True, kw_only=True)
class ExamplePool(AssignedPool[Sample]):
    """One row, one prompt, one example, whoever writes it."""

    attempts: int
    """Candidates that a row may take; with more than one, exactly as many examples of each kind as rows, or a shortfall
    that the report tells."""
    guidelines: Guidelines

    row: ClassVar[type[Sample]] = Sample
    unit: ClassVar[str] = "examples"
    """What progress counts."""

    def figures(self, counts: Mapping[str, int], rejected: Mapping[str, int]) -> dict[str, Json]:
        return figures_by_kind(counts, self.attempts)

    def stand_in(self, row: int, prompt: Prompt) -> Sample:
        return Sample(row=row, prompt=prompt)

    def counted(self, rows: Iterable[Sample], count: int, ctx: Context) -> Iterator[Sample]:
        """The same rows, counted by kind as they pass; `count` of them are to come."""
        for done, row in enumerate(rows, 1):
            ctx.tally.counts.update(counts_by_kind(row, self.assignment.mix.kind_of(row.row)))
            yield row
            if self.attempts == 1:
                ctx.progress(done, count, self.unit)

    def try_until_accepted(
        self,
        drafts: Iterator[Draft],
        attempt: Callable[[list[Draft], int], Iterable[Sample]],
        count: int,
        ctx: Context,
        together: int = 0,
    ) -> Iterator[Sample]:
        """The rows of one block after another, each tried until a candidate is accepted or the attempts are spent.

        Progress is that of the rows that are settled: a slow teacher may take an hour for the first attempts of all,
        behind which the first row is yielded.

        Args:
            attempt: writes one candidate for each of some rows, given the number of the attempt.
            count: rows that are to come.
            together: rows that are tried together where these are more than a block.
        """
        settled = 0
        while block := list(islice(drafts, max(self.block, together))):
            found: dict[int, Sample] = {}
            left = block
            for number in range(self.attempts):
                if not left:
                    break
                for row in attempt(left, number):
                    found[row.row] = row
                    settled += row.rejected is None or number == self.attempts - 1
                    if self.attempts > 1:
                        ctx.progress(settled, count, self.unit)
                left = [draft for draft in left if found[draft.row].rejected is not None]
            yield from (found[draft.row] for draft in block)


@dataclass(frozen=True)
class FineTuning(Stage[Weights], Generic[R]):
    """Supervised fine-tuning of the base model on (prompt, completion)."""

    base: ModelReference
    sft: Sft
    trainer: Trainer
    data: Take[R]

    count: ClassVar[str]
    """The key of the config that says how many rows there are."""

    @property
    @abstractmethod
    def learns_from(self) -> str:
        """Purpose of the teacher's answers whose length the rows have, for plans."""

    @abstractmethod
    def completion(self, row: R) -> Completion:
        """What is learned from a row."""

    def work(self) -> Work:
        return Work(trained=round(self.data.rows * self.sft.epochs))

    def check(self, runtime: Runtime) -> None:
        self.trainer.check(self.sft, runtime)

    def check_models(self) -> None:
        self.trainer.check_base(self.base.name, self.sft)

    def hub_repositories(self) -> tuple[HubRepository, ...]:
        return hub_model(self.base.name)

    def demand(self, runtime: Runtime) -> Demand:
        return Demand(self.trainer.devices(self.sft, runtime), gigabytes=host_memory(self.training()), nodes=True)

    def training(self) -> Training:
        return Training(self.base.name, self.sft, self.trainer, sum(tokens_about(self, self.learns_from)))

    def trial(self) -> TrainingTrial:
        return trial_of(self.training())

    def run(self, out: Path, ctx: Context) -> None:
        rows = [self.completion(row) for row in training_rows(self.data, ctx, self.count)]
        ctx.tally.counts["in"] = len(rows)
        self.trainer.sft(self.base.name, rows, self.sft, out, ctx)


def host_memory(training: Training) -> float:
    """GB of the machine's memory that a generator's training takes on cores, about; 0 where its sizes are unknown."""
    shape, footprint, config = shape_of(training.base), training.trainer.footprint(), training.config
    if shape is None or footprint is None:
        return 0.0
    longest = config.max_length * config.texts_a_row
    rows = min(footprint.micro_batch or config.batch_size, config.batch_size)
    return host_gigabytes(shape, footprint, config, rows, min(PADDED * training.tokens_a_row, longest))


@dataclass(frozen=True)
class UntrainedModel(Stage[Weights]):
    """A generator that this run does not train."""

    base: ModelReference
    engine: Engine

    @property
    def base_under(self) -> str:
        """The base model that it stands on (a reference); see `Engine.base_under`."""
        return self.engine.base_under(self.base.name)

    def hub_repositories(self) -> tuple[HubRepository, ...]:
        return hub_model(self.base_under)


def bases_under(node: Node) -> tuple[HubRepository, ...]:
    """What loading a generator reads from the hub: the base of an adapter that `node` has trained, or of a model as it
    came; nothing for weights that were trained as a whole."""
    training: Training | None = node.training()
    if training is None and isinstance(node, Stage):
        return node.hub_repositories()
    footprint = None if training is None else training.trainer.footprint()
    whole = training is None or (footprint is not None and footprint.lora is None)
    return () if whole else node.hub_repositories()


def training_rows(take: Take[R], ctx: Context, count: str) -> list[R]:
    """The rows of a take that were not rejected, for a training, which needs two.

    Args:
        count: the key of the config that says how many rows the take has.

    Raises:
        UserError: when there are fewer, with what became of the others.
    """
    rows = list(ctx.rows(take))
    accepted = [row for row in rows if row.rejected is None]
    if len(accepted) < 2:
        lost = Counter(row.rejected for row in rows if row.rejected is not None)
        causes = ", ".join(f"{number} {cause}" for cause, number in sorted(lost.items())) or "none rejected"
        raise UserError(
            f"a training needs at least two rows; of the {len(rows)} rows in '{take.pool.label}' only {len(accepted)} "
            f"can be learned from ({causes})\n  raise {count}, or look at the rows: {ctx.store.folder(take.pool)}"
        )
    return accepted
