"""The dedup stage as the corpus grows, and what it finds.

    python tests/bench/dedup.py [--quick]

Made-up retrieval examples, a fifth of them near copies of earlier ones. Each size runs in a process of its own:
`records_per_s_N` by CPU time, `peak_mb_N` of memory. `recall` and `precision` are against the exact Jaccard similarity
of all pairs: of the records near to one that was kept, the share that was dropped; of those that were dropped, the
share that is near to the record named as the cause. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from synthetic import Samples, built, example, in_fresh_process, measured

from speed.core.store import Store
from speed.data.quality.near_duplicates import MinHashConfig, compared_text, duplicates, shingles
from speed.stages.dedup import Dedup


def child(rows: int, home: Path) -> dict[str, float]:
    """Figures of the stage over so many rows."""
    store = Store(home).open()
    built(store, Samples(), rows)
    built(store, Dedup(MinHashConfig(), Samples().take(100)))  # imports and compiles
    seconds, peak = measured(lambda: built(store, Dedup(MinHashConfig(), Samples().take(rows))))
    return {"records_per_s": rows / seconds, "peak_mb": peak}


def found(rows: int) -> dict[str, float]:
    """Recall and precision over all pairs."""
    config = MinHashConfig()
    examples = [example(row) for row in range(rows)]
    sets = [shingles(compared_text(each, config), config) for each in examples]
    kept: list[int] = []
    dropped = missed = wrong = 0

    def near(left: int, right: int) -> bool:
        common = len(sets[left] & sets[right])
        return common >= config.threshold * (len(sets[left]) + len(sets[right]) - common)

    for index, first in duplicates(examples, config):
        if first is None:
            missed += any(near(index, other) for other in kept)
            kept.append(index)
        else:
            dropped += 1
            wrong += not near(index, first)
    return {"dropped": dropped / rows, "recall": dropped / (dropped + missed), "precision": 1 - wrong / dropped}


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
    for rows in (1_000, 4_000) if options.quick else (5_000, 20_000, 80_000):
        with tempfile.TemporaryDirectory() as home:
            for name, value in in_fresh_process(__file__, rows, home).items():
                figures[f"{name}_{rows}"] = round(value, 1)
        print(f"{rows}: {figures[f'records_per_s_{rows}']:.0f} records/s, {figures[f'peak_mb_{rows}']:.0f} MB")
    figures |= {name: round(value, 4) for name, value in found(500 if options.quick else 3_000).items()}
    print(f"recall {figures['recall']:.1%}, precision {figures['precision']:.1%}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
