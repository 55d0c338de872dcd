"""The server that starts workers: Ctrl-C is the run's to answer, also while the server imports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from conftest import HANG, ROOT

SLOW = """
import pathlib, time
pathlib.Path("began").touch()
time.sleep(0.5)
pathlib.Path("ended").touch()
"""
PROGRAM = """
import os, pathlib, signal, time
from multiprocessing import forkserver
from speed.core.scheduler import _start_server

forkserver.set_forkserver_preload(["slow_to_import"])
_start_server()
server = forkserver._forkserver._forkserver_pid
while not pathlib.Path("began").exists():
    time.sleep(0.01)
os.kill(server, signal.SIGINT)
while not pathlib.Path("ended").exists() and os.waitpid(server, os.WNOHANG) == (0, 0):
    time.sleep(0.01)
print(pathlib.Path("ended").exists())
"""


def test_ctrl_c_does_not_reach_the_server_while_it_imports(tmp_path: Path) -> None:
    (tmp_path / "slow_to_import.py").write_text(SLOW)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=HANG
    )
    assert done.stdout == "True\n", done.stderr
    assert "Traceback" not in done.stderr
