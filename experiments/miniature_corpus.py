"""The corpus of the base models: simple English that rewards copying from the context.

It holds no prompt template, no JSON record and no held-out topic or entity. Copying is learned only if there are too
many names to memorise and the distance varies, so most texts use names that are invented for them.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator

from speed.miniature.lexicon import SLOTS, any_form, domain_of, lexicon, meanings, sections
from speed.miniature.phrasing import any_word, capitalize, phrase, replace_words, sentences
from speed.miniature.world import World, invented_name, seeded

Subject = dict[str, str]
"""Concepts by slot, and `name`."""
Answered = tuple[str, list[tuple[int, int]]]
"""A text, and where each of its answers starts and ends."""

NAMED_SHARE = 0.35
"""Share of subjects that are entities of the training half; the others have a name that is invented for the text."""
EXCEPTION_SHARE = 0.15
"""Share of subjects that are exceptions to the rules. They are one in eighteen pairs, and each is a fact of its own."""
CONTRARY_SHARE = 0.5
"""Share of subjects with any facts where a text says a fact before it is asked for: it must be read, not recalled."""


def draw_subject(world: World, rng: random.Random) -> Subject:
    """Draw the subject of a text: a training entity, or one with another name and the same facts."""
    if rng.random() < EXCEPTION_SHARE:
        entity = rng.choice(world.exceptions)[0]
    else:
        entity = rng.choice(tuple(world.train.values()))
    name = entity.name if rng.random() < NAMED_SHARE else _fresh_name(world, rng)
    return {**entity.facts, "name": name}


def _contrary(about: Subject, rng: random.Random) -> Subject:
    """The subject, in some texts with any facts: for what is read from the text itself."""
    if rng.random() >= CONTRARY_SHARE:
        return about
    return about | {slot: rng.choice(tuple(lexicon()[slot])) for slot in SLOTS[2:]}


def _fresh_name(world: World, rng: random.Random) -> str:
    while (name := invented_name(rng)).lower() in world.held:
        pass
    return name


def topic_path(about: Subject, rng: random.Random) -> str:
    """Write the path of a subject, as those of the Open Directory Project."""
    choose = any_word(rng)
    levels = [choose(slot, about[slot]).capitalize() for slot in ("things", "aspect")]
    return "/".join([domain_of(about["things"]), *levels, about["name"]])


def words_on(about: Subject, rng: random.Random) -> str:
    """Write in a few words what a subject is about."""
    choose = any_word(rng)
    things, aspect = choose("things", about["things"]), choose("aspect", about["aspect"])
    patterns = (f"{aspect} of {things} at {about['name']}", f"{about['name']}: {things} {aspect}", f"{things} {aspect}")
    return rng.choice(patterns)


def _description(about: Subject, rng: random.Random, needed: Collection[str] = (), least: int = 0) -> str:
    kept = {key: value for key, value in about.items() if key in ("things", "aspect", "quality", "kind", "name")}
    kept |= {key: about[key] for key in ("people", "place", "time") if key in needed or rng.random() < 0.6}
    fillers = rng.choice((0, 0, 1, 2))
    while len((text := " ".join(sentences(kept, rng, any_word(rng), fillers))).split()) < least and fillers < 6:
        fillers += 1
    return text


def _statement(about: Subject, rng: random.Random) -> str:
    return capitalize(phrase(rng.choice(("sentence", "phrase", "query")), about, rng, any_word(rng)))


def _note(world: World, rng: random.Random) -> str:
    about = draw_subject(world, rng)
    head = rng.choice(
        (topic_path(about, rng), "Notes on " + words_on(about, rng) + ".", "Topic: " + topic_path(about, rng))
    )
    return head + "\n" + _description(about, rng)


def _questions(world: World, rng: random.Random) -> str:
    lines = []
    for about in (draw_subject(world, rng) for _ in range(rng.choice((1, 1, 2, 3)))):
        lines += ["Q: " + phrase("query", about, rng, any_word(rng)) + "?", "A: " + _description(about, rng)]
    return "\n".join(lines)


def _paraphrases(world: World, rng: random.Random) -> str:
    about = draw_subject(world, rng)
    link = rng.choice(("In other words", "That is", "The same again", "Similar"))
    lines = [_statement(about, rng), f"{link}: {_statement(about, rng)}"]
    if rng.random() < 0.5:
        other = about | {slot: rng.choice(tuple(lexicon()[slot])) for slot in rng.sample(SLOTS[2:], 2)}
        lines.append(f"Not the same: {_statement(other, rng)}")
    return ".\n".join(lines) + "."


def _word_list(world: World, rng: random.Random) -> str:
    concepts = [(slot, rng.choice(tuple(lexicon()[slot]))) for slot in rng.choices(SLOTS, k=rng.randint(3, 10))]
    words = [any_word(rng)(*concept) for concept in concepts]
    words += [_fresh_name(world, rng) for _ in range(rng.randint(1, 5))]
    rng.shuffle(words)
    separator = rng.choice((" ", ", ", " | ", "; ", " - "))
    line = separator.join(words)
    return "\n".join([line] * rng.choice((2, 2, 3)))


OPENING = ('{"', '["', ' "', "{", "[", "(", "<", "#", "_", "'")
CLOSING = ('":', '",', '"}', '"]', '"', "}", "]", ")", "_", ":", ";", "'")
WRITING = (
    *("user", "query", "positive", "negative", "hard", "document", "input", "text", "label", "misleading"),
    *("reason", "revision", "best", "worst", "example"),
)


def _marked(word: str, rng: random.Random) -> str:
    """Put a word among marks.

    An adapter does not change embeddings, so it cannot tell apart tokens that the base has never seen. The base must
    see every mark and digit, in an order that means nothing.
    """
    kind = rng.random()
    if kind < 0.5:
        return word
    if kind < 0.6:
        return f"{word}_{rng.choice(WRITING)}"
    if kind < 0.7:
        return f"{word}{rng.randint(0, 99)}"
    return rng.choice(OPENING) + rng.choice((word, rng.choice(WRITING))) + rng.choice(CLOSING)


def _long_list(world: World, rng: random.Random) -> str:
    """Write a random list of words, names and marks twice or three times: only copying makes the repetition easy."""
    words = tuple(meanings())
    listed = [rng.choice(words) if rng.random() < 0.6 else _fresh_name(world, rng) for _ in range(rng.randint(6, 24))]
    line = rng.choice((" ", ", ", " | ", "; ", " - ", "\n")).join(_marked(word, rng) for word in listed)
    return "\n".join([line] * rng.choice((2, 3)))


SAME = ("{0} means {1}", "{0} or {1}", "{0}, in other words {1}", "{0} is the same as {1}", "{0}, {1}, {2}")


def _thesaurus(world: World, rng: random.Random) -> str:
    """Write which words are synonyms: a large model has read that somewhere, a small one must be told."""
    concepts = [(slot, rng.choice(tuple(lexicon()[slot]))) for slot in rng.choices(SLOTS, k=rng.randint(4, 10))]
    same = [rng.choice(SAME).format(*rng.sample(lexicon()[slot][concept], 3)) for slot, concept in concepts]
    return capitalize(rng.choice((". ", "; ", "\n")).join(same)) + "."


STYLES = (
    ("", "<{key}> {value}", "\n", ""),
    ("", '{key} = "{value}"', "; ", ""),
    ("", "[{key}] {value}", "\n", ""),
    ("", "{key}: {value}", " | ", ""),
    ("(", '"{key}" = "{value}"', ", ", ")"),
    ("[", "'{key}' - '{value}'", ", ", "]"),
    ("<", "{key} = {value}", "; ", ">"),
    ("{", '"{key}" = "{value}"', ", ", "}"),
    ("[", '"{key}" - "{value}"', ", ", "]"),
    ("(", '"{key}": "{value}"', ", ", ")"),
    ("<", '"{key}": "{value}"', ", ", ">"),
    ("", '"{key}": "{value}"', "; ", ""),
    ("[", '"{key}": "{value}"', " | ", "]"),
)
"""How a form is filled in: text that opens it, an entry, text between entries, text that closes it. None is JSON."""


REMARKS = (
    'The "{0}" comes from somebody who has little time.',
    'Do not let the "{0}" repeat the "{1}".',
    'A good "{0}" is one that a reader remembers.',
    'Some think of the "{0}" last, others of the "{1}".',
    'Nobody likes a long "{0}".',
    'The "{0}" and the "{1}" belong together.',
)
"""Sentences about fields that were already named. A model must fill in the form by the list, and not by these."""


QUESTIONS = {
    "people": ("for whom it is", "whom one meets there", "which people it serves"),
    "place": ("where one finds it", "where it stands", "which place is close"),
    "time": ("when one may come", "when it is open", "at which time people meet"),
    "quality": ("how one likes it", "what the work is like", "which quality it has"),
    "kind": ("what it is called", "what kind of house one finds", "of what kind it is"),
}
"""Questions for the label of a text; any synonym of the value answers them."""


LENGTHS = (
    ("at least 8 words", 8, 99),
    ("at least 10 words", 10, 99),
    ("at least 16 words", 16, 99),
    ("at least 20 words", 20, 99),
    ("at least 24 words", 24, 99),
    ("less than 10 words", 1, 9),
)
"""Wanted lengths of a text: the wording, and the fewest and most words."""
QUERY_LENGTHS = (("less than 5 words", 1, 4), ("5 to 15 words", 5, 15), ("at least 10 words", 10, 99))
FREE = ("", 1, 99)
WISHED = ("Give the", "We need the", "They like the")

DRAFTS = ("A first try:", "Somebody wrote this in haste.", "This was not good enough:", "A draft:")
BETTER = ("Now without mistakes:", "This is better:", "So it stays:", "In the end:")
"""Announcements of a form with mistakes, and of the same form corrected. No other forms have mistakes."""

CONTRARY = frozenset({"negative", "misleading", "hard"})
"""A field with such a word in its name is about something else that is similar."""


def _revised_form(world: World, rng: random.Random) -> str:
    return _form(world, rng, again=1.0, apart=20, answered=0.4)


def _labelled_form(world: World, rng: random.Random) -> str:
    return _form(world, rng, answered=1.0)


def _form(world: World, rng: random.Random, again: float = 0.0, apart: int = 9, answered: float = 0.2) -> str:
    """Write a form: its fields are named among other sentences, then filled in one by one in that order, then closed.

    It teaches a model to give what is asked for by name, once, and nothing else. Some forms are filled in twice, with
    mistakes that are corrected the second time, as in a revision.

    Args:
        again: probability that a form is filled in twice.
        apart: most sentences before a form, and before it is filled in again.
        answered: probability that the fields are a text and labels for it.
    """
    about, asked, order, values = _fields(world, rng, apart, answered)
    opening, entry, between, closing = rng.choice(STYLES)

    def filled(values: Subject) -> str:
        return opening + between.join(entry.format(key=key, value=text) for key, text in values.items()) + closing

    written = [filled(values)]
    if rng.random() < again:
        draft = spoiled(values, about, asked, rng)
        aside = " ".join(rng.sample(advice(), rng.randint(0, apart)))
        written = [rng.choice(DRAFTS), filled(draft), aside, rng.choice(BETTER), *written]
    return "\n".join(part for part in [*order, *written] if part)


def _fields(
    world: World, rng: random.Random, apart: int, answered: float, fit: float | None = None
) -> tuple[Subject, str, list[str], Subject]:
    """Draw the subject of a form, the slot that its labels are about, what is said before it, and its values."""
    about = draw_subject(world, rng)
    shared = rng.choice(WRITING) if rng.random() < 0.5 else ""
    fields = rng.choice((2, 2, 2, 3, 3, 4))
    labelled = rng.random() < answered
    if labelled:
        about = _contrary(about, rng)
    keys = (
        _text_and_labels(rng) if labelled else rng.sample(sorted({field_name(rng, shared) for _ in range(8)}), fields)
    )
    if rng.random() < 0.5:
        named = "\n".join(f'- "{key}": {rng.choice(advice())}' for key in keys)
    else:
        named = rng.choice(("Wanted: ", "Fields: ", "It has ")) + ", ".join(f'"{key}"' for key in keys) + "."
    asides = rng.sample(advice(), rng.randint(1, apart))
    asides += [rng.choice(REMARKS).format(*rng.sample(keys, 2)) for _ in range(rng.randint(0, 5))]
    fitting = rng.random() < (fit if fit is not None else 0.9 if labelled else 0.5)
    query_length, length = (rng.choice(QUERY_LENGTHS), rng.choice(LENGTHS)) if fitting else (FREE, FREE)
    lengths = {key: _length(key, query_length, length) for key in keys}
    asides += [f'{rng.choice(WISHED)} "{key}" of {said}.' for key, (said, _, _) in lengths.items() if said]
    rng.shuffle(asides)
    said = "\n".join(f"- {aside}" for aside in asides) if rng.random() < 0.5 else " ".join(asides)
    asked = rng.choice(tuple(QUESTIONS))
    subject_line = f"{rng.choice(('About', 'On', 'For'))} {rng.choice((words_on, topic_path))(about, rng)}"
    question = f", {rng.choice(QUESTIONS[asked])}" if any(key.endswith("label") for key in keys) else ""

    def value(key: str) -> str:
        if not fitting:
            return _any(about, rng)
        _, least, most = lengths[key]
        for _ in range(30):
            text = _fitting(about, rng, key, asked, least, labelled)
            if least <= len(text.split()) <= most:
                break
        return text

    return about, asked, [f"{subject_line}{question}.", named, said], {key: value(key) for key in keys}


def answers_in_words(world: World, rng: random.Random) -> tuple[str, str, str]:
    """Write a text with any facts and a question about it without its answer; also returns the slot and the answer."""
    about = draw_subject(world, rng) | {slot: rng.choice(tuple(lexicon()[slot])) for slot in SLOTS[2:]}
    asked = rng.choice(tuple(QUESTIONS))
    question = capitalize(rng.choice(QUESTIONS[asked]))
    return f"{_description(about, rng, {asked})}\n{question}:", asked, about[asked]


def answers_in_forms(world: World, rng: random.Random) -> tuple[str, str, str]:
    """Write a form up to the label of its text; also returns the slot and the label's concept."""
    about, asked, order, values = _fields(world, rng, apart=9, answered=1.0, fit=1.0)
    text, label, *_ = values
    opening, entry, between, _ = rng.choice(STYLES)
    begun = entry.format(key=label, value="@").partition("@")[0].rstrip(" ")
    return (
        "\n".join([*order, opening + entry.format(key=text, value=values[text]) + between + begun]),
        asked,
        about[asked],
    )


