"""Contamination is what its definition says, checked text by text."""

from __future__ import annotations

import random

import pytest

from speed.data.quality.contamination import EvaluationTexts, Overlap, runs_of
from speed.data.quality.minhash import MinHashConfig, shingles

WORDS = [f"word{number}" for number in range(2_000)]
NONE: frozenset[int] = frozenset()


def text_of(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(WORDS, k=words))


def test_runs_are_counted_in_words_and_shorter_texts_are_whole() -> None:
    assert len(runs_of("A b, c! D e", 3)) == 3
    assert runs_of("a b c", 3) == runs_of("A  B (c)", 3)
    assert len(runs_of("a b", 3)) == len(runs_of("a", 3)) == 1
    assert runs_of("?!", 3) == runs_of("", 3) == []


@pytest.mark.parametrize(
    ("passage", "around"),
    [
        ("人工智能正在改变我们的生活方式", "今天的报纸说，{}，而且越来越快，谁也不知道明天会怎样。"),
        ("吾輩は猫である名前はまだ無いどこで生れたか", "先生が読んだ本には、{}、と書いてあった。"),
        ("ภาษาไทยเป็นภาษาที่มีระดับเสียงของคำแน่นอน", "เขาบอกว่า{}และทุกคนเห็นด้วย"),
    ],
)
def test_a_quotation_is_found_in_scripts_without_spaces(passage: str, around: str) -> None:
    assert len(runs_of(passage, 3)) > 3
    known = EvaluationTexts([["something else"], [f"{passage}。"]], 13, 0.8)
    assert known.overlaps([["q", around.format(passage)[3:]]])[0].shared == frozenset({1})
    assert known.overlaps([["q", around.format(passage[:6])]])[0].shared == NONE
    assert runs_of("Das ist 中文", 13) == runs_of("das  ist: 中 文", 13)


def test_a_quotation_is_a_shared_run_and_no_near_duplicate() -> None:
    rng = random.Random(0)
    document = text_of(rng, 200).split()
    known = EvaluationTexts([["something else entirely, which nobody quotes"], [" ".join(document)]], 13, 0.8)
    quoting = f"{text_of(rng, 100)} {' '.join(document[50:63]).upper()}. {text_of(rng, 100)}"
    one_less = f"{text_of(rng, 100)} {' '.join(document[50:62])} {text_of(rng, 100)}"
    assert known.overlaps([["fine", quoting], ["fine", one_less]]) == [
        Overlap(frozenset({1}), NONE),
        Overlap(NONE, NONE),
    ]
    assert known.counts == [1, 1]


def test_a_copy_with_other_words_is_a_near_duplicate_and_shares_no_run() -> None:
    words = text_of(random.Random(1), 400).split()
    copy = [f"other{place}" if place % 100 == 50 else word for place, word in enumerate(words)]
    known = EvaluationTexts([[" ".join(words)]], 120, 0.8)
    assert known.overlaps([[" ".join(copy)]]) == [Overlap(NONE, frozenset({0}))]


def test_short_texts_are_compared_whole() -> None:
    known = EvaluationTexts([["What is a gene?"], ["Hello there"], ["?!"]], 13, 0.8)
    found = known.overlaps(
        [["what is a GENE"], ["I ask: what is a gene? And then, what else is there to ask?"], ["?!"], [""]]
    )
    assert found[0].shared == found[0].near == frozenset({0})
    assert found[1:] == [Overlap(NONE, NONE)] * 3


def test_a_text_of_several_data_sets_counts_with_each() -> None:
    text = text_of(random.Random(2), 40)
    known = EvaluationTexts([[text, text], ["no"], [f"before {text}"]], 13, 0.8)
    assert known.overlaps([[text]]) == [Overlap(frozenset({0, 2}), frozenset({0, 2}))]
    assert known.counts == [2, 1, 1]


@pytest.mark.parametrize("words", [2, 5])
def test_against_brute_force(words: int) -> None:
    rng = random.Random(words)
    some = WORDS[:60]
    texts = [[" ".join(rng.choices(some, k=rng.randint(1, 30))) for _ in range(20)] for _ in range(3)]
    records = [[" ".join(rng.choices(some, k=rng.randint(1, 30))) for _ in range(2)] for _ in range(30)]
    for place in range(0, 30, 2):  # near copies
        copy = rng.choice(rng.choice(texts)).split()
        copy[-1] = rng.choice(some)
        records[place][1] = " ".join(copy)
    config = MinHashConfig()

    def runs(text: str) -> set[tuple[str, ...]]:
        own = text.split()
        return {tuple(own[start : start + words]) for start in range(max(len(own) - words + 1, 1))}

    def similarity(left: str, right: str) -> float:
        first, second = shingles(left, config), shingles(right, config)
        return len(first & second) / len(first | second)

    known = EvaluationTexts(texts, words, 0.8)
    hits = 0
    for record, found in zip(records, known.overlaps(records), strict=True):
        for number, members in enumerate(texts):
            pairs = [(own, text) for own in record for text in members]
            assert (number in found.shared) == any(runs(own) & runs(text) for own, text in pairs)
            assert (number in found.near) == any(similarity(own, text) >= 0.8 for own, text in pairs)
            hits += number in found.near
    assert hits > 3


def test_without_texts_nothing_is_known() -> None:
    assert EvaluationTexts([[], []], 13, 0.8).overlaps([["a b c"]]) == [Overlap(NONE, NONE)]
