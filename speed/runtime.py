"""Machine and money: how a run is carried out, never what it computes.

No field enters a key, so all of them may be changed freely.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import Field, model_validator

from speed.core import stage
from speed.core.build_settings import BuildSettings
from speed.core.errors import StoreError, UserError
from speed.core.machine import gpus

FORMER = {
    "device": "runtime.devices=auto, cpu or [0,1] says where models run",
    "processes": "a training takes as many of runtime.devices=auto or [0,1] as its batch divides by, a process on each",
    "generation_gpus": "each of runtime.devices=auto or [0,1] generates, and a model that is too large for one of "
    "runtime.device_gb is shared by as many as it needs",
}
"""Options that are no longer there, and what took their place."""


def former_option(name: str) -> str:
    """The refusal of an option that is no longer there."""
    return f"runtime.{name} is no longer there: {FORMER[name]}"


class Runtime(BuildSettings):
    """The group `runtime` of the config."""

    home: Path = Path("speed_home")
    """Root of everything built; the environment variable SPEED_HOME sets its default."""
    device_gb: float | None = Field(None, gt=0)
    """Memory of each GPU in GB: found, or declared for a plan of another machine."""
    beyond_memory: Literal["refuse", "try"] = "refuse"
    """What becomes of a run with a stage that does not fit into the memory of its GPUs by the estimates."""
    cluster: Literal["none", "ray"] = "none"
    """Whether what models write is shared with the other machines of a Ray cluster."""
    address: str = "auto"
    """HOST:PORT of that cluster, in which this machine is too; auto: the one that was started here."""
    concurrency: int = 32
    """Requests to a teacher in flight, of all stages and processes of a root together."""
    api_base: str | None = None
    """URL of an OpenAI-compatible server, for teacher=openai_compatible, or openai_batch elsewhere than at OpenAI."""
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
    """Least time between two checkpoints of a training, which take a twentieth of its time at most; 0: after each step,
    whatever it costs."""
    tracking_dir: Path | None = None
    """Folder of W&B's files; inside the run's folder when null."""
    strategy: Literal["ddp", "zero3"] = "ddp"
    """How processes share a training: each with the whole model, or with a part of it each (ZeRO-3: DeepSpeed's for
    generators, torch's own fully_shard for embedders)."""
    rendezvous: str | None = None
    """HOST:PORT where several machines meet; from Slurm's variables, or this machine's name, when null."""
    vectors_gb: float = Field(default=50.0, ge=0)
    """Largest cache of text vectors on disk (`cache/vectors` under the root); 0 keeps none."""

    @model_validator(mode="before")
    @classmethod
    def _today(cls, values: object) -> object:
        if isinstance(values, dict) and (former := [name for name in FORMER if name in values]):
            raise ValueError("; ".join(map(former_option, former)))
        return values

    def on_this_machine(self) -> Runtime:
        """The same with what is found of the machine in the place of `auto`: its GPUs and their memory.

        Declared devices stay, so that a plan can be made for another machine; `check_devices` refuses to run there.
        """
        there = () if self.devices == "cpu" else gpus()
        devices = tuple(range(len(there))) if self.devices == "auto" else self.devices
        used = [there[number] for number in devices if isinstance(number, int) and number < len(there)]
        sizes = [gpu.gigabytes for gpu in used if gpu.gigabytes is not None]
        smallest = round(min(sizes), 1) if sizes else None
        return self.model_copy(update={"devices": devices or "cpu", "device_gb": self.device_gb or smallest})

    def check_devices(self) -> None:
        """Refuse devices that this machine does not have.

        Raises:
            UserError: naming those that it has.
        """
        there = len(gpus())
        if isinstance(self.devices, tuple) and (lacking := [str(one) for one in self.devices if one >= there]):
            have = f"has {there} that torch can use" if there else "has no usable GPU"
            listed = ",".join(map(str, self.devices))
            raise UserError(
                f"runtime.devices=[{listed}] names GPU {', '.join(lacking)}, and this machine {have}\n"
                "  take runtime.devices=auto or cpu; plan=true plans for declared devices anywhere"
            )


Context: TypeAlias = stage.Context[Runtime]
"""What a stage or a backend may reach while it runs."""


def message_of(error: Exception) -> str:
    """The message of an error; where the store is the trouble, with the settings that say where it lies."""
    if isinstance(error, StoreError):
        return f"{error}\n  SPEED_HOME (or runtime.home=DIR) says where the store lies"
    return str(error)