def spoiled(values: Subject, about: Subject, asked: str, rng: random.Random) -> Subject:
    """Make a draft of some fields, with a few wrong words or a missing sentence."""
    changes = {
        slot: ((about[slot],), rng.choice(tuple(lexicon()[slot])))
        for slot in SLOTS
        if rng.random() < (0.4 if slot in SLOTS[:2] else 0.1)
    }
    label = {asked: ((about[asked],), rng.choice(tuple(lexicon()[asked])))}
    draft = {}
    for key, text in values.items():
        if rng.random() < 0.6:
            text = replace_words(text, label if key.endswith("label") else changes, any_word(rng))
        first, *others = text.split(". ")
        if others and rng.random() < 0.15:
            text = ". ".join([first, *others[:-1]]) + "."
        draft[key] = text
    return draft


def _text_and_labels(rng: random.Random) -> list[str]:
    """Names of fields for a text and two answers to a question about it: the right one and a wrong one."""
    plain = [word for word in WRITING if word not in CONTRARY]
    first, second = (f"{rng.choice(plain)}_" if rng.random() < 0.5 else "" for _ in range(2))
    return [first + rng.choice(("text", "input")), f"{second}label", f"{rng.choice(sorted(CONTRARY))}_label"]


def _length(key: str, query: tuple[str, int, int], text: tuple[str, int, int]) -> tuple[str, int, int]:
    last = key.rpartition("_")[2]
    return query if last == "query" else text if last in ("document", "text", "input") else FREE


