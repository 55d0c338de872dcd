"""Runs of the command line for tests: `+experiment=smoke`, every stage with the real libraries."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import HANG, ROOT
from zstandard import ZstdDecompressor

from speed.teaching.journal import Journal
from speed.teaching.openai_teacher import KEY

SMOKE = "+experiment=smoke"
GUARD = Path(__file__).parent / "guard"
"""Put in front of PYTHONPATH, with NETWORK_LOG set, it refuses every address but the loopback."""


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    code: int
    out: str
    err: str


def speed(home: Path, *arguments: str, cwd: Path | None = None, **environment: str) -> Finished:
    """Run `python -m speed.run` to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "speed.run", *arguments],
        cwd=cwd or home.parent,
        env=surroundings(home, **environment),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=HANG,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def speed_here(home: Path, *arguments: str, **environment: str) -> Finished:
    """The same within this process, for commands that end before anything is built: nothing is imported anew."""
    from hydra.core.global_hydra import GlobalHydra

    from speed.run import main

    out, err, handler = io.StringIO(), io.StringIO(), signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as here, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        here.chdir(home.parent)
        here.setattr(sys, "argv", ["speed.run", *arguments])
        for name, value in {"SPEED_HOME": str(home), **environment}.items():
            here.setenv(name, value)
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        finally:
            GlobalHydra.instance().clear()
            signal.signal(signal.SIGTERM, handler)
    return Finished(code, out.getvalue(), err.getvalue())


PLANTED = "sk-planted-5f3c9a"
"""Stands in the environment of a finished smoke run as every key, and must not show up anywhere."""


def finished_smoke_run(folder: Path) -> Finished:
    """A smoke run from nothing, made by the first process that asks for it.

    Returns:
        How it ended. The folder has its root (`home`), a copy of that which nobody writes into (`untouched`), what the
        plan said (`plan.txt`), and, where an address but the loopback was asked for, `network.txt`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    home, ended = folder / "home", folder / "ended.json"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ended.exists():
            planned = speed_here(home, SMOKE, "plan=true")
            assert planned.code == 0, planned.err
            assert not home.exists()
            (folder / "plan.txt").write_text(planned.out)
            keys = dict.fromkeys(("HF_TOKEN", "OPENAI_API_KEY", KEY), PLANTED)
            guarded = {"PYTHONPATH": f"{GUARD}:{ROOT}", "NETWORK_LOG": str(folder / "network.txt")}
            done = speed(home, SMOKE, **keys, **guarded)
            assert done.code == 0, done.out + done.err
            shutil.copytree(home, folder / "untouched", symlinks=True)
            ended.write_text(json.dumps(asdict(done)))
    return Finished(**json.loads(ended.read_text()))


def surroundings(home: Path, **environment: str) -> dict[str, str]:
    """The environment of such a command."""
    return {**os.environ, "SPEED_HOME": str(home), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment}


def runs(home: Path) -> list[Path]:
    """The folders of finished runs, oldest first."""
    return sorted(path.parent for path in (home / "runs").glob("*/*/summary.json"))


def summary(home: Path) -> dict[str, Any]:
    """What the last run reported."""
    found: dict[str, Any] = json.loads((runs(home)[-1] / "summary.json").read_text())
    return found


def answers(home: Path) -> Counter[str]:
    """How often each request to the teacher was answered, by the journal; a line that a kill tore is no answer."""
    return Counter(entry.key for entry in Journal(home / "journal"))


def content(path: Path) -> bytes:
    """What a file says: compressed ones unpacked, so that nothing hides in them."""
    if path.suffix != ".zst":
        return path.read_bytes()
    with path.open("rb") as file:
        return ZstdDecompressor().stream_reader(file, read_across_frames=True).read()


def records(home: Path) -> dict[str, bytes]:
    """The corpus and the scores that the last run stands on."""
    stages = runs(home)[-1] / "stages"
    return {
        "examples": (stages / "dedup" / "examples.jsonl").read_bytes(),
        "scores": (stages / "evaluation" / "scores.json").read_bytes(),
    }
