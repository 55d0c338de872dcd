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
from muon import Muon

from speed.core.content import package_folder
from speed.core.spec import Spec
from speed.data.records import KEYS
from speed.miniature.lexicon import domains, lexicon, meanings
from speed.miniature.world import World, seeded, world

BASES = package_folder("package:miniature/bases")
VOCABULARY = 2768
PAD, BOS, EOS = "<pad>", "<s>", "</s>"
BOS_ID, FIRST_TOKEN = 1, 3
"""Ids: PAD is 0, EOS is 2; all others are pieces of text."""


class Phase(Spec):
    """One part of a training, with new optimisers."""

    steps: int
    """Optimiser steps."""
    tokens: int = 4096
    """Tokens of text of each step."""
    questions: int = 0
    """Rows of questions about the world, beside the text of each step; only the answers count."""
    things: int | None = None
    """Number of things that the questions are about; none: all."""
    readings: int = 0
    """Rows of a text and questions that it answers, beside the text of each step; only the answers count."""
    labels_asked: int = 0
    """Rows of a text, a question before or after it, and the answer as a label; only the answer counts."""
    labellings: int = 0
    """Rows of a form of a text and labels for it, beside the text of each step; only the right label counts."""
    fillings: int = 0
    """Rows of a form that is filled in; only its names and the words that follow from its subject count."""
    orders: int = 0
    """Rows of an order and its record, many in JSON; only what follows from the order counts."""
    mendings: int = 0
    """Rows of an order, a draft with mistakes, and the record; only what follows from the order counts."""
    choices: int = 0
    """Rows of an order for a text and labels, half of them with a draft, and the record; only the labels count."""
    repairs: int = 0
    """Rows of an order, a draft with one mistake or none, and the record; only the words that mend it count."""
    lengths: int = 0
    """Rows of an order for texts of given lengths; only what kind of text each is and how long counts."""
    tellings: int = 0
    """Rows of a subject and short texts about it; only the facts that these state count."""
    apart: int = 9
    """Most sentences of advice between such questions and their text."""
    learning_rate: float = 3e-3
    """Peak learning rate of the embeddings and norms."""
    muon_rate: float = 0.02
    """Peak learning rate of the matrices."""
    lists: float = 0.0
    """Share of texts that are long lists, each repeated word for word."""
    forms: float = 0.0
    """Share of texts that are forms: fields are named and then filled in."""
    synonyms: float = 0.0
    """Share of texts that say which words are synonyms."""
    lookups: float = 0.0
    """Share of texts with questions about them, or behind a path."""
    revised: float = 0.0
    """Share of texts that are forms, filled in twice."""
    labels: float = 0.0
    """Share of texts that are forms of a text and labels for it."""
    repeats: float = 0.0
    """Share of blocks that hold random runs of tokens instead of text, each repeated at some distance."""
    long_blocks: float = 0.2
    """Share of the steps that use blocks of 1,024 tokens; these are the last steps."""
    block: int = 256
    """Tokens of the other blocks."""


WORDS = Phase(steps=2000)
"""Words and grammar first."""


COPYING = Phase(steps=240, learning_rate=2e-3, muon_rate=0.01, lists=0.5, long_blocks=0.25)
"""A base that knows words and grammar copies badly; lists that are repeated change that."""


FORMS = Phase(steps=300, learning_rate=2e-3, muon_rate=0.01, lists=0.15, forms=0.6, long_blocks=0.4)
"""Fields that are asked for by name are filled in by name."""


DISTANCE = Phase(steps=200, repeats=1.0, block=512, long_blocks=0.0)
"""Noise that is repeated at any distance. Only a base that already copies learns from it. From new weights, or mixed
into the texts of a base that had seen few lists, five hundred steps changed nothing; here fifty were enough."""


FORMS_FROM_AFAR = Phase(
    steps=400, learning_rate=2e-3, muon_rate=0.01, lists=0.1, forms=0.5, repeats=0.15, block=512, long_blocks=0.4
)
"""Texts again, and forms whose field names are further back."""


MISTAKABLE = (
    Phase(
        steps=240, learning_rate=2e-3, muon_rate=0.01, lists=0.05, forms=0.65, repeats=0.1, block=512, long_blocks=0.3
    ),
    Phase(steps=600, learning_rate=2e-3, muon_rate=0.015, lists=0.05, forms=0.75, repeats=0.05, block=512),
)
"""Forms with similar field names, and with sentences about them in between. In its place, the second name of a form had
a likelihood of 0.38 after the first part and of 0.56 after the second."""


