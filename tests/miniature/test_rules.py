"""The rules obey the project's prompts, know only half of the world, and err as a judge at the given rate."""

from __future__ import annotations

import json
import random
import re

import pytest

from speed.data.answers.accept_or_reject import accept_or_reject
from speed.data.prompts.rendering import (
    BRAINSTORMED,
    Choices,
    Lengths,
    PromptsConfig,
    brainstorm_prompt,
    data_prompt,
    judge_prompt,
    relevance_prompt,
    revise_prompt,
)
from speed.data.records import STS_INSTRUCTION, Kind, Prompt
from speed.miniature.faults import content_faults, form_faults, salvage_fields, strict_fields
from speed.miniature.lexicon import lexicon, meaning
from speed.miniature.prompt_reading import Words, read_prompt
from speed.miniature.repair import believed
from speed.miniature.rules import MARK, answer_prompt, knows_topic
from speed.miniature.subject import subject_of
from speed.miniature.world import seeded, world
from speed.miniature.writing import asked_slot

SHORT = PromptsConfig(
    wording="paper_2026",
    lengths=Lengths(
        retrieval_words=(8, 16, 24, 40),
        classification_words=Choices(values=("less than 10", "at least 10", "at least 20")),
        long_words=24,
    ),
)
TOPICS = [entity.topic for entity in world().half("train")]
HELD = [entity.topic for entity in world().half("held")]


def task_for(kind: Kind, topic: str, place: int = 0) -> str:
    if kind is Kind.STS:
        return STS_INSTRUCTION
    tasks = json.loads(answer_prompt(brainstorm_prompt(kind, topic, 5, SHORT, random.Random(place)).text, place))
    return str(tasks[place % len(tasks)])


def prompts(kind: Kind, count: int, topics: list[str] = TOPICS, config: PromptsConfig = SHORT) -> list[Prompt]:
    rng = random.Random(f"{kind}")
    chosen = [rng.choice(topics) for _ in range(count)]
    return [data_prompt(kind, task_for(kind, topic, i), topic, config, rng) for i, topic in enumerate(chosen)]


@pytest.mark.parametrize("config", [SHORT, PromptsConfig()], ids=["paper_2026", "paper"])
@pytest.mark.parametrize("kind", BRAINSTORMED)
def test_brainstorming_names_the_topic(kind: Kind, config: PromptsConfig) -> None:
    for place, topic in enumerate(TOPICS[:60:3]):
        prompt = brainstorm_prompt(kind, topic, 3 + place % 3, config, random.Random(place))
        assert read_prompt(prompt.text).kind is kind
        assert read_prompt(prompt.text).about == topic
        tasks = json.loads(answer_prompt(prompt.text, place))
        assert len(tasks) == len(set(tasks)) == 3 + place % 3
        assert all(topic.rsplit("/", 1)[1] in task for task in tasks)
        assert knows_topic(prompt.text)


@pytest.mark.parametrize(
    "config",
    [SHORT, PromptsConfig(), SHORT.model_copy(update={"wording": "paper"})],
    ids=["short", "as_in_the_paper", "short_as_in_the_paper"],
)
@pytest.mark.parametrize("kind", list(Kind))
def test_examples_obey_the_prompt(kind: Kind, config: PromptsConfig) -> None:
    for place, prompt in enumerate(prompts(kind, 60, config=config)):
        row = accept_or_reject(place, prompt, answer_prompt(prompt.text, place), "stop", 0)
        assert row.example is not None, row.detail
        assert row.faults == ()


def test_what_only_seems_right_is_about_other_things_of_the_same_aspect() -> None:
    """The teacher's habits, without which a small model keeps what is right, as that is likelier slot by slot."""
    for kind, first, last in ((Kind.RETRIEVAL, "positive_document", "hard_negative_document"), (Kind.STS, "S1", "S3")):
        for place, prompt in enumerate(prompts(kind, 30)):
            fields = json.loads(answer_prompt(prompt.text, place))
            one, other = meaning(fields[first]), meaning(fields[last])
            assert one["aspect"] == other["aspect"]
            assert one["things"] != other["things"]
    concepts = {slot: list(found) for slot, found in lexicon().items()}
    for place, prompt in enumerate(prompts(Kind.CLASSIFICATION, 30)):
        fields = json.loads(answer_prompt(prompt.text, place))
        slot = asked_slot(read_prompt(prompt.text).about)
        assert slot is not None
        first, second, *_ = concepts[slot]
        assert fields["misleading_label"] == (second if fields["label"] == first else first)


@pytest.mark.parametrize("kind", list(Kind))
def test_examples_are_true(kind: Kind) -> None:
    faulty = 0
    for place, prompt in enumerate(prompts(kind, 150)):
        request, fields = read_prompt(prompt.text), strict_fields(kind, answer_prompt(prompt.text, place))
        assert isinstance(fields, dict)
        faulty += bool(content_faults(request, subject_of(request.about, seeded(0)), fields))
    assert faulty <= 12  # of 150: with a vague query nothing near enough may be drawn as a negative


