"""What tokenising the data of a training costs, and what it costs the next training.

Words of the miniature under its own tokenizer, about 250 tokens a text, in one process: CPU seconds to make the token
ids of all rows, and to read them again (`speed.backends.alignment.rows`).

    python tests/bench/tokens.py [--quick] [ROWS, default 25000]
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "backends"))
from tiny_generator import context

from speed.backends.alignment.rows import dpo_rows, sft_rows
from speed.backends.engines.weights import load_tokenizer
from speed.core.content import package_folder
from speed.data.trainings import Completion, Preference

WORDS_A_TEXT = 210


def figures(tokenised: Any, rows: list[Any], home: Path) -> dict[str, float]:
    """CPU seconds to make the ids of these rows and to read them, and what they take."""
    tokenizer = load_tokenizer("package:miniature/bases/llama")
    found, times = [], []
    for _ in ("make", "read"):
        begun = time.process_time()
        found = tokenised(rows, "plain", tokenizer, 10_000, context(home))
        times.append(time.process_time() - begun)
    tokens = sum(len(ids) for row in found for name, ids in row.items() if name != "labels") / len(rows)
    size = sum(file.stat().st_size for file in (home / "cache" / "tokens").rglob("*.npy")) / 1e6
    return {"rows": len(rows), "tokens_a_row": tokens, "make": times[0], "read": times[1], "megabytes": size}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=int, nargs="?", help="rows of each kind (25,000; a twentieth with --quick)")
    parser.add_argument("--quick", action="store_true", help="a twentieth of the rows")
    options = parser.parse_args()
    count = options.rows or (1_250 if options.quick else 25_000)
    words = (package_folder("package:miniature/words") / "things.txt").read_text().split()
    rng = random.Random(0)

    def text() -> str:
        return " ".join(rng.choices(words, k=WORDS_A_TEXT))

    rows: dict[str, tuple[Any, list[Any]]] = {
        "sft": (sft_rows, [Completion(prompt=text(), completion=text()) for _ in range(count)]),
        "dpo": (dpo_rows, [Preference(prompt=text(), chosen=text(), rejected=text()) for _ in range(count)]),
    }
    shown: dict[str, float] = {}
    for kind, (tokenised, texts) in rows.items():
        with tempfile.TemporaryDirectory() as home:
            found = figures(tokenised, texts, Path(home))
        print(f"{kind}: {found['make']:.2f} s to make, {found['read']:.2f} s to read", flush=True)
        shown |= {f"{kind}_{name}": round(value, 3) for name, value in found.items()}
    print(json.dumps(shown))


if __name__ == "__main__":
    main()
