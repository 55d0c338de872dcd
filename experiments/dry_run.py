"""Measure what the paper's orchestration costs a row as the corpus grows, without a model.

    python experiments/dry_run.py --home DIR --examples 23000 230000 1150000

Runs `preset=paper +experiment=dry_run` at each size, each under a root of its own below DIR, or all under one with
`--sweep`: then a larger size adds to what a smaller one has built, and what is asked of the teacher is that of the
smallest. Continues where it was stopped. Says the CPU of each stage a row that it built, the memory of the largest
process and of all together, what a run has added, and what lies on the disk; writes them to dry_run.json beside itself.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from speed.core.cache import write_aside

ROOT = Path(__file__).resolve().parents[1]
FIGURES = Path(__file__).with_suffix(".json")
SMALLER = {"counts.sft": 25_000, "counts.pairs": 10_000, "counts.revisions": 10_000}
"""What is asked of the teacher at 230,000 examples; in proportion below, and the same above."""


def command(examples: int, asked_for: int) -> list[str]:
    """The run of a size.

    Args:
        asked_for: the size for which the teacher is asked.
    """
    asked = [f"{name}={min(count, count * asked_for // 230_000)}" for name, count in SMALLER.items()]
    return ["preset=paper", "+experiment=dry_run", f"scale.examples={examples}", *asked]


def memory(root: int) -> dict[int, float]:
    """MB that a process and those below it have taken at most so far, by number."""
    parents, peaks = dict[int, int](), dict[int, float]()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line)
        except OSError:  # it has ended
            continue
        parents[int(folder.name)] = int(status["PPid"])
        peaks[int(folder.name)] = int(status.get("VmHWM", "0 kB").split()[0]) / 1024
    own = {root}
    while more := {process for process, parent in parents.items() if parent in own} - own:
        own |= more
    return {process: peaks[process] for process in own if process in peaks}


def added(home: Path, since: float) -> float:
    """CPU seconds of what was built since then."""
    records = (path for name in ("manifest.json", "rows-*.json") for path in (home / "store").rglob(name))
    return sum(json.loads(path.read_text())["cpu_seconds"] for path in records if path.stat().st_mtime >= since)


def measured(examples: int, asked_for: int, home: Path) -> dict[str, Any]:
    """Figures of one size."""
    environment = {**os.environ, "SPEED_HOME": str(home), "PYTHONPATH": str(ROOT)}
    arguments = [sys.executable, "-m", "speed.run", *command(examples, asked_for)]
    home.mkdir(parents=True, exist_ok=True)
    begun, since, largest, together = time.monotonic(), time.time(), 0.0, 0.0
    with (home / "said.txt").open("a") as said:
        process = subprocess.Popen(arguments, cwd=home, env=environment, stdout=said, stderr=said)
        while process.poll() is None:
            now = memory(process.pid).values()
            largest, together = max(largest, *now, 0.0), max(together, sum(now))
            time.sleep(1)
    if process.returncode:
        raise SystemExit(f"the run of {examples:,} examples failed: see {home / 'said.txt'}")
    newest = max((home / "runs").glob("*/*/summary.json"), key=lambda file: file.stat().st_mtime)
    stages = {stage["label"]: stage for stage in json.loads(newest.read_text())["stages"]}
    return {
        "command": f"python -m speed.run {' '.join(command(examples, asked_for))}",
        "wall_s": round(time.monotonic() - begun, 1),
        "cpu_s": round(sum(stage["cpu_seconds"] for stage in stages.values()), 1),
        "added_cpu_s": round(added(home, since), 1),
        "largest_process_mb": round(largest),
        "all_processes_mb": round(together),
        "disk_mb": round(sum(file.lstat().st_size for file in home.rglob("*") if file.is_file()) / 1e6),
        "stages": {
            label: {"rows": stage["rows_in"], "cpu_s": stage["cpu_seconds"]}
            for label, stage in stages.items()
            if stage["cpu_seconds"] >= 0.1
        },
    }


def microseconds(stage: dict[str, Any], examples: int) -> str:
    """CPU a row."""
    return f"{stage['cpu_s'] / (stage['rows'] or examples) * 1e6:,.0f}"


def table(figures: dict[str, dict[str, Any]]) -> str:
    """The figures, a row for each stage and a column for each size."""
    sizes = {int(size): found for size, found in sorted(figures.items(), key=lambda each: int(each[0]))}
    lines = ["| | " + " | ".join(f"{size:,}" for size in sizes) + " |", "|---" * (len(sizes) + 1) + "|"]
    for label in dict.fromkeys(label for found in sizes.values() for label in found["stages"]):
        cells = [
            microseconds(found["stages"][label], size) if label in found["stages"] else "-"
            for size, found in sizes.items()
        ]
        lines.append(f"| {label}, µs a row | " + " | ".join(cells) + " |")
    for name, key in (
        ("CPU of all stages, s", "cpu_s"), ("of this run, s", "added_cpu_s"),
        ("largest process, MB", "largest_process_mb"), ("all processes, MB", "all_processes_mb"),
        ("disk, MB", "disk_mb"),
    ):  # fmt: skip
        lines.append(
            f"| {name} | " + " | ".join(f"{found[key]:,}" if key in found else "-" for found in sizes.values()) + " |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True, help="folder of the roots")
    parser.add_argument("--examples", type=int, nargs="+", default=[23_000, 230_000, 1_150_000])
    parser.add_argument("--sweep", action="store_true", help="all sizes under one root")
    options = parser.parse_args()
    figures = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    own = figures.setdefault("sweep" if options.sweep else "apart", {})
    for examples in options.examples:
        home = options.home.resolve() / ("sweep" if options.sweep else str(examples))
        own[str(examples)] = measured(examples, min(options.examples) if options.sweep else examples, home)
        with write_aside(FIGURES) as aside:
            aside.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(table(own))


if __name__ == "__main__":
    main()
