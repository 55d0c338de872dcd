"""Near duplicates: the threshold is exact, and a smaller pool keeps the first examples of a larger one."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from functools import cache
from itertools import combinations

import pytest
from datasketch import MinHash, MinHashLSH
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from xxhash import xxh32_intdigest

from speed.data.quality import near_duplicates
from speed.data.quality.minhash import MinHashConfig, hashed, shingles, signatures
from speed.data.quality.near_duplicates import Earlier, compared_text, duplicates
from speed.data.records import Example, Kind

CONFIG = MinHashConfig()
WORDS = [f"word{number}" for number in range(3_000)]


def retrieval(query: str, positive: str = "p") -> Example:
    return Example(kind=Kind.RETRIEVAL, task="t", query=query, positive=positive, negative="n")


def verdicts(examples: Sequence[Example], config: MinHashConfig = CONFIG, threads: int = 1) -> list[int | None]:
    found = list(duplicates(lambda: iter(examples), config, threads=threads))
    assert [example for example, _ in found] == list(examples)
    return [first for _, first in found]


@cache
def shingles_of(text: str) -> frozenset[str]:
    return frozenset(shingles(text, CONFIG))


def jaccard(left: str, right: str) -> float:
    first, second = shingles_of(left), shingles_of(right)
    return len(first & second) / len(first | second)


def texts_with_copies(seed: int, groups: int) -> list[str]:
    """Texts of 60 words, each followed by copies in which 0 to 12 words are others."""
    rng = random.Random(seed)
    texts = []
    for _ in range(groups):
        words = rng.choices(WORDS, k=60)
        texts.append(" ".join(words))
        for changes in (0, 1, 2, 4, 12):
            copy = list(words)
            for place in rng.sample(range(60), changes):
                copy[place] = rng.choice(WORDS)
            texts.append(" ".join(copy))
    rng.shuffle(texts)
    return texts


def test_against_brute_force() -> None:
    texts = texts_with_copies(0, 60)
    found = verdicts([retrieval(text) for text in texts])
    kept: list[int] = []
    missed = 0
    for index, text in enumerate(texts):
        near = [other for other in kept if jaccard(text, texts[other]) >= CONFIG.threshold]
        first = found[index]
        if first is None:
            missed += bool(near)
            kept.append(index)
        else:
            assert first in near, "what is dropped is near what is named, by exact similarity"
    assert 100 < len(kept) < 250
    assert missed <= 2


def test_candidates_are_those_of_datasketchs_own_index(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = texts_with_copies(3, 150)
    sets = [{xxh32_intdigest(shingle.encode()) for shingle in shingles(text, CONFIG)} for text in texts]
    lsh = MinHashLSH(num_perm=CONFIG.permutations, params=(CONFIG.bands, CONFIG.rows))
    expected: list[int | None] = []
    for index, own in enumerate(sets):
        signature = MinHash(CONFIG.permutations, seed=CONFIG.seed, hashfunc=lambda value: value, scheme="affine32")
        signature.update_batch(sorted(own))
        near = (other for other in sorted(lsh.query(signature)) if jaccard(texts[index], texts[other]) >= 0.7)
        expected.append(next(near, None))
        if expected[-1] is None:
            lsh.insert(index, signature)
    examples = [retrieval(text) for text in texts]
    assert verdicts(examples) == expected
    monkeypatch.setattr(near_duplicates, "CHUNK", 100)
    monkeypatch.setattr(near_duplicates, "MANY", 100_000)
    assert verdicts(examples) == verdicts(examples, threads=2) == expected, "compiled from the third chunk on"
    assert 300 < sum(first is None for first in expected) < 800


def test_few_texts_wait_for_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "speed.data.quality.minhash_kernels", None)
    few = [retrieval(text) for text in ("jazz", " ".join(WORDS[:20])) * 2]
    assert verdicts(few) == [None, None, 0, 1]
    monkeypatch.setattr(near_duplicates, "MANY", 100)
    with pytest.raises(ImportError):
        verdicts(few)


def test_verdicts_depend_on_earlier_rows_alone() -> None:
    examples = [retrieval(text) for text in texts_with_copies(1, 30)]
    whole = verdicts(examples)
    for size in (1, 50, 51, len(examples)):
        assert verdicts(examples[:size]) == whole[:size]


def test_what_is_kept_has_no_duplicates_left() -> None:
    examples = [retrieval(text) for text in texts_with_copies(2, 30)]
    kept = [example for example, first in zip(examples, verdicts(examples), strict=True) if first is None]
    assert verdicts(kept) == [None] * len(kept)


def test_kinds_are_apart_and_compare_their_own_texts() -> None:
    text = "the same words stand in all of these texts and in their long documents too"
    short = [Example(kind=kind, task="t", query=text, positive=text) for kind in (Kind.SHORT_SHORT, Kind.LONG_LONG)]
    assert verdicts([retrieval(text), *short]) == [None] * 3
    other = "nothing of what is said here occurs anywhere else, and that is how it should be for once"
    assert verdicts([retrieval(text, "a"), retrieval(text, other)]) == [None, 0]
    pairs = [Example(kind=Kind.SHORT_SHORT, task="t", query=text, positive=positive) for positive in (text, other)]
    assert verdicts(pairs) == [None, None]
    assert compared_text(pairs[1], CONFIG) == f"{text}\n{other}"


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("How do I prune roses?", "how do i prune ROSES", True),
        ("How do I prune roses?", "How do I prune tulips?", False),
        ("jazz", "jazz", True), ("jazz", "Jazz!", True), ("ab", "ac", False), ("?!", "?!", True), ("?!", "!!", False),
        ("", "", True), ("日本の首都はどこですか", "日本の首都はどこですか。", True),
    ],
)  # fmt: skip
def test_short_texts_are_compared_by_characters(left: str, right: str, same: bool) -> None:
    verdict = verdicts([retrieval(left), retrieval(right)])
    assert verdict == [None, 0 if same else None]


def test_threshold_is_exact() -> None:
    base = " ".join(WORDS[:60])
    for tail in range(0, 40, 2):
        other = " ".join(WORDS[: 60 - tail] + WORDS[100 : 100 + tail])
        similarity = jaccard(base, other)
        dropped = verdicts([retrieval(base), retrieval(other)], MinHashConfig(bands=64, rows=2))[1] == 0
        assert dropped == (similarity >= CONFIG.threshold), similarity


def test_the_s_curve_is_what_is_found() -> None:
    assert CONFIG.detection(0.7) == pytest.approx(0.990, abs=0.001)
    assert MinHashConfig(bands=14, rows=9).detection(0.7) == pytest.approx(0.438, abs=0.005)
    # Pairs at similarity 0.5 (two sets of 150 that share 100), with bands under which a third of them is found.
    config = MinHashConfig(threshold=0.4, bands=12, rows=5, word_shingle=1)
    rng, found, pairs = random.Random(5), 0, 300
    for _ in range(pairs):
        words = rng.sample(WORDS, 200)
        left, right = words[:150], words[50:]
        found += verdicts([retrieval(" ".join(left)), retrieval(" ".join(right))], config)[1] == 0
    expected = config.detection(0.5)
    assert abs(found / pairs - expected) < 4 * (expected * (1 - expected) / pairs) ** 0.5


@given(st.lists(st.text(max_size=30), max_size=8))
@settings(max_examples=50)
def test_any_text(texts: list[str]) -> None:
    found = verdicts([retrieval(text) for text in texts])
    for left, right in combinations(range(len(texts)), 2):
        if texts[left] == texts[right]:
            assert found[right] is not None


ODD = [
    "", "?!", "jazz", "ab " * 9, "one two " * 300, "\ud800 abc " * 12, "x" * 70_000 + " a b c d e f g h i j k",
    "Ünïcode wörd Ärger " * 5, "日本 の 首都 は どこ です か 日本 の",
    "K _x_ \x85 \xa0 a b c d e f g h i j k\x1cl",
]  # fmt: skip


@given(st.lists(st.text("abcdefgh AB\n_.,'é0-", max_size=400), max_size=30))
@settings(max_examples=5, deadline=None)
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    "config", [CONFIG, MinHashConfig(word_shingle=12), MinHashConfig(word_shingle=1, short_words=1)]
)
def test_signatures_are_datasketchs(config: MinHashConfig, compiled: bool, texts: list[str]) -> None:
    texts = [*ODD, *texts, *(" ".join(WORDS[number : number + 40]) for number in range(40))]
    found = hashed(texts, config, compiled)
    sets, lowest = found.as_sets(), signatures(found, config, compiled)
    for place, text in enumerate(texts):
        own = {xxh32_intdigest(shingle.encode("utf-8", "surrogatepass")) for shingle in shingles(text, config)}
        assert sets.of(place).tolist() == sorted(own)
        signature = MinHash(config.permutations, seed=config.seed, hashfunc=lambda value: value, scheme="affine32")
        signature.update_batch(sorted(own))
        assert (signature.hashvalues[: len(lowest)] == lowest[:, place]).all()


def test_a_text_that_stands_there_a_hundred_times_has_one_candidate() -> None:
    first, other = (" ".join(WORDS[start : start + 60]) for start in (0, 100))
    texts = [first, other] * 100
    assert verdicts([retrieval(text) for text in texts]) == [None, None, *[0, 1] * 99]
    earlier = Earlier(((text, 0) for text in texts), CONFIG)
    for number, near in earlier.compared(texts):
        assert len(list(near)) == (number > 1), "links lead around what was dropped"
        if number < 2:
            earlier.keep(number)


def test_too_many_bands_are_refused() -> None:
    with pytest.raises(ValidationError, match="128 permutations"):
        MinHashConfig(bands=26)
