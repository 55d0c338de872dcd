"""Speed of contrastive training against its peers, in CPU seconds on one thread; prints one JSON object.

All contenders have one tiny Llama, the same pre-tokenised batches, the same loss (temperature 0.02, one hard negative),
chunks of the same peak memory, and encode every text twice (gradient caching); each is first proved to give
the loss and the gradient of the whole matrix. On lengths as in the paper's mix (7:7:7:2):

`vs_st_right`, `vs_st_left`: our speed over sentence-transformers' CachedMultipleNegativesRankingLoss, padding on
either side; `..._by_tokens`: the same with its `mini_batch_num_tokens` (sentence-transformers 6.2 and later), whose
chunks hold as many real tokens as ours hold padded ones. `vs_tevatron_layout`: over gradient caching with chunks cut
from one padded batch. `equal_lengths`: over sentence-transformers where all texts have one length, and sorting can
bring nothing. `floor_overhead`: our step's time over that of its bare passes, the least of three tries each. `padding`:
padded over real tokens. `grad_error`: largest relative error of a contender's gradient. `kept`: further speed where
graphs are kept instead of computed twice. Ratios are taken batch by batch, and their medians printed.

    python tests/bench/embedder.py [--quick] [--records FILE]

`--records`: take the texts of a JSONL file (`task`, `query`, `positive`, `hard_negative`) instead of the mix, cut into
tokens by a byte-level BPE of 8,000 that is trained on them; without `equal_lengths`, which has nothing to do with them.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

from speed.backends.encoding.embedding_model import vectors
from speed.model.batching import Ids, backward, chunks
from speed.model.loss import info_nce

CHUNK_ROWS, HIDDEN, VOCABULARY, PAD = 8, 96, 2000, 3
TEMPERATURE = 0.02
CPU = torch.device("cpu")

Batch = list[list[str]]
"""Queries, positives and hard negatives."""
Step = Callable[[Batch], float]


def tiny_base(folder: Path) -> Path:
    """A base whose tokenizer puts BOS and EOS around every text."""
    words = ["<unk>", "<s>", "</s>", "<pad>", *(f"w{i}" for i in range(VOCABULARY - 4))]
    tokens = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokens.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return saved_base(folder, tokens)


def saved_base(folder: Path, tokens: Any) -> Path:
    """A tiny Llama with this tokenizer."""
    special = [("<s>", 1), ("</s>", 2)]
    tokens.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=special)
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    PreTrainedTokenizerFast(tokenizer_object=tokens, model_max_length=512, **names).save_pretrained(folder)
    torch.manual_seed(0)
    size = {"hidden_size": HIDDEN, "intermediate_size": 2 * HIDDEN, "num_hidden_layers": 4}
    size["vocab_size"] = tokens.get_vocab_size()
    LlamaModel(LlamaConfig(**size, num_attention_heads=4, num_key_value_heads=2)).save_pretrained(folder)
    return folder


def records_base(folder: Path, texts: list[str]) -> Path:
    """A base whose tokenizer is trained on the texts."""
    tokens = Tokenizer(models.BPE())
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<unk>", "<s>", "</s>", "<pad>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=8000, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokens.train_from_iterator(texts, trainer)
    return saved_base(folder, tokens)


def records_batches(count: int, size: int, file: Path) -> list[Batch]:
    """Batches of the file's records that have a hard negative, in a drawn order."""
    read = [json.loads(line) for line in file.read_text().splitlines()]
    read = [line for line in read if line.get("hard_negative")]
    random.Random(0).shuffle(read)
    rows = [
        [f"Instruct: {line['task']}\nQuery: {line['query']}", line["positive"], line["hard_negative"]] for line in read
    ]
    return [[list(c) for c in zip(*rows[n * size : (n + 1) * size], strict=True)] for n in range(count)]


def batches(count: int, size: int, equal: bool) -> list[Batch]:
    """Batches of random words, in the lengths of the paper's mix or all of one length."""
    draw = random.Random(0)

    def length(mean: float, low: int, high: int) -> int:
        return int(min(high, max(low, draw.lognormvariate(math.log(mean) - 0.18, 0.6))))

    def text(words: int) -> str:
        return " ".join(f"w{draw.randrange(VOCABULARY - 4)}" for _ in range(words))

    lengths: dict[str, tuple[Callable[[], int], Callable[[], int]]] = {
        "classification": (lambda: length(150, 10, 400), lambda: draw.randrange(1, 5)),
        "sts": (lambda: length(16, 4, 40), lambda: length(16, 4, 40)),
        "retrieval": (lambda: length(14, 3, 40), lambda: length(180, 20, 480)),
        "matching": (lambda: length(150, 20, 480), lambda: length(150, 20, 480)),
    }

    def record() -> list[str]:
        if equal:
            return [text(48) for _ in range(3)]
        query, document = lengths[draw.choices([*lengths], [7, 7, 7, 2])[0]]
        return [text(14 + query()), text(document()), text(document())]  # the instruction: 14 words

    return [[list(column) for column in zip(*(record() for _ in range(size)), strict=True)] for _ in range(count)]


