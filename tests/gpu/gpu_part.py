"""One part in a process of its own: python gpu_part.py NAME FIGURES.json PLACE [--tiny]."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from gpu_figures import Figures
from gpu_machine import Machine

WHOLE = "the part"
"""Name of what failed where it was none of a part's measurements."""


def main() -> None:
    """Measure."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("name")
    arguments.add_argument("figures", type=Path)
    arguments.add_argument("place", type=Path)
    arguments.add_argument("--tiny", action="store_true")
    given = arguments.parse_args()
    machine = Machine.here(given.tiny)
    figures = Figures(given.figures, machine.release)
    figures.add(**machine.facts())
    with figures.attempt(WHOLE):
        importlib.import_module(f"gpu_{given.name}").measure(figures, machine, given.place)
    sys.exit(WHOLE in figures.values.get("failed", {}))


if __name__ == "__main__":
    main()
