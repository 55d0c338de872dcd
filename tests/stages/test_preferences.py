"""Judging as the pipeline does it: what is asked, what is kept, what it costs, and what the manifest says of it."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from scripted_judge import PROMPTS, Lists, Scripted, built, known_list, names, truthful

from speed.core.graph import Goal
from speed.core.store import Store
from speed.data.answers.accept_or_reject import KEEP
from speed.data.draws import shuffled_order
from speed.data.judging.votes import Judge
from speed.data.prompts.rendering import data_prompt, judge_prompt
from speed.data.quality.guidelines import Guidelines
from speed.data.records import Candidates, Kind, Prompt, Scores
from speed.miniature.rules import answer_prompt
from speed.miniature.teacher import RulesTeacher
from speed.miniature.world import world
from speed.ports import Ask, Teacher
from speed.runs.report import markdown
from speed.runs.stage_lines import stage_line
from speed.stages.preferences import Preferences
from speed.teaching.journal import Journal

SWAP = Judge(votes=2)
VOTE = Judge(votes=3, decide="majority")
MARGIN = Judge(votes=3, decide="margin", margin=0.8)
VERIFIED = Judge(verified=True)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home").open()


def preferences(given: list[Candidates], teacher: Teacher, judge: Judge, guidelines: Guidelines = KEEP) -> Preferences:
    return Preferences(Lists(tuple(given)), teacher, judge, PROMPTS.of("judge"), 200, 0, guidelines)


def pair_of(one: str, other: str) -> str:
    return json.dumps({"input": one, "positive_document": other})


def short_list(row: int, *texts: str) -> Candidates:
    prompt = data_prompt(Kind.SHORT_SHORT, "Match proverbs.", "Arts", PROMPTS, random.Random(row))
    return Candidates(row=row, prompt=prompt, texts=texts, finish_reasons=("stop",) * len(texts))


def five(row: int) -> Candidates:
    return short_list(row, *(pair_of(f"proverb {row} {place}", "a" * (place + 1)) for place in range(5)))


def shown(ask: Ask) -> list[str]:
    """The candidates of a judge's prompt, in the order in which it shows them."""
    return re.findall(r"^\d\. (.*)$", ask.prompt, re.MULTILINE)


def honest(model: str, ask: Ask) -> str:
    """Names the candidate that is first by alphabet, and the last."""
    texts = shown(ask)
    return names(texts.index(min(texts)), texts.index(max(texts)))


def placed(model: str, ask: Ask) -> str:
    """Likes whatever stands first, and dislikes whatever stands last."""
    return names(0, len(shown(ask)) - 1)


# -- what is asked -----------------------------------------------------------------------------------------------------


def test_one_vote_asks_the_papers_question_as_it_always_did(store: Store) -> None:
    """Messages, parameters and index are the journal's key: a change here buys every judgement again."""
    given = [five(row) for row in range(4)]
    teacher = Scripted.saying(honest)
    rows, _ = built(store, preferences(given, teacher, Judge()), 4)
    for found, pair, (_, ask) in zip(given, rows, teacher._heard, strict=True):
        order = shuffled_order(5, 0, "judge", found.row)
        assert ask.prompt == judge_prompt(found.prompt.text, [found.texts[i] for i in order], PROMPTS).text
        assert (ask.temperature, ask.max_tokens, ask.index, ask.purpose) == (0.0, 200, 0, "judge")
        assert [(vote.prompt, vote.order) for vote in pair.votes] == [(ask.prompt, tuple(order))]


def test_more_votes_begin_with_the_same_ones(store: Store) -> None:
    """One vote, then two, then three over the same lists: each step pays for one more call a list."""
    given = [known_list(row) for row in range(6)]
    for judge, new in ((Judge(), 6), (SWAP, 6), (VOTE, 6), (MARGIN, 0), (Judge(), 0)):
        _, manifests = built(store, preferences(given, RulesTeacher(), judge), 6)
        store.remove(store.folder(preferences(given, RulesTeacher(), judge)))
        assert manifests[0].cost.get("calls", 0) == new


