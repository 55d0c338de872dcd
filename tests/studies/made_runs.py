"""Made-up runs: folders and ledger lines as a real run leaves them, in a millisecond."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import yaml

CONFIG: dict[str, Any] = {
    "generator": {"base": "package:miniature/bases/llama", "sft": {"learning_rate": 0.003}},
    "preference": {"enabled": True, "pairs": "judged", "dpo": {"beta": 0.1, "loss": "sigmoid"}},
    "revisor": {"enabled": True, "target": "revision", "sft": {"epochs": 1}},
    "counts": {"sft": 690, "sft_factor": 1.0, "revisions_factor": 1.0, "candidates": 5},
    "scale": {"examples": 460, "factor": 1.0, "writer": "models"},
    "embedder": {"sources": []},
    "runtime": {"home": "/somewhere"},
    "tracker": {"project": "speed"},
    "name": "speed",
    "plan": False,
    "seed": {"data": 0, "sample": 0, "train": 0},
}
"""Some of a config's keys, under their names."""
TASKS = {"A": 0.0, "B": 1.0, "C": -1.0, "D": 2.0, "E": -2.0}
"""Tasks, and how far the score of each lies from the mean."""
OFF: dict[str, Any] = {"enabled": False, "dpo": None, "sft": None}


def config_with(**changes: Any) -> dict[str, Any]:
    """The config with other values: `config_with(preference__dpo__beta=0.3, seed=2)`."""
    config = copy.deepcopy(CONFIG)
    for key, value in changes.items():
        *path, last = key.split("__")
        section = config
        for name in path:
            section = section[name]
        section[last] = {**section[last], **value} if isinstance(value, dict) and last in section else value
    return config


def made_run(
    home: Path,
    score: float | None = 50.0,
    overrides: tuple[str, ...] = (),
    sweep: str | None = None,
    pins: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    calls: int = 7,
    dollars: float | None = 0.5,
    built: int = 1,
    name: str | None = None,
    flawless: float | None = None,
    entropy: float | None = None,
    pairs: int = 100,
    **changes: Any,
) -> Path:
    """Write one finished run.

    Args:
        score: its mean over tasks; None where it is undefined.
        dollars: what the teacher was paid; None where its price is unknown.
        built: how many of its two stages it built.
        flawless: share of its examples, where the truth is known.
        entropy: of held-out pairs, where it was measured.
        pairs: so many.
        changes: to the config, as in `config_with`.
    """
    config = config or config_with(**changes)
    runs = home / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    ledger = runs / "ledger.jsonl"
    number = len(ledger.read_bytes().splitlines()) if ledger.exists() else 0
    folder = runs / "2026-01-01" / f"{number:06}-{name or 'run'}"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    told = {key: value for key, value in config.items() if key not in ("name", "runtime", "tracker", "plan")}
    typed = json.loads(json.dumps(told), parse_int=float)  # 1 and 1.0 are the same experiment
    key = hashlib.sha256(json.dumps(typed, sort_keys=True).encode()).hexdigest()
    tasks = {task: None if score is None else score + apart for task, apart in TASKS.items()}
    scores = {"tasks": tasks, "types": {"STS": score}, "mean": score, "mean_of_types": score}
    fields = {"mteb": "2.26", "precision": "fp32", "batch": "b", "instructions": "i"}
    judged = {
        "name": "made", "model": "0" * 40, "protocol": "e5", "max_length": None, "kinds": dict.fromkeys(tasks, "STS"),
        "pins": {**fields, "datasets": dict.fromkeys(tasks, "r1"), **(pins or {})}, "scores": scores,
    }  # fmt: skip
    stages: list[dict[str, Any]] = [
        {
            "label": "seed data", "key": "s", "state": "built" if built > 1 else "reused", "rows_out": 3,
            "cost": {"calls": calls, "tokens_in": 100, "tokens_out": 50}, "dollars": dollars, "metrics": {},
        },
        {
            "label": "evaluation", "key": key, "state": "built" if built else "reused", "rows_out": None, "cost": {},
            "dollars": 0.0, "metrics": {"judged": judged},
        },
    ]  # fmt: skip
    if flawless is not None:
        written = {"label": "dedup", "key": "w", "state": "reused", "cost": {}, "dollars": 0.0}
        stages.append({**written, "rows_out": 9, "metrics": {"flawless": flawless}})
    if entropy is not None:
        measured = {
            "label": "held-out pairs",
            "key": "h",
            "state": "built",
            "cost": {},
            "dollars": 0.0,
            "rows_in": pairs,
        }
        stages.append({**measured, "rows_out": 9, "metrics": {"contrastive_entropy": entropy}})
    (folder / "summary.json").write_text(json.dumps({"name": "made", "about": {}, "stages": stages, "scores": scores}))
    line = {
        "run": folder.relative_to(runs).as_posix(), "name": str(config["name"]),
        "preset": next((each[7:] for each in overrides if each.startswith("preset=")), "miniature"),
        "overrides": list(overrides), "sweep": sweep, "commit": "c0ffee", "key": key, "seconds": 2.0,
        "built": [stage["label"] for stage in stages if stage["state"] == "built"],
        "calls_now": calls if built > 1 else 0, "mean": score, "types": {"STS": score},
    }  # fmt: skip
    with ledger.open("a") as file:
        file.write(json.dumps(line) + "\n")
    return folder
