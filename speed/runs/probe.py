"""`probe=true`: a few real steps of each stage that trains or computes with a model, on the devices that it would get.

A trial is built like a stage, in a process of its own, in a store of its own that is removed afterwards: nothing is
written into the run's store, no teacher is asked. One is carried out after the other, and equal ones once. What does
not fit, or cannot be tried, is told, and the others go on.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar, NamedTuple

from speed.config import Config
from speed.core.allocation import Demand, Share
from speed.core.build import GRANT, plan_shares
from speed.core.build_all import StageFailed, build_all
from speed.core.errors import UserError, mistakes_of
from speed.core.graph import Goal, StageStatus
from speed.core.machine import memory_gigabytes
from speed.core.spec import Json
from speed.core.stage import Node, Stage
from speed.core.store import Store
from speed.data.costs.loads import Measured
from speed.runs.building import PRELOAD
from speed.runs.tables import paragraph
from speed.runtime import Context, Runtime
from speed.stages.trials import Trial

RESULT = "measured.json"
NO_CHECKPOINT = 1e9
"""Seconds between two checkpoints of a training that writes none."""
TAIL = 300
"""Characters of a log that are told of a trial whose process ended."""


@dataclass(frozen=True)
class Probing(Stage[Measured]):
    """The trial of a stage, with the stage's own share of the machine."""

    stage: Node

    name: ClassVar[str] = "probe"

    @property
    def label(self) -> str:
        return self.stage.label

    @property
    def heavy(self) -> tuple[str, ...]:
        return self.stage.heavy

    def demand(self, runtime: Runtime) -> Demand:
        return self.stage.demand(runtime)._replace(workers=False)

    def run(self, out: Path, ctx: Context) -> None:
        trial: Trial = self.stage.trial()
        with TemporaryDirectory(dir=ctx.store.home) as folder:
            try:
                found = trial.measure(Path(folder), ctx)
                told: dict[str, Json] = {"measured": None if found is None else found.model_dump()}
            except UserError as error:
                told = {"refused": str(error)}
        (out / RESULT).write_text(json.dumps(told), encoding="utf-8")


class Probed(NamedTuple):
    """What came out of a stage's trial."""

    measured: Measured | None
    why: str
    """Why nothing was measured."""
    trial: Trial
    share: Share
    workers: int
    """That would go through the stage's rows side by side."""
    tokens: float
    """That the stage has still to go through."""

    @property
    def hours(self) -> float | None:
        """Of the stage at the measured speed; None where it was not measured, or nobody knows how much there is."""
        if self.measured is None or not self.tokens:
            return None
        return self.tokens / self.measured.tokens_per_second / self.workers / 3600

    @property
    def gpu_hours(self) -> float | None:
        """The same by GPU; None where it computes on cores."""
        return None if self.hours is None or not self.share.devices else self.hours * self.workers * self.share.devices


def probe(config: Config, found: Sequence[StageStatus]) -> dict[str, Probed]:
    """Carry out the trials of the stages that are not built yet; by label.

    Raises:
        UserError: where devices are named that this machine does not have.
    """
    missing = [status for status in found if status.state != "hit" and status.goal.node.trial() is not None]
    if any(status.goal.node.demand(config.runtime).devices for status in missing):
        config.runtime.check_devices()
    shares = plan_shares([status.goal for status in found], config.runtime)
    chosen: list[StageStatus] = []
    alike: dict[str, str] = {}
    for status in missing:
        same = next((one for one in chosen if _is_alike(one, status, shares)), None)
        alike[status.goal.label] = (same or status).goal.label
        if same is None:
            chosen.append(status)
    results: dict[str, dict[str, Json]] = {}
    for status in chosen:
        node = status.goal.node
        if mistakes := mistakes_of([partial(node.check, config.runtime), node.check_models]):
            results[status.goal.label] = {"refused": "\n".join(mistakes)}
    left = [status for status in chosen if status.goal.label not in results]
    results |= carry_out([(Probing(status.goal.node), shares[status.goal.key]) for status in left], config.runtime)
    return {
        status.goal.label: _probed(config.runtime, status, results[alike[status.goal.label]], shares[status.goal.key])
        for status in missing
    }


def _is_alike(one: StageStatus, other: StageStatus, shares: Mapping[str, Share]) -> bool:
    mine, its = one.goal.node, other.goal.node
    return bool(mine.trial() == its.trial()) and shares[one.goal.key] == shares[other.goal.key]


