"""Imported first by the servers that stages are forked from.

Libraries print nothing while they are imported: no stage follows a run on W&B, which the run itself does; with its
variable set, transformers says so on every screen. And no garbage is collected: whatever a server imports stays, which
takes a fifth less time without the collector; the stages, which freeze what they were forked with, share its memory and
never search it.
"""

from __future__ import annotations

import gc
import os

os.environ.pop("WANDB_MODE", None)
gc.disable()