_CLOSED = Phase(steps=500, learning_rate=2e-3, muon_rate=0.015, lists=0.05, forms=0.75, repeats=0.05, block=512)
CLOSED = (
    _CLOSED,
    _CLOSED.model_copy(update={"steps": 250, "muon_rate": 0.02, "forms": 0.8, "repeats": 0.5}),
    _CLOSED.model_copy(update={"steps": 280, "lists": 0.03, "repeats": 0.2, "long_blocks": 0.25}),
    _CLOSED.model_copy(update={"steps": 160, "lists": 0.03, "forms": 0.85, "repeats": 0.08, "long_blocks": 0.0}),
    _CLOSED.model_copy(update={"steps": 230, "lists": 0.02, "forms": 0.86, "repeats": 0.1, "long_blocks": 0.0}),
    _CLOSED.model_copy(
        update={"steps": 170, "muon_rate": 0.012, "lists": 0.02, "forms": 0.88, "repeats": 0.08, "long_blocks": 0.0}
    ),
)
"""Forms that end with a closing mark, and half a phase of noise. After that, tokens repeated after 100 and 250 others
cost 0.3 and 0.6 nats (1.2 and 2.1 before)."""


ANSWERING = (
    Phase(
        steps=600, learning_rate=2e-3, muon_rate=0.015, lists=0.02, forms=0.85, repeats=0.08, block=512,
        long_blocks=0.35,
    ),
    Phase(
        steps=350, learning_rate=3e-3, muon_rate=0.015, lists=0.02, forms=0.2, lookups=0.5, repeats=0.08, block=512,
        long_blocks=0.2,
    ),
    Phase(
        steps=450, learning_rate=2e-3, muon_rate=0.015, lists=0.02, forms=0.65, lookups=0.2, repeats=0.08, block=512,
        long_blocks=0.5,
    ),
)  # fmt: skip
"""Forms that have a path as their subject, labels that answer a question, and texts of a wanted length, and that are
filled in twice. Paths and answers needed texts of their own: neither was learned from forms alone in 600 steps."""


REVISING = (
    Phase(
        steps=500, learning_rate=2e-3, muon_rate=0.02, lists=0.02, forms=0.3, lookups=0.1, revised=0.45, repeats=0.12,
        block=512, long_blocks=0.6,
    ),
    Phase(
        steps=600, learning_rate=2e-3, muon_rate=0.02, lists=0.02, forms=0.25, lookups=0.08, revised=0.55, repeats=0.3,
        long_blocks=1.0,
    ),
)  # fmt: skip
"""Texts are repeated with some changes: the copying that a revisor needs. In the second part everything is further
apart, in blocks as long as the longest prompt, since a revisor's prompt begins 500 tokens before its answer. Tokens
repeated after 450 others cost 4.6 nats before that part and 0.7 after it."""


TOPICS = Phase(
    steps=350, learning_rate=2e-3, muon_rate=0.015, lists=0.02, forms=0.25, lookups=0.3, revised=0.25, repeats=0.1,
    block=512, long_blocks=0.6,
)  # fmt: skip
"""Paths and their meaning once more: the second part of REVISING had drafts that were not announced as such, and after
it forms were on their topic less often."""


_KEEPING = Phase(
    steps=100, tokens=2048, questions=32, lists=0.02, forms=0.25, labels=0.1, revised=0.25, lookups=0.1, repeats=0.2,
    block=512, long_blocks=0.0,
)  # fmt: skip
KNOWING = (
    Phase(steps=90, tokens=0, questions=64, things=8),
    Phase(steps=30, tokens=1024, questions=16, things=8, repeats=1.0, long_blocks=0.0),
    Phase(
        steps=200, tokens=1024, questions=48, forms=0.25, labels=0.25, revised=0.25, lookups=0.1, repeats=0.6,
        long_blocks=0.0,
    ),
    _KEEPING.model_copy(update={"steps": 100, "labels": 0.35}),
    _KEEPING.model_copy(update={"steps": 100, "readings": 24, "labellings": 16}),
    _KEEPING.model_copy(
        update={"steps": 60, "tokens": 1024, "questions": 12, "readings": 12, "labellings": 64, "apart": 1}
    ),
    _KEEPING.model_copy(
        update={"steps": 80, "questions": 24, "readings": 8, "labellings": 8, "labels": 0.2, "long_blocks": 1.0}
    ),
)  # fmt: skip
"""The facts of the world. A base must learn that facts follow from things before it can learn many of them, and it
learns that from few things. These questions alone cost the copying; noise brings it back at once, but no longer after
questions about all things (experiments/miniature.md). The last four parts teach it to read a label off a text in words
and in forms, which begin with little between question and answer. Those of the committed Llama base had constant rates,
but for the last, and two processes with half of each batch."""