def _probed(runtime: Runtime, status: StageStatus, result: Mapping[str, Json], share: Share) -> Probed:
    node = status.goal.node
    trial: Trial = node.trial()
    measured = None if result.get("measured") is None else Measured.model_validate(result["measured"])
    why = str(result.get("refused", "" if measured else f"{type(node).__name__} has nothing to measure"))
    workers = 1
    if node.demand(runtime).workers:
        all_devices = len(runtime.devices) if isinstance(runtime.devices, tuple) else 0
        workers = max(1, all_devices // share.devices) if share.devices else runtime.side_by_side
    elif trial.by_device and share.devices:
        share, workers = share.model_copy(update={"devices": 1}), share.devices
    return Probed(measured, why, trial, share, workers, trial.tokens(status.work))


def carry_out(trials: Sequence[tuple[Probing, Share]], runtime: Runtime) -> dict[str, dict[str, Json]]:
    """What each trial has written, by label; where its process ended, that."""
    results: dict[str, dict[str, Json]] = {}
    with TemporaryDirectory(prefix="speed-probe-") as folder:
        store = Store(Path(folder)).open()
        scratch = runtime.model_copy(
            update={"home": store.home, "checkpoint_seconds": NO_CHECKPOINT, "cluster": "none"}
        )
        for probing, share in trials:
            (store.partial(probing) / GRANT).write_text(share.model_dump_json(), encoding="utf-8")

        def listen(label: str, event: dict[str, Json]) -> None:
            if event["event"] == "start":
                print(f"measuring {label}", file=sys.stderr)
            elif event["event"] == "say":
                print(f"{label}: {event['message']}", file=sys.stderr)
            elif event["event"] in ("crash", "user_error", "corrupt"):
                results[label] = {"refused": _ended(event)}

        left = [probing for probing, _ in trials]
        while left:
            keys = [probing.key for probing in left]
            order = [Goal(probing, 0, tuple(keys[:place][-1:])) for place, probing in enumerate(left)]
            with suppress(UserError, StageFailed):  # told by `listen`; the others go on
                build_all(order, store, scratch, listen, store.home / "logs", PRELOAD)
            for probing in left:
                if store.manifest(probing) is not None:
                    results[probing.label] = json.loads((store.payload(probing) / RESULT).read_text(encoding="utf-8"))
            if not any(probing.label in results for probing in left):
                raise StageFailed("no trial could be started")
            left = [probing for probing in left if probing.label not in results]
    return results


def _ended(event: Mapping[str, Json]) -> str:
    """How a trial ended that has written nothing, with the end of its log."""
    log = Path(str(event.get("log", "")))
    said = log.read_text(encoding="utf-8", errors="replace").strip()[-TAIL:] if log.is_file() else ""
    return f"{event['message']}" + (f": ... {said}" if said else "")


def probe_lines(found: Mapping[str, Probed], runtime: Runtime) -> list[str]:
    """A line for each trial, under one that says what was measured."""
    if not found:
        return ["measured: nothing, since no stage that is left to build trains or computes with a model"]
    lines = ["measured here, with random data at the longest lengths (what is estimated is not marked):"]
    return [paragraph(line) for line in [*lines, *(_line(label, each, runtime) for label, each in found.items())]]


def _line(label: str, probed: Probed, runtime: Runtime) -> str:
    measured = probed.measured
    if measured is None:
        killed = "code -9" in probed.why
        remedy = f"; the machine may have run out of memory: {probed.trial.smaller}" if killed else ""
        return f"{label}: not measured: {probed.why}{remedy}"
    if probed.share.devices:
        of = "" if runtime.device_gb is None else f" of {runtime.device_gb:g}"
        where = f"{measured.gigabytes:,.1f}{of} GB on each of {probed.share.devices}"
    else:
        most = memory_gigabytes()
        of = "" if most is None else f" of {most:,.0f}"
        where = f"{measured.gigabytes:,.1f}{of} GB on cores"
    settings = f" with {measured.settings}" if measured.settings else ""
    by = f" by each of {probed.workers} workers" if probed.workers > 1 else ""
    hours = "" if probed.hours is None else f", {_lasting(probed.hours)}"
    cut = f"; {measured.cut}" if measured.cut else ""
    return f"{label}: {where}{settings}, {measured.tokens_per_second:,.0f} tokens a second{by}{hours} (measured){cut}"


def _lasting(hours: float) -> str:
    if hours >= 1:
        return f"about {hours:,.1f} hours"
    return f"about {hours * 60:.0f} minutes" if hours >= 1 / 60 else "under a minute"
