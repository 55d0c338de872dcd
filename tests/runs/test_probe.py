"""`probe=true`: real steps on the devices of the plan, what does not fit told beside what does, nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from command_line import SMOKE, speed_here
from conftest import ROOT

from speed.core.allocation import Demand, Share
from speed.core.errors import UserError
from speed.core.graph import Goal, StageStatus, stage_statuses
from speed.core.machine import memory_gigabytes
from speed.core.stage import Stage
from speed.core.store import Store
from speed.core.work import Work
from speed.data.costs.loads import Measured
from speed.pipeline import pipeline
from speed.runs.probe import Probed, Probing, probe, probe_lines
from speed.runtime import Context, Runtime
from speed.stages.trials import Trial

TINY = (
    "generator.sft.max_length=48", "preference.dpo.max_length=48", "revisor.sft.max_length=48", "engine.block=23",
    "engine.batch_tokens=1500", "embedder.batch_size=8", "embedder.max_length=24", "eval.max_length=24",
)  # fmt: skip


@dataclass(frozen=True)
class Scripted(Trial):
    """Does what its base is called, and leaves a line in a file."""

    base: str
    log: str

    group: ClassVar[Literal["training"]] = "training"
    smaller: ClassVar[str] = "fewer rows"

    def measure(self, out: Path, ctx: Context) -> Measured | None:
        with open(self.log, "a", encoding="utf-8") as file:
            file.write(f"{self.base} {ctx.grant.threads}\n")
        assert out.is_dir()
        assert not list(out.iterdir())
        if self.base == "large":
            raise UserError("4 rows do not fit\n  take trainer.micro_batch=2")
        if self.base == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.base == "broken":
            raise RuntimeError("a mistake of ours")
        return None if self.base == "idle" else Measured(gigabytes=1.5, tokens_per_second=100.0, cut="2 and not 4")


@dataclass(frozen=True)
class Trained(Stage[int]):
    """Its build would be a mistake."""

    base: str
    number: int
    log: str
    tokens: float = 9.0

    name: ClassVar[str] = "trained"
    packages: ClassVar[tuple[str, ...]] = ("json",)

    @property
    def label(self) -> str:
        return f"{self.base} {self.number}"

    def demand(self, runtime: Runtime) -> Demand:
        return Demand((1,))

    def work(self) -> Work:
        return Work(trained=8000)

    def trial(self) -> Scripted:
        return Scripted(self.tokens, self.base, self.log)

    def run(self, out: Path, ctx: Context) -> None:
        raise AssertionError("built")


def test_each_stage_is_tried_in_its_own_process_and_what_fails_stops_no_other(
    compose: Any, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path_factory.mktemp("s")  # sockets lie there, whose paths have at most 107 characters
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    config = compose("preset=miniature", "runtime.devices=cpu", f"runtime.home={tmp_path / 'home'}")
    names = ("large", "fits", "killed", "idle", "broken", "fits")
    nodes = [Trained(base, number, str(tmp_path / "log"), 9.0 + number) for number, base in enumerate(names)]
    found = [StageStatus(Goal(node, 0, ()), 0, 1, node.work(), node.work()) for node in nodes]
    built = Trained("built", 9, str(tmp_path / "log"))
    results = probe(config, [*found, StageStatus(Goal(built, 0, ()), 1, 1, built.work(), built.work())])
    assert list(results) == ["large 0", "fits 1", "killed 2", "idle 3", "broken 4", "fits 5"]
    assert sorted((tmp_path / "log").read_text().split("\n")[:-1]) == sorted(
        f"{name} 1" for name in ("large", "fits", "killed", "idle", "broken")
    ), "equal trials once, whatever the stages' lengths, and with the threads of the plan"
    lines = "\n".join(probe_lines(results, config.runtime))
    most = f"{memory_gigabytes():,.0f}"
    assert f"fits 1: 1.5 of {most} GB on cores, 100 tokens a second, about 13 minutes (measured); 2 and not 4" in lines
    assert f"fits 5: 1.5 of {most} GB on cores, 100 tokens a second, about 19 minutes (measured)" in lines
    assert "large 0: not measured: 4 rows do not fit\n  take trainer.micro_batch=2" in lines
    assert "killed 2: not measured: its process ended with code -9; the machine may have run out of memory" in lines
    assert "fewer rows" in lines
    assert "broken 4: not measured: RuntimeError: a mistake of ours" in lines
    assert "idle 3: not measured: Trained has nothing to measure" in lines
    assert not list(scratch.glob("speed-probe-*"))
    assert not (tmp_path / "home").exists()


def test_hours_are_those_of_all_workers_and_gpu_hours_those_of_all_gpus(tmp_path: Path) -> None:
    measured, trial = Measured(gigabytes=70.0, tokens_per_second=1000.0), Scripted(9.0, "fits", "")
    probed = Probed(measured, "", trial, Share(devices=2), 4, 7.2e7)
    assert probed.hours == pytest.approx(5.0)
    assert probed.gpu_hours == pytest.approx(40.0)
    (_, line) = probe_lines({"synthesis": probed}, Runtime(devices=tuple(range(8)), device_gb=80))
    told = "70.0 of 80 GB on each of 2, 1,000 tokens a second by each of 4 workers, about 5.0 hours (measured)"
    assert line.replace("\n ", "") == f"synthesis: {told}"
    assert probed._replace(tokens=0.0).hours is None
    assert probed._replace(share=Share()).gpu_hours is None


def test_devices_that_are_not_here_cannot_be_measured(compose: Any, tmp_path: Path) -> None:
    config = compose("preset=miniature", "runtime.devices=[97]")
    with pytest.raises(UserError, match="names GPU 97"):
        probe(config, stage_statuses(pipeline(config).goals(), Store(tmp_path)))


def test_the_miniatures_own_stages_on_the_cpu(compose: Any, tmp_path: Path) -> None:
    """Each by its own method, with the real bases and libraries at tiny shapes."""
    config = compose(SMOKE, "preference=dpo_sft", "runtime.devices=cpu", *TINY)
    trials: list[Trial] = []
    tried = []
    for goal in pipeline(config).goals():
        trial = goal.node.trial()
        if trial is None or trial in trials:
            continue
        trials.append(trial)
        tried.append(goal.label)
        out = tmp_path / goal.key
        out.mkdir()
        told: list[Any] = []
        home = tmp_path / "home" / goal.key
        Probing(goal.node).run(out, Context(Store(home).open(), Runtime(home=home, devices="cpu"), send=told.append))
        (file,) = out.iterdir()
        measured = Measured.model_validate_json(file.read_text().removeprefix('{"measured": ').removesuffix("}"))
        assert 0.05 < measured.gigabytes < 64, goal.label
        assert measured.tokens_per_second > 0
        assert not measured.cut
        assert not list(home.rglob("*.safetensors")), "nothing is kept"
    assert tried[0] == "junior"
    assert {"root data", "senior", "revisor", "embedder", "evaluation"} < set(tried)


def test_the_plan_has_what_was_measured_in_the_place_of_its_estimates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(config: Any, found: list[StageStatus]) -> dict[str, Probed]:
        trials = {status.goal.label: (status, status.goal.node.trial()) for status in found if status.goal.node.trial()}
        fast, small = Measured(gigabytes=33.0, tokens_per_second=1e5, settings="micro_batch=2"), Share(devices=8)
        return {
            label: Probed(fast, "", trial, small, 1, trial.tokens(status.work))
            if label != "senior"
            else Probed(None, "does not fit\n  trainer.micro_batch=1", trial, small, 1, 0.0)
            for label, (status, trial) in trials.items()
        }

    monkeypatch.setattr("speed.runs.experiment.probe", measured)
    machine = ("preset=paper", "runtime.devices=[0,1,2,3,4,5,6,7]", "runtime.device_gb=80")
    done = speed_here(tmp_path / "home", *machine, "probe=true")
    assert done.code == 0, done.err
    told = done.out.replace("\n ", "")
    assert "junior: 33.0 of 80 GB on each of 8 with micro_batch=2, 100,000 tokens a second, about" in told
    assert "junior: 46 of 80" not in told
    assert "senior: not measured: does not fit trainer.micro_batch=1" in " ".join(told.split())
    assert "senior: 46 of 80 GB on each of 8 with micro_batch=1" in told, "the estimate stays beside it"
    hours = r"junior [\d.,]+ measured, senior [\d.,]+, revisor [\d.,]+ measured, embedder [\d.,]+ measured"
    assert re.search(hours, told)
    assert not (tmp_path / "home").exists()


def test_the_docs_name_what_computes_with_a_model_and_is_not_measured(compose: Any, tmp_path: Path) -> None:
    documents = tmp_path / "documents"
    documents.mkdir()
    for name in ("red", "blue"):
        (documents / f"{name}.md").write_text(f"All about {name}. " * 80)
    found = set()
    for overrides in (
        ("topics=corpus", f"topics.path={documents}", "topics.documents.held_out=0.5", "held_out_pairs=5"),
        ("judge=retriever", "negatives=mined", "filter=positive_aware"),
        ("preference=field_dpo",),
    ):
        config = compose(*overrides)
        nodes = [goal.node for goal in pipeline(config).goals()]
        found |= {node.label for node in nodes if node.demand(config.runtime).devices and node.trial() is None}
    [line] = re.findall(r"Not measured: (.*?)\.\s", (ROOT / "docs" / "scale.md").read_text(encoding="utf-8"), re.DOTALL)
    assert set(re.findall("`(.*?)`", line)) == found
