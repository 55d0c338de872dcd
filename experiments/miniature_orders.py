"""Orders in plain English and the records that carry them out, for the last phases of the generators' bases.

A large model has read orders, records and JSON of all kinds before anybody trains it for a task. These rows are the
miniature's share of that. None is a prompt of this project or of the paper, and the names of a record's fields are
drawn for it. What a model can learn from them is that a record has the fields that were asked for, that its texts are
about what was asked and say what is known of it, and how its texts stand to one another: one answers another, looks as
if it did, says the same, or is so and so similar.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from functools import cache, partial, reduce
from operator import or_
from typing import TypeAlias

from miniature_corpus import (
    BETTER,
    DRAFTS,
    LENGTHS,
    QUERY_LENGTHS,
    QUESTIONS,
    REMARKS,
    STYLES,
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
from speed.miniature.phrasing import any_word, capitalize, phrase, replace_words
from speed.miniature.prompt_reading import Words
from speed.miniature.world import FOLLOWS, World, similarity
from speed.miniature.world import world as world_of
from speed.miniature.writing import confused_with, contrasted, document

JSON_SHARE = 0.7
"""Share of records that are written in JSON; the others have one of the styles of forms."""
JSON = ("{", '"{key}": "{value}"', ", ", "}")
WHOLE_SHARE = 0.15
"""Share of rows in which every token of the record counts, and not only those that follow from the order."""
USUAL_SHARE = 0.9
"""Share of labels that are the usual word for what a text says in another; the others are any of its words."""
LONG_SHARE = 0.6
"""Share of texts in records that are to be of the greatest length, and tell all that is known of their subject."""
CONTRASTS = (2.0, 2.5, 2.5, 2.5, 3.0, 3.5)
"""Similarities of the third text to the first."""
DRAFTED_SHARE = 0.5
"""Share of rows in which a draft with mistakes stands before the record, with advice in between: what is right in it
has to be repeated word for word from afar, as a revisor does."""
BETWEEN = 12
"""Most sentences of advice between a draft and its record."""
REPAIRED_AFTER = (4, 14)
"""The same where a draft is to be repaired: a revisor's prompt has some 200 tokens there."""
REPAIRED_SHARE = 0.7
"""Share of the drafts for a repair that have a mistake."""
SLIPS = 0.5
"""Share of the drafts that have each of the mistakes that small models make in such a record."""

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
SHORT = ('Both "{0}" and "{1}" are short.', 'Keep "{0}" and "{1}" to one line.', '"{0}", "{1}": a few words each.')
WANTED = (
    *('Give the "{0}" of {1}.', 'We need the "{0}" of {1}.', 'They like the "{0}" of {1}.'),
    *(
        'The "{0}" has {1}, and says what it has to say.',
        '"{0}": {1}.',
        'Let the "{0}" be a plain one, of {1}, easy to read.',
    ),
    *('With {1}, the "{0}" is as long as it should be.', 'Somebody counts the words of the "{0}": {1}, please.'),
)
"""What is said of the length of a field."""
AT_LEAST = (
    'No "{0}" has fewer than {1} words.',
    'The "{0}" must not be under {1} words.',
    '{1} words or more for the "{0}".',
)
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
    whole: frozenset[str] = frozenset()
    """Fields whose every token counts: how long they are to be shows in their first words."""
    only: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """Parts of values that count, and nothing else of the record; empty: all that follows from the order."""
    slips: list[Subject] = field(default_factory=list)
    """Values as a small model writes them that misses what they are for: same words, but for those that matter."""
    draft: Subject = field(default_factory=dict)
    """What stands in a draft; empty: the values with any of the slips, and other changes."""


Write: TypeAlias = Callable[[World, Subject, random.Random], Record]


