"""Finished runs of a root: what was set, which seeds, what came out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from speed.core.spec import Json, digest, recipe
from speed.data.evaluation_record import EvaluationRecord, read_evaluation
from speed.data.records import Scores

DEFAULT_ROOT = "speed_home"
"""The root of runs where neither a command nor SPEED_HOME names one."""
DEFAULT_PRESET = "miniature"
"""That of a run which names none (`conf/config.yaml`)."""
NOT_OF_THE_EXPERIMENT = ("runtime", "seed", "tracker")
"""Sections of a config that decide where a run is carried out, or which draw of it this is."""
SUMMED = (
    *("rows_in", "rows_out", "rejected", "noted", "cost", "asked", "dollars"),
    *("seconds", "gpu_seconds", "cpu_seconds"),
)
"""Figures of a stage that add up over its rounds."""
EVERY = "*"
"""In the place of a stage's label: all stages."""


@dataclass(frozen=True)
class Seeds:
    """The three seeds of a run."""

    data: int = 0
    sample: int = 0
    train: int = 0

    @classmethod
    def of(cls, value: object) -> Seeds:
        """Read a config's `seed`: three of them, or one number for two."""
        if isinstance(value, Mapping):
            return cls(*(int(value.get(name, 0)) for name in ("data", "sample", "train")))
        return cls(0, int(str(value)), int(str(value)))

    @property
    def single(self) -> int | None:
        """The number behind `seed=`, where that sets them all."""
        return self.sample if self.data == 0 and self.sample == self.train else None

    @property
    def name(self) -> str:
        """The seed as tables show it."""
        if self.single is not None:
            return str(self.single)
        return f"{self.data}/{self.sample}/{self.train}"

    @property
    def overrides(self) -> tuple[str, ...]:
        """What to type for it."""
        if self.single is not None:
            return (f"seed={self.single}",)
        return (f"seed.data={self.data}", f"seed.sample={self.sample}", f"seed.train={self.train}")

    @property
    def order(self) -> tuple[int, int, int]:
        """For sorting."""
        return (self.sample, self.train, self.data)


@dataclass(frozen=True)
class FinishedRun:
    """One line of the ledger of runs, with the config and the summary of its folder."""

    folder: Path
    line: Mapping[str, Any]
    seeds: Seeds
    settings: Mapping[str, Json]
    """Every value that the experiment depends on but for its seeds, by dotted key."""
    summary: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Identity of the whole experiment."""
        return str(self.line["key"])

    @property
    def overrides(self) -> tuple[str, ...]:
        """What was typed, and what its sweep set."""
        return tuple(map(str, self.line.get("overrides", ())))

    @property
    def labels(self) -> set[str]:
        """Names of its stages."""
        return {str(stage["label"]) for stage in self.summary["stages"]}

    @cached_property
    def scores(self) -> Scores:
        """Scores of its embedder."""
        return Scores.model_validate(self.summary["scores"])

    @cached_property
    def evaluation(self) -> EvaluationRecord:
        """Its scores with how they were measured."""
        return read_evaluation(self.folder)

    @property
    def calls_now(self) -> int:
        """Answers that the stages which this run built took from a teacher."""
        return int(self.line.get("calls_now", 0))

    @property
    def dollars_now(self) -> float | None:
        """What these cost; None where a price is unknown."""
        return _sum(stage["dollars"] for stage in self.summary["stages"] if stage["state"] == "built")

    @property
    def dollars(self) -> float | None:
        """What everything that the run stands on cost, whenever it was paid."""
        return _sum(_asked(stage)["dollars"] for stage in self.summary["stages"])

    @property
    def calls(self) -> int:
        """The same in answers."""
        return sum(int(_asked(stage)["calls"] or 0) for stage in self.summary["stages"])

    def figure(self, path: str) -> float | None:
        """A number of its summary; a stage is named by its label (`stages/dedup/rows_out`). None where there is none.

        `asked` of a stage is what its answers took (`calls`, `tokens`, `dollars`), whichever run has paid for them.
        `stages/*/cpu_seconds` is of all stages together. `a + b` is the sum of two, `a per b` the one divided by the
        other. Of a stage with several rounds (`preference.rounds`) rows and costs are those of all; its other figures
        have no one number.
        """
        parts, _, base = path.partition(" per ")
        whole = _sum(self._figure(part.strip()) for part in parts.split(" + "))
        if whole is None or not base:
            return whole
        divisor = self._figure(base.strip())
        return whole / divisor if divisor else None

    def _figure(self, path: str) -> float | None:
        head, *names = path.split("/")
        found: Any = self.summary.get(head)
        if not isinstance(found, list):
            return _number(found, names)
        label, *names = names
        rounds = [
            item
            for item in found
            if isinstance(item, dict) and label in (EVERY, _without_round(str(item.get("label"))))
        ]
        if not rounds or (len(rounds) > 1 and names[0] not in SUMMED):
            return None
        if names[0] == "asked":
            rounds = [{"asked": _asked(each)} for each in rounds]
        return _sum(_number(each, names) for each in rounds)


def _asked(stage: Mapping[str, Any]) -> dict[str, float | None]:
    """What the answers of a stage took: those that it asked for, and those that another run's journal had."""
    cost, found = (
        stage["cost"],
        [
            line
            for line in stage.get("ledger", ())
            if any(line.get(name) for name in ("cached", "found_tokens", "found_dollars"))
        ],
    )
    tokens = [cost.get("tokens_in", 0), cost.get("tokens_out", 0), *(_found(line, "tokens") for line in found)]
    dollars = [stage["dollars"], *(_found(line, "dollars", free="miniature/rules") for line in found)]
    return {
        "calls": cost.get("calls", 0) + cost.get("cached", 0),
        "tokens": _sum(tokens),
        "dollars": _sum(dollars),
    }


