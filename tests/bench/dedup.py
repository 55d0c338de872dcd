"""The dedup stage as the corpus grows, what it finds, and its signatures beside datasketch's.

    python tests/bench/dedup.py [--quick] [--million]

Made-up retrieval examples, a fifth of them near copies of earlier ones. Each size runs in a process of its own:
`records_per_s_N` by CPU time, `peak_mb_N` of memory. `recall` and `precision` are against the exact Jaccard similarity
of all pairs: of the records near to one that was kept, the share that was dropped; of those that were dropped, the
share that is near to the record named as the cause. `vs_datasketch`: CPU from the texts of documents of 150 to 300
words to their signatures, as a multiple of ours once it is compiled, by `MinHash.bulk` over shingles hashed with xxh32;
both give the same signatures, which is checked. `--million` compares a million such documents by query and positive, on
two threads, compiling included: `million_wall_s`, `million_cpu_s`, `million_peak_mb`. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from datasketch import MinHash
from synthetic import Samples, built, example, in_fresh_process, measured
from xxhash import xxh32_intdigest

from speed.core.store import Store
from speed.data.quality.minhash import MinHashConfig, hashed, shingles, signatures
from speed.data.quality.near_duplicates import CHUNK, compared_text, duplicates
from speed.data.records import Kind
from speed.stages.dedup import Dedup

CONFIG = MinHashConfig()


def child(rows: int, home: Path) -> dict[str, float]:
    """Figures of the stage over so many rows."""
    store = Store(home).open()
    built(store, Samples(), rows)
    built(store, Dedup(CONFIG, Samples().take(100)))  # imports
    seconds, peak = measured(lambda: built(store, Dedup(CONFIG, Samples().take(rows))))
    return {"records_per_s": rows / seconds, "peak_mb": peak}


def documents(count: int, seed: int = 0) -> Iterator[str]:
    """Texts of 150 to 300 words of 2 to 10 letters, a fifth of them copies of the one before but four words."""
    rng = random.Random(seed)
    known = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 10))) for _ in range(20_000)]
    words = [""]
    for number in range(count):
        if number % 5 == 4:
            for _ in range(4):
                words[rng.randrange(len(words))] = rng.choice(known)
        else:
            words = rng.choices(known, k=rng.randint(150, 300))
        yield " ".join(words).capitalize() + "."


def versus_datasketch(count: int) -> float:
    """CPU of datasketch's signatures of so many documents, as a multiple of ours: the least of five runs each."""
    texts = list(documents(count))
    ours, theirs = list[np.ndarray](), list[MinHash]()

    def by_us() -> None:
        ours[:] = [
            signatures(hashed(texts[at : at + CHUNK], CONFIG, True), CONFIG, True) for at in range(0, count, CHUNK)
        ]

    def by_datasketch() -> None:
        sets = [[shingle.encode() for shingle in shingles(text, CONFIG)] for text in texts]
        theirs[:] = MinHash.bulk(sets, num_perm=CONFIG.permutations, seed=CONFIG.seed, hashfunc=xxh32_intdigest)

    spent = {work: min(cpu_seconds(work) for _ in range(5)) for work in (by_us, by_datasketch)}
    signed = np.array([signature.hashvalues[: CONFIG.bands * CONFIG.rows] for signature in theirs])
    assert (np.hstack(ours) == signed.T).all()
    print(", ".join(f"{work.__name__} {seconds / count * 1e6:.1f} us a document" for work, seconds in spent.items()))
    return spent[by_datasketch] / spent[by_us]


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU seconds of some work."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def million(records: int, home: Path) -> dict[str, float]:
    """Comparing so many documents, half of each its query and half its positive."""
    file = home / "documents.txt"
    with file.open("w") as out:
        out.writelines(text + "\n" for text in documents(records))

    def read() -> Iterator[SimpleNamespace]:
        with file.open() as lines:
            for text in lines:
                query, positive = text[: len(text) // 2], text[len(text) // 2 :]
                yield SimpleNamespace(kind=Kind.RETRIEVAL, query=query, positive=positive)  # takes no time to make

    config, begun, kept = MinHashConfig(with_positive=tuple(Kind)), time.monotonic(), list[int]()
    seconds, peak = measured(
        lambda: kept.append(sum(first is None for _, first in duplicates(read, config, threads=2)))
    )
    wall = time.monotonic() - begun
    return {"wall_s": wall, "cpu_s": seconds, "peak_mb": peak, "kept": kept[0] / records}


def found(rows: int) -> dict[str, float]:
    """Recall and precision over all pairs."""
    examples = [example(row) for row in range(rows)]
    sets = [shingles(compared_text(each, CONFIG), CONFIG) for each in examples]
    kept: list[int] = []
    dropped = missed = wrong = 0

    def near(left: int, right: int) -> bool:
        common = len(sets[left] & sets[right])
        return common >= CONFIG.threshold * (len(sets[left]) + len(sets[right]) - common)

    for index, (_, first) in enumerate(duplicates(lambda: examples, CONFIG)):
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
    parser.add_argument("--million", action="store_true", help="a million documents too (with --quick 20,000)")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        what, rows, home = options.child
        print(json.dumps({"child": child, "million": million}[what](int(rows), Path(home))))
        return
    figures: dict[str, float] = {}
    for rows in (1_000, 4_000) if options.quick else (5_000, 20_000, 80_000):
        with tempfile.TemporaryDirectory() as home:
            for name, value in in_fresh_process(__file__, "child", rows, home).items():
                figures[f"{name}_{rows}"] = round(value, 1)
        print(f"{rows}: {figures[f'records_per_s_{rows}']:.0f} records/s, {figures[f'peak_mb_{rows}']:.0f} MB")
    if options.million:
        records = 20_000 if options.quick else 1_000_000
        with tempfile.TemporaryDirectory() as home:
            measures = in_fresh_process(__file__, "million", records, home)
        print(f"{records:,} documents: " + ", ".join(f"{name} {value:.2f}" for name, value in measures.items()))
        figures |= {f"million_{name}": round(value, 2) for name, value in measures.items()}
    figures |= {name: round(value, 4) for name, value in found(500 if options.quick else 3_000).items()}
    figures["vs_datasketch"] = round(versus_datasketch(500 if options.quick else 4_000), 2)
    print(f"recall {figures['recall']:.1%}, precision {figures['precision']:.1%}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