def test_what_is_recorded_is_what_was_sent(store: Store) -> None:
    given = [known_list(row) for row in range(5)]
    rows, _ = built(store, preferences(given, RulesTeacher(), VOTE), 5)
    journal = Journal(store.home / "journal")
    sent = sorted(entry.messages[-1]["content"] for entry in journal)
    assert sent == sorted(vote.prompt for pair in rows for vote in pair.votes)
    for found, pair in zip(given, rows, strict=True):
        assert pair.prompt == found.prompt
        assert {(pair.chosen, pair.best), (pair.rejected_text, pair.worst)} <= {
            *((text, place) for place, text in enumerate(found.texts)), ("", -1),
        }  # fmt: skip
        for vote in pair.votes:
            assert vote.prompt == judge_prompt(found.prompt.text, [found.texts[i] for i in vote.order], PROMPTS).text


def test_models_judge_in_turn(store: Store) -> None:
    def partial(model: str, ask: Ask) -> str:
        return placed(model, ask) if model == "b" else honest(model, ask)

    judge = Judge(votes=5, decide="majority", models=("a", "b", "c"))
    teacher = Scripted.saying(partial)
    rows, manifests = built(store, preferences([five(0), five(1)], teacher, judge), 2)
    assert [[vote.model for vote in pair.votes] for pair in rows] == [["a", "b", "c", "a", "b"]] * 2
    assert [(pair.best, pair.worst) for pair in rows] == [(0, 4)] * 2
    assert manifests[0].metrics["calls_per_list"] == 5.0
    assert manifests[0].metrics["swap_flips"] is None  # no model was asked the same list in both orders
    assert preferences([five(0)], teacher, judge).work(0, 10).calls == 50


def test_a_further_model_is_reached_on_the_teachers_own_road(store: Store) -> None:
    """The same list in two orders, one for each model; what the first has answered is not asked again."""
    given = [known_list(row) for row in range(3)]
    built(store, preferences(given, RulesTeacher(), Judge()), 3)
    judge = Judge(votes=2, models=("miniature/rules", "miniature/other"))
    _, manifests = built(store, preferences(given, RulesTeacher(), judge), 3)
    assert (manifests[0].cost["calls"], manifests[0].cost["cached"]) == (3, 3)
    journal = Journal(store.home / "journal")
    assert sorted(entry.model for entry in journal) == ["miniature/other"] * 3 + ["miniature/rules"] * 3


# -- what is kept ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("judge", [Judge(), SWAP, VOTE, MARGIN, Judge(votes=5, decide="margin", margin=1.0)])
def test_a_judge_that_reads_is_believed_by_every_protocol(store: Store, judge: Judge) -> None:
    rows, manifests = built(store, preferences([five(row) for row in range(8)], Scripted.saying(honest), judge), 8)
    assert [(pair.best, pair.worst) for pair in rows] == [(0, 4)] * 8
    assert all(pair.chosen == pair_of(f"proverb {pair.row} 0", "a") for pair in rows)
    metrics = manifests[0].metrics
    assert metrics["calls_per_list"] == judge.votes
    assert metrics["dropped"] == {}
    assert metrics["swap_flips"] == (0.0 if judge.votes > 1 else None)
    assert metrics["agreement_best"] == metrics["agreement_worst"] == (1.0 if judge.votes > 1 else None)
    assert metrics["longer_wins"] == 0.0


def test_a_judge_of_places_is_seen_through(store: Store) -> None:
    given = [five(row) for row in range(60)]
    single, one = built(store, preferences(given, Scripted.saying(placed), Judge()), 60)
    assert [pair.rejected for pair in single] == [None] * 60
    assert one[0].metrics["best_by_place"] == [60, 0, 0, 0, 0]
    assert one[0].metrics["worst_by_place"] == [0, 0, 0, 0, 60]
    assert one[0].metrics["best_by_place_p"] < 1e-5
    swapped, two = built(store, preferences(given, Scripted.saying(placed), SWAP), 60)
    assert [pair.rejected for pair in swapped] == ["disagreement"] * 60
    assert two[0].metrics["swap_flips"] == 1.0
    assert two[0].metrics["dropped"] == {"disagreement": 1.0}
    assert two[0].rejected == {"disagreement": 60}


def test_an_honest_judge_shows_no_place(store: Store) -> None:
    _, manifests = built(store, preferences([five(row) for row in range(200)], Scripted.saying(honest), SWAP), 200)
    assert manifests[0].metrics["best_by_place_p"] > 1e-4
    assert sum(manifests[0].metrics["best_by_place"]) == 200  # the reversed order says nothing new


