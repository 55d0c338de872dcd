"""A command whose stage takes the one GPU of a made-up machine: `python command_on_cards.py FOLDER LOG [UNTIL]`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from toys import OnCards

import speed.core.devices
from speed.core.build_all import build_all
from speed.core.graph import goals
from speed.core.machine import Gpu
from speed.core.store import Store
from speed.runtime import Runtime

ONE = (Gpu("0", 80.0, "GPU-a"),)


def build_on_card(folder: Path, log: str, until: str, listen: Any) -> None:
    """Build a stage in a store of its own."""
    store, runtime = Store(folder / "home").open(), Runtime(devices=(0,))
    build_all(goals([OnCards(1, log, until)]), store, runtime, listen, folder / "logs")


if __name__ == "__main__":
    speed.core.devices.gpus = lambda: ONE
    build_on_card(Path(sys.argv[1]), sys.argv[2], sys.argv[3], lambda label, event: None)
