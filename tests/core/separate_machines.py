"""Machines of a Ray cluster that do not see the store: each has a mount namespace of its own (Linux, as root or where
users may have namespaces), in which the folder of all stores is an empty one, and its own temporary files."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conftest import HANG, ROOT

SMALL = {"object_store_memory": 80 * 1024**2, "include_dashboard": False}
HIDING = 'mount -t tmpfs none "$HIDDEN" && exec "$0" "$@"'


def way_to_hide() -> list[str] | None:
    """How a command gets a mount namespace of its own; None where none may be had."""
    for flags in ("-m", "-rm"):
        command = ["unshare", flags, "sh", "-c"]
        try:
            if subprocess.run([*command, "mount -t tmpfs none /mnt"], capture_output=True, check=False).returncode == 0:
                return command
        except OSError:
            break
    return None


class SeparateMachine:
    """A machine with one core that joins a cluster."""

    def __init__(self, address: str, folder: Path, hidden: Path) -> None:
        self.temporary = folder / "tmp"
        self.temporary.mkdir(parents=True)
        joins = [sys.executable, "-m", "ray.scripts.scripts", "start", f"--address={address}", "--num-cpus=1"]
        hides = way_to_hide()
        assert hides is not None
        self.output = folder / "output"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [*hides, HIDING, *joins, f"--object-store-memory={SMALL['object_store_memory']}", "--block"],
                env={**os.environ, "TMPDIR": str(self.temporary), "HIDDEN": str(hidden)},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def raylet(self) -> int:
        """Process id of what stands for the machine: killed, the machine is lost."""
        parents = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        deadline = time.monotonic() + HANG
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.output.read_text()
            for child in parents.read_text().split():
                if Path(f"/proc/{child}/comm").read_text().strip() == "raylet":
                    return int(child)
            time.sleep(0.1)
        raise AssertionError("it does not start")

    @property
    def depots(self) -> list[Path]:
        """What runs have there."""
        return [path for path in self.temporary.glob("speed-*") if path.is_dir()]


@contextmanager
def separate_machines(folder: Path, count: int) -> Iterator[tuple[str, Path, list[SeparateMachine]]]:
    """(address, the folder of stores that they do not see, the machines) of a cluster; the machine of the run, which
    has no core for others, does see it."""
    from ray.cluster_utils import Cluster as LocalCluster

    before = {name: os.environ.get(name) for name in ("PYTHONPATH", "RAY_USAGE_STATS_ENABLED")}
    folders = [str(ROOT), str(ROOT / "tests"), str(Path(__file__).parent)]
    os.environ["PYTHONPATH"] = os.pathsep.join([*folders, *filter(None, [before["PYTHONPATH"]])])
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    lost_soon = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
    head: dict[str, Any] = {"num_cpus": 0, "_system_config": lost_soon, **SMALL}
    cluster = LocalCluster(initialize_head=True, head_node_args=head)
    hidden, machines = folder / "stores", list[SeparateMachine]()
    hidden.mkdir()
    try:
        import ray

        ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
        for number in range(count):  # one after the other, since some of Ray's files have no more than a time in a name
            machines.append(SeparateMachine(cluster.address, folder / str(number), hidden))
            while sum(node["Alive"] for node in ray.nodes()) < 2 + number:
                assert machines[-1].raylet
                time.sleep(0.2)
        ray.shutdown()
        yield cluster.address, hidden, machines
    finally:
        sys.modules["ray"].shutdown()
        for machine in machines:
            machine.process.terminate()
            machine.process.wait()
        cluster.shutdown()
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ.update({name: value} if value is not None else {})
