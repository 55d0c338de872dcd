"""Evaluation with mteb (paper §4.2, Tables 1 and 8): its named benchmarks, any of its tasks, or a folder of tasks.

Every task's result is a file in mteb's own layout, written when the task is done: an interrupted evaluation continues
with the next task. Files lie under the identity of weights, tokenizer and protocol: mteb's own cache goes by a model's
name, and would give one local model the scores of another. No result outside the run's folder is read.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from pydantic import model_validator

from speed.backends.evaluation.at_hand import read_gold
from speed.backends.evaluation.mirror import mirrored
from speed.backends.evaluation.protocol import EvaluationProtocol
from speed.core.content import Content, HubRepository
from speed.core.errors import mistakes_of, refuse_for
from speed.core.spec import Json
from speed.data.costs.loads import EvaluationLoad, Measured
from speed.data.evaluation_datasets import evaluation_datasets
from speed.data.evaluation_splits import SEVERAL, published_splits
from speed.data.quality.contaminated_records import TaskTexts
from speed.data.records import Scores
from speed.ports import EmbedderTrainer
from speed.runtime import Context, Runtime

if TYPE_CHECKING:
    from speed.backends.evaluation.jobs import Job

Benchmark: TypeAlias = Literal["mteb_v1", "mteb_v2", "dev", "bright", "bright_long", "rteb", "mmteb", "any"]
"""`any`: the tasks of mteb that `only` names."""
BENCHMARKS = tuple(name for name in get_args(Benchmark) if name != "any")
"""Those that have tasks of their own."""
OLDEST = ("mteb_v1", "mteb_v2", "dev")
"""Benchmarks whose instructions are in a key as the whole table, without their tasks: they were the only ones once, and
their keys stay."""
NAMED = 3
"""Data sets that a mirror lacks, of which each is told by itself."""


class ProtocolEvaluator(EvaluationProtocol):
    """An evaluation of tasks; which tasks, a subclass says."""

    @abstractmethod
    def jobs(self, ctx: Context) -> list[Job]:
        """The tasks, without their data.

        Raises:
            UserError: for a task that does not exist or cannot be read; the file, row and column are named.
        """

    def evaluate(self, embedder: Path, out: Path, ctx: Context) -> Scores:
        """Scores of the tasks; mteb's result files under `out/results`, those of single queries under `out/queries`."""
        from speed.backends.evaluation.evaluated_model import LocalModel
        from speed.backends.evaluation.run import run

        return run(self, self.jobs(ctx), LocalModel(embedder), out, ctx).scores

    def probe(self, embedder: EmbedderTrainer, ctx: Context) -> Measured | None:
        """See `speed.ports.Evaluator`."""
        from speed.backends.evaluation.probing import measure_encoding

        return measure_encoding(embedder, self.max_length, self.precision, ctx)

    def on_folder(self, folder: Path) -> LocalEvaluator:
        """See `speed.ports.Evaluator`."""
        how = {"protocol": self.protocol, "max_length": self.max_length, "precision": self.precision}
        return LocalEvaluator.model_validate({"tasks": folder, **how})


