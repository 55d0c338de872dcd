"""A run on a Ray cluster, to be killed: `python killed_run.py ADDRESS HOME FOLDER` builds the rows of `far_goal`."""

from __future__ import annotations

import sys
from pathlib import Path

from test_cluster_without_store import build_far, far_pool

from speed.core.store import Store

if __name__ == "__main__":
    folder = Path(sys.argv[3])
    build_far(far_pool(folder), Store(Path(sys.argv[2])), sys.argv[1], folder / "logs", lambda label, event: None)