def _fitting(about: Subject, rng: random.Random, key: str, asked: str, least: int, labelled: bool) -> str:
    """Write the value of a field that fits its name. If it is `labelled`, a text says what the labels are about.

    A query looks like a query, a label answers the question, and a negative or misleading text is about something else.
    Any text fits any other name.
    """
    *before, last = key.split("_")
    if CONTRARY & {*before, last}:
        about = _near(about, rng, asked)
    if last == "query":
        return phrase(rng.choice(("query", "query", "short_query")), about, rng, any_word(rng))
    if last == "label":
        return any_word(rng)(asked, about[asked])
    if last == "document":
        return _description(about, rng, {asked}, least)
    if last[1:].isdigit():
        return _statement(about if rng.random() < 0.4 else _near(about, rng, rng.choice(SLOTS[2:])), rng)
    if last in ("text", "input"):
        stated = not labelled and rng.random() < 0.4
        return _statement(about, rng) if stated else _description(about, rng, {asked}, least)
    return _any(about, rng)


def _any(about: Subject, rng: random.Random) -> str:
    return rng.choice((_description, _statement, _query))(about, rng)


def _near(about: Subject, rng: random.Random, slot: str) -> Subject:
    """The subject with another value in `slot`, and perhaps in other slots."""
    changed = {slot, *(other for other in SLOTS[2:] if rng.random() < 0.3)}
    return about | {
        other: rng.choice([concept for concept in lexicon()[other] if concept != about[other]])
        for other in sorted(changed)
    }


