"""A run on a Ray cluster whose head is killed in the middle: `python lost_head.py FOLDER` prints what ended it.

A process of its own, since Ray ends each process that has spoken to a lost head after a minute.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

from ray.cluster_utils import Cluster as LocalCluster
from toys import SharedNumbers

from speed.cluster import ray_cluster as cluster_module
from speed.core.build_all import build_all
from speed.core.errors import UserError
from speed.core.graph import goals
from speed.core.store import Store
from speed.runtime import Runtime

SMALL = {"object_store_memory": 80 * 1024**2, "include_dashboard": False}


def main(folder: Path) -> None:
    """Build on two machines, kill the head when both have begun, and print the error and what the store holds."""
    cluster_module.LOST = 10.0
    cluster = LocalCluster(initialize_head=True, head_node_args={"num_cpus": 0, **SMALL})
    cluster.add_node(num_cpus=1, **SMALL)
    pool = SharedNumbers(3, log=str(folder / "log"), together=3)  # a third worker never comes: no block ends
    runtime = Runtime(devices="cpu", side_by_side=1, cluster="ray", address=cluster.address)
    store = Store(folder / "home").open()

    def lose() -> None:
        while len((folder / "log").read_text().splitlines() if (folder / "log").exists() else ()) < 2:
            time.sleep(0.05)
        cluster.head_node.all_processes["gcs_server"][0].process.kill()

    def join() -> cluster_module.Cluster:
        return cluster_module.Cluster(runtime.address).watch()

    threading.Thread(target=lose, daemon=True).start()
    try:
        build_all(goals([pool.take(32)]), store, runtime, lambda label, event: None, folder / "logs", join=join)
    except UserError as error:
        print(error, flush=True)
    with store.lock(pool):
        print(f"{len(store.shards(pool))} blocks", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
