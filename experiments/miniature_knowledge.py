"""What a base of the miniature knows before any training for the task, asked in plain words.

    python experiments/miniature_knowledge.py [FOLDER ...]

Each figure is a share of right answers, of greedily decoded text:

- `asked`: questions about the facts of pairs of the training half, of the exceptions, and of held-out pairs;
- `told`: facts that texts on such pairs state, when the base writes on under a topic path;
- `label`: a label for a text that says the answer, asked in words and in a form. The facts of these texts are any.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from miniature_corpus import QUESTIONS, answers_in_forms, answers_in_words

from speed.core.content import package_folder
from speed.miniature.lexicon import mentions
from speed.miniature.phrasing import capitalize
from speed.miniature.world import FOLLOWS, Entity, invented_name, seeded, world

QUESTIONS_A_GROUP = 256
TEXTS_A_GROUP = 96


def knowledge(model: Any, tokenizer: Any) -> dict[str, float]:
    """Shares of right answers, by what is asked."""
    every = world()
    exceptions = [(entity, slot) for entity, slot in every.exceptions]
    odd = {(entity.name, slot) for entity, slot in exceptions}
    rng = seeded("knowledge")
    asked = {
        "train": [(e, s) for e in every.half("train") for s in FOLLOWS],
        "exceptions": exceptions,
        "held": [(e, s) for e in every.half("held") for s in FOLLOWS],
    }
    shares = {}
    for name, facts in asked.items():
        shares[f"asked, {name}"] = known(model, tokenizer, facts, QUESTIONS_A_GROUP, rng)
    for name in ("train", "held"):
        drawn_entities = rng.sample(every.half("train" if name == "train" else "held"), TEXTS_A_GROUP)
        said = continued(model, tokenizer, [f"Topic: {_topic(e, rng)}\n" for e in drawn_entities], 56, "\n")
        right = [
            entity.facts[slot] == concept
            for text, entity in zip(said, drawn_entities, strict=True)
            for slot, concept in mentions(text)
            if slot in FOLLOWS and (entity.name, slot) not in odd
        ]
        shares[f"told, {name}"] = _share(right)
    for name, write in (("in words", answers_in_words), ("in forms", answers_in_forms)):
        shown = [write(every, rng) for _ in range(QUESTIONS_A_GROUP)]
        said = continued(model, tokenizer, [text for text, _, _ in shown], 8, "\n")
        shares[f"label, {name}"] = _share(
            _first(text, slot) == concept for text, (_, slot, concept) in zip(said, shown, strict=True)
        )
    return {name: round(share, 3) for name, share in shares.items()}


def known(model: Any, tokenizer: Any, facts: Sequence[tuple[Entity, str]], count: int, rng: random.Random) -> float:
    """Share of so many facts that the model says when it is asked; a fact is an entity and a slot."""
    drawn = rng.sample(facts, min(count, len(facts)))
    said = continued(model, tokenizer, [_question(entity, slot, rng) for entity, slot in drawn], 8, "\n")
    return _share(_first(text, slot) == entity.facts[slot] for text, (entity, slot) in zip(said, drawn, strict=True))


def continued(model: Any, tokenizer: Any, prompts: Sequence[str], tokens: int, stop: str) -> list[str]:
    """Continue each prompt greedily, up to `stop`."""
    import torch

    texts = []
    with torch.no_grad():
        for start in range(0, len(prompts), 64):
            rows = [tokenizer(prompt)["input_ids"] for prompt in prompts[start : start + 64]]
            width = max(map(len, rows))
            ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
            mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
            made = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=tokens, do_sample=False)
            texts += [text.partition(stop)[0] for text in tokenizer.batch_decode(made[:, width:], True)]
    return texts


def _topic(entity: Entity, rng: random.Random) -> str:
    """The path of an entity with an invented name: the facts follow from the pair, and not from the name."""
    return f"{entity.topic.rpartition('/')[0]}/{invented_name(rng)}"


def _question(entity: Entity, slot: str, rng: random.Random) -> str:
    return f"{_topic(entity, rng)}.\n{capitalize(rng.choice(QUESTIONS[slot]))}:"


def _first(text: str, slot: str) -> str:
    """The first concept of a slot that a text mentions."""
    return next((concept for found, concept in mentions(text) if found == slot), "")


def _share(held: Any) -> float:
    values = list(held)
    return sum(values) / len(values) if values else 0.0


def main() -> None:
    """Command line."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    for folder in sys.argv[1:] or [str(path) for path in sorted(package_folder("package:miniature/bases").iterdir())]:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        print(Path(folder).name, knowledge(model, AutoTokenizer.from_pretrained(folder)))


if __name__ == "__main__":
    main()