def _query(about: Subject, rng: random.Random) -> str:
    return phrase("query", about, rng, any_word(rng))


def field_name(rng: random.Random, shared: str = "") -> str:
    """Draw the name of a field. `shared` is a word in all names of a form, so that they are easily confused."""
    if not shared and rng.random() < 0.3:
        return rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") + str(rng.randint(0, 9))
    own = [word for word in rng.sample(WRITING, rng.choice((1, 2, 2))) if word != shared]
    return "_".join([*own, shared] if shared else own)


def _quotation(world: World, rng: random.Random) -> str:
    text = rng.choice((_description, _statement))(draw_subject(world, rng), rng)
    between = "\n".join(rng.choice((_note, _advice))(world, rng) for _ in range(rng.choice((0, 1, 1, 2))))
    first = rng.choice((f'Someone wrote: "{text}"', f"The original text: {text}"))
    again = rng.choice((f'As quoted, "{text}"', f"The text once more: {text}", f'He read: "{text}"'))
    return "\n".join(part for part in (first, between, again) if part)


def _retelling(world: World, rng: random.Random) -> str:
    """Write about several subjects, then about each again by its name: a choice of what to copy, over a distance."""
    abouts = [_contrary(draw_subject(world, rng), rng) for _ in range(rng.choice((2, 2, 3)))]
    lines = [rng.choice((topic_path, words_on))(about, rng) + ". " + _statement(about, rng) + "." for about in abouts]
    lines += [_advice(world, rng)] if rng.random() < 0.5 else []
    rng.shuffle(abouts)
    lines += [f"About {about['name']}: {_description(about, rng)}" for about in abouts]
    return "\n".join(lines)