def test_a_spoilt_vote_drops_the_list_or_leaves_it_to_the_others(store: Store) -> None:
    def spoilt(model: str, ask: Ask) -> str:
        return "I like them all." if ask.prompt in second else honest(model, ask)

    given = [five(0)]
    teacher = Scripted.saying(honest)
    built(store, preferences(given, teacher, VOTE), 1)
    second = {teacher._heard[1][1].prompt}
    swapped, _ = built(
        store, preferences(given, Scripted.saying(spoilt), SWAP.model_copy(update={"temperature": 1})), 1
    )
    voted, _ = built(store, preferences(given, Scripted.saying(spoilt), VOTE.model_copy(update={"temperature": 1})), 1)
    assert (swapped[0].rejected, swapped[0].votes[1].cause) == ("no_json", "no_json")
    assert (voted[0].rejected, voted[0].best, voted[0].worst) == (None, 0, 4)


def test_the_same_text_is_never_preferred_to_itself(store: Store) -> None:
    same = short_list(0, pair_of("A proverb", "x"), '{"input": "a  Proverb",\n "positive_document": "x"}')
    rows, manifests = built(store, preferences([same], Scripted.saying(honest), Judge()), 1)
    assert rows[0].rejected == "identical"
    assert manifests[0].metrics["dropped"] == {"identical": 1.0}


def test_a_list_that_root_data_turned_away_is_not_judged(store: Store) -> None:
    lost = Candidates(row=0, prompt=Prompt(text="", template="")).reject("no_task")
    teacher = Scripted.saying(honest)
    rows, manifests = built(store, preferences([lost, five(1)], teacher, SWAP), 2)
    assert [pair.rejected for pair in rows] == ["no_task", None]
    assert len(teacher._heard) == 2
    assert manifests[0].metrics["calls_per_list"] == 2.0


# -- guidelines first --------------------------------------------------------------------------------------------------

CLEAN, CLEANER = pair_of("a stitch in time", "mending early"), pair_of("z last", "its lesson")
FAULTY, WORSE = pair_of("same", "same"), pair_of("...", "...")
BROKEN = '{"input": "cut of'


@pytest.mark.parametrize(
    ("texts", "asked", "expected"),
    [
        ((CLEAN, FAULTY, CLEANER), 1, (0, 1)),  # the teacher chooses among the clean, the faulty one loses
        ((FAULTY, CLEAN, WORSE), 0, (1, 2)),  # one clean answer needs no judge; most faults lose
        ((FAULTY, CLEAN, BROKEN, CLEANER), 1, (1, 2)),  # what cannot be read is worse than any fault
        ((CLEANER, CLEAN), 1, (1, 0)),  # all clean: judged as ever
        ((FAULTY, WORSE), 1, (1, 0)),  # none clean, all readable: judged as ever
        ((FAULTY, BROKEN, WORSE), 1, (2, 1)),  # none clean: the best of those that can be read
        ((BROKEN, BROKEN + "f"), 0, "none_readable"),
    ],
)
def test_guidelines_decide_what_they_can(
    store: Store, texts: tuple[str, ...], asked: int, expected: tuple[int, int] | str
) -> None:
    teacher = Scripted.saying(honest)
    rows, manifests = built(store, preferences([short_list(0, *texts)], teacher, VERIFIED), 1)
    found = rows[0].rejected or (rows[0].best, rows[0].worst)
    assert found == expected
    assert len(teacher._heard) == asked
    assert manifests[0].metrics["calls_per_list"] == asked


def test_faults_are_said_and_a_guideline_that_drops_is_never_broken_by_the_chosen_answer(store: Store) -> None:
    given = [short_list(0, CLEAN, BROKEN), short_list(1, FAULTY, CLEANER), short_list(2, BROKEN, "}")]
    kept, manifests = built(store, preferences(given, Scripted.saying(honest), Judge()), 3)
    assert [pair.rejected for pair in kept] == [None, None, None]
    assert [(pair.chosen_faults, pair.rejected_faults) for pair in kept] == [
        ((), ("truncated",)), (("same_texts",), ()), (("truncated",), ("no_json",))
    ]  # fmt: skip
    assert (manifests[0].metrics["chosen_faulty"], manifests[0].metrics["rejected_faulty"]) == (0.6667, 0.6667)
    strict, _ = built(store, preferences(given, Scripted.saying(honest), Judge(), Guidelines(drop="all")), 3)
    assert [pair.rejected for pair in strict] == [None, "same_texts", "truncated"]
    one, _ = built(store, preferences(given, Scripted.saying(honest), Judge(), Guidelines(drop=("same_texts",))), 3)
    assert [pair.rejected for pair in one] == [None, "same_texts", None]


