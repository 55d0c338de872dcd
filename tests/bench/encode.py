"""Speed of encoding a corpus against sentence-transformers, in CPU seconds on one thread; prints one JSON object.

`vs_st_encode`: our speed over `SentenceTransformer.encode` on texts in the lengths of the paper's mix, tokenisation
included on both sides; `vs_st_instructed`: the same of queries of ten words behind an instruction of twenty, which we
read once. `max_error`: largest difference between the vectors. `padding`: padded over real tokens.

    python tests/bench/encode.py [--quick]
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from embedder import batches, tiny_base

from speed.backends.embedder.export import framed, write_layout
from speed.backends.embedder.trainer import ContrastiveTrainer
from speed.backends.encoding.encoder import PADDING_SHARE, Encoder
from speed.backends.encoding.text_encoder import Vectors
from speed.backends.encoding.token_rows import token_rows, training_frame
from speed.model.batching import chunks

CHUNK_TOKENS = 16_384
INSTRUCTION = (
    "Instruct: Given a question of a patient, retrieve the passages of a handbook that answer it best\nQuery: "
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a quarter of the texts, once")
    count, rounds = (4, 1) if parser.parse_args().quick else (16, 3)
    from sentence_transformers import SentenceTransformer
    from transformers import AutoTokenizer

    torch.set_num_threads(1)
    texts = [text for batch in batches(count, 48, equal=False) for column in batch for text in column]
    with tempfile.TemporaryDirectory() as name:
        folder = tiny_base(Path(name))
        config = ContrastiveTrainer(base=str(folder))
        tokenizer = AutoTokenizer.from_pretrained(folder)
        framed(tokenizer, training_frame(tokenizer, "last", "as_base"), config.max_length).save_pretrained(folder)
        write_layout(config, folder, 96, {})
        ours = Encoder.load(folder)
        ours.chunk_tokens = CHUNK_TOKENS
        theirs = SentenceTransformer(str(folder), device="cpu")
        queries = list(dict.fromkeys(" ".join(text.split()[:10]) for text in texts))
        works: dict[str, Callable[[], Vectors]] = {
            "ours": lambda: ours.encode(texts),
            "theirs": lambda: theirs.encode(texts, batch_size=32, show_progress_bar=False),
            "ours, instructed": lambda: ours.encode(queries, INSTRUCTION),
            "theirs, instructed": lambda: theirs.encode(
                queries, prompt=INSTRUCTION, batch_size=32, show_progress_bar=False
            ),
        }
        found = {who: work() for who, work in works.items()}  # also warms all up
        times: dict[str, list[float]] = {who: [] for who in works}
        order = random.Random(0)
        for _ in range(rounds):
            for who in order.sample([*works], len(works)):
                begun = time.process_time()
                works[who]()
                times[who].append(time.process_time() - begun)
        lengths = [len(row) for row in token_rows(ours.tokenizer, texts, ours.frame, ours.max_length)]
    padded = sum(len(part) * lengths[part[0]] for part in chunks(lengths, CHUNK_TOKENS, PADDING_SHARE))
    times_of = {who: statistics.median(each) for who, each in times.items()}
    errors = [np.abs(found["ours" + what] - found["theirs" + what]).max() for what in ("", ", instructed")]
    figures = {
        "vs_st_encode": round(times_of["theirs"] / times_of["ours"], 3),
        "vs_st_instructed": round(times_of["theirs, instructed"] / times_of["ours, instructed"], 3),
        "max_error": float(max(errors)),
        "padding": round(padded / sum(lengths), 4),
        "texts": len(texts),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
