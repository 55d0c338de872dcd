"""Trains the base models of the miniature: `python -m speed.miniature.make_bases [NAME ...]`.

Every base has about a million parameters and a byte-level BPE vocabulary of 2,304. On one core (OMP_NUM_THREADS=1)
a generator takes about 25 minutes and the embedder about 8. A folder holds config.json, fp16 model.safetensors, the
tokenizer and `training.log`.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, TextIO

from speed.core.spec import Spec
from speed.data.records import KEYS
from speed.miniature.corpus import advice, texts
from speed.miniature.lexicon import meanings
from speed.miniature.world import world

BASES = Path(__file__).parent / "bases"
VOCABULARY = 2304
PAD, BOS, EOS = "<pad>", "<s>", "</s>"


class Base(Spec):
    """One base model: its architecture and how long it is trained."""

    architecture: str
    """`llama`, `qwen2` or `gemma`: a model type of transformers."""
    layers: int = 4
    steps: int = 2000
    """Optimiser steps of 4,096 tokens."""
    learning_rate: float = 3e-3
    """Peak rate of the embeddings and norms."""
    muon_rate: float = 0.02
    """Peak rate of the matrices."""
    seed: int = 0


CATALOGUE = {
    "llama": Base(architecture="llama"),
    "embedder": Base(architecture="llama", layers=2, steps=700, seed=1),
    "qwen": Base(architecture="qwen2", steps=800, seed=2),
    "gemma": Base(architecture="gemma", steps=800, seed=3),
}


def make_tokenizer(folder: Path) -> Any:
    """Byte-level BPE trained on the corpus and on plain English about writing; the same for every base."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    stream = texts(world(), seed=-1)
    tokenizer.train_from_iterator(
        [next(stream) for _ in range(6000)] + advice() * 120 + _prompt_words() * 300,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=[PAD, BOS, EOS],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=PAD, model_max_length=1024
    )
    fast.save_pretrained(folder)
    return fast


def _prompt_words() -> list[str]:
    """The words of the prompts that a small model reads, in alphabetical order, and the punctuation of records.

    For the tokenizer alone, so that prompts are short in tokens; the models never see them.
    """
    templates = files("speed.data").joinpath("templates")
    read = [
        *templates.joinpath("synthesis").iterdir(),
        templates.joinpath("judge.jinja"),
        templates.joinpath("revise.jinja"),
    ]
    words = {
        word
        for file in read
        for word in re.findall(r"[A-Za-z]+", re.sub(r"{[#%{].*?[#%}]}", "", file.read_text(), flags=re.S))
    }
    names = sorted({name for keys in KEYS.values() for name in (*keys.all, "reason", "revision")})
    marks = [f'The "{name}" has {{"{name}": "A", "{name}": 8}}, "{name}": {{"{name}": "A"}}.' for name in names]
    return [" ".join(["-", *sorted(words), *meanings()]), *marks]


def untrained(base: Base) -> Any:
    """The model of a base with random weights, fp32."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        base.architecture,
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=288,
        num_hidden_layers=base.layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=1024,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=True,
        dtype="float32",
    )
    torch.manual_seed(base.seed)
    return AutoModelForCausalLM.from_config(config)


def blocks(tokenizer: Any, seed: int, length: int) -> Iterator[list[int]]:
    """Endless blocks of `length` tokens: whole texts, each between BOS and EOS, cut where a block ends."""
    waiting: list[int] = []
    for text in texts(world(), seed):
        waiting += [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
        while len(waiting) >= length:
            yield waiting[:length]
            waiting = waiting[length:]


def train(base: Base, tokenizer: Any, log: TextIO) -> Any:
    """The trained model. The last fifth of the steps sees long blocks, so that every position of a prompt is known."""
    import torch

    torch.set_num_threads(1)
    model = untrained(base)
    _say(log, event="start", recipe=base.model_dump(), parameters=sum(p.numel() for p in model.parameters()))
    optimizers = _optimizers(model, base)
    short, long = blocks(tokenizer, base.seed, 256), blocks(tokenizer, base.seed + 1000, 1024)
    started, tokens = time.monotonic(), 0
    for step in range(base.steps):
        done = step / base.steps
        share = min(1.0, (step + 1) / 60) * (0.02 + 0.98 * (1 + math.cos(math.pi * done)) / 2)
        source, rows = (short, 16) if done < 0.8 else (long, 4)
        batch = torch.tensor([next(source) for _ in range(rows)])
        loss = model(input_ids=batch, labels=batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, rate in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * share
            optimizer.step()
        model.zero_grad()
        tokens += batch.numel()
        if (step + 1) % 50 == 0:
            seconds = round(time.monotonic() - started, 1)
            _say(log, step=step + 1, loss=round(loss.item(), 4), tokens=tokens, seconds=seconds)
    return model


def _optimizers(model: Any, base: Base) -> list[tuple[Any, float]]:
    """Muon for the matrices, AdamW for the rest, each with its peak learning rate (needs torch >= 2.9).

    After 80 steps the loss was 2.84, where AdamW alone at its best rate had 3.57.
    """
    import torch

    inner = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    outer = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        (torch.optim.Muon(inner, lr=base.muon_rate, weight_decay=0.01, momentum=0.95), base.muon_rate),
        (torch.optim.AdamW(outer, lr=base.learning_rate, betas=(0.9, 0.95), weight_decay=0.0), base.learning_rate),
    ]


def _say(log: TextIO, **values: object) -> None:
    line = json.dumps(values)
    print(line, flush=True)
    log.write(line + "\n")
    log.flush()


def make(name: str, folder: Path) -> None:
    """Train one base and write it into `folder`."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(folder)
    with (folder / "training.log").open("w") as log:
        model = train(CATALOGUE[name], tokenizer, log)
    model.generation_config.do_sample = True
    model.to(torch.float16).save_pretrained(folder)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", default=list(CATALOGUE), help=f"of {', '.join(CATALOGUE)}")
    parser.add_argument("--out", type=Path, default=BASES)
    arguments = parser.parse_args()
    for name in arguments.names:
        make(name, arguments.out / name)


if __name__ == "__main__":
    main()
