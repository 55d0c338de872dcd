"""What the builder itself must know of the machine; `speed.runtime.Runtime` adds what stages and backends need."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from speed.core.spec import Spec


class BuildSettings(Spec):
    """Devices, processes and threads of a run."""

    devices: Literal["auto", "cpu"] | tuple[int, ...] = "auto"
    """GPUs that may be used: all that are found, none, or these, counted from 0 as torch counts them."""
    nodes: int = Field(default=1, ge=1)
    """Machines that the processes of a training stand on: nodes of the Slurm job, or machines where the printed command
    is typed."""
    side_by_side: int = Field(default=2, ge=1)
    """Independent builds that may run on this machine's cores at the same time."""
    threads: Literal["auto"] | int = 1
    """Arithmetic threads of a process; auto: all cores for a stage that runs alone, shared by those side by side."""
    grace_seconds: float = 60.0
    """How long a run that must end waits for the checkpoints of its trainings."""

    @property
    def any_number(self) -> tuple[int, ...]:
        """Numbers of devices that a build can be given which shares its work out among all that there are."""
        return tuple(range(1, 1 + len(self.devices))) if isinstance(self.devices, tuple) else (1,)

    @field_validator("devices", mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        if value == "auto" or value == "cpu":
            return value
        numbers = value if isinstance(value, (list, tuple)) else [value]
        whole = all(isinstance(number, int) and not isinstance(number, bool) and number >= 0 for number in numbers)
        if not numbers or not whole or len(set(numbers)) < len(numbers):
            raise ValueError("take auto, cpu, or numbers of different GPUs, such as [0,1]")
        return tuple(numbers)

    @field_validator("threads", mode="before")
    @classmethod
    def _counted(cls, value: object) -> object:
        if value != "auto" and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise ValueError("take auto, or a number from 1 on")
        return value
