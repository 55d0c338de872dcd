"""By default nothing leaves the machine: the teacher's stages run where every address but the loopback is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from command_line import GUARD
from conftest import HANG, ROOT

PROGRAM = """
import os, socket, sys
from pathlib import Path
for attempt in (lambda: socket.create_connection(("192.0.2.1", 80), 1), lambda: socket.getaddrinfo("example.org", 80)):
    try:
        attempt()
    except ConnectionRefusedError:
        continue
    sys.exit("the guard does not work")
Path(os.environ["NETWORK_LOG"]).unlink()

from hydra import compose, initialize_config_dir
from speed.config import validated
from speed.core.build import build
from speed.core.stage import silence
from speed.core.store import Store
from speed.pipeline import pipeline
from speed.run import CONF, composed

with initialize_config_dir(CONF, version_base="1.3"):
    config = validated(composed(compose("config", overrides=["+experiment=smoke"])))
store = Store(Path(sys.argv[1])).open()
for goal in pipeline(config).goals():
    if goal.label in ("topics", "tasks for seed", "seed data"):
        build(goal, store, config.runtime, silence)
        print(goal.label, goal.rows)
"""


def test_the_teachers_stages_need_no_network(tmp_path: Path) -> None:
    log = tmp_path / "attempts.txt"
    surroundings = {**os.environ, "PYTHONPATH": f"{GUARD}:{ROOT}", "NETWORK_LOG": str(log)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "home")], env=surroundings, capture_output=True, text=True,
        timeout=HANG, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [line.rpartition(" ")[0] for line in done.stdout.splitlines()] == ["topics", "tasks for seed", "seed data"]
    assert not log.exists(), log.read_text()
