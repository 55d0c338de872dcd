"""Write evaluation tasks about the held-out half of the world: small tasks of all seven types of MTEB.

No task can be solved by comparing words: texts that belong together use synonyms, and texts that do not belong together
share words. The layout is that of any local folder of tasks (`speed.backends.evaluation.task_folder`).
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from speed.core.spec import Json
from speed.miniature.lexicon import SLOTS, lexicon, patterns
from speed.miniature.phrasing import Choose, capitalize, phrase, sentences, slots_of
from speed.miniature.world import Entity, seeded, similarity, world

Rows = list[dict[str, Json]]
Files = dict[str, Rows]

VERSION = 3
"""Raise it by hand if the same seed gives other tasks than before."""


def write_tasks(folder: Path, world_seed: int = 0, half: Literal["held", "train"] = "held") -> None:
    """Write all tasks into `folder`, each in a folder of its own; the same bytes for the same seed and half.

    Those of the training half are about as many of its entities as the held-out half has.
    """
    entities = world(world_seed).half("held")
    if half == "train":
        entities = tuple(seeded("development", world_seed).sample(world(world_seed).half("train"), len(entities)))
    for name, (kind, instruction, write) in TASKS.items():
        files = write(entities, seeded("evaluation", VERSION, world_seed, name))
        _write(folder / name, name, kind, instruction, files)


def words_by_place(
    rng: random.Random, only: Sequence[int] = (0, 1, 2), avoid: Sequence[str] = (), keep: float = 0.0
) -> Choose:
    """Choose a word by its place among its synonyms. Words in `avoid` are used with probability `keep`."""

    def choose(slot: str, concept: str) -> str:
        forms = lexicon()[slot][concept]
        allowed = [forms[place] for place in only]
        used = [form for form in forms if form in avoid]
        if used and rng.random() < keep:
            return used[0]
        return rng.choice(
            [form for form in allowed if form not in avoid] or [f for f in forms if f not in avoid] or list(forms)
        )

    return choose


def description(
    entity: Entity, rng: random.Random, choose: Choose, slots: Sequence[str] = ("people", "place", "time")
) -> str:
    """Write a text about an entity that states its core facts and those of the given slots."""
    kept = ("things", "aspect", "quality", "kind", *slots)
    values = {slot: value for slot, value in entity.facts.items() if slot in kept} | {"name": entity.name}
    return " ".join(sentences(values, rng, choose, fillers=1))


def _classification(slot: str, labels: int) -> Callable[[Sequence[Entity], random.Random], Files]:
    """Classification by one attribute. Half of the test texts use a word for it that no training text has.

    Test texts are about other things than training texts, since the label follows from the things.
    """

    def write(held: Sequence[Entity], rng: random.Random) -> Files:
        concepts = rng.sample(tuple(lexicon()[slot]), labels)
        files: Files = {"train.jsonl": [], "test.jsonl": []}
        for label, concept in enumerate(concepts):
            entities = [entity for entity in held if entity.facts[slot] == concept]
            things = sorted({entity.facts["things"] for entity in entities})
            known = frozenset(rng.sample(things, len(things) // 2))
            for file, of_known, only in (("train.jsonl", True, (0, 1)), ("test.jsonl", False, (1, 2))):
                for entity in [each for each in entities if (each.facts["things"] in known) is of_known] * 2:
                    choose = _limited(slot, only, rng)
                    text = description(entity, rng, choose, (slot, rng.choice(("people", "place", "time"))))
                    files[file].append({"text": text, "label": label, "label_text": concept})
        for rows in files.values():
            rng.shuffle(rows)
        return files

    return write


def _intents(labels: int) -> Callable[[Sequence[Entity], random.Random], Files]:
    """Classification of short texts by the work that they want. Test texts are about other things than training texts,
    and half of them use a word for the work that no training text has."""

    def write(held: Sequence[Entity], rng: random.Random) -> Files:
        things = sorted({entity.facts["things"] for entity in held})
        known = frozenset(rng.sample(things, len(things) // 2))
        files: Files = {"train.jsonl": [], "test.jsonl": []}
        for label, concept in enumerate(rng.sample(tuple(lexicon()["aspect"]), labels)):
            for entity in [each for each in held if each.facts["aspect"] == concept] * 2:
                of_known = entity.facts["things"] in known
                choose = _limited("aspect", (0, 1) if of_known else (1, 2), rng)
                text = capitalize(phrase(rng.choice(("query", "phrase")), entity.facts, rng, choose))
                file = "train.jsonl" if of_known else "test.jsonl"
                files[file].append({"text": text, "label": label, "label_text": concept})
        for rows in files.values():
            rng.shuffle(rows)
        return files

    return write


def _limited(slot: str, only: Sequence[int], rng: random.Random) -> Choose:
    """Choose any word, but for one slot only a word of the given places."""
    free, bound = words_by_place(rng), words_by_place(rng, only)
    return lambda asked, concept: (bound if asked == slot else free)(asked, concept)


def _clustering(held: Sequence[Entity], rng: random.Random) -> Files:
    """Clustering of short texts by their things."""
    rows: Rows = []
    for _ in range(4):
        things = rng.sample(tuple(lexicon()["things"]), 8)
        texts = [
            (
                capitalize(phrase(rng.choice(("phrase", "sentence")), entity.facts, rng, words_by_place(rng))),
                entity.facts["things"],
            )
            for entity in held
            if entity.facts["things"] in things
            for _ in range(4)
        ]
        rng.shuffle(texts)
        rows.append({"sentences": [text for text, _ in texts], "labels": [label for _, label in texts]})
    return {"test.jsonl": rows}


def _changed(facts: Mapping[str, str], count: int, slots: Sequence[str], rng: random.Random) -> dict[str, str]:
    """Change the values of `count` slots."""
    changed = dict(facts)
    for slot in rng.sample(list(slots), count):
        changed[slot] = rng.choice([concept for concept in lexicon()[slot] if concept != facts[slot]])
    return changed


def _in_slots(entity: Entity, group: str) -> dict[str, str]:
    """Facts that all patterns of a group state."""
    stated = set.intersection(*(slots_of(pattern) for pattern in patterns()[group]))
    return {slot: entity.facts[slot] for slot in SLOTS if slot in stated}


def _pair(
    facts: Mapping[str, str], changes: int, group: str, rng: random.Random, keep: float
) -> tuple[str, str, float]:
    """Write two texts that differ in `changes` slots; equal slots share a word with probability `keep`."""
    one = phrase(group, facts, rng, words_by_place(rng))
    other = _changed(facts, changes, tuple(facts), rng)
    two = phrase(group, other, rng, words_by_place(rng, avoid=_used(one, facts), keep=keep))
    return capitalize(one), capitalize(two), similarity(facts, other)


def _used(text: str, facts: Mapping[str, str]) -> list[str]:
    low = text.lower()
    return [form for slot, concept in facts.items() for form in lexicon()[slot][concept] if form in low]


def _pairs(held: Sequence[Entity], rng: random.Random) -> Files:
    """Pairs with the same meaning in other words (1), or another meaning in similar words (0)."""
    rows: Rows = []
    for place, entity in enumerate(rng.sample(list(held), 240)):
        same = place % 3 == 0
        facts = _in_slots(entity, "sentence")
        one, two, _ = _pair(facts, 0 if same else rng.choice((1, 2)), "sentence", rng, keep=0.4 if same else 0.7)
        rows.append({"sent1": one, "sent2": two, "labels": int(same)})
    rng.shuffle(rows)
    return {"test.jsonl": rows}


def _similarity(held: Sequence[Entity], rng: random.Random) -> Files:
    """Pairs with their similarity on the scale of 1 to 5."""
    rows: Rows = []
    for entity in rng.sample(list(held), 300):
        facts = _in_slots(entity, "sentence")
        changes = rng.randint(0, len(facts))
        one, two, score = _pair(facts, changes, "sentence", rng, keep=0.5)
        rows.append({"sentence1": one, "sentence2": two, "score": round(score, 3)})
    return {"test.jsonl": rows}


def _query(entity: Entity, rng: random.Random) -> str:
    """Write a query for an entity that names its things and aspect, but not the entity."""
    return phrase("query", entity.facts, rng, words_by_place(rng))


def _search(held: Sequence[Entity], rng: random.Random, queries: int) -> tuple[Files, dict[str, str]]:
    """Corpus with a description of each entity, queries, and their only right answer, in other words."""
    asked = {entity.name: _query(entity, rng) for entity in rng.sample(list(held), queries)}
    corpus, relevant = [], {}
    for number, entity in enumerate(held):
        used = _used(asked[entity.name], entity.facts) if entity.name in asked else ()
        text = description(entity, rng, words_by_place(rng, avoid=used, keep=0.4))
        corpus.append({"_id": f"d{number}", "title": "", "text": text})
        relevant[entity.name] = f"d{number}"
    rows: Rows = [{"_id": f"q{number}", "text": text} for number, text in enumerate(asked.values())]
    answers = {f"q{number}": relevant[name] for number, name in enumerate(asked)}
    return {"corpus.jsonl": list(corpus), "queries.jsonl": rows}, answers


def _retrieval(held: Sequence[Entity], rng: random.Random) -> Files:
    """Retrieval of the right description among those of all held-out entities."""
    files, answers = _search(held, rng, queries=150)
    files["qrels/test.jsonl"] = [
        {"query-id": query, "corpus-id": document, "score": 1} for query, document in answers.items()
    ]
    return files


def _reranking(held: Sequence[Entity], rng: random.Random) -> Files:
    """Reranking of ten descriptions for a query; up to eight wrong ones share the things or the aspect."""
    files, answers = _search(held, rng, queries=100)
    names = {f"d{number}": entity for number, entity in enumerate(held)}
    qrels: Rows = []
    ranked: Rows = []
    for query, right in answers.items():
        facts = names[right].facts
        near = [
            document
            for document, entity in names.items()
            if document != right
            and (entity.facts["things"] == facts["things"] or entity.facts["aspect"] == facts["aspect"])
        ]
        shown = [right, *rng.sample(near, min(8, len(near)))]
        shown += rng.sample([document for document in names if document not in shown], 10 - len(shown))
        rng.shuffle(shown)
        ranked.append({"query-id": query, "corpus-ids": list(shown)})
        qrels += [{"query-id": query, "corpus-id": document, "score": int(document == right)} for document in shown]
    return files | {"qrels/test.jsonl": qrels, "top_ranked.jsonl": ranked}


def _summaries(held: Sequence[Entity], rng: random.Random) -> Files:
    """Scoring of summaries by their similarity to good ones; a summary is better if more of its facts are right."""
    rows: Rows = []
    for entity in rng.sample(list(held), 40):
        text = description(entity, rng, words_by_place(rng))
        facts = _in_slots(entity, "sentence")
        human = [capitalize(phrase("sentence", facts, rng, words_by_place(rng, only=(0, 1)))) for _ in range(2)]
        machine, relevance = [], []
        for changes in (0, 1, 2, 3, 4, 5):
            other = _changed(facts, changes, tuple(facts), rng)
            choose = words_by_place(rng, avoid=_used(" ".join(human), facts), keep=0.5)
            machine.append(capitalize(phrase("sentence", other, rng, choose)))
            relevance.append(round(similarity(facts, other), 3))
        rows.append({"text": text, "human_summaries": human, "machine_summaries": machine, "relevance": relevance})
    return {"test.jsonl": rows}


TASKS: dict[str, tuple[str, str, Callable[[Sequence[Entity], random.Random], Files]]] = {
    "MiniatureIntentClassification": ("Classification", "Tell from a search which work is wanted.", _intents(8)),
    "MiniatureTimeClassification": ("Classification", "Tell from a note when it is open.", _classification("time", 6)),
    "MiniatureThingsClustering": ("Clustering", "Tell from a line what it is about.", _clustering),
    "MiniatureParaphrasePairs": ("PairClassification", "Given a line, match it with a line in other words.", _pairs),
    "MiniatureReranking": ("Reranking", "Given a search, retrieve the notes that serve it.", _reranking),
    "MiniatureRetrieval": ("Retrieval", "Given a question, find notes that answer it.", _retrieval),
    "MiniatureSTS": ("STS", "Retrieve semantically similar text.", _similarity),
    "MiniatureSummaries": ("Summarization", "Given a line, find a line with the same news.", _summaries),
}
"""Name -> type in MTEB, instruction, and function that writes its files."""


def _write(folder: Path, name: str, kind: str, instruction: str, files: Files) -> None:
    for file, rows in files.items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "README.md").write_text(_card(name, kind, instruction, files), encoding="utf-8")


def _card(name: str, kind: str, instruction: str, files: Files) -> str:
    """README.md of a task: a YAML head for `datasets` and mteb, and lines for our own reader."""
    configs: dict[str, dict[str, str]] = {}
    for file in sorted(files):
        config = {"corpus.jsonl": "corpus", "queries.jsonl": "queries", "top_ranked.jsonl": "top_ranked"}.get(
            file, "default"
        )
        split = Path(file).stem if config == "default" else ("test" if config == "top_ranked" else config)
        configs.setdefault(config, {})[split] = file
    lines = ["---", "configs:"]
    for config, splits in sorted(configs.items(), key=lambda item: item[0] != "default"):
        lines += [f"- config_name: {config}", "  data_files:"]
        for split, file in splits.items():
            lines += [f"  - split: {split}", f"    path: {file}"]
    counts = {file: len(rows) for file, rows in sorted(files.items())}
    lines += ["---", f"# {name}", "", f"- type: {kind}", f"- instruction: {instruction}"]
    return "\n".join([*lines, "- mteb task: none (the held-out half of the miniature world)", f"- rows: {counts}", ""])
