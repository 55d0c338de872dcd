"""Orders in plain English and the records that carry them out, for the last phases of the generators' bases.

A large model has read orders, records and JSON of all kinds before anybody trains it for a task. These rows are the
miniature's share of that. None is a prompt of this project or of the paper, and the names of a record's fields are
drawn for it. What a model can learn from them is that a record has the fields that were asked for, that its texts are
about what was asked and say what is known of it, and how its texts stand to one another: one answers another, looks as
if it did, says the same, or is so and so similar.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from miniature_corpus import (
    BETTER,
    DRAFTS,
    LENGTHS,
    QUERY_LENGTHS,
    QUESTIONS,
    REMARKS,
    STYLES,
    WISHED,
    Answered,
    Subject,
    advice,
    draw_subject,
    field_name,
    spoiled,
    topic_path,
    words_on,
)

from speed.data.records import KEYS
from speed.miniature.lexicon import SLOTS, any_form, lexicon, meaning, meanings
from speed.miniature.phrasing import any_word, capitalize, phrase, sentences
from speed.miniature.world import FOLLOWS, World, similarity

JSON_SHARE = 0.7
"""Share of records that are written in JSON; the others have one of the styles of forms."""
JSON = ("{", '"{key}": "{value}"', ", ", "}")
WHOLE_SHARE = 0.4
"""Share of rows in which every token of the record counts, and not only those that follow from the order."""
USUAL_SHARE = 0.7
"""Share of labels that are the usual word for what a text says in another; the others are any of its words."""
DRAFTED_SHARE = 0.25
"""Share of rows in which a draft with mistakes stands before the record."""

OPENERS = ("Write a record", "Make one entry", "One example is wanted", "Someone needs a record", "Fill in a record")
PREPOSITIONS = ("about", "on", "for")
ENDINGS = (
    "Write the record and nothing else.",
    "Nothing but the record, please.",
    "The answer is one object only.",
    "Do not explain the record.",
    "",
)
KINDS_OF_VALUE = ("a string", "a text", "some words")

ANSWERS = ('The "{1}" answers the "{0}".', 'Whoever asks the "{0}" is served by the "{1}".')
SEEMS = ('The "{2}" only looks as if it answered the "{0}".', 'The "{2}" is near the "{0}" and does not answer it.')
RIGHT = ('The "{1}" is right for the "{0}", the "{2}" is not.', 'Of "{1}" and "{2}" only the first fits the "{0}".')
SAME = ('The "{1}" says the same as the "{0}".', 'The "{0}" again in other words is the "{1}".')
LIKE = 'The similarity of "{0}" and "{1}" is {2}.'
"""How the fields of a record stand to one another."""


@dataclass
class Record:
    """What an order asks for."""

    values: Subject
    """Name of a field -> its text, in their order."""
    said: list[str] = field(default_factory=list)
    """Sentences about the fields."""
    question: str = ""
    """What its labels answer."""
    asked: str = "people"
    """Slot of the labels."""
    unknown: frozenset[str] = frozenset()
    """Fields whose words follow from nothing that stands before them."""


def carry_out_orders(world: World, rng: random.Random, apart: int = 9) -> Answered:
    """Write an order and its record. The answers are the parts of the record that follow from the order.

    Args:
        apart: most sentences that are no part of the order.
    """
    about = draw_subject(world, rng)
    write = rng.choices((_search, _labelled, _triple, _pair), (0.36, 0.3, 0.2, 0.14))[0]
    record = write(about, rng)
    keys = list(record.values)
    order = f"{rng.choice(OPENERS)} {rng.choice(PREPOSITIONS)} {rng.choice((words_on, topic_path))(about, rng)}"
    lines = [order + (f", {record.question}." if record.question else "."), _named(keys, rng)]
    asides = rng.sample(advice(), rng.randint(0, apart)) + record.said
    asides += [rng.choice(REMARKS).format(*rng.sample(keys, 2)) for _ in range(rng.randint(0, 3))]
    rng.shuffle(asides)
    lines.append("\n".join(f"- {aside}" for aside in asides) if rng.random() < 0.6 else " ".join(asides))
    lines.append(rng.choice(ENDINGS))
    style = JSON if rng.random() < JSON_SHARE else rng.choice(STYLES)
    if rng.random() < DRAFTED_SHARE:
        draft = spoiled(record.values, about, record.asked, rng)
        lines += [rng.choice(DRAFTS), _filled(draft, style), rng.choice(BETTER)]
    return _with_answers("\n".join(line for line in lines if line) + "\n", record, style, rng)


def tell(world: World, rng: random.Random) -> Answered:
    """Write what a text is about and some short texts. The answers are the facts that these state.

    A base that answers questions about a subject does not by itself state the same facts in a text without a question.
    """
    about = draw_subject(world, rng)
    text = f"{rng.choice((words_on, words_on, topic_path))(about, rng)}."
    answers = []
    for _ in range(rng.choice((1, 2, 3))):
        group = rng.choice(("sentence", "phrase", "query", "", ""))
        said = phrase(group, about, rng, any_word(rng)) if group else _stated(about, rng)
        before = rng.choice(("\n", "\n- ", '\n"', '", "'))
        text += before
        answers += [
            (len(text) + max(0, match.start() - 1), len(text) + match.end())
            for match in any_form().finditer(said.lower())
            if meanings()[match[1]][0] in FOLLOWS
        ]
        text += said
    return text + "\n", answers


def _stated(about: Subject, rng: random.Random) -> str:
    slots = rng.sample(("people", "place", "time"), rng.randint(1, 3))
    return _stating(about, rng, slots, 0, any_word(rng))


def _with_answers(text: str, record: Record, style: tuple[str, ...], rng: random.Random) -> Answered:
    opening, entry, between, closing = style
    started = len(text)
    answers, end = [], 0
    text += opening
    for number, (key, value) in enumerate(record.values.items()):
        before, after = entry.format(key=key, value="@").split("@")
        start = started if number == 0 else end
        text += (between if number else "") + before
        answers.append((start, len(text)))  # the end of the value before, and the name
        if key not in record.unknown:
            answers += [(len(text) + begun, len(text) + ended) for begun, ended in _following(value)]
        text += value
        end = len(text)
        text += after
    answers.append((end, len(text + closing)))
    return text + closing, [(started, len(text + closing))] if rng.random() < WHOLE_SHARE else answers


def _following(value: str) -> list[tuple[int, int]]:
    """Where a text says a word of the lexicon, or goes on after a sentence: the end of one is a decision."""
    words = [match.span() for match in any_form().finditer(value.replace("_", " ").lower())]
    spans = [(max(0, start - 1), end) for start, end in words]
    place = value.find(". ")
    while place >= 0:
        word = value.find(" ", place + 2)
        spans.append((place + 1, word if word > 0 else len(value)))
        place = value.find(". ", place + 2)
    return spans


def _filled(values: Subject, style: tuple[str, ...]) -> str:
    opening, entry, between, closing = style
    return opening + between.join(entry.format(key=key, value=text) for key, text in values.items()) + closing


def _named(keys: Sequence[str], rng: random.Random) -> str:
    if rng.random() < 0.7:
        kind = rng.choice(KINDS_OF_VALUE)
        return "\n".join(f'- "{key}": {kind}, {rng.choice(advice()).lower()}' for key in keys)
    return rng.choice(("Wanted: ", "Fields: ", "The keys are ")) + ", ".join(f'"{key}"' for key in keys) + "."


_OWN = frozenset(frozenset(keys.all) for keys in KEYS.values())


def _names(rng: random.Random, *lasts: Collection[str]) -> list[str]:
    """Names of fields that end in one of the given words each; never those of one of this project's kinds together."""
    while True:
        names = []
        for ends in lasts:
            before = field_name(rng)
            end = rng.choice(sorted(ends))
            names.append(end if rng.random() < 0.4 else f"{before}_{end}")
        if len(set(names)) == len(names) and frozenset(names) not in _OWN:
            return names


