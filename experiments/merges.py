"""Merges of the miniature's embedders: what the mean of two or of five seeds gains over its parts.

    python experiments/merges.py --home speed_home [--seeds 1 2 3 4 5]

The parts are the embedders of the default run without revisor, one a seed; stages are shared and found again. Each pair
is merged by both ways of `speed.merge`, and all together by their mean; everything is evaluated by `speed.evaluate` on
the miniature's tasks. What was expected stands in merges.md, written before the first run; results go to merges.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from itertools import combinations
from math import sqrt
from pathlib import Path
from statistics import fmean

from scipy.stats import t

import speed.evaluate
import speed.merge
from speed.core.spec import digest
from speed.runs.tables import Table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "experiments" / "merges.json"
WAYS = ("mean", "slerp")


def trained(home: Path, seed: int) -> Path:
    """Folder of the run of a seed, made now or found again."""
    name = f"merge-part-{seed}"
    if not (found := sorted(home.glob(f"runs/*/*-{name}/summary.json"))):
        typed = ("revisor=none", f"seed={seed}", f"name={name}", "tracker=none", f"runtime.home={home}")
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-m", "speed.run", *typed], check=True, env=environment)
        found = sorted(home.glob(f"runs/*/*-{name}/summary.json"))
    return found[-1].parent


def merged(home: Path, parts: list[Path], how: str, name: str) -> Path:
    """Folder of a merge, made now or found again."""
    keys = [json.loads((part / "summary.json").read_text(encoding="utf-8"))["key"] for part in parts]
    out = home / "merges" / f"{name}-{digest(keys)[:8]}"
    if not out.is_dir():
        typed = [*map(str, parts), "--to", str(out), "--how", how]
        print(speed.merge.run(speed.merge.parser().parse_args(typed)), flush=True)
    return out


def score(home: Path, model: Path) -> float:
    """Mean over the miniature's tasks; vectors and results of before are found again."""
    typed = [str(model), "--benchmark", "miniature", "--no-published", "--home", str(home)]
    record, _ = speed.evaluate.evaluate(speed.evaluate.parser().parse_args(typed))
    assert record.scores.mean is not None
    return record.scores.mean


def interval(gains: dict[tuple[int, int], float], seeds: list[int]) -> float:
    """Half of a 95 % interval of the mean gain of all pairs. Pairs share seeds: jackknife over these (Student's t)."""
    without = [fmean(gain for pair, gain in gains.items() if seed not in pair) for seed in seeds]
    spread = sum((each - fmean(without)) ** 2 for each in without)
    return float(t.ppf(0.975, len(seeds) - 1)) * sqrt((len(seeds) - 1) / len(seeds) * spread)


def main() -> None:
    """Read the command line, make what is missing, and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, required=True, help="root of everything built")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5], help="at least three")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    home, seeds = given.home.resolve(), list(dict.fromkeys(given.seeds))
    if len(seeds) < 3:
        parser.error("an interval takes three different seeds at least")
    runs = {seed: trained(home, seed) for seed in seeds}
    alone = {seed: score(home, run) for seed, run in runs.items()}
    of_all = score(home, merged(home, list(runs.values()), "mean", "all"))
    table = Table("merge", "score", "gain over the mean of its parts", "above its best part")
    found: dict[str, object] = {"alone": alone, "all": of_all}
    for how in WAYS:
        scores = {
            (one, other): score(home, merged(home, [runs[one], runs[other]], how, f"{how}-{one}-{other}"))
            for one, other in combinations(seeds, 2)
        }
        gains = {pair: value - fmean(alone[seed] for seed in pair) for pair, value in scores.items()}
        best = sum(value > max(alone[seed] for seed in pair) for pair, value in scores.items())
        gain = f"{fmean(gains.values()):+.2f} ± {interval(gains, seeds):.2f}"
        table.add(f"two, {how}", f"{fmean(scores.values()):.2f}", gain, f"{best} of {len(scores)}")
        found[how] = {f"{one} and {other}": value for (one, other), value in scores.items()}
    gain = f"{of_all - fmean(alone.values()):+.2f}"
    table.add(f"all {len(seeds)}, mean", f"{of_all:.2f}", gain, f"{int(of_all > max(alone.values()))} of 1")
    given.results.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print("alone: " + ", ".join(f"seed {seed} {value:.2f}" for seed, value in alone.items()))
    print(table.text())


if __name__ == "__main__":
    main()
