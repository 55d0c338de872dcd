"""Machine and money: how a run is carried out, never what it computes.

No field enters a key, so all of them may be changed freely.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import Field

from speed.core import stage
from speed.core.errors import StoreError


class Runtime(stage.BuildSettings):
    """The group `runtime` of the config."""

    home: Path = Path("speed_home")
    """Root of everything built; the environment variable SPEED_HOME sets its default."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where models run; auto takes a GPU if there is one."""
    concurrency: int = 32
    """Requests to a teacher in flight, of all stages and processes of a root together."""
    api_base: str | None = None
    """URL of an OpenAI-compatible server, for teacher=openai_compatible."""
    max_usd: float | None = Field(None, ge=0)
    """Dollars that teachers may ever cost under this root: refuse to start above it, stop buying at it."""
    max_tokens: int | None = Field(None, ge=0)
    """The same in tokens, input and output together."""
    max_calls: int | None = Field(None, ge=0)
    """The same in answers."""
    request_seconds: float = Field(300.0, gt=0)
    """How long a teacher may take for one answer before the request is sent again; a slow server of one's own needs
    more (and then `watchdog_seconds` too)."""
    watchdog_seconds: float = Field(900.0, gt=0)
    """A run ends, with the reason, when a teacher says nothing for so long while calls are in flight."""
    checkpoint_seconds: float = 60.0
    """Time between two checkpoints of a training."""
    tracking_dir: Path | None = None
    """Folder of W&B's files; inside the run's folder when null."""
    processes: int = Field(default=1, ge=1)
    """Training processes of one stage, all nodes together; more than one needs a distributed trainer."""
    strategy: Literal["ddp", "zero3"] = "ddp"
    """How processes share a training: each with the whole model, or with a part of it each (ZeRO-3: DeepSpeed's for
    generators, torch's own fully_shard for embedders)."""
    generation_gpus: int = Field(default=1, ge=1)
    """GPUs that share a model which generates (vLLM's tensor parallelism)."""
    nodes: int = Field(default=1, ge=1)
    """Machines that the processes stand on: nodes of the Slurm job, or machines where the printed command is typed."""
    rendezvous: str | None = None
    """HOST:PORT where several machines meet; from Slurm's variables, or this machine's name, when null."""
    vectors_gb: float = Field(default=50.0, ge=0)
    """Largest cache of text vectors on disk (`cache/vectors` under the root); 0 keeps none."""


Context: TypeAlias = stage.Context[Runtime]
"""What a stage or a backend may reach while it runs."""


def message_of(error: Exception) -> str:
    """The message of an error; where the store is the trouble, with the settings that say where it lies."""
    if isinstance(error, StoreError):
        return f"{error}\n  SPEED_HOME (or runtime.home=DIR) says where the store lies"
    return str(error)
