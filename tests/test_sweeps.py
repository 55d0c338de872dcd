"""Axes of the paper as multiruns: points share what they have in common, W&B groups them, the same command resumes."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from command_line import answers, surroundings
from conftest import HANG, ROOT
from omegaconf import OmegaConf

from speed.run import SweepTable
from speed.runs import multirun

BETA = ["--config-dir", str(ROOT / "sweeps"), "--config-name", "beta"]
POINTS = ["+experiment=smoke", "name=beta", "preference.dpo.beta=0.1,0.3"]


def sweep(home: Path, *launcher: str) -> subprocess.CompletedProcess[str]:
    """Run two points of the beta sweep."""
    return subprocess.run(
        [sys.executable, "-m", "speed.run", *BETA, *POINTS, *launcher],
        cwd=home.parent,
        env=surroundings(home),
        capture_output=True,
        text=True,
        timeout=HANG,
    )


def ledger(home: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (home / "runs" / "ledger.jsonl").read_text().splitlines()]


def test_the_wheel_has_the_sweeps_where_the_docs_say() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included == {"conf": "speed/_conf", "sweeps": "speed/_sweeps"}
    assert all((ROOT / folder).is_dir() for folder in included)
    assert "speed.__path__[0])')/_sweeps" in (ROOT / "docs" / "scale.md").read_text()


@pytest.mark.slow
def test_points_under_joblib_share_stages_and_resume_under_submitit(tmp_path: Path) -> None:
    home = tmp_path / "home"
    done = sweep(home, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "runtime.side_by_side=1")
    assert done.returncode == 0, done.stdout + done.stderr
    table = {line.split("  ")[0]: line.split() for line in done.stdout.splitlines()}
    assert {"preference.dpo.beta=0.1", "preference.dpo.beta=0.3", "together"} <= set(table), "points of other processes"
    assert "python -m speed.report figure3c" in done.stdout
    built = [label for line in ledger(home) for label in line["built"]]  # type: ignore[attr-defined]
    assert len(ledger(home)) == 2
    assert {line["sweep"] for line in ledger(home)} == {"beta"}
    assert len(list((home / "store" / "senior").glob("*/manifest.json"))) == 2
    assert not (home / "store" / "revisor").exists(), "beta is measured on the senior"
    for shared in ("topics", "junior"):
        assert len(list((home / "store" / shared).glob("*/manifest.json"))) == 1, shared
    assert len(list((home / "store" / "root data").iterdir())) == 1, "a pool: its shards have the manifests"
    assert "senior" in built
    assert max(answers(home).values()) == 1, "two points asked the teacher the same thing"

    again = sweep(home, "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=60")
    assert again.returncode == 0, again.stdout + again.stderr
    assert [line["built"] for line in ledger(home)[2:]] == [[], []]


@pytest.mark.parametrize(
    ("typed", "told"), [([], "eval=miniature"), (["eval=mteb_v1"], "eval=mteb_v1"), (["eval=miniature_dev"], "")]
)
def test_a_search_by_the_tasks_of_results_says_what_its_best_score_is_not(
    typed: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a sweeper that chooses its points as it goes, as Optuna's does."""
    monkeypatch.setattr(multirun, "BEGUN", [])
    config = {
        **dict.fromkeys(("plan", "probe", "preview", "status", "teach_check"), False),
        "runtime": {"home": str(tmp_path)},
        "hydra": {
            "job": {"config_name": "config"},
            "sweeper": {"_target_": "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper"},
            "overrides": {"task": ["preference.dpo.beta=interval(0.05,0.5)", *typed]},
            "runtime": {"choices": {"eval": "miniature"}},
        },
    }
    SweepTable().on_multirun_start(OmegaConf.create(config))
    said = capsys.readouterr().out
    assert bool(said) == bool(told)
    assert f"This search chooses its points by {told}" in said or not told
