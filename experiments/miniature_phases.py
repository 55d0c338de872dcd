"""What the bases of the miniature are trained on, phase by phase, and what each phase was for."""

from __future__ import annotations

from speed.core.spec import Spec


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


REPAIRING = (
    MENDING[1].model_copy(update={"repairs": 32, "choices": 8, "mendings": 8}),
    MENDING[1].model_copy(
        update={"tokens": 2048, "orders": 3, "mendings": 6, "choices": 6, "repairs": 24, "apart": 3, "revised": 0.4,
                "repeats": 0.9, "long_blocks": 0.6}
    ),
    MENDING[1].model_copy(
        update={"steps": 80, "tokens": 2048, "questions": 4, "readings": 2, "labellings": 2, "orders": 8, "mendings": 8,
                "choices": 8, "repairs": 16, "tellings": 10, "apart": 5, "revised": 0.4, "repeats": 0.8,
                "long_blocks": 0.5}
    ),
)  # fmt: skip
"""Drafts with one mistake or none, of which only the words count that mend it, or that are to stay; from the second
part on as far from the record as in a revisor's prompt. Nearly all other blocks are noise there: tokens repeated after
250 and 450 others cost 0.9 and 3.0 nats before, 0.5 and 2.2 after. Facts told in texts nobody asked about went from 84
to 66 %, which the senior's texts do not show."""


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
            *REPAIRING,
        ),
    ),
    "embedder": Base(architecture="llama", layers=2, phases=(Phase(steps=700), *SYNONYMS), seed=1, pairs=110),
    "qwen": Base(architecture="qwen2", phases=SHORT, seed=2),
    "gemma": Base(architecture="gemma", phases=SHORT, seed=3),
}