def carry_out_orders(
    world: World,
    rng: random.Random,
    apart: int = 9,
    writers: Sequence[Write] = (),
    shares: Sequence[float] = (0.3, 0.28, 0.24, 0.18),
    drafted: float | None = None,
    between: tuple[int, int] = (0, BETWEEN),
) -> Answered:
    """Write an order and its record. The answers are the parts of the record that follow from the order.

    Args:
        apart: most sentences that are no part of the order.
        drafted: share of the orders with a draft; none: DRAFTED_SHARE of those that have sentences apart.
        between: least and most sentences of advice between a draft and its record.
    """
    about = draw_subject(world, rng)
    write = rng.choices(writers or (_search, _labelled, _triple, _pair), shares)[0]
    record = write(world, about, rng)
    keys = list(record.values)
    order = f"{rng.choice(OPENERS)} {rng.choice(PREPOSITIONS)} {rng.choice((words_on, topic_path))(about, rng)}"
    lines = [order + (f", {record.question}." if record.question else "."), _named(keys, rng, bare=not apart)]
    asides = rng.sample(advice(), rng.randint(0, apart)) + record.said
    asides += [
        rng.choice(REMARKS).format(*rng.sample(keys, 2))
        for _ in range(rng.randint(0, min(3, apart) if len(keys) > 1 else 0))
    ]
    rng.shuffle(asides)
    lines.append("\n".join(f"- {aside}" for aside in asides) if rng.random() < 0.6 else " ".join(asides))
    lines.append(rng.choice(ENDINGS))
    style = JSON if rng.random() < JSON_SHARE else rng.choice(STYLES)
    if rng.random() < (drafted if drafted is not None else DRAFTED_SHARE if apart else 0.0):
        draft = record.draft or spoiled(
            reduce(or_, [slip for slip in record.slips if rng.random() < SLIPS], record.values),
            about,
            record.asked,
            rng,
        )
        advised = " ".join(rng.sample(advice(), rng.randint(*between)))
        lines += [rng.choice(DRAFTS), _filled(draft, style), advised, rng.choice(BETTER)]
    return _with_answers("\n".join(line for line in lines if line) + "\n", record, style, rng)


def mend(world: World, rng: random.Random, apart: int = 9) -> Answered:
    """Write an order, a draft with the mistakes that small models make, and the record."""
    return carry_out_orders(world, rng, apart, drafted=1.0)


def choose_labels(world: World, rng: random.Random, apart: int = 9) -> Answered:
    """Write an order for a text and labels, half of the time a draft, and the record. Only the labels count."""
    return carry_out_orders(world, rng, apart, (_labels,), (1.0,), drafted=0.5)


def repair(world: World, rng: random.Random, apart: int = 9) -> Answered:
    """Write an order, a draft with one mistake or none, and the record. Only the words that mend it count.

    Where nothing is to be mended, the words of a field that often has a mistake count: they are to stay.
    """
    return carry_out_orders(world, rng, apart, (_mended,), (1.0,), drafted=1.0, between=REPAIRED_AFTER)


def keep_to_lengths(world: World, rng: random.Random, apart: int = 9) -> Answered:
    """Write an order for texts of given lengths, and these. What counts is what kind of text each is and how long."""
    return carry_out_orders(world, rng, apart, (_measured,), (1.0,))


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
    return _description(about, rng, slots, 1, any_word(rng))


def _with_answers(text: str, record: Record, style: tuple[str, ...], rng: random.Random) -> Answered:
    opening, entry, between, closing = style
    started = len(text)
    answers, only, end = list[tuple[int, int]](), list[tuple[int, int]](), 0
    text += opening
    for number, (key, value) in enumerate(record.values.items()):
        before, after = entry.format(key=key, value="@").split("@")
        start = started if number == 0 else end
        text += (between if number else "") + before
        answers.append((start, len(text)))  # the end of the value before, and the name
        spans = [(0, len(value))] if key in record.whole else _decisions(value)
        if key not in record.unknown:
            spans += _words(value)
        answers += [(len(text) + begun, len(text) + ended) for begun, ended in spans]
        only += [(len(text) + begun, len(text) + ended) for begun, ended in record.only.get(key, ())]
        text += value
        end = len(text)
        text += after
    answers.append((end, len(text + closing)))
    if record.only:
        return text + closing, only
    return text + closing, [(started, len(text + closing))] if rng.random() < WHOLE_SHARE else answers


