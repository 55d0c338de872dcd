"""Parsing answers: every defect gives a valid record with its text unchanged, or a rejection with the right cause."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import example as case
from hypothesis import given, settings
from hypothesis import strategies as st

from speed.data.answers.accept_or_reject import accept_or_reject
from speed.data.answers.json_in_text import json_objects
from speed.data.answers.lenient_json import MENDED
from speed.data.answers.parse import (
    CAUSES,
    SEVERAL,
    Judgement,
    example_json,
    mended_in,
    parse_example,
    parse_judgement,
    parse_relevance,
    parse_revision,
    parse_tasks,
)
from speed.data.prompts.worked_examples import LEAST_WORDS, example_texts
from speed.data.records import KEYS, Example, Kind, Prompt, Rejected

GOOD = '{"input": "a b", "positive_document": "c d"}'
DRAFT = '{"input": "x", "positive_document": "y"}'

# (name, answer, expected input and positive_document, or the cause of the rejection)
DEFECTS: list[tuple[str, str, tuple[str, str] | str]] = [
    ("clean", GOOD, ("a b", "c d")),
    ("pretty printed", '{\n  "input": "a b",\n  "positive_document": "c d"\n}\n', ("a b", "c d")),
    ("json fence", f"```json\n{GOOD}\n```", ("a b", "c d")),
    ("bare fence", f"```\n{GOOD}\n```", ("a b", "c d")),
    ("capital fence", f"```JSON\n{GOOD}\n```", ("a b", "c d")),
    ("fence without end", f"```json\n{GOOD}", ("a b", "c d")),
    ("prose before", f"Sure! Here is the JSON object you asked for:\n\n{GOOD}", ("a b", "c d")),
    ("prose after", f"{GOOD}\n\nI hope that helps! Let me know {{if}} you need more.", ("a b", "c d")),
    ("prose with braces before", f"The keys {{input, positive_document}} follow. {GOOD}", ("a b", "c d")),
    ("prose with brackets before", f"As said in [1] and [the manual]: {GOOD}", ("a b", "c d")),
    ("byte order mark", f"\ufeff{GOOD}", ("a b", "c d")),
    ("thoughts with a draft", f'<think>maybe {GOOD.replace("a", "x")}?</think>\n{GOOD}',
     ("a b", "c d")),
    ("brace in a text", '{"input": "if (x) { y }", "positive_document": "set {1}}"}', ("if (x) { y }", "set {1}}")),
    ("prose and brace in a text", 'Here: {"input": "a } b", "positive_document": "} {"} done', ("a } b", "} {")),
    ("escaped quotes", '{"input": "say \\"a\\"", "positive_document": "c"}', ('say "a"', "c")),
    ("escaped newline", '{"input": "a\\nb", "positive_document": "c"}', ("a\nb", "c")),
    ("raw newline", '{"input": "a\nb", "positive_document": "c\r\nd"}', ("a\nb", "c\r\nd")),
    ("raw tab and control characters", '{"input": "a\tb", "positive_document": "c\x07d"}', ("a\tb", "c\x07d")),
    ("python dict", "{'input': 'a b', 'positive_document': 'c d'}", ("a b", "c d")),
    ("python dict with apostrophes", "{'input': \"it's\", 'positive_document': 'the task\\'s'}",
     ("it's", "the task's")),
    ("python dict, apostrophe not escaped", "{'input': 'it's a dogs' bowl, he said', 'positive_document': 'c'}",
     ("it's a dogs' bowl, he said", "c")),
    ("python dict with a newline escape", "{'input': 'a\\nb', 'positive_document': 'c\\\\d'}", ("a\nb", "c\\d")),
    ("trailing comma", '{"input": "a b", "positive_document": "c d",}', ("a b", "c d")),
    ("trailing comma and prose", 'Here:\n{"input": "a b", "positive_document": "c d",\n}\nDone.', ("a b", "c d")),
    ("missing comma", '{"input": "a b"\n "positive_document": "c d"}', ("a b", "c d")),
    ("doubled comma", '{"input": "a b",, "positive_document": "c d"}', ("a b", "c d")),
    ("semicolon for comma", '{"input": "a b"; "positive_document": "c d"}', ("a b", "c d")),
    ("smart quotes", "{“input”: “a b”, “positive_document”: “c d”}", ("a b", "c d")),
    ("smart quotes in a text", '{"input": "“a” b", "positive_document": "c’s"}', ("“a” b", "c’s")),
    ("smart quotes in a smart-quoted text", "{“input”: “say “a” b”, “positive_document”: “c”}", ("say “a” b", "c")),
    ("smart quote at one end", '{"input": “a b", "positive_document": "c d"}', ("a b", "c d")),
    ("fullwidth punctuation", '{"input"："a，b"，"positive_document"："c d"}', ("a，b", "c d")),
    ("bare keys", "{input: \"a b\", positive_document: 'c d'}", ("a b", "c d")),
    ("line comment", '{"input": "a // b", // the input\n "positive_document": "c d"}', ("a // b", "c d")),
    ("block comment", '{"input": "a b", /* then */ "positive_document": "c /* d */"}', ("a b", "c /* d */")),
    ("quotes not escaped", '{"input": "He said "hello" to me", "positive_document": "c d"}',
     ('He said "hello" to me', "c d")),
    ("quotes not escaped, then a comma", '{"input": "the word "set", in short", "positive_document": "c"}',
     ('the word "set", in short', "c")),
    ("inches", '{"input": "a 5" pipe", "positive_document": "c"}', ('a 5" pipe', "c")),
    ("LaTeX, escaped", '{"input": "$\\\\frac{a}{b}$", "positive_document": "c"}', ("$\\frac{a}{b}$", "c")),
    ("LaTeX, not escaped", '{"input": "$\\alpha + \\frac{1}{2} \\sum_{i}$", "positive_document": "\\(x\\)"}',
     ("$\\alpha + \\frac{1}{2} \\sum_{i}$", "\\(x\\)")),
    ("bad escapes of a path or pattern", '{"input": "C:\\Users\\me", "positive_document": "\\d+\\s"}',
     ("C:\\Users\\me", "\\d+\\s")),
    ("escaped apostrophe", '{"input": "it\\\'s", "positive_document": "c"}', ("it's", "c")),
    ("escaped dollar and underscore", '{"input": "a\\_b \\$5", "positive_document": "c"}', ("a\\_b \\$5", "c")),
    ("surrogate pair", '{"input": "\\ud83d\\ude00", "positive_document": "c"}', ("😀", "c")),
    ("surrogate pair in almost-JSON", "{'input': '\\ud83d\\ude00 \\u00e9', 'positive_document': 'c'}", ("😀 é", "c")),
    ("lone surrogate", '{"input": "\\ud83d", "positive_document": "c"}', "bad_text"),
    ("lone surrogate as it stands", '{"input": "\ud800", "positive_document": "c"}', "bad_text"),
    ("NUL escaped", '{"input": "a\\u0000b", "positive_document": "c"}', ("a\x00b", "c")),
    ("NUL as it stands", '{"input": "a\x00b", "positive_document": "c"}', ("a\x00b", "c")),
    ("emoji, HTML, ANSI, template syntax", '{"input": "<b>{{ x }}</b>🙂", "positive_document": "\x1b[31m%s"}',
     ("<b>{{ x }}</b>🙂", "\x1b[31m%s")),
    ("in a list", f"[{GOOD}]", ("a b", "c d")),
    ("under an outer key", f'{{"example": {GOOD}}}', ("a b", "c d")),
    ("as a JSON string", json.dumps(GOOD), ("a b", "c d")),
    ("as a string under a key", json.dumps({"output": GOOD}), ("a b", "c d")),
    ("escaped from the outside", GOOD.replace('"', '\\"'), ("a b", "c d")),
    ("cut where nothing but the last brace is missing", GOOD[:-1], "truncated"),
    ("valid in front, but it goes on", '{"input": "a", "positive_document": "{\\"k\\": \\"v"} and [\\"2\\"]."}',
     "bad_syntax"),
    ("quote of a key missing", '{"input": "a", positive_document": "c d"}', "bad_syntax"),
    ("end quote of a key missing", '{"input": "a", "positive_document: "c d"}', "bad_syntax"),
    ("first brace missing", GOOD[1:], ("a b", "c d")),
    ("keys in another order", '{"positive_document": "c d", "input": "a b"}', ("a b", "c d")),
    ("keys in another spelling", '{"Input": "a b", "Positive Document": "c d"}', ("a b", "c d")),
    ("keys with spaces", '{" input ": "a b", "positive-document": "c d"}', ("a b", "c d")),
    ("number for a string", '{"input": 1.50, "positive_document": -3}', ("1.50", "-3")),
    ("spaces around a text", '{"input": " a ", "positive_document": "c\\n"}', (" a ", "c\n")),
    ("the same object twice", f"{GOOD}\n{GOOD}", ("a b", "c d")),
    ("an object that does not fit, then the right one", f'{{"thought": "hm"}}\n{GOOD}', ("a b", "c d")),
    ("the same key twice, same value", '{"input": "a b", "input": "a b", "positive_document": "c d"}', ("a b", "c d")),
    ("the same key twice, other value", '{"input": "a", "input": "b", "positive_document": "c"}', "bad_schema"),
    ("two objects", '{"input": "x", "positive_document": "y"}' + GOOD, ("a b", "c d")),
    ("list of two", f'[{{"input": "x", "positive_document": "y"}}, {GOOD}]', ("a b", "c d")),
    ("a draft, prose, then the final object", f"{DRAFT}\nWait, too short:\n```json\n{GOOD}\n```", ("a b", "c d")),
    ("thoughts without their opening tag", f"Hm, {DRAFT}?\n</think>\n\n{GOOD}", ("a b", "c d")),
    ("thoughts without their opening tag, half a draft", f'Hm, {{"input": "the\n</think>{GOOD}', ("a b", "c d")),
    ("thoughts with another closing tag in them", f"<think>a</think>b {DRAFT}</think>{GOOD}", ("a b", "c d")),
    ("thoughts behind the answer", f"{GOOD}\n<thinking>{DRAFT} is worse.</thinking>", ("a b", "c d")),
    ("thoughts of Magistral", f"[THINK]{DRAFT}[/THINK]{GOOD}", ("a b", "c d")),
    ("thoughts with a name in front", f"<seed:think>{DRAFT}</seed:think>{GOOD}", ("a b", "c d")),
    ("thoughts in capitals", f"<THINKING>{DRAFT}</THINKING>{GOOD}", ("a b", "c d")),
    ("thoughts that never end, with a draft", f"<think>\nMaybe {GOOD}? Or rather", "unfinished_reasoning"),
    ("thoughts that never end, nothing but a draft", f"<think>{GOOD}", "unfinished_reasoning"),
    ("thoughts that never end, behind others", f"<think>a</think> So: <think>{GOOD}", "unfinished_reasoning"),
    ("thoughts that never end, behind prose", f"Sure!\n<think>{GOOD}", "unfinished_reasoning"),
    ("thoughts that never end, and a refusal in them", "<think>I'm sorry, I can't", "unfinished_reasoning"),
    ("thoughts and nothing else", f"<think>{GOOD}</think>\n", "empty"),
    ("thoughts without their opening tag and nothing else", f"Maybe {GOOD}\n</think>", "empty"),
    ("thoughts, then a refusal", f"<think>{GOOD}{'hm ' * 200}</think>I'm sorry, I can't help with that.", "refusal"),
    ("thoughts, then a cut object", f"<think>{GOOD}</think>" + '{"input": "a', "truncated"),
    ("a closing tag in a text", '{"input": "what does </think> do", "positive_document": "c"}',
     ("what does </think> do", "c")),
    ("tags in texts, in a fence", '```json\n{"input": "<think>", "positive_document": "</think>"}\n```',
     ("<think>", "</think>")),
    ("extra key", '{"input": "a", "positive_document": "c", "explanation": "e"}', "bad_schema"),
    ("wrong key", '{"input": "a", "document": "c"}', "bad_schema"),
    ("missing key", '{"input": "a"}', "bad_schema"),
    ("key of another kind", '{"user_query": "a", "positive_document": "c"}', "bad_schema"),
    ("empty object", "{}", "bad_schema"),
    ("empty list", "[]", "bad_schema"),
    ("empty text", '{"input": "", "positive_document": "c"}', "bad_schema"),
    ("blank text", '{"input": "a", "positive_document": " \\n"}', "bad_schema"),
    ("null", '{"input": null, "positive_document": "c"}', "bad_schema"),
    ("true", '{"input": true, "positive_document": "c"}', "bad_schema"),
    ("None in a python dict", "{'input': None, 'positive_document': 'c'}", "bad_schema"),
    ("list for a string", '{"input": ["a"], "positive_document": "c"}', "bad_schema"),
    ("object for a string", '{"input": {"text": "a"}, "positive_document": "c"}', "bad_schema"),
    ("list of strings", '["a", "b"]', "bad_schema"),
    ("NaN", '{"input": NaN, "positive_document": "c"}', "bad_schema"),
    ("cut in a text", '{"input": "a b", "positive_document": "c d and th', "truncated"),
    ("cut in a key", '{"input": "a b", "positive_doc', "truncated"),
    ("cut behind a colon", '{"input": "a b", "positive_document":', "truncated"),
    ("cut behind an escape", '{"input": "a b", "positive_document": "c\\', "truncated"),
    ("cut behind a quote that is not escaped", '{"input": "a", "positive_document": "he said "hi"', "truncated"),
    ("cut in a fence", '```json\n{"input": "a b", "positive_document": "c d and th\n```', "truncated"),
    ("cut in an inner object", '{"example": {"input": "a b", "positive_document": "c', "truncated"),
    ("ambiguous end", '{"input": "a", "positive_document": "the set {"x"} in Python",}', "bad_syntax"),
    ("value without quotes", '{"input": a b, "positive_document": "c"}', "bad_syntax"),
    ("unbalanced brackets", '{"input": "a"], "positive_document": "c"}', "bad_syntax"),
    ("unbalanced brackets at the end", '{"positive_document": "c", "input": "a"], "more": "b"}', "bad_syntax"),
    ("joined texts", '{"input": "a" + "b": "c", "positive_document": "c"}', "bad_syntax"),
    ("HTML-escaped quotes", "{&quot;input&quot;: &quot;a&quot;}", "no_json"),
    ("YAML", "input: a b\npositive_document: c d", "no_json"),
    ("prose only", "The example is about birds and the trees they live in.", "no_json"),
    ("a number", "42", "no_json"),
    ("code", '__import__("os").system("true")', "no_json"),
    ("HTML error page", "<html><body><h1>502 Bad Gateway</h1></body></html>", "no_json"),
    ("refusal", "I'm sorry, but I can't assist with that request.", "refusal"),
    ("refusal with a smart apostrophe", "I’m sorry, I can’t help with this.", "refusal"),
    ("refusal as an AI", "As an AI language model, I do not write such texts.", "refusal"),
    ("nothing", "", "empty"),
    ("white space", " \n\t ", "empty"),
    ("deep nesting", "[" * 5_000 + "]" * 5_000, "bad_syntax"),
    ("nesting that some Python reads", "[" * 60 + "]" * 60, "bad_syntax"),
    ("deep objects that are whole", '{"a":' * 60 + "1" + "}" * 60, "bad_schema"),
    ("deep objects", '{"a":' * 5_000, "bad_syntax"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "expected"), [row[1:] for row in DEFECTS], ids=[row[0] for row in DEFECTS])
def test_defects(answer: str, expected: tuple[str, str] | str) -> None:
    found = parse_example(Kind.SHORT_SHORT, "t", answer)
    if isinstance(expected, str):
        assert isinstance(found, Rejected), found
        assert found.cause == expected
    else:
        assert found == Example(kind=Kind.SHORT_SHORT, task="t", query=expected[0], positive=expected[1])


def strict(answer: str) -> bool:
    try:
        json.loads(answer.removeprefix("\ufeff"), strict=False)
    except ValueError:
        return False
    return True


def test_what_was_mended_is_named() -> None:
    named = {name: mended_in(answer) for name, answer, expected in DEFECTS if not isinstance(expected, str)}
    assert [name for name, answer, _ in DEFECTS if name in named and strict(answer) != (named[name] == ())] == []
    assert {
        "json fence": ("around",), "prose after": ("around",), "thoughts with a draft": ("around",),
        "python dict": ("quotes",), "trailing comma": ("marks",), "trailing comma and prose": ("around", "marks"),
        "missing comma": ("marks",), "semicolon for comma": ("marks",), "fullwidth punctuation": ("marks",),
        "smart quotes": ("quotes",), "bare keys": ("bare_keys", "quotes"), "line comment": ("comments",),
        "quotes not escaped": ("inner_quotes",), "clean": (), "brace in a text": (), "escaped quotes": (),
    }.items() <= named.items()  # fmt: skip
    assert mended_in(GOOD[:-1]) == ("closing",)
    assert mended_in(GOOD[1:]) == ("opening",)
    assert mended_in(json.dumps(GOOD)[1:-1]) == ("escaped",)
    assert mended_in('{"input": True, "positive_document": "\\alpha"') == ("closing", "escapes", "words")
    assert set().union(*named.values()) <= set(MENDED)


def test_table_is_large_and_names_every_cause() -> None:
    assert len(DEFECTS) >= 100
    named = {row[2] for row in DEFECTS if isinstance(row[2], str)}
    assert named == set(CAUSES) - {"bad_index", "content_filter", "several", "same_texts", "worked_example"}


@pytest.mark.parametrize(
    ("answer", "finish_reason", "cause"),
    [
        ("", "content_filter", "content_filter"),
        ("I was go", "content_filter", "content_filter"),
        ("", "length", "truncated"),
        ("Let me think about it", "length", "truncated"),
        (GOOD[:-5], "length", "truncated"),
        (GOOD[:-5], "max_tokens", "truncated"),
        (GOOD[:-1], "length", "truncated"),
        (f"<think>{GOOD}", "length", "unfinished_reasoning"),
        (f"<think>{GOOD}", "content_filter", "content_filter"),
    ],
)
def test_the_providers_word_names_the_cause(answer: str, finish_reason: str, cause: str) -> None:
    found = parse_example(Kind.SHORT_SHORT, "t", answer, finish_reason)
    assert isinstance(found, Rejected)
    assert found.cause == cause


@pytest.mark.parametrize("answer", [GOOD[:-1], f"```json\n{GOOD[:-1]}\n```", GOOD[1:-1], f"{GOOD[:-1]},"])
def test_last_brace_may_be_missing_when_the_model_was_done(answer: str) -> None:
    found = parse_example(Kind.SHORT_SHORT, "t", answer, "stop")
    assert isinstance(found, Example)
    assert found.fields() == json.loads(GOOD)
    unknown = parse_example(Kind.SHORT_SHORT, "t", answer)
    assert isinstance(unknown, Rejected)
    assert unknown.cause == "truncated"


def test_a_complete_object_counts_even_when_the_text_behind_it_was_cut() -> None:
    assert isinstance(parse_example(Kind.SHORT_SHORT, "t", f"{GOOD}\nAnd another: {{", "length"), Example)


def test_answers_with_several_records_are_counted() -> None:
    told = '{{"reason": "r", "best": {}, "worst": 0}}'
    revised = json.dumps({"reason": "r", "revision": [{**INNER, "input": "x"}, INNER]})
    met: Counter[str] = Counter()
    for once in (GOOD, f"{GOOD}\n{GOOD}", f"<think>{DRAFT}</think>{GOOD}"):
        parse_example(Kind.SHORT_SHORT, "t", once, "stop", met)
    assert met == {}
    parse_example(Kind.SHORT_SHORT, "t", DRAFT + GOOD + DRAFT, "stop", met)
    parse_tasks('["a"] ["b"]', "stop", met)
    parse_judgement(told.format(1) + told.format(2), 3, "stop", met)
    parse_revision(Kind.SHORT_SHORT, "t", revised, "stop", met)
    assert met == {SEVERAL: 4}
    prompt = Prompt(text="p", template="", kind=Kind.SHORT_SHORT, task="t")
    assert accept_or_reject(0, prompt, DRAFT + GOOD, "stop", 1).mended == ("around", SEVERAL)
    assert accept_or_reject(0, prompt, GOOD, "stop", 1).mended == ()


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_by_its_keys(kind: Kind) -> None:
    keys = KEYS[kind].all
    found = parse_example(kind, "t", json.dumps({key: f"text of {key}" for key in keys}))
    assert isinstance(found, Example)
    assert found.fields() == {key: f"text of {key}" for key in keys}
    assert (found.negative is None) == (len(keys) == 2)


TASKS: list[tuple[str, tuple[str, ...] | str]] = [
    ('["a b", "c"]', ("a b", "c")),
    ('```json\n[\n  "a",\n  "b",\n]\n```', ("a", "b")),
    ("['it's one', 'the dogs' one']", ("it's one", "the dogs' one")),
    ('Here are [5] tasks:\n["a", "b"]', ("a", "b")),
    ('{"tasks": ["a", "b"]}', ("a", "b")),
    ('[{"task": "a"}, {"task": "b"}]', ("a", "b")),
    ('["a", "b", "a"]', ("a", "b")),
    ('["a"\n"b"]', ("a", "b")),
    ('["Find "it" now", "b"]', ('Find "it" now', "b")),
    ('["a [1], {b}", "c"]', ("a [1], {b}", "c")),
    ('["a"]\n["a"]', ("a",)),
    ('["a"]\n["b"]', ("b",)),
    ('<think>["a"]</think>["b"]', ("b",)),
    ('<think>["a"]', "unfinished_reasoning"),
    ('{"topics": ["a"], "tasks": ["b"]}', "several"),
    ('{"topics": ["a"], "tasks": ["a"]}', ("a",)),
    ('["a", "b', "truncated"),
    ('["a", null]', "bad_schema"),
    ('["a", ""]', "bad_schema"),
    ('["a", ["b"]]', "bad_schema"),
    ("[]", "bad_schema"),
    ('{"tasks": "a"}', "bad_schema"),
    ("1. a\n2. b", "no_json"),
    ("I cannot help with that.", "refusal"),
    ("", "empty"),
]


@pytest.mark.parametrize(("answer", "expected"), TASKS)
def test_tasks(answer: str, expected: tuple[str, ...] | str) -> None:
    found = parse_tasks(answer)
    assert (found.cause if isinstance(found, Rejected) else found) == expected


JUDGEMENTS: list[tuple[str, tuple[int, int] | str]] = [
    ('{"reason": "r", "best": 2, "worst": 4}', (2, 4)),
    ('{"reason": "r", "best": "2", "worst": " 0 "}', (2, 0)),
    ('{"reason": "r", "best": 2.0, "worst": 1}', (2, 1)),
    ('{"best": 0, "worst": 1}', (0, 1)),
    ('{"reason": "r", "Best": 0, "WORST": 1, "confidence": 0.9}', (0, 1)),
    ("```json\n{'reason': 'it's \"0\" {x}', 'best': 0, 'worst': 3,}\n```", (0, 3)),
    ('{"reason": "the second is "better" here", "best": 1, "worst": 0}', (1, 0)),
    ('{"judgment": {"reason": "r", "best": 1, "worst": 0}}', (1, 0)),
    ('{"reason": "r", "best": 5, "worst": 1}', "bad_index"),
    ('{"reason": "r", "best": -1, "worst": 1}', "bad_index"),
    ('{"reason": "r", "best": 1, "worst": 1}', "bad_index"),
    ('{"reason": "r", "best": 999999999, "worst": 1}', "bad_index"),
    ('{"reason": "r", "best": 99999999999999999999, "worst": 1}', "bad_schema"),
    ('{"reason": "r", "best": 1.5, "worst": 1}', "bad_schema"),
    ('{"reason": "r", "best": 1e0, "worst": 2}', "bad_schema"),
    ('{"reason": "r", "best": "candidate 2", "worst": 1}', "bad_schema"),
    ('{"reason": "r", "best": true, "worst": false}', "bad_schema"),
    ('{"reason": "r", "best": null, "worst": 1}', "bad_schema"),
    ('{"reason": "r", "best": [1], "worst": 2}', "bad_schema"),
    ('{"reason": "r", "best": "²", "worst": 1}', "bad_schema"),
    ('{"reason": "r", "best": 1}', "bad_schema"),
    ("[2, 4]", "bad_schema"),
    ('{"reason": "r", "best": 1, "worst": 2} {"reason": "r", "best": 2, "worst": 1}', (2, 1)),
    ('<think>{"reason": "r", "best": 1, "worst": 2}', "unfinished_reasoning"),
    ('{"reason": "r", "best": 1, "worst": 2}</think>{"reason": "r", "best": 3, "worst": 2}', (3, 2)),
    ('{"reason": "because the fir', "truncated"),
    ("Candidate 2 is best.", "no_json"),
]


@pytest.mark.parametrize(("answer", "expected"), JUDGEMENTS)
def test_judgements(answer: str, expected: tuple[int, int] | str) -> None:
    found = parse_judgement(answer, 5)
    if isinstance(found, Judgement):
        assert (found.best, found.worst) == expected
    else:
        assert found.cause == expected


def test_the_reason_is_kept() -> None:
    found = parse_judgement('{"reason": "It\'s {clear}.", "best": 1, "worst": 0}', 2)
    assert found == Judgement(best=1, worst=0, reason="It's {clear}.")


INNER = {"input": "it's {a}", "positive_document": 'say "c"\nd'}
REVISIONS: list[tuple[str, str | None]] = [
    (json.dumps({"reason": "r", "revision": INNER}), None),
    (json.dumps({"reason": "r", "revision": json.dumps(INNER)}), None),
    (json.dumps({"reason": "r", "revision": str(INNER)}), None),
    (str({"reason": "r", "revision": INNER}), None),
    (json.dumps({"reason": "r", "revision": [INNER]}), None),
    (json.dumps({"reason": "r", "revision": f"```json\n{json.dumps(INNER)}\n```"}), None),
    (json.dumps({"revision": INNER, "Reason": "r"}), None),
    (f"Here it is:\n```json\n{json.dumps({'reason': 'r', 'revision': INNER}, indent=1)}\n```", None),
    (json.dumps(json.dumps({"reason": "r", "revision": INNER})), None),
    (json.dumps({"reason": "r", "revision": {**INNER, "more": "x"}}), "bad_schema"),
    (json.dumps({"reason": "r", "revision": "a better text"}), "bad_schema"),
    (json.dumps({"reason": "r"}), "bad_schema"),
    (json.dumps(INNER), "bad_schema"),
    (json.dumps({"reason": "r", "revision": [{**INNER, "input": "x"}, INNER]}), None),
    (f"<think>{json.dumps({'reason': 'r', 'revision': INNER})}", "unfinished_reasoning"),
    (json.dumps({"reason": "r", "revision": INNER})[:-20], "truncated"),
]


@pytest.mark.parametrize(("answer", "cause"), REVISIONS)
def test_revisions(answer: str, cause: str | None) -> None:
    found = parse_revision(Kind.SHORT_SHORT, "t", answer)
    if isinstance(found, Rejected):
        assert found.cause == cause
    else:
        assert (found[0], found[1].fields()) == ("r", INNER)
        assert cause is None


texts = st.text(min_size=1).filter(lambda text: text.strip())


@st.composite
def examples(draw: st.DrawFn) -> Example:
    kind = draw(st.sampled_from(list(Kind)))
    negative = draw(texts) if KEYS[kind].negative else None
    return Example(kind=kind, task=draw(st.text()), query=draw(texts), positive=draw(texts), negative=negative)


@given(examples())
@case(Example(kind=Kind.SHORT_SHORT, task="", query='"}', positive="\\\f\b\x00\u2028`” '"))
def test_what_is_rendered_is_read_back(record: Example) -> None:
    assert parse_example(record.kind, record.task, example_json(record)) == record
    around = f"Sure:\n```json\n{example_json(record)}\n```\n"
    assert parse_example(record.kind, record.task, around) == record
    told = json.dumps({"reason": "r", "revision": example_json(record)})
    assert parse_revision(record.kind, record.task, told) == ("r", record)


plain_texts = st.text(st.characters(exclude_characters="\\\"'“”‘’„`«»", exclude_categories=["Cs", "Cc"]), min_size=1)


@given(plain_texts.filter(str.strip), plain_texts.filter(str.strip))
def test_mending_leaves_the_text_alone(query: str, positive: str) -> None:
    for left, right in ('""', "''", "“”", "‘’"):
        answer = (
            f"{{{left}input{right}: {left}{query}{right}, {left}positive_document{right}: {left}{positive}{right},}}"
        )
        found = parse_example(Kind.SHORT_SHORT, "t", answer)
        assert isinstance(found, Example)
        assert (found.query, found.positive) == (query, positive)


AWKWARD = (
    'He said "hi", then {left}: it\'s 5" long.',
    'a, b; c: d} e] "x": y // z end',
    '“Smart” \'single\', {"k": "v"} [1, "2"].',
    "plain words",
    'ends with a quote"',
    '"starts with one',
)


def damaged(answer: str) -> Iterator[str]:
    """The answer, and it with a character missing, with one too many, and cut."""
    yield answer
    for place in range(len(answer)):
        yield answer[:place] + answer[place + 1 :]
        yield answer[:place] + "\"'{},:\\ x"[place % 9] + answer[place:]
        yield answer[:place]


def common(left: str, right: str) -> int:
    return next(
        (place for place, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right))
    )


def within_an_edit(found: str, written: str) -> bool:
    """Whether two texts are the same but for at most two neighbouring characters."""
    same = common(found, written)
    tail = common(found[same:][::-1], written[same:][::-1])
    return max(len(found), len(written)) - same - tail <= 2


@pytest.mark.parametrize("query", AWKWARD)
def test_damage_to_the_syntax_never_reaches_the_text(query: str) -> None:
    """A wrong brace, quote or comma costs the record or nothing: no value is ever cut, joined or taken from another."""
    read = 0
    for positive in AWKWARD:
        record = Example(kind=Kind.SHORT_SHORT, task="t", query=query, positive=positive)
        careless = f'{{"input": "{query}", "positive_document": "{positive}"}}'
        for written in (example_json(record), str(record.fields()), careless):
            for answer in damaged(written):
                found = parse_example(Kind.SHORT_SHORT, "t", answer)
                if isinstance(found, Example):
                    read += 1
                    assert within_an_edit(found.query, query), answer
                    assert within_an_edit(found.positive, positive), answer
    assert read > 400


PIECES = [
    *"{}[]:,1\"'“\\",
    "//",
    "/*",
    "\\u12",
    "\\ud800",
    "```",
    "null",
    "<think>",
    "</think>",
    "input",
    "positive_document",
    "revision",
]
almost = st.lists(st.sampled_from([*PIECES, " ", "\n", "\x00", "\ud800"]), max_size=40).map("".join)


@given(st.one_of(almost, st.text(st.characters())), st.sampled_from(["", "stop", "length", "content_filter"]))
@settings(max_examples=300)
def test_no_answer_raises(answer: str, finish_reason: str) -> None:
    found = [
        parse_example(Kind.SHORT_SHORT, "t", answer, finish_reason), parse_tasks(answer, finish_reason),
        parse_judgement(answer, 5, finish_reason), parse_revision(Kind.STS, "t", answer, finish_reason),
    ]  # fmt: skip
    assert all(result.cause in CAUSES for result in found if isinstance(result, Rejected))


@pytest.mark.parametrize(
    "piece",
    ["{", "[", '{"', '"', '" ', '{"a":', '{"a":"b",', '{"a": "', '{"a": "b" ', '{"a": "b"} x ', "{'", "{\\\"", '["',
     '["a",', '"/*', '"//', "{a:", '[{"a":"x "y" z"},', "{ ", '"\n', "/*", '{"a":"\\x', "<think>",
     "</think>", "</think>{", '{"</think>', '{"a":"</think>"}', '{"a":"b"}</think>', "<think>{</think>"],
)  # fmt: skip
def test_time_grows_with_length_whatever_the_text_is(piece: str) -> None:
    for start in ("", '{"a":"b', "["):
        before = time.process_time()
        parse_example(Kind.SHORT_SHORT, "t", (start + piece * 200_000)[:199_000])
        assert time.process_time() - before < 20, "a third of a second where time grows with length; else minutes"


def test_a_text_of_a_million_characters_is_refused() -> None:
    found = parse_example(Kind.SHORT_SHORT, "t", json.dumps({"input": "a" * 1_000_000, "positive_document": "b"}))
    assert isinstance(found, Rejected)


def test_objects_are_found_outermost_and_in_order() -> None:
    reading = json_objects('a {"x": {"y": 1}} b [2, {"z": 3}] c')
    assert [json.dumps(value) for value in reading.values] == ['{"x": {"y": "1"}}', '["2", {"z": "3"}]']
    assert reading.fault == ""


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ('{"reason": "so", "answer": "first"}', (True, False)),
        ('{"answer": "Second."}', (False, True)),
        ('It is clear.\n```json\n{"reason": "so", "answer": "both"}\n```', (True, True)),
        ('{"answer": "first"} No, wait: {"answer": "neither"}', (False, False)),
    ],
)
def test_a_verdict_on_two_documents(answer: str, said: tuple[bool, bool]) -> None:
    assert parse_relevance(answer, "stop") == said


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        ('{"answer": "the first one, mostly"}', "bad_schema"),
        ('{"answer": 1}', "bad_schema"),
        ('{"reason": "so"}', "bad_schema"),
        ("Both.", "no_json"),
        ("", "empty"),
    ],
)
def test_what_is_no_verdict_on_two_documents(answer: str, cause: str) -> None:
    found = parse_relevance(answer, "stop")
    assert isinstance(found, Rejected)
    assert found.cause == cause


@pytest.mark.parametrize("kind", list(Kind))
def test_a_text_of_a_worked_example_is_no_answer_and_a_label_of_one_is(kind: Kind) -> None:
    """A real teacher of 135M weights answered every STS prompt with the texts that stood in front of it."""
    fields = {key: f"A text of its own for {key}, as long as it needs to be." for key in KEYS[kind].all}
    assert isinstance(parse_example(kind, "t", json.dumps(fields)), Example)
    worked = json.loads(example_texts(kind)[0])
    name, text = max(worked.items(), key=lambda item: len(item[1]))
    found = parse_example(kind, "t", json.dumps({**fields, name: f"  {text.upper().rstrip('.')}!"}))
    assert isinstance(found, Rejected)
    assert found.cause == "worked_example"
    assert found.detail.startswith(f"{name}: ")
    label = {name: text for name, text in worked.items() if len(text.split()) < LEAST_WORDS}
    assert isinstance(parse_example(kind, "t", json.dumps({**fields, **label})), Example)
