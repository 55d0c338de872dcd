"""What a change of the experiment rebuilds and what it asks the teacher: `python tests/bench/reuse.py [--quick]`.

Runs the smoke experiment, then plans each change in its store; without --quick it also carries the changes out and
counts the calls that the journal took up. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CHANGES = {
    "beta": ["+experiment=smoke", "preference.dpo.beta=0.3"],
    "ablation_no_dpo": ["+experiment=smoke", "preference=none"],
    "scale": ["+experiment=smoke", "scale.factor=2"],
}


def speed(home: Path, *arguments: str) -> str:
    """Standard output of `python -m speed.run`."""
    done = subprocess.run(
        [sys.executable, "-m", "speed.run", "tracker=none", *arguments],
        cwd=ROOT,
        env={**os.environ, "SPEED_HOME": str(home), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def journaled(home: Path) -> int:
    """Answers in the journal."""
    return sum(path.read_bytes().count(b'"entry":') for path in (home / "journal").glob("*.jsonl"))


def planned(text: str) -> tuple[list[str], int]:
    """(stages that are not hits, calls) of a plan."""
    rows = [line for line in text.splitlines() if any(f" {state} " in line for state in ("miss", "partial", "hit"))]
    rebuilt = [row.split("  ")[0].strip() for row in rows if " hit " not in row]
    total = next(line for line in text.splitlines() if line.startswith("total"))
    return rebuilt, int(total.split()[1].replace(",", ""))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="plan the changes, do not carry them out")
    quick = parser.parse_args().quick
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        speed(home, "+experiment=smoke")
        for name, change in CHANGES.items():
            rebuilt, calls = planned(speed(home, *change, "plan=true"))
            if not quick:
                before = journaled(home)
                speed(home, *change)
                calls = journaled(home) - before
            figures[f"{name}_rebuilt"] = rebuilt
            figures[f"{name}_teacher_calls"] = calls
            print(f"{name}: rebuilt {', '.join(rebuilt)}; {calls} teacher calls")
    del figures["scale_teacher_calls"]  # a larger corpus needs tasks of its own, which is no reuse
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