_DOCUMENTS = ("document", "text", "example", "positive")
_CONTRARIES = ("hard", "negative", "misleading", "negative_document", "hard_text")


def _search(about: Subject, rng: random.Random) -> Record:
    """A query, a text that answers it and one that does not."""
    query, text, other = _names(rng, ("query", "input"), _DOCUMENTS, _CONTRARIES)
    (wished, least_q, most_q), (long, least, most) = rng.choice(QUERY_LENGTHS), rng.choice(LENGTHS[:5])
    group = "short_query" if most_q < 5 else rng.choice(("query", "query", "vague_query"))
    asking = _until(lambda: phrase(group, about, rng, any_word(rng)), least_q, most_q)
    asked = [slot for slot in meaning(asking) if slot in SLOTS]
    another = _another(about, asked, rng)
    used = asking.split()
    answer = _until(lambda: _description_in(about, rng, asked, least, any_word(rng, avoid=used)), least, most)
    seeming = _until(lambda: _description_in(another, rng, asked, least, any_word(rng, prefer=used)), least, most)
    said = [rng.choice(relation).format(query, text, other) for relation in (ANSWERS, SEEMS)]
    said += [f'{rng.choice(WISHED)} "{query}" of {wished}.']
    said += (
        [f'{rng.choice(WISHED)} "{key}" of {long}.' for key in (text, other)]
        if rng.random() < 0.5
        else [f'Both "{text}" and "{other}" have {long}.']
    )
    return Record({query: asking, text: answer, other: seeming}, said)