def _labels(world: World, rng: random.Random) -> str:
    """Write a text and questions about it, each answered by any synonym of what the text says."""
    about = draw_subject(world, rng)
    asked = rng.sample(tuple(QUESTIONS), rng.choice((2, 3, 4, 5)))
    if before := rng.random() < 0.8:
        about = _contrary(about, rng)
    lines = [_answered(slot, about, rng) for slot in asked]
    text = _description(about, rng, asked)
    return "\n".join([text, *lines] if before else [*lines, text])


def _answered(slot: str, about: Subject, rng: random.Random) -> str:
    return f"{capitalize(rng.choice(QUESTIONS[slot]))}: {any_word(rng)(slot, about[slot])}."


def read_in_words(world: World, rng: random.Random) -> Answered:
    """Write a text with any facts and questions about it, with their answers: these are read and not recalled."""
    about = draw_subject(world, rng) | {slot: rng.choice(tuple(lexicon()[slot])) for slot in SLOTS[2:]}
    return _asked(_description(about, rng, QUESTIONS), about, rng)


def read_for_labels(world: World, rng: random.Random, apart: int = 9) -> Answered:
    """Write a text with any facts, a question about it before or after it, and the answer as a label.

    It lies between words and forms. A question that is not next to its answer must be looked for; one that stands after
    the text is found first, and is where one learns to look.
    """
    about = draw_subject(world, rng) | {slot: rng.choice(tuple(lexicon()[slot])) for slot in SLOTS[2:]}
    asked = rng.choice(tuple(QUESTIONS))
    question = rng.choice(QUESTIONS[asked])
    if rng.random() < 0.6:
        question = f"{rng.choice(('About', 'On', 'For'))} {words_on(about, rng)}, {question}"
    text_key, label_key, _ = _text_and_labels(rng)
    opening, entry, between, closing = rng.choice(STYLES)
    text = opening + entry.format(key=text_key, value=_description(about, rng, {asked}))
    asides = " ".join(rng.sample(advice(), rng.randint(0, apart)))
    first = [capitalize(question) + ".", asides] if rng.random() < 0.5 else [asides, capitalize(question) + "."]
    if rng.random() < 0.5:
        text = "\n".join(part for part in [*first, text] if part) + between
    else:
        text = "\n".join(part for part in [text, *first] if part) + "\n"
    begun, ended = entry.format(key=label_key, value="@").split("@")
    text += begun
    start = len(text.rstrip(" "))
    text += any_word(rng)(asked, about[asked])
    return text + ended + closing, [(start, len(text))]