_BEGINNING = re.compile(r"^\S+(?: \S+)?|(?<=\.)(?: \S+){1,3}")
"""The first words of a text and of its sentences: what kind of text it is, whether it goes on, and with which fact."""


def _decisions(value: str) -> list[tuple[int, int]]:
    """Where it shows in a text what it is to be: query or description, how long, and what it says first."""
    return [match.span() for match in _BEGINNING.finditer(value)]


def _words(value: str) -> list[tuple[int, int]]:
    """Where a text says a word of the lexicon."""
    return [(max(0, match.start() - 1), match.end()) for match in any_form().finditer(value.replace("_", " ").lower())]


def _filled(values: Subject, style: tuple[str, ...]) -> str:
    opening, entry, between, closing = style
    return opening + between.join(entry.format(key=key, value=text) for key, text in values.items()) + closing


def _named(keys: Sequence[str], rng: random.Random, bare: bool) -> str:
    if not bare and rng.random() < 0.7:
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


def _measured(world: World, about: Subject, rng: random.Random) -> Record:
    """Queries, notes and short remarks, each of a wanted length."""
    del world
    values, said, queries = {}, [], set()
    for _ in range(rng.choice((1, 2, 2, 3))):
        if rng.random() < 0.4:
            (key,) = _names(rng, ("query", "input"))
            wished, least, most = rng.choice(QUERY_LENGTHS)
            values[key] = _until(partial(phrase, _query_group(most, rng), about, rng, any_word(rng)), least, most)
            queries.add(key)
        else:
            (key,) = _names(rng, ("document", "text", "positive"))
            wished, least, most = rng.choice(LENGTHS)
            values[key] = _until(
                partial(_text, about, rng, rng.choice(tuple(QUESTIONS)), least, most, any_word(rng)), least, most
            )
        said.append(_length_of(key, wished, least, rng))
    return Record(values, said, unknown=frozenset(values), whole=frozenset(queries))


def _query_group(most: int, rng: random.Random) -> str:
    return "short_query" if most < 5 else rng.choice(("query", "query", "vague_query"))


def _reworded(text: str, said: Subject, other: Subject, slots: Collection[str], rng: random.Random) -> str:
    """The text with the values of another subject in some slots."""
    return replace_words(text, {slot: ((said[slot],), other[slot]) for slot in slots}, any_word(rng))


def _text(
    about: Subject, rng: random.Random, asked: str, least: int, most: int, choose: Callable[[str, str], str]
) -> str:
    """A text that says what is asked, short or long."""
    if most < 12:
        return phrase(f"short_{asked}", about, rng, choose)
    return _description(about, rng, [asked], least, choose)


def _search(world: World, about: Subject, rng: random.Random) -> Record:
    """A query, a text that answers it and one that does not."""
    query, text, other = _names(rng, ("query", "input"), _DOCUMENTS, _CONTRARIES)
    (wished, least_q, most_q), (long, least, most) = rng.choice(QUERY_LENGTHS), _long(rng)
    asking = _until(partial(phrase, _query_group(most_q, rng), about, rng, any_word(rng)), least_q, most_q)
    asked = [slot for slot in meaning(asking) if slot in SLOTS]
    another = _neighbour(world, about, asked, rng)
    used = asking.split()
    answer = _until(lambda: _description(about, rng, asked, least, any_word(rng, avoid=used)), least, most)
    seeming = _until(lambda: _description(another, rng, asked, least, any_word(rng, prefer=used)), least, most)
    said = [rng.choice(relation).format(query, text, other) for relation in (ANSWERS, SEEMS)]
    said += [_length_of(query, wished, least_q, rng)]
    said += (
        [_length_of(key, long, least, rng) for key in (text, other)]
        if rng.random() < 0.5
        else [f'Both "{text}" and "{other}" have {long}.']
    )
    missed = _reworded(answer, about, another, rng.sample(asked, min(1, len(asked))), rng)
    answered = _reworded(seeming, another, about, asked, rng)
    values = {query: asking, text: answer, other: seeming}
    return Record(values, said, whole=frozenset({query}), slips=[{text: missed}, {other: answered}])


