"""What tokenising the data of a training costs, and what it costs the next training; prints one JSON object a kind.

Words of the miniature under its own tokenizer, about 250 tokens a text, in one process: CPU seconds to make the token
ids of all rows, and to read them again (`speed.backends.alignment.tokens`).

    python tests/bench/tokens.py [ROWS, default 25000]
"""

from __future__ import annotations

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
from speed.backends.generator.weights import load_tokenizer
from speed.core.content import package_folder
from speed.ports import Completion, Preference

WORDS_A_TEXT = 210


def figures(tokenised: Any, rows: list[Any], home: Path) -> dict[str, float]:
    """CPU seconds to make the ids of these rows and to read them, and what they take."""
    tokenizer = load_tokenizer("package:miniature/bases/llama")
    found, times = [], []
    for _ in ("make", "read"):
        begun = time.process_time()
        found = tokenised(rows, "plain", tokenizer, 10_000, context(home))
        times.append(time.process_time() - begun)
    (file,) = (home / "cache" / "tokens").glob("*.npz")
    tokens = sum(len(ids) for row in found for name, ids in row.items() if name != "labels") / len(rows)
    size = file.stat().st_size / 1e6
    return {"rows": len(rows), "tokens_a_row": tokens, "make": times[0], "read": times[1], "megabytes": size}


def main() -> None:
    """One line of JSON a kind of row."""
    count = int(sys.argv[1]) if sys.argv[1:] else 25_000
    words = (package_folder("package:miniature/words") / "things.txt").read_text().split()
    rng = random.Random(0)

    def text() -> str:
        return " ".join(rng.choices(words, k=WORDS_A_TEXT))

    rows: dict[str, tuple[Any, list[Any]]] = {
        "sft": (sft_rows, [Completion(prompt=text(), completion=text()) for _ in range(count)]),
        "dpo": (dpo_rows, [Preference(prompt=text(), chosen=text(), rejected=text()) for _ in range(count)]),
    }
    for kind, (tokenised, texts) in rows.items():
        with tempfile.TemporaryDirectory() as home:
            found = figures(tokenised, texts, Path(home))
        print(json.dumps({"kind": kind} | {name: round(value, 2) for name, value in found.items()}), flush=True)


if __name__ == "__main__":
    main()
