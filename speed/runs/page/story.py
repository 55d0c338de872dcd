"""What a reader sees at the end of a run beside its tables: one example followed from its topic into the corpus.

It is told from the same lives as the page of the run, in lines of 80 columns. On a terminal removed words are red and
new ones green; elsewhere they stand in [-brackets-] and {+braces+}.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from difflib import SequenceMatcher
from textwrap import wrap

from speed.core.escape import on_one_line
from speed.data.answers.parse import parse_judgement
from speed.data.records import Candidates, Example, Kind, Rejected, Sample
from speed.runs.page.lives import Life, Lives
from speed.runs.page.telling import meaning
from speed.runs.truth import Verdict, answer_of

WIDTH, NAME = 80, 10
MOST = 300
"""Characters of a text that are shown."""
REMOVED, ADDED = ("\x1b[31m", "\x1b[0m"), ("\x1b[32m", "\x1b[0m")


def story(lives: Lives, truth: Verdict) -> list[str]:
    """The lines; none where no example was kept."""
    kept = [life for life in lives.sample if life.ending.life == "corpus" and life.ending.outcome == "kept"]
    if not kept:
        return []
    lines = list(_example(max(kept, key=_worth_telling), lives, truth))
    judged = [life for life in lives.sample if life.pair is not None and life.pair.rejected is None and life.pair.votes]
    return [*lines, "", *_lesson(judged[0]), ""] if judged else [*lines, ""]


def _worth_telling(life: Life) -> tuple[int, int]:
    """First those that a revision changed, of these the retrieval examples, of these the first."""
    assert isinstance(life.written, Sample)
    before, after = life.written.example, life.final.example if life.final else None
    changed = before is not None and after is not None and before != after
    return 2 * changed + (life.ending.kind == Kind.RETRIEVAL), -life.row


def _example(life: Life, lives: Lives, truth: Verdict) -> Iterator[str]:
    written, final = life.written, life.final or life.written
    assert isinstance(written, Sample)
    assert isinstance(final, Sample)
    prompt = written.prompt
    yield f"One example, from its topic into the corpus (row {life.row:,} of {life.writer})"
    yield from _line("topic", lives.paths.get(prompt.topic) or prompt.topic)
    yield from _line("task", prompt.task)
    yield from _line("prompt", f"{on_one_line(prompt.text, 140)} ({len(prompt.text):,} characters)")
    yield from _texts("written", written.example, written.text)
    if life.final is not None:
        yield from _revision(written, life.final)
    yield from _verdict(written, final, truth)


def _verdict(written: Sample, final: Sample, truth: Verdict) -> Iterator[str]:
    """What the guidelines of the prompt and the truth say of the example at the end, and said before."""
    if final.faults:
        yield from _line("breaks", "; ".join(meaning(fault) for fault in dict.fromkeys(final.faults)))
    found = [truth(sample.prompt, answer_of(sample)) for sample in (written, final)]
    if found[1] is not None:
        told = [" ".join(faults) if faults else "Nothing is wrong." for faults in found if faults is not None]
        yield from _line("truth", told[-1] if len(set(told)) == 1 else f"Before: {told[0]} Now: {told[-1]}")


def _revision(written: Sample, final: Sample) -> Iterator[str]:
    if not final.revised or final.example is None:
        yield from _line("revised", "not at all: the revisor's answer could not be used")
    elif final.example == written.example:
        yield from _line("revised", "nothing was changed")
    elif written.example is None:
        yield from _texts("revised", final.example, "")
    else:
        before, name = written.example.fields(), "revised"
        for key, after in final.example.fields().items():
            if after != before.get(key):
                yield from _line(name, f"{key}: " + difference(before.get(key, ""), after))
                name = ""


def _lesson(life: Life) -> Iterator[str]:
    """A pair that the senior has learnt from."""
    assert isinstance(life.written, Candidates)
    assert life.pair is not None
    pair, vote = life.pair, life.pair.votes[0]
    yield f"A list that the senior learned from: {len(life.written.texts)} answers of the junior to one prompt"
    yield from _line("task", pair.prompt.task or pair.prompt.topic)
    yield from _line("chosen", pair.chosen)
    yield from _line("rejected", pair.rejected_text)
    found = parse_judgement(vote.answer, len(vote.order), "stop")
    if not isinstance(found, Rejected) and found.reason:
        yield from _line("judge", found.reason)


def _texts(name: str, example: Example | None, text: str) -> Iterator[str]:
    if example is None:
        yield from _line(name, f"no example: {text or '(nothing)'}")
        return
    for key, value in example.fields().items():
        yield from _line(name, f"{key}: {value}")
        name = ""


def difference(before: str, after: str) -> str:
    """`after` with what was removed and what is new marked, by words."""
    old, new = (on_one_line(text, 10 * MOST).split() for text in (before, after))
    marked = []
    for tag, i, j, k, m in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            marked += old[i:j] if j - i <= 12 else [*old[i : i + 5], "...", *old[j - 5 : j]]
        else:
            marked += [f"[-{' '.join(old[i:j])}-]"] if j > i else []
            marked += [f"{{+{' '.join(new[k:m])}+}}"] if m > k else []
    return " ".join(marked)


def _line(name: str, text: str) -> Iterator[str]:
    """A name and its text, in lines of 80 columns."""
    for part in wrap(on_one_line(text, MOST) or "-", WIDTH - NAME - 2, break_on_hyphens=False):
        yield f"  {name:{NAME}}{part}"
        name = ""


def coloured(lines: list[str]) -> str:
    """For printing: with colours in place of marks on a terminal."""
    text = "\n".join(lines)
    if sys.stdout.isatty():
        for (begin, end), (colour, off) in ((("[-", "-]"), REMOVED), (("{+", "+}"), ADDED)):
            text = text.replace(begin, colour).replace(end, off)
    return text