def test_nothing_is_known_or_written_of_the_held_out_half() -> None:
    prompt = brainstorm_prompt(Kind.RETRIEVAL, HELD[0], 5, SHORT, random.Random(0))
    assert not knows_topic(prompt.text)
    names = set(world().held)
    for kind in Kind:
        for place, prompt in enumerate(prompts(kind, 80)):
            assert not names & set(re.findall(r"[a-z]+", answer_prompt(prompt.text, place).lower()))


@pytest.mark.parametrize("topic", ["Business/Accounting/Associations", "Arts/Movies/36_Hours_-_1964/Cast_and_Crew"])
@pytest.mark.parametrize("kind", list(Kind))
def test_an_unknown_topic_is_written_about_from_its_words(kind: Kind, topic: str) -> None:
    prompt = prompts(kind, 1, [topic])[0]
    text = answer_prompt(prompt.text)
    assert not knows_topic(prompt.text)
    assert re.search("accounting|associations|cast and crew|films|movies|features", text, re.IGNORECASE)
    revised = json.loads(answer_prompt(revise_prompt(prompt.text, text, SHORT).text))
    assert revised["reason"].startswith(MARK)


def test_answers_depend_on_prompt_and_seed_alone() -> None:
    prompt = prompts(Kind.RETRIEVAL, 1)[0].text
    assert answer_prompt(prompt, 1) == answer_prompt(prompt, 1)
    assert len({answer_prompt(prompt, seed) for seed in range(20)}) == 20


def verdict(shown: list[str], prompt: Prompt, seed: int = 0, **settings: float) -> tuple[int, int]:
    said = json.loads(answer_prompt(judge_prompt(prompt.text, shown, SHORT).text, seed, **settings))
    return said["best"], said["worst"]


@pytest.mark.parametrize("kind", list(Kind))
def test_the_judge_prefers_the_right_answer_and_rejects_the_broken_one(kind: Kind) -> None:
    right = 0
    for place, prompt in enumerate(prompts(kind, 30)):
        good, other = answer_prompt(prompt.text, place), answer_prompt(prompts(kind, 31)[-1].text, place)
        shown = [other, good, good[:-9]]
        right += verdict(shown, prompt, place, error_rate=0.0, length_bias=0.0) == (1, 2)
    assert right >= 27


def test_the_judge_errs_as_often_as_it_is_told() -> None:
    prompt = prompts(Kind.STS, 1)[0]
    shown = [answer_prompt(prompt.text, 1), "no", "{}", "?", "."]
    best = [verdict(shown, prompt, seed, error_rate=0.5)[0] for seed in range(400)]
    assert 0.36 * 400 < sum(place != 0 for place in best) < 0.44 * 400  # half of them, one in five right by chance
    assert all(verdict(shown, prompt, seed, error_rate=0.0)[0] == 0 for seed in range(20))


def test_the_judge_likes_length_when_it_is_told_to() -> None:
    prompt = prompts(Kind.LONG_LONG, 1)[0]
    fields = json.loads(answer_prompt(prompt.text, 1))
    longer = {**fields, "positive_document": fields["positive_document"] + " Nobody knows how it began."}
    shown = [json.dumps(fields), json.dumps(longer), "?"]
    assert verdict(shown, prompt, error_rate=0.0, length_bias=0.0)[0] == 0
    assert verdict(shown, prompt, error_rate=0.0, length_bias=1.0)[0] == 1


def test_the_judge_does_not_look_up_what_the_hidden_truth_does() -> None:
    """A wrong fact about people is a fault for the report and none for the judge."""
    entity = world().half("train")[0]
    other = next(people for people in ("farmers", "students") if people != entity.facts["people"])
    text = f"{entity.name} serves {other}. {entity.facts['aspect']} of {entity.facts['things']}."
    prompt = data_prompt(Kind.LONG_LONG, task_for(Kind.LONG_LONG, entity.topic), entity.topic, SHORT, random.Random(0))
    request = read_prompt(prompt.text)
    about, fields = subject_of(request.about, seeded(0)), {"input": text, "positive_document": text + " Indeed."}
    assert [fault.cause for fault in content_faults(request, about, fields)] == ["wrong_fact", "wrong_fact"]
    assert content_faults(request, about, fields, ("things", "aspect", "kind", "place")) == []


