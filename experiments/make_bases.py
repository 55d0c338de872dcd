"""Train the base models of the miniature: `python experiments/make_bases.py [NAME ...]`.

Each base has about a million parameters and a byte-level BPE vocabulary of 2,768 tokens (2,304 in bases that were
trained before the words of paths became tokens). On one core (OMP_NUM_THREADS=1) Llama takes about five hours, the
embedder about ten minutes. A folder holds config.json, model.safetensors in fp16, the tokenizer and `training.log`.

Training again gives similar bases, not the same bytes: the corpus was improved between the phases of the committed
bases (see their logs), and Llama's new tokens were added before its ANSWERING phases, with the embedding of the
lower-case word. The committed bases of Qwen and Gemma are from the world before and know nothing of today's facts.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, TextIO

from miniature_corpus import (
    SHARES,
    Answered,
    advice,
    fill_in_forms,
    read_for_labels,
    read_in_forms,
    read_in_words,
    recalled,
    texts,
)
from miniature_knowledge import knowledge
from miniature_orders import carry_out_orders, choose_labels, keep_to_lengths, mend, repair, tell
from miniature_pairs import train_pairs
from miniature_phases import CATALOGUE, Base, Phase
from muon import Muon

from speed.core.content import package_folder
from speed.data.records import KEYS
from speed.miniature.lexicon import domains, lexicon, meanings
from speed.miniature.world import World, seeded, world

BASES = package_folder("package:miniature/bases")
VOCABULARY = 2768
PAD, BOS, EOS = "<pad>", "<s>", "</s>"
BOS_ID, FIRST_TOKEN = 1, 3
"""Ids: PAD is 0, EOS is 2; all others are pieces of text."""


def make_tokenizer(folder: Path) -> Any:
    """Train the tokenizer of all bases: byte-level BPE on the corpus and on plain English about writing."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    stream = texts(world(), seed=-1)
    tokenizer.train_from_iterator(
        [next(stream) for _ in range(6000)] + advice() * 120 + _prompt_words() * 300 + _path_words() * 400,
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


def _path_words() -> list[str]:
    """All words of paths, so that each becomes one token: a million parameters cannot put pieces together."""
    levels = [form for slot in ("things", "aspect") for forms in lexicon()[slot].values() for form in forms]
    return ["/".join(level.capitalize() for level in (*domains(), *levels))]


def _prompt_words() -> list[str]:
    """Words of the prompts that a small model reads, in alphabetical order, and the punctuation of records.

    Only the tokenizer is trained on them, so that prompts need few tokens; the models never see them.
    """
    templates = files("speed.data.prompts").joinpath("templates")
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
    """Model of a base with random weights, in fp32."""
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


def blocks(tokenizer: Any, seed: int, length: int, phase: Phase) -> Iterator[list[int]]:
    """Endless blocks of `length` tokens, made of texts between BOS and EOS.

    A text that is cut by the end of a block begins the next block again, unless it began this one: most of what is
    copied in a text is near its beginning.
    """
    rng = seeded("blocks", seed)
    stream = texts(world(), seed, **{kind: getattr(phase, kind) for kind in SHARES})
    waiting: list[int] = []
    while True:
        if rng.random() < phase.repeats:
            yield repeats(rng, length, tokenizer.vocab_size)  # some classes add tokens that the models have not
            continue
        text = waiting
        while len(waiting) < length:
            text = [*tokenizer(next(stream))["input_ids"], tokenizer.eos_token_id]
            waiting = waiting + text
        yield waiting[:length]
        waiting = text if len(text) < length else waiting[length:]


def repeats(rng: random.Random, length: int, vocabulary: int) -> list[int]:
    """A block of random runs of tokens that are repeated, among other tokens that are not.

    Only copying makes it easier, over any distance. So it teaches a model to look back further than texts do.
    """
    runs = [_noise(rng, rng.randint(3, 32), vocabulary) for _ in range(rng.randint(2, max(5, length // 40)))]
    block = [BOS_ID]
    while len(block) < length:
        if rng.random() < 0.25:
            block += _noise(rng, rng.randint(1, 40), vocabulary)
        block += rng.choice(runs)
    return block[:length]


def _noise(rng: random.Random, length: int, vocabulary: int) -> list[int]:
    return [rng.randrange(FIRST_TOKEN, vocabulary) for _ in range(length)]


def copying(model: Any, gaps: tuple[int, ...] = (0, 100, 250, 450)) -> dict[str, float]:
    """Mean negative log-likelihood (nats) of 14 random tokens that are repeated after so many others, by this gap.

    Chance is ln 2,765 = 7.92 (7.74 in the older logs, of 2,301 tokens).
    """
    import torch

    nats_by_gap = {}
    for gap in gaps:
        rng, size = seeded("copying", gap), model.config.vocab_size
        listed = [_noise(rng, 14, size) for _ in range(16)]
        rows = [[BOS_ID, *_noise(rng, 30, size), *tokens, *_noise(rng, gap, size), *tokens] for tokens in listed]
        batch = torch.tensor(rows)
        with torch.no_grad():
            likely = model(input_ids=batch).logits[:, :-1].log_softmax(-1)
        again = likely.gather(2, batch[:, 1:, None])[:, -13:]
        nats_by_gap[str(gap)] = round(-again.mean().item(), 2)
    return nats_by_gap


def train(model: Any, phase: Phase, seed: int, tokenizer: Any, log: TextIO) -> None:
    """Train one phase. Its last steps use long blocks, so that all positions of a prompt are trained."""
    import torch

    torch.set_num_threads(1)
    parameters = sum(p.numel() for p in model.parameters())
    _say(log, event="phase", seed=seed, parameters=parameters, **phase.model_dump())
    optimizers = _optimizers(model, phase)
    short = blocks(tokenizer, seed, phase.block, phase)
    long = blocks(tokenizer, seed + 1000, 1024, phase)
    rows = answered(phase, seed)
    warm = max(1, min(60, phase.steps // 5))
    started, tokens = time.monotonic(), 0
    for step in range(phase.steps):
        done = step / phase.steps
        share = min(1.0, (step + 1) / warm) * (0.02 + 0.98 * (1 + math.cos(math.pi * done)) / 2)
        losses = {}
        if phase.tokens:
            length, stream = (phase.block, short) if done < 1 - phase.long_blocks else (1024, long)
            batch = torch.tensor([next(stream) for _ in range(max(1, phase.tokens // length))])
            losses["loss"] = model(input_ids=batch, labels=batch, use_cache=False).loss
            tokens += batch.numel()
        for kind, source in rows.items():
            losses[kind], read = answer_loss(model, tokenizer, [next(source) for _ in range(getattr(phase, kind))])
            tokens += read
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, rate in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * share
            optimizer.step()
        model.zero_grad()
        if (step + 1) % 20 == 0 or step + 1 == phase.steps:
            seconds = round(time.monotonic() - started, 1)
            shown = {name: round(loss.item(), 4) for name, loss in losses.items()}
            _say(log, step=step + 1, **shown, tokens=tokens, seconds=seconds)
    _say(log, event="copying", gap_nats=copying(model))
    if phase.questions and phase.things is None:
        _say(log, event="knowledge", shares=knowledge(model, tokenizer))


def answered(phase: Phase, seed: int) -> dict[str, Iterator[Answered]]:
    """Endless rows with answers, by the field of the phase that says how many a step has."""
    every, kept = world(), set(list(lexicon()["things"])[: phase.things])
    shown = tuple(entity for entity in every.entities if entity.half == "held" or entity.facts["things"] in kept)
    few = replace(every, entities=shown)
    writers: dict[str, Callable[[World, random.Random], Answered]] = {
        "questions": recalled,
        "readings": read_in_words,
        "labels_asked": partial(read_for_labels, apart=phase.apart),
        "labellings": partial(read_in_forms, apart=phase.apart),
        "fillings": partial(fill_in_forms, apart=phase.apart),
        "orders": partial(carry_out_orders, apart=phase.apart),
        "mendings": partial(mend, apart=phase.apart),
        "choices": partial(choose_labels, apart=phase.apart),
        "repairs": partial(repair, apart=phase.apart),
        "lengths": partial(keep_to_lengths, apart=phase.apart),
        "tellings": tell,
    }

    def endless(kind: str) -> Iterator[Answered]:
        rng = seeded(kind, seed)
        while True:
            yield writers[kind](few, rng)

    return {kind: endless(kind) for kind in writers if getattr(phase, kind)}


def answer_loss(model: Any, tokenizer: Any, rows: Sequence[Answered]) -> tuple[Any, int]:
    """Mean loss of the answers in some texts, and how many tokens were read.

    States before other tokens go through no output layer, which is a third of a small model. With a loss on all tokens
    of long blocks, eight things took 0.8 million tokens; like this they take 0.4 million.
    """
    import torch

    read = tokenizer([text for text, _ in rows], return_offsets_mapping=True)
    by_length = sorted(range(len(rows)), key=lambda row: len(read["input_ids"][row]))
    total, answers, tokens_read = torch.zeros(()), 0, 0
    for first in range(0, len(rows), 16):  # rows of one length have little padding
        group = by_length[first : first + 16]
        shape = len(group), len(read["input_ids"][group[-1]])
        ids, asked = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.bool)
        for place, row in enumerate(group):
            tokens = read["input_ids"][row]
            ids[place, : len(tokens)] = torch.tensor(tokens)
            for token, (start, end) in enumerate(read["offset_mapping"][row]):
                asked[place, token] = any(begun <= start < end <= ended for begun, ended in rows[row][1])
        states = model.model(input_ids=ids, use_cache=False).last_hidden_state  # padding is last: nothing looks at it
        wanted = ids[:, 1:][asked[:, 1:]]
        logits = model.get_output_embeddings()(states[:, :-1][asked[:, 1:]])
        total = total + torch.nn.functional.cross_entropy(logits, wanted, reduction="sum")
        answers, tokens_read = answers + len(wanted), tokens_read + ids.numel()
    return total / answers, tokens_read


def _optimizers(model: Any, phase: Phase) -> list[tuple[Any, float]]:
    """Muon for the matrices and AdamW for the rest, each with its peak learning rate.

    After 80 steps the loss was 2.84, where AdamW alone at its best rate had 3.57.
    """
    import torch

    inner = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    outer = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        (Muon(inner, lr=phase.muon_rate, weight_decay=0.01, momentum=0.95), phase.muon_rate),
        (torch.optim.AdamW(outer, lr=phase.learning_rate, betas=(0.9, 0.95), weight_decay=0.0), phase.learning_rate),
    ]


def _say(log: TextIO, **values: object) -> None:
    line = json.dumps(values)
    print(line, flush=True)
    log.write(line + "\n")
    log.flush()


def make(name: str, folder: Path, first_phase: int = 0) -> None:
    """Train one base and write it into `folder`. From a later phase on, start from the weights in that folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = CATALOGUE[name]
    folder.mkdir(parents=True, exist_ok=True)
    if first_phase:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    else:
        tokenizer, model = make_tokenizer(folder), untrained(base)
    with (folder / "training.log").open("a" if first_phase else "w") as log:
        for number, phase in enumerate(base.phases[first_phase:], start=first_phase):
            train(model, phase, base.seed + 10_000 * number, tokenizer, log)
            copy.deepcopy(model).to(torch.float16).save_pretrained(folder)  # --first-phase goes on from here
        if base.pairs:
            train_pairs(model, tokenizer, base.pairs, base.seed, lambda **values: _say(log, **values))
            model.to(torch.float16).save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", default=list(CATALOGUE), help=f"of {', '.join(CATALOGUE)}")
    parser.add_argument("--out", type=Path, default=BASES)
    parser.add_argument("--first-phase", type=int, default=0, help="go on from the weights in the folder")
    arguments = parser.parse_args()
    for name in arguments.names:
        make(name, arguments.out / name, arguments.first_phase)


if __name__ == "__main__":
    main()
