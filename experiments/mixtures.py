"""Several writers in one corpus, and controls at equal counts and equal steps, in the miniature.

    python experiments/mixtures.py --home speed_home [--seeds 1 2 3 4 5] [--only "five writers"]

A writer is the senior of one seed, aligned and writing in a run of its own (that of experiments/merges.py). What was
expected stands in mixtures.md, written before the first run; results go to mixtures.json. Stages are shared and
finished runs found again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev

from merges import trained
from scipy.stats import t

from speed.runs.tables import Table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "experiments" / "mixtures.json"
FEW = ("scale.keep=230", "embedder.max_steps=12")
"""Half of what the smallest corpus of these runs has, in half of its steps."""


def points(writers: Sequence[Path]) -> dict[str, tuple[str, ...]]:
    """Name of a point -> overrides, without the seed."""
    parts = ", ".join(f"{{name: seed{number}, path: {run}}}" for number, run in enumerate(writers, 1))
    return {
        "one writer": ("revisor=none",),
        "five writers": (f"given.corpora=[{parts}]", "given.records=440"),
        "five writers, all": (f"given.corpora=[{parts}]",),
        "small models, 230": ("revisor=none", *FEW),
        "teacher, 230": ("+experiment=teacher_data", *FEW),
    }


REFERENCES = {"five writers": "one writer", "five writers, all": "one writer", "teacher, 230": "small models, 230"}


def score(home: Path, name: str, overrides: Sequence[str], seed: int) -> float:
    """Mean over the miniature's tasks of a run, made now or found again."""
    called = f"mixture-{name.replace(', ', '-').replace(' ', '_')}-{seed}"
    if not (found := sorted(home.glob(f"runs/*/*-{called}/summary.json"))):
        typed = (*overrides, f"seed={seed}", f"name={called}", "tracker=none", f"runtime.home={home}")
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-m", "speed.run", *typed], check=True, env=environment)
        found = sorted(home.glob(f"runs/*/*-{called}/summary.json"))
    return float(json.loads(found[-1].read_text(encoding="utf-8"))["scores"]["mean"])


def told(values: Sequence[float]) -> str:
    """A mean with its 95 % interval (Student's t)."""
    half = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / sqrt(len(values))
    return f"{fmean(values):.2f} ± {half:.2f}"


def main() -> None:
    """Read the command line, make what is missing, and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, required=True, help="root of everything built")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--only", nargs="+", default=[], help="make these, and write no results")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    home = given.home.resolve()
    made = points([trained(home, seed) for seed in given.seeds])
    chosen = given.only or list(made)
    scores = {name: {seed: score(home, name, made[name], seed) for seed in given.seeds} for name in chosen}
    if given.only:
        return
    table = Table("corpus", "score", "from its reference, seed by seed")
    for name, by_seed in scores.items():
        beside = scores.get(REFERENCES.get(name, ""), {})
        gains = [value - beside[seed] for seed, value in by_seed.items()] if beside else []
        told_gain = f"{told(gains)} ({REFERENCES[name]})" if gains else "-"
        table.add(name, told(list(by_seed.values())), told_gain)
    given.results.write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
    print(table.text())


if __name__ == "__main__":
    main()