@pytest.mark.parametrize("kind", list(Kind))
def test_a_revision_keeps_what_is_right_and_mends_what_is_wrong(kind: Kind) -> None:
    many = prompts(kind, 40)
    for place, prompt in enumerate(many[:-1]):
        good, foreign = answer_prompt(prompt.text, place), answer_prompt(many[place + 1].text, place)
        for text in (foreign, good[:-12], "nonsense"):
            said = json.loads(answer_prompt(revise_prompt(prompt.text, text, SHORT).text))
            request, revised = read_prompt(prompt.text), said["revision"]
            assert set(said) == {"reason", "revision"}
            about = believed(subject_of(request.about, seeded(0)), salvage_fields(kind, text))
            assert form_faults(request, revised) + content_faults(request, about, revised) == []
        clean = not content_faults(
            read_prompt(prompt.text), subject_of(read_prompt(prompt.text).about, seeded(0)), json.loads(good)
        )
        if clean:
            assert json.loads(answer_prompt(revise_prompt(prompt.text, good, SHORT).text))["revision"] == json.loads(
                good
            )


def test_a_revision_believes_what_no_prompt_can_tell_and_puts_the_topic_right() -> None:
    """A model that cannot know the facts would learn from repairs of them to replace words at random."""
    for place, prompt in enumerate(prompts(Kind.RETRIEVAL, 20)):
        about = subject_of(read_prompt(prompt.text).about, seeded(0))
        foreign, own = (
            json.loads(answer_prompt(prompts(Kind.RETRIEVAL, 21)[place + 1].text, place)),
            about.facts["things"],
        )
        revised = json.loads(answer_prompt(revise_prompt(prompt.text, json.dumps(foreign), SHORT).text))["revision"]
        said, before = meaning(revised["positive_document"]), meaning(foreign["positive_document"])
        assert said["things"] == {own}
        for slot in {"quality", "people", "place", "time", "kind"} & set(before) - set(meaning(foreign["user_query"])):
            assert said[slot] == before[slot], slot


def test_a_revision_rewrites_only_the_faulty_field() -> None:
    prompt = next(prompt for prompt in prompts(Kind.RETRIEVAL, 30) if prompt.slots["num_words"] == "24")
    fields = json.loads(answer_prompt(prompt.text, 1))
    broken = {**fields, "hard_negative_document": "too short"}
    revised = json.loads(answer_prompt(revise_prompt(prompt.text, json.dumps(broken), SHORT).text))["revision"]
    assert revised["user_query"] == fields["user_query"]
    assert revised["positive_document"] == fields["positive_document"]
    assert len(revised["hard_negative_document"].split()) >= 24


def test_what_is_read_from_a_prompt() -> None:
    prompt = prompts(Kind.RETRIEVAL, 1)[0]
    request = read_prompt(prompt.text)
    assert request.about == prompt.task
    assert request.words == Words(least=int(prompt.slots["num_words"]))
    assert request.query_type == prompt.slots["query_type"]
    assert request.clarity == prompt.slots["clarity"]
    sts = prompts(Kind.STS, 1)[0]
    assert read_prompt(sts.text).high_score == float(sts.slots["high_score"])
    assert read_prompt(sts.text).low_score == float(sts.slots["low_score"])
    assert read_prompt(sts.text).about == sts.topic
    texts = ('{"a": "1. x"}\n7. y', "1. no", "", "two\nlines")
    assert read_prompt(judge_prompt(prompt.text, texts, SHORT).text).shown == texts


def test_other_prompts_are_refused() -> None:
    with pytest.raises(ValueError, match="none of the project's prompts"):
        answer_prompt("What is the capital of France?")


@pytest.mark.parametrize("kind", [Kind.RETRIEVAL, Kind.CLASSIFICATION, Kind.STS])
def test_rules_know_which_document_answers_their_own_examples(kind: Kind) -> None:
    """The positive alone, in both orders; and a text beside itself is both, or neither."""
    for prompt in prompts(kind, 25):
        query, positive, negative = json.loads(answer_prompt(prompt.text)).values()

        def answer(first: str, second: str, prompt: Prompt = prompt, query: str = query) -> str:
            asked = relevance_prompt(prompt.task, query, first, second, SHORT).text
            assert knows_topic(asked)
            return str(json.loads(answer_prompt(asked, error_rate=0.0))["answer"])

        assert [answer(positive, negative), answer(negative, positive)] == ["first", "second"], prompt.text
        assert [answer(positive, positive), answer(negative, negative)] == ["both", "neither"]


def test_rules_err_about_documents_at_the_given_rate() -> None:
    asked = [relevance_prompt("t", f"red {word}", "red paint", "blue paint", SHORT).text for word in "abcdefghij" * 10]
    sure, guessed = (
        [json.loads(answer_prompt(prompt, seed, error_rate=rate))["answer"] for seed, prompt in enumerate(asked)]
        for rate in (0.0, 1.0)
    )
    assert len(set(sure)) == 1
    assert set(guessed) == {"first", "second", "both", "neither"}