LABELLING = (
    Phase(
        steps=120, tokens=512, questions=12, labels_asked=160, apart=1, forms=0.25, repeats=0.6, long_blocks=0.0,
    ),
    Phase(
        steps=140, tokens=512, questions=12, readings=4, labels_asked=96, labellings=32, apart=3, forms=0.3,
        repeats=0.5, long_blocks=0.0,
    ),
    Phase(
        steps=240, tokens=3072, questions=16, readings=6, labels_asked=16, labellings=24, lists=0.02, forms=0.3,
        revised=0.3, lookups=0.08, labels=0.08, repeats=0.2, block=512, long_blocks=0.5,
    ),
    Phase(
        steps=190, tokens=1024, questions=12, readings=4, labellings=12, fillings=64, apart=5, forms=0.35, revised=0.25,
        lookups=0.05, repeats=0.25, block=512, long_blocks=0.0,
    ),
)  # fmt: skip
"""A label answers a question that stands far before it. Rows with the question before the text alone taught nothing in
160 steps of 128 (the committed base has those, too); with the question after the text in half of them, the base looked
for it within 60 steps, wherever it stood. The third part brings back forms and drafts at full length. In the last one
only names of fields and words of the lexicon count: a base that knows a fact when it is asked learns to tell it."""


ORDERS = (
    Phase(
        steps=180, tokens=1024, questions=12, readings=4, orders=32, apart=6, forms=0.2, revised=0.25, lookups=0.03,
        repeats=0.25, block=512, long_blocks=0.0,
    ),
    Phase(
        steps=200, tokens=512, questions=6, readings=4, orders=20, tellings=80, apart=6, forms=0.2, revised=0.25,
        lookups=0.03, repeats=0.3, block=512, long_blocks=0.0,
    ),
    Phase(
        steps=150, learning_rate=2e-3, muon_rate=0.015, tokens=1024, questions=4, readings=4, labellings=16, orders=28,
        tellings=24, forms=0.25, revised=0.3, lookups=0.03, repeats=0.3, block=512, long_blocks=0.4,
    ),
    Phase(
        steps=70, learning_rate=2e-3, muon_rate=0.015, tokens=512, questions=4, readings=4, labellings=12, orders=20,
        tellings=80, forms=0.2, revised=0.25, repeats=0.3, block=512, long_blocks=0.0,
    ),
)  # fmt: skip
"""Orders, and records that carry them out, in JSON and other marks; and short texts of which only the facts count: in
the second part the share of right facts in texts that nobody asked for went from 62 to 89 %. In the first part of the
committed base the labels of records were any synonym, and a quarter of the rows counted whole."""


_OBEYING = Phase(
    steps=220, learning_rate=2e-3, muon_rate=0.015, tokens=512, questions=6, readings=3, labellings=8, orders=36,
    tellings=24, apart=7, forms=0.15, revised=0.35, repeats=0.35, block=512, long_blocks=0.0,
)  # fmt: skip
OBEYING = (
    _OBEYING,
    _OBEYING.model_copy(
        update={"steps": 150, "learning_rate": 3e-3, "muon_rate": 0.02, "questions": 4, "readings": 2,
                "labellings": 0, "orders": 64, "tellings": 16, "apart": 0}
    ),
    _OBEYING.model_copy(
        update={"steps": 130, "learning_rate": 3e-3, "muon_rate": 0.02, "questions": 4, "readings": 2,
                "labellings": 0, "orders": 40, "lengths": 48, "tellings": 12, "apart": 0}
    ),
    _OBEYING.model_copy(
        update={"steps": 90, "tokens": 3072, "questions": 4, "readings": 2, "labellings": 6, "orders": 20,
                "tellings": 20, "forms": 0.1, "revised": 0.5, "repeats": 0.3, "long_blocks": 1.0}
    ),
)  # fmt: skip
"""Orders again, of which it counts how each text begins and whether it goes on: first among advice, then bare, where
three times as many are read in the same time; and blocks as long as a revisor's prompt. In the first part
descriptions did not say first what was asked for; the beginnings of texts count from the third part on."""