def rows_of(tokenizer: Any, batch: Batch) -> list[Ids]:
    """Token rows: queries, positives, negatives."""
    return [
        np.array(tokenizer(text, truncation=True, max_length=512)["input_ids"], np.int32)
        for column in batch
        for text in column
    ]


def loss_of(found: Tensor) -> Tensor:
    """InfoNCE over all documents of the batch."""
    size = len(found) // 3
    free = torch.zeros(size, 2 * size, dtype=torch.bool)
    return info_nce(found[:size], found[size:], torch.arange(size), free, TEMPERATURE).loss.mean()


def ours(model: Any, tokenizer: Any, tokens: int, kept: int = 0) -> Step:
    """The project's step."""

    def step(batch: Batch) -> float:
        rows = known(tokenizer, batch)
        parts = chunks([len(row) for row in rows], tokens)
        sizes = [len(part) * len(rows[part[0]]) for part in parts]

        def encode(part: list[int]) -> Tensor:
            return vectors(model, [rows[i] for i in part], PAD, True, "last", True)

        return float(backward(encode, parts, sizes, loss_of, kept, 0, CPU))

    return step


def floor(model: Any, tokenizer: Any, tokens: int) -> Step:
    """The passes of our step and nothing else."""

    def step(batch: Batch) -> float:
        rows = known(tokenizer, batch)
        for part in chunks([len(row) for row in rows], tokens):
            with torch.no_grad():
                vectors(model, [rows[i] for i in part], PAD, True, "last", True)
            found = vectors(model, [rows[i] for i in part], PAD, True, "last", True)
            found.backward(torch.ones_like(found))  # type: ignore[no-untyped-call]
        return 0.0

    return step


def tevatron(model: Any, tokenizer: Any) -> Step:
    """Gradient caching with chunks cut from two padded batches: queries, and all documents."""

    def step(batch: Batch) -> float:
        rows = known(tokenizer, batch)
        parts, width = [], {}
        size = len(batch[0])
        for start, stop in ((0, size), (size, 3 * size)):
            longest = max(len(row) for row in rows[start:stop])
            for first in range(start, stop, CHUNK_ROWS):
                parts.append(list(range(first, min(stop, first + CHUNK_ROWS))))
                width[first] = longest

        def encode(part: list[int]) -> Tensor:
            ids = np.full((len(part), width[part[0]]), PAD, np.int64)
            mask = np.zeros_like(ids)
            for place, row in enumerate(rows[i] for i in part):
                ids[place, : len(row)], mask[place, : len(row)] = row, 1
            inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
            states = model(**inputs, use_cache=False).last_hidden_state
            last = states[torch.arange(len(part)), inputs["attention_mask"].sum(dim=1) - 1]
            return torch.nn.functional.normalize(last, dim=-1)

        return float(backward(encode, parts, [10**9] * len(parts), loss_of, 0, 0, CPU))

    return step


def sentence_transformers(folder: Path, side: str, tokens: int | None = None) -> tuple[Any, Step]:
    """CachedMultipleNegativesRankingLoss on features that are tokenised beforehand; chunks of rows, or of tokens."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss
    from sentence_transformers.sentence_transformer.modules import Pooling

    body = Transformer(str(folder), max_seq_length=512)
    model = SentenceTransformer(modules=[body, Pooling(HIDDEN, "lasttoken"), Normalize()], device="cpu").train()
    model.tokenizer.padding_side = side
    chunk = {"mini_batch_size": CHUNK_ROWS} if tokens is None else {"mini_batch_num_tokens": tokens}
    loss = CachedMultipleNegativesRankingLoss(model, scale=1 / TEMPERATURE, **chunk)
    features: dict[int, Any] = {}

    def step(batch: Batch) -> float:
        if id(batch) not in features:
            features[id(batch)] = [model.preprocess(column) for column in batch]
        value = loss([dict(column) for column in features[id(batch)]], None)
        value.backward()
        return float(value)

    return model, step


_known: dict[int, list[Ids]] = {}


def known(tokenizer: Any, batch: Batch) -> list[Ids]:
    """Token rows of a batch, made once."""
    if id(batch) not in _known:
        _known[id(batch)] = rows_of(tokenizer, batch)
    return _known[id(batch)]


def gradient(model: Any) -> Tensor:
    """All gradients in the order of the transformer's own parameters, and none left behind."""
    named = sorted((name.split("model.")[-1], weight) for name, weight in model.named_parameters())
    found = torch.cat([weight.grad.flatten() for _, weight in named if weight.grad is not None])
    model.zero_grad(set_to_none=True)
    return found


