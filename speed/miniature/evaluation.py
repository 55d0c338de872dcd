"""Evaluate in the miniature: the evaluation of a local folder, with tasks that are written when they are needed."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from speed.backends.evaluation.evaluator import FolderEvaluator
from speed.core.cache import make_once
from speed.core.spec import Json
from speed.miniature.tasks import VERSION, write_tasks
from speed.runtime import Context


class MiniatureEvaluator(FolderEvaluator):
    """All tasks of one half of the miniature world, through mteb."""

    version: ClassVar[int] = 1

    world_seed: int = 0
    half: Literal["held", "train"] = "held"
    """Whose entities the tasks are about: `held` is the test, `train` is for choosing settings."""

    def recipe(self) -> Json:
        """Identity: the recipe of the evaluation, and the version of the tasks; the half where it is not the test's."""
        whole = {**super().recipe(), "tasks": VERSION}
        return whole if self.half == "train" else {name: value for name, value in whole.items() if name != "half"}

    def task_folder(self, ctx: Context) -> Path:
        """Folder of the tasks, written once into the cache of the store."""
        half = "" if self.half == "held" else f"-{self.half}"
        folder = ctx.store.home / "cache" / f"miniature-tasks-{VERSION}-{self.world_seed}{half}"
        return make_once(folder, lambda aside: write_tasks(aside, self.world_seed, self.half))