HABITS = (
    _OBEYING.model_copy(
        update={"steps": 170, "learning_rate": 3e-3, "muon_rate": 0.02, "questions": 4, "readings": 3, "labellings": 0,
                "orders": 64, "lengths": 6, "tellings": 12, "apart": 0}
    ),
    _OBEYING.model_copy(
        update={"steps": 120, "tokens": 3072, "questions": 4, "readings": 2, "labellings": 4, "orders": 24,
                "lengths": 2, "tellings": 10, "forms": 0.1, "revised": 0.4, "repeats": 0.5, "long_blocks": 1.0}
    ),
    _OBEYING.model_copy(
        update={"steps": 130, "tokens": 1536, "questions": 4, "readings": 2, "labellings": 4, "orders": 40,
                "lengths": 2, "tellings": 8, "forms": 0.05, "revised": 0.45, "repeats": 0.8, "long_blocks": 0.3}
    ),
)  # fmt: skip
"""Orders once more, in which what only seems right is about other things of the same aspect, as the rules write it. In
the last part half of the orders have a draft, with advice between it and the record, and most blocks are noise: tokens
repeated after 250 others cost 1.9 nats before the last two parts, 1.1 before the last, and 0.7 after it. Misleading
labels were the concept after the right one in the lexicon."""


MENDING = (
    _OBEYING.model_copy(
        update={"steps": 130, "tokens": 1024, "questions": 4, "readings": 2, "labellings": 2, "orders": 8,
                "mendings": 16, "lengths": 1, "tellings": 10, "apart": 6, "forms": 0.05, "repeats": 0.6,
                "long_blocks": 0.5}
    ),
    _OBEYING.model_copy(
        update={"steps": 110, "learning_rate": 3e-3, "muon_rate": 0.02, "questions": 3, "readings": 1, "labellings": 0,
                "orders": 5, "mendings": 6, "choices": 32, "tellings": 5, "apart": 2, "forms": 0.05, "revised": 0.3,
                "repeats": 0.6}
    ),
    _OBEYING.model_copy(
        update={"steps": 70, "tokens": 2048, "questions": 4, "readings": 2, "labellings": 2, "orders": 4, "mendings": 8,
                "choices": 12, "tellings": 8, "apart": 5, "forms": 0.05, "revised": 0.4, "repeats": 0.8,
                "long_blocks": 0.5}
    ),
)  # fmt: skip
"""Drafts with the mistakes that small models make, and labels. With a draft, the misleading label meant the right one
in 30 of 60 records after HABITS and in 25 after the first part; the one that was asked for cost some four nats there,
which is lost in the mean over a record. In the second part the labels alone count: after it 27 of 30 misleading labels
are right, where 10 of 60 were, and 24 of 30 right ones, where 23 of 60 were. The last part brings copying back."""


SYNONYMS = (
    Phase(steps=200, muon_rate=0.015, synonyms=0.4, long_blocks=0.0),
    Phase(steps=350, learning_rate=4e-3, muon_rate=0.015, synonyms=0.8, long_blocks=0.0),
)
"""Synonyms. Before these phases 2 % of the words had a synonym as their nearest neighbour, after them 96 %."""


SHORT = (
    Phase(steps=300),
    COPYING.model_copy(update={"steps": 120}),
    FORMS.model_copy(update={"steps": 200}),
    *(phase.model_copy(update={"steps": steps}) for phase, steps in zip(KNOWING[:3], (90, 30, 120), strict=True)),
)
"""Phases of the other architectures, which are only compared with one another."""


class Base(Spec):
    """One base model: its architecture and how it is trained."""

    architecture: str
    """`llama`, `qwen2` or `gemma`: a model type of transformers."""
    phases: tuple[Phase, ...]
    layers: int = 4
    seed: int = 0
    pairs: int = 0
    """Steps of contrastive training on words and their synonyms, after all phases."""


CATALOGUE = {
    "llama": Base(
        architecture="llama",
        phases=(
            WORDS,
            COPYING,
            FORMS,
            DISTANCE,
            FORMS_FROM_AFAR,
            *MISTAKABLE,
            *CLOSED,
            *ANSWERING,
            *REVISING,
            TOPICS,
            *KNOWING,
            *LABELLING,
            *ORDERS,
            *OBEYING,
            *HABITS,
            *MENDING,
        ),
    ),
    "embedder": Base(architecture="llama", layers=2, phases=(Phase(steps=700), *SYNONYMS), seed=1, pairs=110),
    "qwen": Base(architecture="qwen2", phases=SHORT, seed=2),
    "gemma": Base(architecture="gemma", phases=SHORT, seed=3),
}


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
