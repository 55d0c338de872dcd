"""The machine: its GPUs and cores, found without importing torch."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""Environment variable that says which GPUs a process sees."""
GIGABYTE = 1024**3


class Gpu(NamedTuple):
    """One GPU that this process may use."""

    name: str
    """How `CUDA_VISIBLE_DEVICES` names it."""
    gigabytes: float | None
    """Its memory; None where it is not known."""
    uuid: str = ""
    """Its name for all processes, whatever they see; empty where it is not known."""


def gpu_in_sight() -> bool:
    """Whether there may be a GPU: a quick look at drivers; true where it cannot tell."""
    # in a container the devices alone may be visible
    drivers = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/sys/module/amdgpu/version", "/dev/kfd", "/dev/dxg")
    return sys.platform != "linux" or any(Path(driver).exists() for driver in drivers)


@lru_cache(maxsize=1)
def gpus() -> tuple[Gpu, ...]:
    """The GPUs that this process may use, in the order in which torch numbers them; none where torch can use none."""
    visible = os.environ.get(VISIBLE)
    if not gpu_in_sight() or visible == "" or not _torch_has_gpus():
        return ()
    found = _asked_of_driver()
    if visible is None:
        return found
    names = [name.strip() for name in visible.split(",")]
    some = found[0].gigabytes if found else None
    unknown = Gpu("", some)  # a part of a GPU
    return tuple(next((gpu for gpu in found if _is(gpu, name)), unknown)._replace(name=name) for name in names if name)


def cores() -> int:
    """Cores that this process may use: of its affinity and of its container's quota."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(found, int(quota) // int(period)))
    except (OSError, ValueError):  # no container, or no limit ("max")
        return found


def memory_gigabytes() -> float | None:
    """Memory that this process may use: of the machine and of its container's limit; None where it is not known."""
    try:
        found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows
        return None
    with suppress(OSError, ValueError):  # no container, or no limit ("max")
        found = min(found, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return found / 1024**3


@lru_cache(maxsize=1)
def processor_has_bf16() -> bool | None:
    """Whether the processor multiplies in bf16 (AMX or AVX-512); None where that is not known, as off Linux."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        return None
    return any(flag in flags for flag in ("amx_bf16", "avx512_bf16"))


def _is(gpu: Gpu, name: str) -> bool:
    """Whether `CUDA_VISIBLE_DEVICES` may call it so: by its number, or by as much of its UUID as tells it apart."""
    return name == gpu.name or (name.startswith("GPU-") and gpu.uuid.startswith(name))


def _torch_has_gpus() -> bool:
    """Whether the torch that is installed was made for GPUs; told from its version, without importing it."""
    torch = find_spec("torch")
    if torch is None or torch.origin is None:
        return False
    try:
        version = Path(torch.origin).with_name("version.py").read_text(encoding="utf-8")
    except OSError:
        return True
    return bool(re.search(r"^(cuda|hip)\b[^=\n]*= *['\"]", version, re.MULTILINE))


def _asked_of_driver() -> tuple[Gpu, ...]:
    """All GPUs of the machine; one where the driver's own tool cannot be asked and a device is in sight."""
    tool = shutil.which("nvidia-smi")
    if tool is not None:
        query = [tool, "--query-gpu=index,memory.total,uuid", "--format=csv,noheader,nounits"]
        try:
            said = subprocess.run(query, capture_output=True, text=True, check=True, timeout=60).stdout
            rows = [line.split(",") for line in said.splitlines() if line.strip()]
            return tuple(Gpu(index.strip(), float(memory) / 1024, uuid.strip()) for index, memory, uuid in rows)
        except (OSError, subprocess.SubprocessError, ValueError):
            pass
    nodes = sorted(Path("/dev").glob("nvidia[0-9]*"))
    if nodes or sys.platform == "linux":
        return tuple(Gpu(str(number), None) for number in range(max(1, len(nodes))))
    return ()
