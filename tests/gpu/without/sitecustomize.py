"""Put on PYTHONPATH, this hides the packages that HIDDEN names (separated by commas) from a process and its children.

As if they were not installed: a machine to which only a few wheels can be brought has no litellm, mteb or wandb.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any

HIDDEN = set(os.environ.get("HIDDEN", "").split(","))


class Finder(PathFinder):
    """Finds what any process finds, but for the hidden packages."""

    @classmethod
    def find_spec(cls, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname.partition(".")[0] in HIDDEN:
            return None
        return super().find_spec(fullname, path, target)


sys.meta_path[:] = [Finder if finder is PathFinder else finder for finder in sys.meta_path]