class MtebEvaluator(ProtocolEvaluator):
    """A benchmark of mteb, or some of its tasks; the data come from a mirror, the hub or the hub's cache."""

    benchmark: Benchmark
    mirror: Content | None = None
    """A folder with copies of the data sets, `<task>` or `<organisation>/<data set>`; the hub is then not asked."""

    @model_validator(mode="after")
    def _names_tasks(self) -> MtebEvaluator:
        if self.benchmark == "any" and not self.only:
            raise ValueError("benchmark: any needs the names of the tasks in `only`")
        return self

    def recipe(self) -> Json:
        """Identity: the settings; for tasks that were once scored as a mean over several splits, the split, too."""
        named = self.only if self.benchmark == "any" else ()
        splits = {name: published_splits(SEVERAL[name]) for name in named if name in SEVERAL}
        return {**super().recipe(), **({"splits": splits} if splits else {})}

    def _names(self) -> tuple[str, ...] | None:
        if self.only or self.benchmark in OLDEST:
            return self.only or None
        return tuple(each.part_of or each.task for each in evaluation_datasets(self.benchmark))

    def check(self) -> None:
        """Refuse a mirror that lacks a task's data."""
        if self.mirror is not None:
            mirror = self.mirror.path.expanduser()
            wanted = evaluation_datasets(self.benchmark, self.only)
            lacking = mistakes_of(partial(mirrored, mirror, each.task, each.path, each.revision) for each in wanted)
            more = len(lacking) - NAMED
            refuse_for(lacking[:NAMED] + [f"the mirror {mirror} lacks {more} more data sets"] * (more > 0))

    def read_inputs(self, runtime: Runtime, say: Callable[[str], None]) -> None:
        """Refuse labels that no score can come from, in data that are on this machine."""
        mirror = self.mirror.path.expanduser() if self.mirror else None
        read_gold(self.benchmark, self.only, mirror, runtime.home.expanduser().resolve(), say)

    def hub_repositories(self) -> tuple[HubRepository, ...]:
        """The data sets of the tasks, unless a mirror has them."""
        wanted = () if self.mirror else evaluation_datasets(self.benchmark, self.only)
        return tuple(dict.fromkeys(HubRepository("dataset", each.path, each.revision) for each in wanted))

    def load(self) -> EvaluationLoad:
        """As many characters as mteb has counted."""
        wanted = evaluation_datasets(self.benchmark, self.only)
        return EvaluationLoad(sum(each.characters for each in wanted), self.precision)

    def task_texts(self, ctx: Context) -> list[TaskTexts]:
        """The texts of the benchmark's tasks, read again from where the evaluation has them."""
        from speed.backends.evaluation.job_texts import task_texts

        return task_texts(self.jobs(ctx))

    def jobs(self, ctx: Context) -> list[Job]:
        """The benchmark's tasks."""
        import datasets

        from speed.backends.evaluation.jobs import benchmark_jobs

        datasets.config.HF_DATASETS_CACHE = ctx.store.home / "cache" / "datasets"
        return benchmark_jobs(self.benchmark, self.only, self.mirror.path.expanduser() if self.mirror else None)


class FolderEvaluator(ProtocolEvaluator):
    """All tasks of a folder, without any network; which folder, a subclass says."""

    @abstractmethod
    def task_folder(self, ctx: Context) -> Path:
        """The folder of tasks (`speed.backends.evaluation.task_folder` describes its layout)."""

    def task_texts(self, ctx: Context) -> list[TaskTexts]:
        """The texts of the folder's tasks."""
        from speed.backends.evaluation.task_folder import task_folders

        return [
            TaskTexts(task.mteb or task.name, task.characters, task.texts)
            for task in task_folders(self.task_folder(ctx))
            if not self.only or task.name in self.only
        ]

    def jobs(self, ctx: Context) -> list[Job]:
        """The folder's tasks."""
        from speed.backends.evaluation.jobs import folder_jobs

        return folder_jobs(self.task_folder(ctx), self.only)


class LocalEvaluator(FolderEvaluator):
    """All tasks of a folder that the config names; the folder enters the key by its content."""

    tasks: Content
    """The folder of tasks."""

    def recipe(self) -> Json:
        """Identity: the settings; for tasks that were once scored on another split, the split, too."""
        from speed.backends.evaluation.task_folder import task_folders

        splits = {}
        folder = self.tasks.path.expanduser()
        for task in task_folders(folder) if folder.is_dir() else ():  # a missing one is refused with the content
            once = SEVERAL.get(task.mteb or "", ()) if not self.only or task.name in self.only else ()
            present = [split for split in once if split in task.files["default"]]
            if present and (now := published_splits(present)[0]) != present[0]:
                splits[task.name] = now
        return {**super().recipe(), **({"splits": splits} if splits else {})}

    def _names(self) -> list[str]:
        from speed.backends.evaluation.task_folder import task_folders

        folder = self.tasks.path.expanduser()
        return [task.mteb or task.name for task in task_folders(folder)] if folder.is_dir() else []

    def check(self) -> None:
        """Refuse a task without the files and columns that it needs."""
        from speed.backends.evaluation.task_folder import task_folders

        folders = task_folders(self.tasks.path.expanduser())
        refuse_for(mistakes_of(task.check for task in folders if not self.only or task.name in self.only))

    def load(self) -> EvaluationLoad:
        """As many characters as the files of the folder have bytes."""
        files = (file for file in self.tasks.path.expanduser().rglob("*") if file.is_file())
        return EvaluationLoad(sum(file.stat().st_size for file in files), self.precision)

    def task_folder(self, ctx: Context) -> Path:
        """The folder that the config names."""
        return self.tasks.path.expanduser()
