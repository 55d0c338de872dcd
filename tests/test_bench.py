"""The benches say how they are called, and run to their end with `--quick`."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys

import pytest
from conftest import ROOT

FOLDER = ROOT / "tests" / "bench"
BENCHES = sorted(
    path.stem for path in FOLDER.glob("*.py") if "__main__" in path.read_text() and not path.stem.startswith("rival_")
)
"""A rival's half runs in the environment of the rival, which is not among our packages; an argument says how much."""


def test_every_bench_says_how_it_is_called(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """In this process, so that the heavy libraries are not imported a dozen times."""
    assert len(BENCHES) >= 10
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    for bench in BENCHES:
        monkeypatch.setattr(sys, "argv", [bench, "--help"])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(FOLDER / f"{bench}.py"), run_name="__main__")
        assert end.value.code == 0
        told = capsys.readouterr().out
        assert told.startswith(f"usage: {bench}")
        assert "--quick" in told


MOST = {"page": {"megabytes": 8, "nodes": 5_000}}
"""What figures of a bench are below on any machine. A page holds 2,000 records, so that of 20,000 is no larger."""

LEAST = {"dedup": {"vs_datasketch": 5}}
"""What figures are above on any machine: CPU of a rival as a multiple of ours, in one run. A whole bench gives 13."""


@pytest.mark.slow
@pytest.mark.parametrize("bench", BENCHES)
def test_a_quick_bench_ends_with_its_figures(bench: str) -> None:
    done = subprocess.run(
        [sys.executable, str(FOLDER / f"{bench}.py"), "--quick"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures
    assert isinstance(figures, dict)
    for name, most in MOST.get(bench, {}).items():
        assert figures[name] is None or figures[name] < most, name
    assert figures.keys() >= MOST.get(bench, {}).keys()
    for name, least in LEAST.get(bench, {}).items():
        assert figures[name] > least, name
