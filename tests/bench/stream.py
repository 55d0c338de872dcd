"""What a record costs on its way through the store: written as a pool's row, read back, passed on by a stage.

    python tests/bench/stream.py [--quick]

Microseconds of CPU a record of 2,100 characters, sha256 of each shard and validation of each row included, and the
memory held meanwhile, which must not grow with the number of records. Each size runs in a process of its own. The stage
is dedup with nothing to compare, which reads twice and writes once. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import deque
from pathlib import Path

from synthetic import Samples, built, example, in_fresh_process, measured

from speed.core.store import Store
from speed.stages.dedup import Dedup


def child(rows: int, home: Path) -> dict[str, float]:
    """Figures over so many rows; making the rows up is taken off."""
    store = Store(home).open()
    made, _ = measured(lambda: deque(map(example, range(rows // 20)), maxlen=0))
    written, peak_writing = measured(lambda: built(store, Samples(), rows))
    read, peak_reading = measured(lambda: deque(store.rows(Samples().take(rows)), maxlen=0))
    passed, peak_passing = measured(lambda: built(store, Dedup(None, Samples().take(rows))))
    return {
        "write_us": 1e6 * (written - 20 * made) / rows,
        "read_us": 1e6 * read / rows,
        "stage_us": 1e6 * passed / rows,
        "peak_mb": max(peak_writing, peak_reading, peak_passing),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the records")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(int(options.child[0]), Path(options.child[1]))))
        return
    figures: dict[str, float] = {}
    sizes = (1_000, 20_000) if options.quick else (10_000, 200_000)
    for rows in sizes:
        with tempfile.TemporaryDirectory() as home:
            found = in_fresh_process(__file__, rows, home)
        figures |= {f"{name}_{rows}": round(value, 1) for name, value in found.items()}
        shown = ", ".join(f"{name} {value:.1f}" for name, value in found.items())
        print(f"{rows} records: {shown}")
    few, many = (figures[f"peak_mb_{rows}"] for rows in sizes)
    figures["bytes_per_further_record"] = round((many - few) * 2**20 / (sizes[1] - sizes[0]), 1)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
