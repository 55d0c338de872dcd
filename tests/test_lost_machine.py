"""A machine of a Ray cluster is lost in the middle of a whole run: nothing is asked twice, and the end is the same."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from command_line import SMOKE, answers, records, speed, surroundings
from conftest import ROOT

HELD = Path(__file__).parent / "held"
SMALL = {"object_store_memory": 80 * 1024**2, "include_dashboard": False}
RUN = (SMOKE, "tracker=none", "engine.block=2", "seed.sample=5")
"""With blocks enough that two machines share a stage."""


@pytest.fixture
def held_machine(tmp_path: Path) -> Iterator[tuple[Any, Any]]:
    """A cluster of the run's machine, which has no core for others, and one more that never ends a block of synthesis.

    It writes into `far.txt` that it has one.
    """
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as there:
        there.setenv("RAY_USAGE_STATS_ENABLED", "0")
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **SMALL})
        there.setenv("PYTHONPATH", f"{HELD}:{path()}")
        there.setenv("HELD", "synthesis")
        there.setenv("HELD_LOG", str(tmp_path / "far.txt"))
        machine = cluster.add_node(num_cpus=1, **SMALL)
    try:
        yield cluster, machine
    finally:
        cluster.shutdown()


def path() -> str:
    """Where Python finds this project, and Ray."""
    return os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra [ray]")
def test_a_run_that_loses_a_machine_pays_for_no_answer_twice(held_machine: tuple[Any, Any], tmp_path: Path) -> None:
    cluster, machine = held_machine
    calm, home, lost = tmp_path / "calm", tmp_path / "home", tmp_path / "lost"
    done = speed(calm, *RUN, PYTHONPATH=path())
    assert done.code == 0, done.err
    held = {"HELD": "synthesis", "HELD_LOG": str(tmp_path / "here.txt"), "HELD_UNTIL": str(lost)}
    run = subprocess.Popen(
        [sys.executable, "-m", "speed.run", *RUN, "runtime.cluster=ray", f"runtime.address={cluster.address}"],
        cwd=tmp_path,
        env=surroundings(home, PYTHONPATH=f"{HELD}:{path()}", **held),
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "far.txt").exists():
        assert run.poll() is None, run.communicate()[1]
        time.sleep(0.1)
    cluster.remove_node(machine, allow_graceful=False)
    lost.touch()
    _, err = run.communicate()
    assert run.returncode == 0, err
    assert "its block is done again" in err
    assert records(home) == records(calm)
    assert answers(home) == answers(calm)
    assert max(answers(home).values()) == 1
