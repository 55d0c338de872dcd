"""Embedder: a language model becomes an embedding model on the synthetic corpus (paper 3.3, equation 4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from speed.core.allocation import Demand
from speed.core.content import HubRepository
from speed.core.machine import GIGABYTE
from speed.core.stage import Stage
from speed.core.work import Work
from speed.data.costs.memory import embedder_bytes
from speed.data.costs.model_shapes import shape_of
from speed.data.records import LEVELS, Example
from speed.ports import EmbedderTrainer, Weights
from speed.runtime import Context, Runtime
from speed.stages.base import tokens_about
from speed.stages.trials import EmbedderTrial

INSTRUCTION = 30
"""Tokens of a query's instruction."""
TASK = "Given a web search query, retrieve relevant passages that answer the query"
"""A task as brainstorming words them, for previews."""


@dataclass(frozen=True)
class Embedder(Stage[Weights]):
    """Contrastive training; the model folder has the layout of sentence-transformers."""

    trainer: EmbedderTrainer
    corpus: Stage[Example]
    rows: int
    """Raw size of the corpus, for the plan; the corpus' key already holds it."""
    seed: int

    name: ClassVar[str] = "embedder"

    def work(self) -> Work:
        return Work(trained=self.trainer.seen(self.rows))

    @property
    def tokens_a_record(self) -> float:
        """Expected: an example is written with one hard negative, and further ones are as long as its other texts; of
        graded documents as if all kinds had them."""
        load = self.trainer.load()
        texts = 2 + max(1, 1 if load is None else load.hard_negatives)
        texts += len(LEVELS) if load is not None and load.graded else 0
        return tokens_about(self, "seed")[1] * texts / 3 + INSTRUCTION

    def trial(self) -> EmbedderTrial:
        return EmbedderTrial(self.tokens_a_record, self.trainer)

    def check(self, runtime: Runtime) -> None:
        self.trainer.check(runtime)

    def check_models(self) -> None:
        self.trainer.check_base()

    def model_prompt(self, ctx: Context) -> str:
        return self.trainer.read_query(TASK)

    def read_inputs(self, runtime: Runtime, say: Callable[[str], None]) -> None:
        self.trainer.read_inputs(runtime, say)

    def demand(self, runtime: Runtime) -> Demand:
        load = self.trainer.load()
        shape = None if load is None else shape_of(load.base)
        held = 0.0
        if load is not None and shape is not None:
            held = embedder_bytes(shape, load.footprint, load.chunk, load.kept, load.checkpointing) / GIGABYTE
        return Demand(self.trainer.devices(runtime), gigabytes=held, nodes=True)

    def hub_repositories(self) -> tuple[HubRepository, ...]:
        return self.trainer.hub_repositories()

    def untrained(self, out: Path, ctx: Context) -> Path | None:
        """See `EmbedderTrainer.untrained`."""
        return self.trainer.untrained(out, ctx)

    def run(self, out: Path, ctx: Context) -> None:
        if remarks := self.trainer.remarks():
            ctx.tally.metrics["remarks"] = remarks
        self.trainer.train(ctx.folder(self.corpus) / "examples.jsonl", out, self.seed, ctx)
