"""Rows that the generators' bases learn orders and facts from: what counts in them, and what they must not hold."""

from __future__ import annotations

import json
import random
import re

from miniature_corpus import LENGTHS, QUERY_LENGTHS
from miniature_orders import JSON, carry_out_orders, keep_to_lengths, mend, repair, tell

from speed.data.records import KEYS
from speed.miniature.faults import answers_query
from speed.miniature.lexicon import meaning, meanings
from speed.miniature.world import FOLLOWS, seeded, world

ROWS = 400


def rows(rng: random.Random) -> list[tuple[str, list[tuple[int, int]]]]:
    return [carry_out_orders(world(), rng) for _ in range(ROWS)]


def records(rng: random.Random) -> list[tuple[str, dict[str, str]]]:
    """Orders with their records, of those in JSON."""
    found = []
    for text, _ in rows(rng):
        order, _, last = text.rpartition("\n")
        if last.startswith(JSON[0]) and last.endswith(JSON[3]) and '": "' in last and " | " not in last:
            try:
                found.append((order, json.loads(last)))
            except ValueError:  # another style of braces
                continue
    return found


def test_what_counts_lies_in_the_text() -> None:
    for text, answers in rows(seeded("orders")):
        assert answers
        assert all(0 <= start <= end <= len(text) for start, end in answers)
        assert answers[-1][1] == len(text), "the end of a record is part of it"


def test_only_facts_count_in_what_is_told() -> None:
    rng = seeded("tell")
    for _ in range(ROWS):
        text, answers = tell(world(), rng)
        words = [text[start:end].strip(' "-\n').lower() for start, end in answers]
        assert words
        assert {meanings()[word][0] for word in words} <= set(FOLLOWS)


def test_facts_that_are_told_are_the_worlds() -> None:
    """But those of the exceptions, which are facts of one pair each."""
    rng, odd = seeded("told"), {entity.pair for entity, _ in world().exceptions}
    for _ in range(ROWS):
        said = meaning(tell(world(), rng)[0])
        ((things,), (aspect,)) = said["things"], said["aspect"]
        if (things, aspect) in odd:
            continue
        known = {"things": things, "aspect": aspect}
        for slot, cause in FOLLOWS.items():
            assert said.get(slot, {world().rules[slot][known[cause]]}) == {world().rules[slot][known[cause]]}


def test_records_have_the_fields_that_were_asked_for_and_never_those_of_a_kind() -> None:
    found = records(seeded("fields"))
    assert len(found) > ROWS / 3
    for order, record in found:
        assert all(f'"{name}"' in order for name in record)
        assert set(record) not in [set(keys.all) for keys in KEYS.values()]


def test_an_answer_answers_its_query_and_what_only_seems_to_does_not() -> None:
    answered = 0
    for order, record in records(seeded("answers")):
        names = list(record)
        if f'The "{names[1]}" answers' in order or "is served by" in order:
            query, text, seeming = record.values()
            answered += 1
            assert answers_query(query, text)
            assert not answers_query(query, seeming)
    assert answered > ROWS / 12


def test_texts_have_the_wanted_length_and_only_decisions_count_in_them() -> None:
    rng, wanted = seeded("lengths"), [(f"of {said}", least, most) for said, least, most in (*QUERY_LENGTHS, *LENGTHS)]
    held = []
    for _ in range(3 * ROWS):
        text, answers = keep_to_lengths(world(), rng, 0)
        order, _, last = text.rpartition("\n")
        said = [(least, most) for wording, least, most in wanted if wording in order]
        if not last.startswith('{"') or last.count('": "') != 1 or len(said) != 1:
            continue
        ((least, most),) = said
        value = last.split('": "')[1].removesuffix('"}')
        held.append(least <= len(value.split()) <= most)
        if value.count(". ") > 1:
            start = text.index(value)
            inside = sum(min(end, len(text)) - begun for begun, end in answers if begun >= start)
            assert last == text[answers[0][0] :] or inside < 0.8 * len(value)
    assert len(held) > 40
    assert sum(held) > 0.95 * len(held)


def test_what_only_seems_to_answer_is_about_other_things_of_the_same_aspect() -> None:
    others = []
    for order, record in records(seeded("neighbours")):
        names = list(record)
        if f'The "{names[1]}" answers' in order or "is served by" in order:
            _, one, two = map(meaning, record.values())
            others.append(one["aspect"] == two["aspect"] and one["things"] != two["things"])
    assert len(others) > ROWS / 12
    assert sum(others) / len(others) > 0.95


def test_the_third_sentence_says_what_is_true_of_other_things() -> None:
    kept: dict[str, list[bool]] = {}
    for order, record in records(seeded("thirds")):
        one, _, three = map(meaning, [*record.values(), "", ""][:3])
        if "The similarity of" in order and "is 2.5." in order:
            for slot in one:
                kept.setdefault(slot, []).append(one[slot] == three.get(slot))
    shares = {slot: sum(same) / len(same) for slot, same in kept.items()}
    assert len(kept["things"]) > ROWS / 20
    assert shares["things"] < 0.2 < 0.8 < shares["aspect"]


def test_drafts_have_the_mistakes_of_small_models_and_records_have_none() -> None:
    rng, same_label, leaked = seeded("mend"), [0, 0], [0, 0]
    for _ in range(ROWS):
        lines = [line for line in mend(world(), rng)[0].splitlines() if re.fullmatch(r'{("[^"]*"(: |, |}))+', line)]
        values = [list(json.loads(line).values()) for line in lines]
        if len(values) != 2 or len(values[0]) != 3 or meanings().get(values[1][1]) is None:  # no labels
            continue
        for place, (text, label, other) in enumerate(values):
            same_label[place] += meanings().get(label) == meanings().get(other)
            leaked[place] += label.lower() in text.lower().split()
    assert same_label[0] > 10
    assert leaked[0] > 5
    assert same_label[1] == leaked[1] == 0


def test_a_repair_asks_for_the_words_alone_in_which_the_record_differs_from_the_draft() -> None:
    rng, mended, sound = seeded("repair"), 0, 0
    for _ in range(ROWS):
        order, answers = repair(world(), rng)
        lines = [line for line in order.splitlines() if re.fullmatch(r'{("[^"]*"(: |, |}))+', line)]
        if len(lines) != 2:
            continue
        draft, record = map(json.loads, lines)
        changed = [key for key in record if record[key] != draft[key]]
        asked = [order[start:end].strip(' "') for start, end in answers]
        assert asked
        assert all(start >= order.rindex(lines[1]) for start, _ in answers)
        if changed:
            mended += 1
            assert all(word in " ".join(record[key] for key in changed) for word in asked)
            if len(changed) == 1:  # labels that change places have the same words
                assert any(word not in draft[changed[0]].split() for word in asked)
        else:
            sound += 1
    assert mended > sound > ROWS / 20