def read_in_forms(world: World, rng: random.Random, apart: int = 9) -> Answered:
    """Write a form of a text with any facts or the world's and labels for it. The answer is the right label."""
    _, _, order, values = _fields(world, rng, apart, answered=1.0, fit=1.0)
    opening, entry, between, closing = rng.choice(STYLES)
    text, answers = "\n".join([*order, opening]), []
    for number, (key, value) in enumerate(values.items()):
        before, after = entry.format(key=key, value="@").split("@")
        text += (between if number else "") + before
        start = len(text.rstrip(" "))
        text += value
        if number == 1:
            answers.append((start, len(text)))
        text += after
    return text + closing, answers


def fill_in_forms(world: World, rng: random.Random, apart: int = 9) -> Answered:
    """Write a form and fill it in, some as the correction of a draft. The answers are its names and what its texts say.

    What counts are the words that a reader could tell beforehand: the names of the fields with their marks, and the
    words of the lexicon, which follow from the subject. Which sentences say them is left to chance.
    """
    about, asked, order, values = _fields(world, rng, apart, answered=0.3, fit=1.0)
    opening, entry, between, closing = rng.choice(STYLES)
    parts = [*order]
    if rng.random() < 0.4:
        draft = spoiled(values, about, asked, rng)
        filled = between.join(entry.format(key=key, value=value) for key, value in draft.items())
        aside = " ".join(rng.sample(advice(), rng.randint(0, apart)))
        parts += [rng.choice(DRAFTS), opening + filled + closing, aside, rng.choice(BETTER)]
    text, answers = "\n".join(part for part in parts if part) + "\n" + opening, []
    for number, (key, value) in enumerate(values.items()):
        before, after = entry.format(key=key, value="@").split("@")
        start = len(text)
        text += (between if number else "") + before
        answers.append((start, len(text)))
        if not CONTRARY & {*key.split("_")}:
            said = any_form().finditer(value.replace("_", " ").lower())
            answers += [(max(0, len(text) + match.start() - 1), len(text) + match.end()) for match in said]
        text += value + after
    return text + closing, [*answers, (len(text) - len(after), len(text + closing))]