def _labelled(world: World, about: Subject, rng: random.Random) -> Record:
    """A text, the label that is right for it and one that is not. In half of the cases its facts are any."""
    del world
    text, right, wrong = _names(rng, ("text", "input"), ("label",), ("misleading_label", "hard_label", "negative"))
    any_facts = rng.random() < 0.5
    if any_facts:
        about = about | {slot: rng.choice(tuple(lexicon()[slot])) for slot in SLOTS[2:]}
    asked = rng.choice(tuple(QUESTIONS))
    usual = rng.random() < USUAL_SHARE
    label = any_word(rng, plain=usual)(asked, about[asked])
    misleading = any_word(rng, plain=usual)(asked, confused_with(asked, about[asked]))
    long, least, most = _long(rng) if rng.random() < 0.8 else LENGTHS[5]
    choose = any_word(rng, avoid=(label, misleading))

    said = [rng.choice(RIGHT).format(text, right, wrong), _length_of(text, long, least, rng)]
    values = {
        text: _until(partial(_text, about, rng, asked, least, most, choose), least, most),
        right: label,
        wrong: misleading,
    }
    unknown = frozenset({text}) if any_facts else frozenset[str]()
    same = any_word(rng)(asked, about[asked])
    leaked = replace_words(values[text], {asked: ((about[asked],), about[asked])}, lambda *_: label)
    slips: list[Subject] = [{wrong: same}, {right: misleading, wrong: label}, {text: leaked}]
    return Record(values, said, rng.choice(QUESTIONS[asked]), asked, unknown, slips=slips)


def _labels(world: World, about: Subject, rng: random.Random) -> Record:
    record = _labelled(world, about, rng)
    return replace(record, only={key: [(-1, len(label))] for key, label in list(record.values.items())[1:]})


def _mended(world: World, about: Subject, rng: random.Random) -> Record:
    """A record whose draft has at most one mistake."""
    while True:
        record = rng.choices((_search, _labelled, _triple), (0.25, 0.5, 0.25))[0](world, about, rng)
        slip = rng.choice(record.slips)
        mended = {key: _differing(record.values[key], text) for key, text in slip.items()}
        if not all(mended.values()):
            continue  # the mistake is none here
        if rng.random() < REPAIRED_SHARE:
            return replace(record, draft=record.values | slip, only=mended)
        kept = {key: _words(record.values[key]) for key in slip}
        if any(kept.values()):
            return replace(record, draft=dict(record.values), only=kept)


def _differing(text: str, other: str) -> list[tuple[int, int]]:
    """Where a text has other words than another one has, each with the space before it."""
    words = list(re.finditer(r"\S+", text))
    same = SequenceMatcher(None, [word[0] for word in words], other.split(), autojunk=False).get_matching_blocks()
    kept = {number for block in same for number in range(block.a, block.a + block.size)}
    return [(word.start() - 1, word.end()) for number, word in enumerate(words) if number not in kept]


def _triple(world: World, about: Subject, rng: random.Random) -> Record:
    """Three sentences or phrases of which the first is so similar to each of the others."""
    letter = rng.choice("ABCDEFGHIJKLMNOPQRTUVWXYZ")
    names = [f"{letter}{number}" for number in (1, 2, 3)]
    if rng.random() < 0.4:
        names = _names(rng, *[("text", "input")] * 3)
    group = rng.choice(("phrase", "sentence"))
    slots = ("things", "aspect", "quality", "people", *(("place",) if group == "sentence" else ()))
    first = {slot: about[slot] for slot in slots}
    near = _altered(first, rng, 0, 1 if rng.random() < 0.7 else len(first) - 1)
    far = contrasted(first, _neighbour(world, about, ["things"], rng), rng.choice(CONTRASTS))
    wanted = [_rounded(similarity(first, other), rng) for other in (near, far)]
    texts = [capitalize(phrase(group, values, rng, any_word(rng))) for values in (first, near, far)]
    end = "." if group == "sentence" and rng.random() < 0.7 else ""
    said = [LIKE.format(names[0], names[place], score) for place, score in zip((1, 2), wanted, strict=True)]
    values = {name: text + end for name, text in zip(names, texts, strict=True)}
    kept = [slot for slot in first if far[slot] != first[slot]]
    alike = _reworded(values[names[2]], far, first, rng.sample(kept, rng.randint(1, len(kept))) if kept else (), rng)
    unlike = _reworded(values[names[1]], near, far, rng.sample(sorted(first), 2), rng)
    return Record(values, said, slips=[{names[2]: alike}, {names[1]: unlike}])


