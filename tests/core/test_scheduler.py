"""The servers that start workers: each imports what its goals share, Ctrl-C is the run's to answer meanwhile, and none
outlives the run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from conftest import HANG, ROOT

from speed.core.fork_servers import server_imports

SLOW = """
import pathlib, time
pathlib.Path("began").touch()
while not pathlib.Path("interrupted").exists():
    time.sleep(0.01)
pathlib.Path("ended").touch()
"""
PROGRAM = """
import importlib.util, os, pathlib, signal, sys, threading, time
from multiprocessing import get_context
from speed.core.fork_servers import ForkServers

servers = ForkServers([["slow_to_import"], ["slow_to_import"], ["json"]], ["json"])

def interrupt():
    while not pathlib.Path("began").exists():
        time.sleep(0.01)
    os.kill(servers._servers[0][1]._forkserver_pid, signal.SIGINT)
    pathlib.Path("interrupted").touch()

def imported():
    no_wandb = "WANDB_MODE" not in os.environ and importlib.util.find_spec("wandb") is None
    sys.exit(9 if not no_wandb else 7 if "slow_to_import" in sys.modules else 8)

if __name__ == "__main__":
    threading.Thread(target=interrupt).start()
    for packages in (["slow_to_import"], ["slow_to_import", "shelve"], ["json"], ["damaged"]):
        process = get_context("forkserver").Process(target=imported)
        servers.start(process, packages)
        process.join()
        print(process.exitcode, end=" ")
    print(pathlib.Path("ended").exists())
    processes = [server._forkserver_pid for _, server in servers._servers]
    servers.close()
    for process in processes:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            print("gone", end=" ")
    process = get_context("forkserver").Process(target=imported)
    servers.start(process, ["json"])
    process.join()
    print(process.exitcode)
    servers.close()
    servers.close()
"""


def test_goals_that_share_a_package_share_a_server_which_imports_what_several_need() -> None:
    found = server_imports(
        [("asking",), ("tensors", "training"), (), ("asking",), ("tensors", "scoring"), ("training",)]
    )
    assert found == [
        ({"asking"}, ["asking"]),
        ({"tensors", "training", "scoring"}, ["tensors", "training"]),
    ]


def test_ctrl_c_does_not_reach_a_server_while_it_imports_and_servers_end_when_they_are_told_to(tmp_path: Path) -> None:
    (tmp_path / "slow_to_import.py").write_text(SLOW)
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}", "WANDB_MODE": "offline"}
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=HANG
    )
    assert done.stdout == "7 7 8 8 True\ngone gone gone 8\n", done.stderr
    assert "Traceback" not in done.stderr
