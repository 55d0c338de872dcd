"""Each training of the paper fits into the GPUs that are declared, or the plan names the settings that make it fit."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from speed.core.graph import stage_statuses
from speed.core.store import Store
from speed.pipeline import pipeline
from speed.runs.gpu_memory import Need, gpu_needs, memory_lines

GOLDEN: dict[str, dict[str, list[Any]]] = json.loads((Path(__file__).parent / "gpu_memory.json").read_text())
"""By number and GB of the GPUs, and by stage: how many it takes, GB on each, and what would make it fit."""


def needs(compose: Any, home: Path, gpus: int, gigabytes: int, *more: str) -> list[Need]:
    listed = ",".join(map(str, range(gpus)))
    config = compose("preset=paper", f"runtime.devices=[{listed}]", f"runtime.device_gb={gigabytes}", *more)
    return gpu_needs(config, stage_statuses(pipeline(config).goals(), Store(home)))


@pytest.mark.parametrize("machine", sorted(GOLDEN))
def test_the_papers_trainings_on_declared_gpus(compose: Any, tmp_path: Path, machine: str) -> None:
    gpus, gigabytes = map(int, machine.split(" x "))
    found = needs(compose, tmp_path, gpus, gigabytes)
    assert {need.label: [need.gpus, round(need.gigabytes), need.remedy] for need in found} == GOLDEN[machine]


@pytest.mark.parametrize("machine", ["1 x 24", "4 x 40", "8 x 24", "8 x 80"])
def test_what_is_named_makes_it_fit(compose: Any, tmp_path: Path, machine: str) -> None:
    gpus, gigabytes = map(int, machine.split(" x "))
    before = needs(compose, tmp_path, gpus, gigabytes)
    assert any(need.remedy for need in before)
    for need in before:
        settings = re.findall(r"[\w.]+=\w+", need.remedy)
        more = int(need.remedy.split()[0]) if "such GPUs" in need.remedy else gpus
        after = {each.label: each for each in needs(compose, tmp_path, more, gigabytes, *settings)}
        assert not after[need.label].remedy, need


def test_a_plan_says_so_where_memory_is_known(compose: Any, tmp_path: Path) -> None:
    declared = compose("preset=paper", "runtime.devices=[0,1,2,3,4,5,6,7]", "runtime.device_gb=80")
    found = stage_statuses(pipeline(declared).goals(), Store(tmp_path))
    lines = memory_lines(declared, found)
    assert "embedder: 35 of 80 GB on each of 8" in lines
    assert any(line.startswith("senior: 86 of 80 GB") and "trainer.micro_batch=1" in line for line in lines)
    assert memory_lines(compose("preset=paper", "runtime.devices=cpu"), found) == []