def _found(line: Mapping[str, Any], what: str, free: str | None = None) -> Any:
    """Unknown in a run from before it was noted, but for a model that is free."""
    return line.get(f"found_{what}", 0.0 if free is not None and line.get("model") == free else None)


def _without_round(label: str) -> str:
    return re.sub(r" \d$", "", label)


def _number(found: Any, names: Sequence[str]) -> float | None:
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return float(found) if isinstance(found, (int, float)) and not isinstance(found, bool) else None


def _sum(values: Any) -> float | None:
    listed = list(values)
    return None if None in listed else float(sum(listed))


def settings_of(config: Mapping[str, Any]) -> dict[str, Json]:
    """The values of a composed config that its experiment depends on, by dotted key.

    A part that is switched off (`enabled: false`) has no other values: they decide nothing.
    """
    out: dict[str, Json] = {}

    def read(value: Any, path: str) -> None:
        if not isinstance(value, Mapping):
            out[path] = value
        elif value.get("enabled") is False:
            out[f"{path}.enabled"] = False
        else:
            for key, item in value.items():
                read(item, f"{path}.{key}")

    for section, value in config.items():
        # what stands alone at the top (name, plan ...) says what is done with the experiment
        if isinstance(value, Mapping) and section not in NOT_OF_THE_EXPERIMENT:
            read(value, str(section))
    return out


def finished_runs(home: Path) -> tuple[list[FinishedRun], list[str]]:
    """The finished runs of a root, oldest first, and a remark for each that cannot be read.

    A run that repeats another (same key: the same experiment, found again) takes its place, unless the other has stages
    beside the experiment that it lacks, such as held-out pairs.
    """
    found: dict[str, FinishedRun] = {}
    remarks = []
    for line in ledger_lines(home):
        folder = home / "runs" / str(line.get("run", ""))
        try:
            run = read_run(folder, line)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError, RecursionError) as error:
            remarks.append(f"{line.get('run')} cannot be read and is left out: {error!r:.200}")
            continue
        same = f"{run.key} {digest(recipe({key: _whole(value) for key, value in run.settings.items()}))}"
        before = found.pop(same, None)
        found[same] = before if before is not None and before.labels - run.labels else run
    return list(found.values()), remarks


def _whole(value: Json) -> Json:
    """1 for 1.0: a number is written as it was typed, and the two are one setting."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def read_run(folder: Path, line: Mapping[str, Any]) -> FinishedRun:
    """The run of one line of the ledger."""
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    run = FinishedRun(folder, line, Seeds.of(config.get("seed", 0)), settings_of(config), summary)
    _ = run.key, run.scores, run.calls, run.dollars  # a file that lacks one of these is no summary
    return run


def ledger_lines(home: Path, start: int = 0) -> Iterator[dict[str, Any]]:
    """Lines of `runs/ledger.jsonl` from a byte on; one that a kill tore is passed over."""
    path = home / "runs" / "ledger.jsonl"
    if not path.is_file():
        return
    with path.open("rb") as file:
        file.seek(start)
        for text in file:
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict):
                yield line
