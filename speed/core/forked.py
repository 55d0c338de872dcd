"""Imported first by the servers that stages are forked from.

No stage follows a run on W&B, which the run itself does. So W&B is as good as not installed here: TRL would import it
with its trainers, and transformers, with its variable set, would speak of it on every screen. And no garbage is
collected: whatever a server imports stays, which takes a fifth less time without the collector; the stages, which
freeze what they were forked with, share its memory and never search it.
"""

from __future__ import annotations

import gc
import os
import sys

os.environ.pop("WANDB_MODE", None)
sys.modules["wandb"] = None  # type: ignore[assignment]  # how Python is told that there is no such module
gc.disable()
