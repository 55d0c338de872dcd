"""How long a user waits: `python tests/bench/startup.py [--quick]`. The last line is one JSON object.

`first_run_s`: the default run in a new store (with --quick: `+experiment=smoke`); `cached_run_s`: the same command
again; `plan_s`, `help_s`; `peak_rss_mb`: the most memory of the run's processes, shared pages counted once.
`reference_s`: CPU of a fixed loop of small matrices and of Python on one core, before and after the first run;
`first_run_in_references`: the first run by it, which says on a slow machine what seconds say on a fast one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REFERENCE_STEPS, REFERENCE_COUNTS = 100, 5_000_000


def resident_mb(group: int) -> float:
    """Proportional set size of the processes of a group, in MB."""
    total = 0.0
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and os.getpgid(int(folder.name)) == group:
                lines = (folder / "smaps_rollup").read_text().splitlines()
                total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
        except (OSError, ValueError):
            continue
    return total


def timed(home: Path, *arguments: str) -> tuple[float, float]:
    """(seconds, peak MB) of `python -m speed.run` with these arguments."""
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "speed.run", *arguments],
        cwd=ROOT,
        env={**os.environ, "SPEED_HOME": str(home), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=sys.stderr,
        start_new_session=True,
    )
    peak = 0.0
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.5):
            peak = max(peak, resident_mb(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    seconds = time.monotonic() - begun
    ended.set()
    watcher.join()
    if code:
        sys.exit(f"python -m speed.run {' '.join(arguments)} ended with code {code}")
    return seconds, peak


def reference() -> float:
    """Seconds of a fixed loop: steps of a model of the miniature's size, which is most of a first run, and Python."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    layers = [torch.nn.Linear(128, 512), torch.nn.GELU(), torch.nn.Linear(512, 128)] * 4
    model = torch.nn.Sequential(*layers, torch.nn.Linear(128, 2048))
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    rows, targets = torch.randn(1024, 128), torch.randint(0, 2048, (1024,))
    begun = time.process_time()
    for _ in range(REFERENCE_STEPS):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(rows), targets).backward()
        optimiser.step()
    counts: dict[int, int] = {}
    for number in range(REFERENCE_COUNTS):
        counts[number % 1009] = counts.get(number % 1009, 0) + number
    return time.process_time() - begun


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the smoke experiment, each figure measured once")
    quick = parser.parse_args().quick
    experiment, tries = (["+experiment=smoke"], 1) if quick else ([], 3)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        before = reference()
        first, peak = timed(home, *experiment)
        compared = (before + reference()) / 2
        cached = min(timed(home, *experiment)[0] for _ in range(tries))
        plan = min(timed(home, *experiment, "plan=true")[0] for _ in range(tries))
        help_seconds = min(timed(home, "--help")[0] for _ in range(tries))
    figures = {
        "first_run_s": round(first, 1),
        "reference_s": round(compared, 2),
        "first_run_in_references": round(first / compared, 1),
        "cached_run_s": round(cached, 2),
        "plan_s": round(plan, 2),
        "help_s": round(help_seconds, 2),
        "peak_rss_mb": round(peak),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