def _labelled(about: Subject, rng: random.Random) -> Record:
    """A text, the label that is right for it and one that is not. In half of the cases its facts are any."""
    text, right, wrong = _names(rng, ("text", "input"), ("label",), ("misleading_label", "hard_label", "negative"))
    any_facts = rng.random() < 0.5
    if any_facts:
        about = about | {slot: rng.choice(tuple(lexicon()[slot])) for slot in SLOTS[2:]}
    asked = rng.choice(tuple(QUESTIONS))
    usual = rng.random() < USUAL_SHARE
    label = any_word(rng, plain=usual)(asked, about[asked])
    other = rng.choice([concept for concept in lexicon()[asked] if concept != about[asked]])
    misleading = any_word(rng, plain=usual)(asked, other)
    long, least, most = rng.choice(LENGTHS)
    choose = any_word(rng, avoid=(label,))

    def written() -> str:
        if most < 12:
            return phrase(f"short_{asked}", about, rng, choose)
        return _description_in(about, rng, [asked], least, choose)

    said = [rng.choice(RIGHT).format(text, right, wrong), f'{rng.choice(WISHED)} "{text}" of {long}.']
    values = {text: _until(written, least, most), right: label, wrong: misleading}
    unknown = frozenset({text}) if any_facts else frozenset[str]()
    return Record(values, said, rng.choice(QUESTIONS[asked]), asked, unknown)


def _triple(about: Subject, rng: random.Random) -> Record:
    """Three sentences or phrases of which the first is so similar to each of the others."""
    letter = rng.choice("ABCDEFGHIJKLMNOPQRTUVWXYZ")
    names = [f"{letter}{number}" for number in (1, 2, 3)]
    if rng.random() < 0.4:
        names = _names(rng, *[("text", "input")] * 3)
    group = rng.choice(("phrase", "sentence"))
    slots = ("things", "aspect", "quality", "people", *(("place",) if group == "sentence" else ()))
    first = {slot: about[slot] for slot in slots}
    near, far = _altered(first, rng, 1), _altered(first, rng, 2)
    wanted = [_rounded(similarity(first, other), rng) for other in (near, far)]
    texts = [capitalize(phrase(group, values, rng, any_word(rng))) for values in (first, near, far)]
    end = "." if group == "sentence" and rng.random() < 0.7 else ""
    said = [LIKE.format(names[0], names[place], score) for place, score in zip((1, 2), wanted, strict=True)]
    return Record({name: text + end for name, text in zip(names, texts, strict=True)}, said)


