"""Evaluation with mteb (paper §4.2, Tables 1 and 8): its named benchmarks, any of its tasks, or a folder of tasks.

Every task's result is a file in mteb's own layout, written when the task is done: an interrupted evaluation goes on
with the next task. Files lie under the identity of weights, tokenizer and protocol, since mteb's cache, which
goes by a model's name, gives one local model the scores of another. No result outside the run's folder is read.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from speed.backends.encoding.instructions import instruction_table
from speed.backends.runtime.device import fills_gpu
from speed.core.content import Content
from speed.core.context import Context, Runtime
from speed.core.spec import Json, digest, recipe
from speed.data.records import Scores
from speed.ports import Evaluator

if TYPE_CHECKING:
    from speed.backends.evaluation.jobs import Job


class ProtocolEvaluator(Evaluator):
    """What all evaluations have in common."""

    version: ClassVar[int] = 2
    heavy: ClassVar[tuple[str, ...]] = ("torch", "transformers.modeling_utils", "mteb")

    protocol: Literal["e5", "native"] = "e5"
    """`e5`: instructions per task, no normalisation for classification; `native`: as the model itself says."""
    max_length: int | None = Field(default=None, ge=8)
    """Tokens of a text; null as the model says, and under `e5` 512 at most."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of the arithmetic inside the transformer; vectors and similarities are always fp32."""

    only: tuple[str, ...] = ()
    """Names of the tasks to evaluate; empty for all."""

    @property
    def instructs(self) -> bool:
        return self.protocol == "e5"

    @abstractmethod
    def jobs(self, ctx: Context) -> list[Job]:
        """The tasks, not loaded yet.

        Raises:
            UserError: for a task that is not there or cannot be read; the file, row and column are named.
        """

    def evaluate(self, embedder: Path, out: Path, ctx: Context) -> Scores:
        """Scores of the tasks; mteb's result files under `out/results`."""
        from speed.backends.evaluation.evaluated_model import LocalModel
        from speed.backends.evaluation.run import run

        return run(self, self.jobs(ctx), LocalModel(embedder), out, ctx).scores

    def alone(self, runtime: Runtime) -> bool:
        return fills_gpu(runtime)

    def recipe(self) -> Json:
        """Identity: the fields, and under `e5` the instructions themselves."""
        table = digest(recipe(instruction_table())) if self.protocol == "e5" else None
        return {**super().recipe(), "instructions": table}

    def identity(self, model: Json) -> str:
        """What a score belongs to: the model (its files, or its endpoint) and the protocol, whatever the tasks.

        Args:
            model: `EvaluatedModel.identity()`.
        """
        names = ("protocol", "max_length", "precision")
        own = {name: getattr(self, name) for name in names}
        own |= {"version": self.version, "instructions": ProtocolEvaluator.recipe(self)["instructions"]}
        return digest({**own, "model": model})[:40]


class MtebEvaluator(ProtocolEvaluator):
    """A benchmark that mteb names, or some of its tasks. Data: a mirror, the hub or its cache."""

    benchmark: Literal["mteb_v1", "mteb_v2", "dev", "any"]
    """`any`: whichever tasks of mteb `only` names."""
    mirror: Content | None = None
    """A folder with copies of the data sets, `<task>` or `<organisation>/<data set>`; then no hub is asked."""

    @model_validator(mode="after")
    def _names_tasks(self) -> MtebEvaluator:
        if self.benchmark == "any" and not self.only:
            raise ValueError("benchmark: any needs the names of the tasks in `only`")
        return self

    def jobs(self, ctx: Context) -> list[Job]:
        """The benchmark's tasks."""
        import datasets

        from speed.backends.evaluation.jobs import benchmark_jobs

        datasets.config.HF_DATASETS_CACHE = ctx.store.home / "cache" / "datasets"
        return benchmark_jobs(self.benchmark, self.only, self.mirror.path.expanduser() if self.mirror else None)


class FolderEvaluator(ProtocolEvaluator):
    """All tasks of a folder; where the folder is, a subclass says. Needs no network."""

    @abstractmethod
    def task_folder(self, ctx: Context) -> Path:
        """The folder of tasks (`speed.backends.evaluation.task_folder` describes its layout)."""

    def jobs(self, ctx: Context) -> list[Job]:
        """The folder's tasks."""
        from speed.backends.evaluation.jobs import folder_jobs

        return folder_jobs(self.task_folder(ctx), self.only)


class LocalEvaluator(FolderEvaluator):
    """All tasks of a folder that is given in the config; it enters the key by its content."""

    tasks: Content
    """The folder of tasks."""

    def check(self) -> None:
        """Every task to be evaluated has its files and columns."""
        from speed.backends.evaluation.task_folder import task_folders

        for task in task_folders(self.tasks.path.expanduser()):
            if not self.only or task.name in self.only:
                task.check()

    def task_folder(self, ctx: Context) -> Path:
        """The folder that the config names."""
        return self.tasks.path.expanduser()
