"""Imported first by the servers that stages are forked from: libraries print nothing there while they are imported.

No stage follows a run on W&B, which the run itself does; with its variable set, transformers says so on every screen.
"""

from __future__ import annotations

import os

os.environ.pop("WANDB_MODE", None)
