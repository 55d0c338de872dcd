"""Evaluation with mteb (paper §4.2, Tables 1 and 8): its named benchmarks, or a local folder of tasks.

Every task's result is a file in mteb's own layout, written when the task is done: an interrupted evaluation goes on
with the next task. Files lie under the identity of weights, tokenizer and protocol, since mteb's cache, which
goes by a model's name, gives one local model the scores of another. No result outside the run's folder is read.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from speed.backends.instructions import instruction_table
from speed.core.content import Content, sha256_of
from speed.core.context import Context
from speed.core.spec import Json, digest, recipe
from speed.data.records import Scores
from speed.ports import Evaluator

BENCHMARKS = {"mteb_v1": "MTEB(eng, v1)", "mteb_v2": "MTEB(eng, v2)"}
"""mteb's names; v1 is the paper's 56 tasks."""
DEV: dict[str, str | None] = {
    "NanoMSMARCORetrieval": None,
    "NanoNQRetrieval": None,
    "STSBenchmark": "validation",
    "EmotionClassification": "validation",
    "MTOPDomainClassification": "validation",
    "MassiveIntentClassification": "validation",
    "WikiCitiesClustering": None,
    "BuiltBenchClusteringS2S": None,
    "BuiltBenchReranking": None,
    "LegalBenchPC": None,
}
"""Small tasks for tuning, on validation splits or outside the test benchmarks (the paper tuned on NQ and MSMARCO)."""


class ProtocolEvaluator(Evaluator):
    """What all evaluations have in common."""

    heavy: ClassVar[tuple[str, ...]] = ("torch", "transformers.modeling_utils", "mteb")

    protocol: Literal["e5", "native"] = "e5"
    """`e5`: instructions per task, no normalisation for classification; `native`: as the model itself says."""
    max_length: int | None = Field(default=None, ge=8)
    """Tokens of a text; null as the model says."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of the arithmetic inside the transformer; vectors and similarities are always fp32."""

    def recipe(self) -> Json:
        """Identity: the fields, and under `e5` the instructions themselves."""
        table = digest(recipe(instruction_table())) if self.protocol == "e5" else None
        return {**super().recipe(), "instructions": table}

    def identity(self, embedder: Path) -> str:
        """What a score belongs to: the model's files (weights, tokenizer, pooling) and the protocol."""
        own = {name: value for name, value in self.recipe().items() if name not in ("tasks", "only", "benchmark")}
        return digest({**own, "model": sha256_of(embedder)})[:40]


class MtebEvaluator(ProtocolEvaluator):
    """A benchmark that mteb names; the data come from the Hugging Face hub or its local cache."""

    benchmark: Literal["mteb_v1", "mteb_v2", "dev"]

    def evaluate(self, embedder: Path, out: Path, ctx: Context) -> Scores:
        """Scores of the benchmark's tasks; mteb's result files under `out/results`."""
        import datasets

        from speed.backends.mteb_run import benchmark_jobs, run

        datasets.config.HF_DATASETS_CACHE = ctx.store.home / "cache" / "datasets"
        return run(self, benchmark_jobs(self.benchmark), embedder, out, ctx)


class FolderEvaluator(ProtocolEvaluator):
    """All tasks of a folder; where the folder is, a subclass says."""

    only: tuple[str, ...] = ()
    """Names of the tasks to evaluate; empty for all."""

    @abstractmethod
    def task_folder(self, ctx: Context) -> Path:
        """The folder of tasks (`speed.backends.task_folder` describes its layout)."""

    def evaluate(self, embedder: Path, out: Path, ctx: Context) -> Scores:
        """Scores of the folder's tasks; mteb's result files under `out/results`. Needs no network.

        Raises:
            UserError: for a task that cannot be read; the file, row and column are named.
        """
        from speed.backends.mteb_run import folder_jobs, run

        return run(self, folder_jobs(self.task_folder(ctx), self.only), embedder, out, ctx)


class LocalEvaluator(FolderEvaluator):
    """All tasks of a folder that is given in the config; it enters the key by its content."""

    tasks: Content
    """The folder of tasks."""

    def check(self) -> None:
        """Every task to be evaluated has its files and columns."""
        from speed.backends.task_folder import task_folders

        for task in task_folders(self.tasks.path.expanduser()):
            if not self.only or task.name in self.only:
                task.check()

    def task_folder(self, ctx: Context) -> Path:
        """The folder that the config names."""
        return self.tasks.path.expanduser()