def _pair(about: Subject, rng: random.Random) -> Record:
    """Two texts that say the same in other words, both short or both long."""
    one, two = _names(rng, ("input", "text"), _DOCUMENTS)
    said = [rng.choice(SAME).format(one, two)]
    if rng.random() < 0.5:
        groups = ("phrase", "sentence", "query")
        group = rng.choice(groups)
        first = capitalize(phrase(group, about, rng, any_word(rng)))
        stated = {slot: about[slot] for slot in meaning(first)}
        fitting = "sentence" if "place" in stated and "people" in stated else "phrase" if "people" in stated else group
        second = capitalize(phrase(fitting, about, rng, any_word(rng, avoid=first.lower().split())))
        return Record({one: first, two: second}, [*said, f'Both "{one}" and "{two}" are short.'])
    long, least, most = rng.choice(LENGTHS[2:5])
    needed = ("people", "place", "time") if least > 16 else rng.sample(("people", "place", "time"), 2)
    first = _until(lambda: _stating(about, rng, needed, least, any_word(rng)), least, most)
    used = first.lower().replace(".", " ").replace(",", " ").split()
    second = _until(lambda: _stating(about, rng, needed, least, any_word(rng, avoid=used)), least, most)
    return Record({one: first, two: second}, [*said, f'Both "{one}" and "{two}" have {long}.'])


def _description_in(
    about: Subject, rng: random.Random, asked: Collection[str], least: int, choose: Callable[[str, str], str]
) -> str:
    """A text that says what was asked for, and more if it must be longer."""
    rest = [slot for slot in ("people", "place", "time") if slot not in asked]
    stated = [slot for slot in ("people", "place", "time") if slot in asked]
    stated += rng.sample(rest, rng.randint(0, len(rest)))
    return _stating(about, rng, stated, least, choose)


def _stating(
    about: Subject, rng: random.Random, stated: Collection[str], least: int, choose: Callable[[str, str], str]
) -> str:
    kept = {key: about[key] for key in ("things", "aspect", "quality", "kind", *stated)}
    if rng.random() < 0.3:
        kept["name"] = about["name"]
    fillers = 0
    while len((text := " ".join(sentences(kept, rng, choose, fillers))).split()) < least and fillers < 6:
        fillers += 1
    return text


def _another(about: Subject, asked: Sequence[str], rng: random.Random) -> Subject:
    """The subject with another value in one of the asked slots, and perhaps in others that were not asked for."""
    ours = [slot for slot in asked if slot in lexicon()]
    changed = {rng.choice(ours)} if ours else {"things"}
    changed |= {slot for slot in SLOTS[2:] if slot not in asked and rng.random() < 0.5}
    return about | {
        slot: rng.choice([concept for concept in lexicon()[slot] if concept != about[slot]]) for slot in sorted(changed)
    }


def _altered(values: Subject, rng: random.Random, least: int) -> Subject:
    """The values with some of their slots changed."""
    changed = rng.sample(sorted(values), rng.randint(least - 1, len(values) - 1))
    return values | {
        slot: rng.choice([concept for concept in lexicon()[slot] if concept != values[slot]]) for slot in changed
    }


def _rounded(score: float, rng: random.Random) -> str:
    """A similarity to the next half, or to the next whole number."""
    shown = round(2 * score) / 2 if rng.random() < 0.7 else round(score)
    return f"{shown:g}"


def _until(write: Callable[[], str], least: int, most: int) -> str:
    for _ in range(30):
        text = write()
        if least <= len(text.split()) <= most:
            break
    return text