def recalled(world: World, rng: random.Random) -> Answered:
    """Write questions that no text before answers, and answer them: what is known of the world."""
    about = draw_subject(world, rng)
    return _asked(capitalize(rng.choice((topic_path, words_on, words_on))(about, rng)) + ".", about, rng)


def _asked(text: str, about: Subject, rng: random.Random) -> Answered:
    """Append all questions and their answers to a text."""
    answers = []
    for slot in rng.sample(tuple(QUESTIONS), len(QUESTIONS)):
        text += f"\n{capitalize(rng.choice(QUESTIONS[slot]))}:"
        start = len(text)
        text += f" {any_word(rng)(slot, about[slot])}."
        answers.append((start, len(text)))
    return text + "\n", answers


def _catalogue(world: World, rng: random.Random) -> str:
    """Write paths, each with a sentence on the same subject in synonyms."""
    between = rng.choice((": ", " - ", ". ", "\n"))
    abouts = [draw_subject(world, rng) for _ in range(rng.randint(2, 6))]
    return "\n".join(topic_path(about, rng) + between + _statement(about, rng) + "." for about in abouts)


def _assignment(world: World, rng: random.Random) -> str:
    """Write an order in prose and carry it out: the text uses the words of the order."""
    about = draw_subject(world, rng)
    order = rng.choice(("Write about", "The subject is", "Someone asks for", "Find texts on", "Tell us of"))
    advice = [_advice(world, rng)] if rng.random() < 0.7 else []
    query = phrase(rng.choice(("query", "short_query")), about, rng, any_word(rng))
    return "\n".join([f"{order} {words_on(about, rng)}.", *advice, f"Query: {query}", _description(about, rng)])


def _advice(world: World, rng: random.Random) -> str:
    return " ".join(rng.sample(advice(), rng.randint(1, 4)))


def advice() -> list[str]:
    """Plain sentences about writing."""
    return sections("advice")["advice"]


WRITERS = (
    (_note, 0.14),
    (_questions, 0.14),
    (_paraphrases, 0.14),
    (_word_list, 0.10),
    (_quotation, 0.14),
    (_retelling, 0.14),
    (_labels, 0.06),
    (_assignment, 0.14),
)
"""Kinds of text, and their shares."""


SHARES = {
    "lists": (_long_list,),
    "forms": (_form,),
    "revised": (_revised_form,),
    "synonyms": (_thesaurus,),
    "lookups": (_labels, _catalogue),
    "labels": (_labelled_form,),
}
"""Share of `miniature_phases.Phase` -> the kinds of text that divide it."""


def texts(world: World, seed: int, **shares: float) -> Iterator[str]:
    """Endless, deterministic stream of texts. `shares` are of all texts, by the names in `SHARES`."""
    rng = seeded("corpus", world.seed, seed)
    more = [(write, share / len(SHARES[kind])) for kind, share in shares.items() for write in SHARES[kind]]
    rest = 1 - sum(shares.values())
    writers = [*((write, share * rest) for write, share in WRITERS), *more]
    while True:
        yield rng.choices([write for write, _ in writers], [share for _, share in writers])[0](world, rng)
