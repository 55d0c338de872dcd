"""The evaluation of the miniature: the general evaluation of a local folder, on tasks that are written when needed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import ClassVar

from speed.backends.evaluation.evaluator import FolderEvaluator
from speed.core.spec import Json
from speed.miniature.tasks import VERSION, write_tasks
from speed.runtime import Context


class MiniatureEvaluator(FolderEvaluator):
    """All tasks of the held-out half of the miniature world, through mteb."""

    version: ClassVar[int] = 1

    world_seed: int = 0

    def recipe(self) -> Json:
        """Identity: that of the evaluation, and the version of the tasks."""
        return {**super().recipe(), "tasks": VERSION}

    def task_folder(self, ctx: Context) -> Path:
        """The tasks, written once into the store's cache."""
        folder = ctx.store.home / "cache" / f"miniature-tasks-{VERSION}-{self.world_seed}"
        if not folder.is_dir():
            partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            write_tasks(partial, self.world_seed)
            try:
                partial.replace(folder)
            except OSError:  # another process was faster
                shutil.rmtree(partial, ignore_errors=True)
        return folder


__all__ = ["MiniatureEvaluator", "write_tasks"]
