"""Each training of the paper fits into the GPUs that are declared, or the plan names the settings that make it fit."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from speed.core.build import plan_shares
from speed.core.errors import mistakes_of
from speed.core.graph import stage_statuses
from speed.core.store import Store
from speed.pipeline import pipeline
from speed.runs.gpu_memory import Need, gpu_needs, memory_lines, refuse_beyond_memory

GOLDEN: dict[str, dict[str, list[Any]]] = json.loads((Path(__file__).parent / "gpu_memory.json").read_text())
"""By number and GB of the GPUs, and by stage: how many it takes, GB on each, and what would make it fit."""
AUTO: dict[str, dict[str, list[Any]]] = json.loads((Path(__file__).parent / "gpu_auto.json").read_text())
"""The same as the preset has it, with what is chosen for `auto` in front of the remedy."""
GIVEN = ("trainer.micro_batch=null", "trainer.gradient_checkpointing=false", "revisor.trainer.micro_batch=null")
"""Settings that are not auto."""


def needs(compose: Any, home: Path, gpus: int, gigabytes: int, *more: str) -> list[Need]:
    listed = ",".join(map(str, range(gpus)))
    config = compose("preset=paper", f"runtime.devices=[{listed}]", f"runtime.device_gb={gigabytes}", *more)
    return gpu_needs(config, stage_statuses(pipeline(config).goals(), Store(home)))


LLAMA = "meta-llama/Meta-Llama-3-8B"


@pytest.mark.parametrize("machine", ["8 x 80", "8 x 40", "8 x 24", "3 x 24", "1 x 24"])
@pytest.mark.parametrize(
    "what",
    [
        "",
        "+experiment=baseline_llama3",
        f"given.junior={LLAMA}",
        f"given.senior={LLAMA} given.revisor={LLAMA}",
        "preference=field_dpo",
    ],
)
def test_a_plan_tells_of_the_gpus_that_a_stage_is_given(compose: Any, tmp_path: Path, machine: str, what: str) -> None:
    gpus, gigabytes = map(int, machine.split(" x "))
    listed = ",".join(map(str, range(gpus)))
    config = compose("preset=paper", f"runtime.devices=[{listed}]", f"runtime.device_gb={gigabytes}", *what.split())
    order = pipeline(config).goals()
    shares = {goal.label: plan_shares(order, config.runtime)[goal.key].devices for goal in order}
    told = {need.label: need.gpus for need in gpu_needs(config, stage_statuses(order, Store(tmp_path)))}
    assert {"synthesis", "embedder"} <= set(told)
    assert told == {label: shares[label] for label in told}


@pytest.mark.parametrize("machine", sorted(GOLDEN))
def test_the_papers_trainings_on_declared_gpus(compose: Any, tmp_path: Path, machine: str) -> None:
    gpus, gigabytes = map(int, machine.split(" x "))
    found = needs(compose, tmp_path, gpus, gigabytes, *GIVEN)
    told = {need.label: [need.gpus, round(need.gigabytes), need.remedy] for need in found}
    assert {label: told[label] for label in GOLDEN[machine]} == GOLDEN[machine]
    whole = needs(compose, tmp_path, gpus, gigabytes)
    assert {need.label: [need.gpus, round(need.gigabytes), need.chosen, need.remedy] for need in whole} == AUTO[machine]
    for need in whole:
        assert need.remedy or need.gigabytes <= gigabytes


@pytest.mark.parametrize("machine", ["1 x 24", "4 x 40", "8 x 24", "8 x 80"])
def test_what_is_named_makes_it_fit(compose: Any, tmp_path: Path, machine: str) -> None:
    gpus, gigabytes = map(int, machine.split(" x "))
    before = needs(compose, tmp_path, gpus, gigabytes, *GIVEN)
    assert any(need.remedy for need in before)
    for need in before:
        settings = re.findall(r"[\w.]+=\w+", need.remedy)
        more = int(need.remedy.split()[0]) if "such GPUs" in need.remedy else gpus
        after = {each.label: each for each in needs(compose, tmp_path, more, gigabytes, *GIVEN, *settings)}
        assert not after[need.label].remedy, need


def as_dict(settings: list[str]) -> dict[str, str]:
    """Settings by their keys."""
    return dict(setting.split("=") for setting in settings)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("machine", "settings"),
    [
        ("8 x 80", "runtime.strategy=ddp"),
        ("8 x 16", "runtime.strategy=ddp"),
        ("8 x 16", "runtime.strategy=ddp trainer.micro_batch=4 trainer.gradient_checkpointing=false"),
        ("2 x 16", "runtime.nodes=2"),
        ("1 x 16", ""),
        ("1 x 16", "engine=gpu"),
        ("8 x 16", "engine=gpu"),
        ("1 x 8", ""),
    ],
)
def test_no_remedy_is_wrong_or_in_force_already(compose: Any, tmp_path: Path, machine: str, settings: str) -> None:
    gpus, gigabytes = map(int, machine.split(" x "))
    in_force = {"runtime.strategy": "zero3", "engine": "vllm", "trainer": "lora", **as_dict(settings.split())}
    before = needs(compose, tmp_path, gpus, gigabytes, *settings.split())
    assert any(need.remedy for need in before)
    for need in before:
        wanted = re.match(r"(\d+) such GPUs", need.remedy)
        more = max(gpus, int(wanted[1])) if wanted else gpus
        changed = in_force | as_dict(re.findall(r"[\w.]+=\w+", need.remedy))
        if (more, changed) == (gpus, in_force):
            assert not need.remedy or "GPUs with more memory" in need.remedy, need
            continue
        command = [f"{key}={value}" for key, value in changed.items()]
        after = {each.label: each for each in needs(compose, tmp_path, more, gigabytes, *command)}
        if need.remedy.startswith("no number of such GPUs would do; "):
            assert after[need.label].gigabytes < need.gigabytes
        else:
            assert not after[need.label].remedy, need


def test_the_nearest_remedy_is_named(compose: Any, tmp_path: Path) -> None:
    """The GPUs that are there before more of them, and GPUs before other models."""

    def told(machine: str, *settings: str) -> dict[str, str]:
        gpus, gigabytes = map(int, machine.split(" x "))
        return {need.label: need.remedy for need in needs(compose, tmp_path, gpus, gigabytes, *settings)}

    ddp = told("8 x 80", "runtime.strategy=ddp")
    assert ddp["revisor"] == "runtime.strategy=zero3 revisor.trainer.micro_batch=3 takes 28 GB"
    ddp = told("8 x 16", "runtime.strategy=ddp")
    assert ddp["embedder"] == "runtime.strategy=zero3 embedder.chunk_tokens=1024 takes 14 GB"
    assert ddp["junior"].startswith("runtime.strategy=zero3 trainer.micro_batch=")
    one = told("1 x 16")
    assert one["synthesis"] == one["root data"] == one["revision"] == "4 such GPUs would do"
    assert one["embedder"] == "2 such GPUs with runtime.strategy=zero3 embedder.chunk_tokens=512 would do"
    gpu = told("1 x 16", "engine=gpu")
    assert gpu["synthesis"] == "4 such GPUs with engine=vllm engine.cache_tokens=262144 would do"
    alone = told("1 x 8", "generator.base=Qwen/Qwen2.5-7B", "engine.cache_tokens=16384")
    assert alone["synthesis"] == "4 such GPUs would do"
    assert told("1 x 2")["synthesis"] == "GPUs with more memory or a smaller generator would do"
    assert "lora" not in told("1 x 2")["junior"]


ENCODING = {
    "evaluation": ("", "eval.precision=bf16 takes 17 GB"),
    "own domain": ("topics=corpus topics.path={documents}", "eval.precision=bf16 takes 17 GB"),
    "negatives": ("negatives=mined", "a smaller embedder as negatives.miner.model, or GPUs with more memory, would do"),
    "filter": ("filter=positive_aware", "a smaller embedder as filter.judge.model, or GPUs with more memory, would do"),
    "retriever pairs": (
        "judge=retriever",
        "a smaller embedder as judge.retriever.model, or GPUs with more memory, would do",
    ),
    "held-out pairs": ("held_out_pairs=100", "held_out_pairs=0 goes without, and GPUs with more memory would do"),
}
"""Stages that encode texts in fp32, where the evaluation is set to it, and what is said on a GPU that is too small."""


@pytest.mark.parametrize("label", ENCODING)
def test_what_encodes_texts_is_looked_at_too(compose: Any, tmp_path: Path, label: str) -> None:
    """Mistral-7B without its head is 26 GB in fp32 and 13 in bf16, and a chunk of 16,384 tokens takes 4 and 2."""
    for name in ("a.md", "b.md"):
        (tmp_path / name).write_text("word " * 200)
    settings, remedy = ENCODING[label]
    more = ("eval.precision=fp32", *settings.format(documents=tmp_path).split())
    small, middle, large = (
        {need.label: need for need in needs(compose, tmp_path / "home", 2, size, *more)}[label] for size in (24, 30, 80)
    )
    alone = label == "retriever pairs"
    assert (large.gpus, large.workers) == ((1, 2) if alone else (2, 1))
    assert 31 < large.gigabytes < 33
    assert (large.chosen, large.remedy) == ("", "")
    assert (middle.chosen, middle.remedy) == ("chunks of 4,096 tokens", ""), "an encoder takes less where it must"
    assert middle.gigabytes < 30
    assert small.remedy == remedy


def test_a_plan_says_so_where_memory_is_known(compose: Any, tmp_path: Path) -> None:
    declared = compose("preset=paper", "runtime.devices=[0,1,2,3,4,5,6,7]", "runtime.device_gb=80")
    found = stage_statuses(pipeline(declared).goals(), Store(tmp_path))
    lines = memory_lines(declared, found)
    assert "embedder: 45 of 80 GB on each of 8" in lines
    assert "senior: 46 of 80 GB on each of 8 with micro_batch=1 gradient_checkpointing=false" in lines
    assert "evaluation: 17 of 80 GB on each of 8" in lines
    assert "synthesis: 49 of 80 GB on one GPU by each of 8 workers" in lines
    smaller = compose("preset=paper", "runtime.devices=[0,1,2,3,4,5,6,7]", "runtime.device_gb=24")
    assert "synthesis: 14 of 24 GB on each of 4 by each of 2 workers" in memory_lines(smaller, found)
    assert memory_lines(compose("preset=paper", "runtime.devices=cpu"), found) == []


def test_nodes_share_a_batch_and_what_is_partitioned(compose: Any, tmp_path: Path) -> None:
    one, two = (
        {need.label: need for need in needs(compose, tmp_path, 8, 80, f"runtime.nodes={nodes}")} for nodes in (1, 2)
    )
    assert (one["junior"].chosen.split()[0], two["junior"].chosen.split()[0]) == ("micro_batch=2", "micro_batch=1")
    assert (two["revisor"].gpus, two["revisor"].chosen.split()[0]) == (6, "micro_batch=2"), "24 rows on twelve GPUs"
    for label in ("junior", "senior", "revisor", "embedder"):
        assert two[label].gigabytes < one[label].gigabytes, label


def test_what_cannot_fit_is_refused_with_what_would_unless_it_is_to_be_tried(compose: Any, tmp_path: Path) -> None:
    def refused(*more: str) -> list[str]:
        config = compose("preset=paper", "runtime.devices=[0,1,2,3,4,5,6,7]", "runtime.device_gb=24", *more)
        found = stage_statuses(pipeline(config).goals(), Store(tmp_path))
        return mistakes_of([lambda: refuse_beyond_memory(config, found)])

    assert refused() == [
        "embedder takes about 45 GB of each of 8 GPUs, and each has 24\n"
        "  embedder.chunk_tokens=1024 takes 14 GB; or runtime.beyond_memory=try, since this is an estimate"
    ]
    assert refused("embedder.chunk_tokens=1024") == []
    assert refused("runtime.beyond_memory=try") == []
    (senior,) = refused("embedder.chunk_tokens=1024", "trainer.micro_batch=2", "trainer.gradient_checkpointing=false")[
        1:
    ]
    assert senior.startswith("senior takes about 86 GB of each of 8 GPUs")
    batch = ["engine=gpu", "engine.batch_tokens=1048576"]
    told = refused("embedder.chunk_tokens=1024", *batch)
    assert told
    assert all("engine.batch_tokens=32768 takes 21 GB" in each for each in told), told


def test_a_likelihood_term_keeps_its_batch_whole(compose: Any, tmp_path: Path) -> None:
    """Fewer rows at once would change it, so it takes as many as the settings say."""
    found = {need.label: need for need in needs(compose, tmp_path, 8, 80, "preference=dpo_sft")}
    assert found["senior"].chosen.startswith("micro_batch=2 ")