def _pair(world: World, about: Subject, rng: random.Random) -> Record:
    """Two texts that say the same in other words, both short or both long."""
    del world
    one, two = _names(rng, ("input", "text"), _DOCUMENTS)
    said = [rng.choice(SAME).format(one, two)]
    if rng.random() < 0.5:
        groups = ("phrase", "sentence", "query")
        group = rng.choice(groups)
        first = capitalize(phrase(group, about, rng, any_word(rng)))
        stated = {slot: about[slot] for slot in meaning(first)}
        fitting = "sentence" if "place" in stated and "people" in stated else "phrase" if "people" in stated else group
        second = capitalize(phrase(fitting, about, rng, any_word(rng, avoid=first.lower().split())))
        said.append(rng.choice(SHORT).format(one, two))
        return Record({one: first, two: second}, said, whole=frozenset({one, two}))
    long, least, most = _long(rng)
    needed = ("people", "place", "time") if least > 16 else rng.sample(("people", "place", "time"), 2)
    first = _until(lambda: _description(about, rng, needed, least, any_word(rng)), least, most)
    used = first.lower().replace(".", " ").replace(",", " ").split()
    second = _until(lambda: _description(about, rng, needed, least, any_word(rng, avoid=used)), least, most)
    return Record({one: first, two: second}, [*said, f'Both "{one}" and "{two}" have {long}.'])


def _description(
    about: Subject, rng: random.Random, asked: Collection[str], least: int, choose: Callable[[str, str], str]
) -> str:
    """A text that says first what was asked for, and more if it must be longer."""
    values = {slot: value for slot, value in about.items() if slot != "name" or rng.random() < 0.3}
    return document(values, {*asked}, Words(least), rng, choose)


def _long(rng: random.Random) -> tuple[str, int, int]:
    """A wanted length of at least some words."""
    return LENGTHS[4] if rng.random() < LONG_SHARE else rng.choice(LENGTHS[:4])


def _length_of(key: str, said: str, least: int, rng: random.Random) -> str:
    """Say how long a field is to be."""
    if least > 7 and rng.random() < 0.4:
        return rng.choice(AT_LEAST).format(key, least)
    return rng.choice(WANTED).format(key, said)


@cache
def _near(seed: int) -> dict[str, list[Subject]]:
    """Facts of the training half by their aspect."""
    near: dict[str, list[Subject]] = {}
    for entity in world_of(seed).half("train"):
        near.setdefault(entity.facts["aspect"], []).append({**entity.facts, "name": entity.name})
    return near


def _neighbour(world: World, about: Subject, asked: Sequence[str], rng: random.Random) -> Subject:
    """A subject of the same aspect of other things, so that it is not what was asked for."""
    for _ in range(20):
        other = rng.choice(_near(world.seed)[about["aspect"]])
        if any(other[slot] != about[slot] for slot in asked):
            return other
    return _another(about, asked, rng)


def _another(about: Subject, asked: Sequence[str], rng: random.Random) -> Subject:
    """The subject with another value in one of the asked slots, and perhaps in others that were not asked for."""
    ours = [slot for slot in asked if slot in lexicon()]
    changed = {rng.choice(ours)} if ours else {"things"}
    changed |= {slot for slot in SLOTS[2:] if slot not in asked and rng.random() < 0.5}
    return about | {
        slot: rng.choice([concept for concept in lexicon()[slot] if concept != about[slot]]) for slot in sorted(changed)
    }


def _altered(values: Subject, rng: random.Random, least: int, most: int) -> Subject:
    """The values with some of their slots changed."""
    changed = rng.sample(sorted(values), rng.randint(least, most))
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
