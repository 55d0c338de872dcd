"""A rank of an embedder's training that writes its number into `read`, beside its result, for each base that it reads.

It takes the place of `speed.backends.embedder.worker`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import transformers

from speed.backends.embedder import worker
from speed.backends.embedder.trainer import EmbedderJob
from speed.backends.runtime.rank import main
from speed.runtime import Context


def train(job: EmbedderJob, ctx: Context) -> None:
    """Train as the job says."""
    read = transformers.AutoModel.from_pretrained

    def noted(*place: Any, **named: Any) -> Any:
        with Path(job.out).with_name("read").open("a") as file:
            file.write(f"{os.environ['RANK']}\n")
        return read(*place, **named)

    transformers.AutoModel.from_pretrained = noted
    worker.train(job, ctx)


if __name__ == "__main__":
    main(EmbedderJob, train)
