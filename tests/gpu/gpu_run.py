"""Carry out the parts one after the other, each in a process and within a time of its own; see README.md.

A part that fails or takes too long is ended with all its processes, and the next one has its turn. After every part its
JSON object is in `<out>/<number>-<name>.json`; at the end all of them are printed, one a line.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gpu_figures import rounded

HERE = Path(__file__).resolve().parent
WHOLE = 465.0
"""Seconds that all parts may take together."""
GRACE = 5.0
"""Seconds between asking a part to end and ending it."""
ENOUGH = 10.0
"""A part is not started with fewer seconds left."""


class Part(NamedTuple):
    """One thing that a GPU must show."""

    number: int
    name: str
    seconds: float
    """Longest time that it may take."""


PARTS = (
    Part(1, "smoke", 130),
    Part(2, "embedder", 80),
    Part(3, "generators", 90),
    Part(4, "engine", 45),
    Part(5, "encoding", 30),
    Part(6, "fp16", 30),
    Part(7, "probe", 60),
)

Wait = Callable[["subprocess.Popen[bytes]", float], bool]
"""Whether a process has ended by itself within so many seconds."""


def ended_in_time(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait for a process, by the clock."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def carry_out(
    parts: Sequence[Part],
    out: Path,
    scratch: Path,
    command: Callable[[Part, Path, Path], list[str]],
    whole: float = WHOLE,
    wait: Wait = ended_in_time,
) -> list[dict[str, Any]]:
    """The JSON object of every part; each is written as soon as the part has ended."""
    begun, objects = time.monotonic(), []
    with (out / "log.txt").open("ab") as log:
        for part in parts:
            file = out / f"{part.number}-{part.name}.json"
            file.unlink(missing_ok=True)
            place = scratch / f"{part.number}-{part.name}"
            place.mkdir(parents=True, exist_ok=True)
            left = whole - (time.monotonic() - begun)
            started = time.monotonic()
            if left < ENOUGH:
                how = "not started: the time of the whole run was over"
            else:
                print(f"== part {part.number}, {part.name}: at most {min(part.seconds, left):.0f} s", flush=True)
                how = _run(command(part, file, place), min(part.seconds, left), log, wait)
            seconds = time.monotonic() - started
            found = {"part": part.number, "name": part.name, "ended": how, "seconds": seconds} | _read(file)
            objects.append(rounded(found))
            file.write_text(json.dumps(objects[-1], indent=1) + "\n")
            print(f"   {how} after {seconds:.0f} s", flush=True)
    return objects


def _run(command: list[str], seconds: float, log: Any, wait: Wait) -> str:
    """How a part ended."""
    log.flush()
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        if wait(process, seconds):
            code = process.wait()
            return "done" if code == 0 else f"failed with code {code}; see log.txt"
        return f"stopped: it had {seconds:.0f} s"
    finally:
        _end_session(process)


def _end_session(process: subprocess.Popen[bytes]) -> None:
    """End a part and every process that it started."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            break
        if sign is signal.SIGTERM:
            ended_in_time(process, GRACE)
    process.wait()


def _read(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return found


def main() -> None:
    """Run the parts that are asked for."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--out", type=Path, default=os.environ.get("OUT"))
    arguments.add_argument("--scratch", type=Path)
    arguments.add_argument("--spent", type=float, default=0.0, help="seconds that are gone already")
    arguments.add_argument("--parts", default="", help="numbers, such as 1,3; all by default")
    arguments.add_argument("--limits", type=float, default=1.0, help="every limit times this, on a slow CPU")
    arguments.add_argument("--tiny", action="store_true", help="tiny shapes on the CPU even where there is a GPU")
    given = arguments.parse_args()
    out = Path(given.out or tempfile.mkdtemp(prefix="gpu-"))
    out.mkdir(parents=True, exist_ok=True)
    wanted = {int(number) for number in given.parts.split(",") if number}
    print(f"figures and log: {out}", flush=True)

    def command(part: Part, file: Path, place: Path) -> list[str]:
        return [
            sys.executable, str(HERE / "gpu_part.py"), part.name, str(file), str(place), *(["--tiny"] * given.tiny),
        ]  # fmt: skip

    scratch = given.scratch or Path(tempfile.mkdtemp(prefix="gpu-scratch-"))
    limits = given.limits
    chosen = [part._replace(seconds=part.seconds * limits) for part in PARTS if not wanted or part.number in wanted]
    found = carry_out(chosen, out, scratch, command, WHOLE * limits - given.spent)
    print("\n".join(json.dumps(each) for each in found))
    sys.exit(0 if all(each["ended"] == "done" and "failed" not in each for each in found) else 1)


if __name__ == "__main__":
    main()