def test_guidelines_and_votes_combine(store: Store) -> None:
    teacher = Scripted.saying(honest)
    judge = Judge(votes=3, decide="margin", margin=1.0, verified=True)
    rows, _ = built(store, preferences([short_list(0, CLEANER, FAULTY, CLEAN)], teacher, judge), 1)
    assert (rows[0].best, rows[0].worst) == (2, 1)
    assert len(teacher._heard) == 3
    assert all(set(vote.order) == {0, 2} for vote in rows[0].votes)


def test_where_all_are_clean_nothing_is_paid_again(store: Store) -> None:
    given = [short_list(row, CLEANER, CLEAN) for row in range(3)]
    teacher = Scripted.saying(honest)
    built(store, preferences(given, teacher, Judge()), 3)
    built(store, preferences(given, teacher, VERIFIED), 3)
    asks = [ask for _, ask in teacher._heard]
    assert asks[:3] == asks[3:]


# -- a judge that errs and likes long answers --------------------------------------------------------------------------


def test_swap_and_votes_make_an_erring_teacher_truthful(store: Store) -> None:
    """A third of this teacher's verdicts are blind guesses, and what they cost is measurable in every protocol."""
    given = [known_list(row) for row in range(60)]
    teacher = RulesTeacher(error_rate=0.33, length_bias=0.0)
    shares: dict[str, tuple[float, float]] = {}
    metrics: dict[str, dict[str, Any]] = {}
    for name, judge in (("single", Judge()), ("swap", SWAP), ("vote", VOTE), ("margin", MARGIN)):
        rows, manifests = built(store, preferences(given, teacher, judge), 60)
        shares[name], metrics[name] = truthful(rows, given), manifests[0].metrics
    assert shares["single"][0] < 0.8
    assert shares["single"][1] == 1.0
    for name in ("swap", "vote", "margin"):
        assert shares[name][0] >= 0.95
        assert shares[name][1] > 0.3
    assert shares["vote"][1] > shares["swap"][1]  # a majority loses fewer lists than unanimity
    assert 0.3 < metrics["swap"]["swap_flips"] < 0.8
    assert [metrics[name]["calls_per_list"] for name in shares] == [1.0, 2.0, 3.0, 3.0]


def test_a_liking_for_length_is_seen(store: Store) -> None:
    def lengths(row: int) -> Candidates:
        prompt = data_prompt(Kind.STS, "", world().half("train")[row].topic, PROMPTS, random.Random(row))
        fields = json.loads(answer_prompt(prompt.text, row))
        texts = tuple(json.dumps({**fields, "S3": " ".join([fields["S3"]] * times)}) for times in (1, 2, 3))
        return Candidates(row=row, prompt=prompt, texts=texts, finish_reasons=("stop",) * 3)

    given = [lengths(row) for row in range(40)]
    wins = {}
    for bias in (0.0, 20.0):
        teacher = RulesTeacher(error_rate=0.0, length_bias=bias)
        _, manifests = built(store, preferences(given, teacher, Judge()), 40)
        wins[bias] = manifests[0].metrics["longer_wins"]
    assert wins[20.0] == 1.0
    assert wins[0.0] < 0.8
    assert manifests[0].metrics["chosen_characters"] > 1.3 * manifests[0].metrics["rejected_characters"]


# -- the report --------------------------------------------------------------------------------------------------------


def test_the_report_adds_up_the_shards(store: Store) -> None:
    given = [five(row) for row in range(30)]
    pool = preferences(given, Scripted.saying(placed), SWAP)
    built(store, pool, 10)
    built(store, pool, 30)
    line = stage_line(Goal(pool, 30, ()), store, True)
    assert len(store.shards(pool)) == 2
    assert line.metrics["best_by_place"] == [30, 0, 0, 0, 0]
    assert line.metrics["dropped"] == {"disagreement": 1.0}
    assert not any("/" in name for name in line.noted)
    text = markdown("x", {}, [line], Scores(tasks={}, types={}, mean=0, mean_of_types=0))
    assert "- swap&#95;flips: 1" in text