def compared(folder: Path, data: list[Batch]) -> dict[str, float]:
    """Median of each contender's time over ours, our seconds a step, and what the module says of the other figures."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model = LlamaModel.from_pretrained(folder).train()
    widest = max(len(row) for batch in data for row in known(tokenizer, batch))
    tokens = CHUNK_ROWS * widest  # the activations of the contenders' largest chunk
    contenders: dict[str, tuple[Any, Step]] = {
        "ours": (model, ours(model, tokenizer, tokens)),
        "kept": (model, ours(model, tokenizer, tokens, 10**9)),
        "tevatron": (model, tevatron(model, tokenizer)),
        "st_right": sentence_transformers(folder, "right"),
        "st_left": sentence_transformers(folder, "left"),
        "st_right_by_tokens": sentence_transformers(folder, "right", tokens),
        "st_left_by_tokens": sentence_transformers(folder, "left", tokens),
    }
    rows = known(tokenizer, data[0])
    whole = loss_of(torch.cat([vectors(model, [row], PAD, True, "last", True) for row in rows]))
    whole.backward()  # type: ignore[no-untyped-call]
    expected = gradient(model)
    error = 0.0
    for name, (of, step) in contenders.items():
        value = step(data[0])
        assert abs(value - float(whole)) < 1e-4, f"{name} computes another loss: {value} instead of {float(whole)}"
        error = max(error, float((gradient(of) - expected).norm() / expected.norm()))
    times: dict[str, list[float]] = {name: [] for name in contenders}
    order = random.Random(1)
    for batch in data[1:]:
        for name in order.sample([*contenders], len(contenders)):
            times[name].append(seconds(*contenders[name], batch))
    lengths = [[len(row) for row in known(tokenizer, batch)] for batch in data]
    padded = sum(len(p) * some[p[0]] for some in lengths for p in chunks(some, tokens))
    ratios = {
        name: statistics.median(theirs / own for theirs, own in zip(spent, times["ours"], strict=True))
        for name, spent in times.items()
    }
    return ratios | {
        "padding": padded / sum(map(sum, lengths)),
        "step_seconds": statistics.median(times["ours"]),
        "grad_error": error,
    }


def overhead(folder: Path, data: list[Batch]) -> float:
    """Median over the batches of our step's time over that of its bare passes."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model = LlamaModel.from_pretrained(folder).train()
    tokens = CHUNK_ROWS * max(len(row) for batch in data for row in known(tokenizer, batch))
    steps = {"ours": ours(model, tokenizer, tokens), "floor": floor(model, tokenizer, tokens)}
    order, found = random.Random(2), []
    for batch in data[1:]:
        least = dict.fromkeys(steps, math.inf)  # neighbours on the machine only ever add to a time
        for name in order.sample([*steps] * 3, 6):
            least[name] = min(least[name], seconds(model, steps[name], batch))
        found.append(least["ours"] / least["floor"])
    return statistics.median(found)


def seconds(model: Any, step: Step, batch: Batch) -> float:
    """CPU time of a step."""
    begun = time.process_time()
    step(batch)
    spent = time.process_time() - begun
    model.zero_grad(set_to_none=True)
    return spent


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one batch of 16 in place of four of 48")
    parser.add_argument("--records", type=Path, help="JSONL to take the texts from")
    options = parser.parse_args()
    records, (steps, size) = options.records, (1, 16) if options.quick else (4, 48)
    torch.set_num_threads(1)
    figures, errors = dict[str, float](), list[float]()
    with tempfile.TemporaryDirectory() as place:
        if records is None:
            folder = tiny_base(Path(place))
            equal = compared(folder, batches(steps + 1, size, equal=True))
            figures["equal_lengths"] = equal["st_right"]
            errors.append(equal["grad_error"])
            _known.clear()
            data = batches(steps + 1, size, equal=False)
        else:
            lines = map(json.loads, records.read_text().splitlines())
            texts = [str(line[name]) for line in lines for name in ("task", "query", "positive", "hard_negative")]
            folder = records_base(Path(place), texts)
            data = records_batches(steps + 1, size, records)
        mixed = compared(folder, data)
        figures["floor_overhead"] = overhead(folder, data)
    figures |= {
        "vs_st_right": mixed["st_right"],
        "vs_st_left": mixed["st_left"],
        "vs_st_right_by_tokens": mixed["st_right_by_tokens"],
        "vs_st_left_by_tokens": mixed["st_left_by_tokens"],
        "vs_tevatron_layout": mixed["tevatron"],
        "padding": mixed["padding"],
        "kept": 1 / mixed["kept"],
        "step_seconds": mixed["step_seconds"],
    }
    shown = {name: round(figure, 3) for name, figure in figures.items()}
    print(json.dumps({**shown, "grad_error": max([*errors, mixed["grad_error"]])}))


if __name__ == "__main__":
    main()
