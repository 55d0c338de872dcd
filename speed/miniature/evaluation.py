"""Evaluate in the miniature: the evaluation of a local folder, with tasks that are written when they are needed."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from speed.backends.evaluation.evaluator import FolderEvaluator
from speed.core.cache import kept
from speed.core.spec import Json
from speed.miniature.tasks import VERSION, write_tasks
from speed.runtime import Context


class MiniatureEvaluator(FolderEvaluator):
    """All tasks of the held-out half of the miniature world, through mteb."""

    version: ClassVar[int] = 1

    world_seed: int = 0

    def recipe(self) -> Json:
        """Identity: the recipe of the evaluation, and the version of the tasks."""
        return {**super().recipe(), "tasks": VERSION}

    def task_folder(self, ctx: Context) -> Path:
        """Folder of the tasks, written once into the cache of the store."""
        folder = ctx.store.home / "cache" / f"miniature-tasks-{VERSION}-{self.world_seed}"
        return kept(folder, lambda aside: write_tasks(aside, self.world_seed))
