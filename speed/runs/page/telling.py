"""A record's life as the page tells it: steps, each with blocks of text. The page draws blocks and knows no stage.

A block is a list whose first item says what it is:

    ["note", tone, text]                 tone: good, bad or plain
    ["chips", label, [word, ...]]
    ["text", label, text]                shown whole
    ["folded", label, text]              shown on request: prompts, raw answers
    ["list", label, [text, ...], [number, ...]]    the numbers are of those that are marked
    ["fields", label, [[key, text], ...]]
    ["diff", label, [[key, before, after], ...]]
    ["answers", label, [{"mark", "note", "fields" or "text"}, ...]]
    ["link", id, text]                   to another record
"""

from __future__ import annotations

from typing import Any

from speed.data.answers.parse import CAUSES, parse_example, parse_judgement, parse_revision, parse_tasks
from speed.data.judging.relevance import FURTHER, REPLACED, UNANSWERED
from speed.data.judging.votes import read_candidates
from speed.data.quality.guidelines import CAUSES as GUIDELINES
from speed.data.records import Candidates, Example, Pair, Prompt, Rejected, RevisedAnswer, Sample, TaskList
from speed.runs.page.lives import Life, Lives

TITLE = 110
"""Characters of a record's title."""
OTHER_CAUSES = {
    "no_task": "the teacher thought of no task on the topic",
    "no_candidates": "the junior wrote no answer",
    "identical": "the best and the worst answer say the same",
    "disagreement": "judgements of the list contradict one another",
    "no_majority": "no answer was named by most judgements",
    "no_margin": "judgements are too close to one another",
    "all_faulty": "every answer breaks a guideline",
    "all_faultless": "no answer breaks a guideline",
    "none_faultless": "no answer keeps all guidelines",
    "no_faulty_field": "no field is faulty",
    "positive_not_found": "its positive is not among the nearest documents of its query",
    "no_negative_left": "each of its hard negatives may answer the query",
    UNANSWERED: "neither its positive nor a hard negative answers its query, by the teacher's word",
    REPLACED: "by the teacher's word a hard negative answers its query and the positive does not: they changed places",
    FURTHER: "by the teacher's word a hard negative answers its query too: it is the positive of a further record",
}
"""Causes beside those of answers and guidelines."""


def meaning(cause: str) -> str:
    """What a cause says, in words; the cause itself where nobody has described it."""
    return CAUSES.get(cause) or GUIDELINES.get(cause) or OTHER_CAUSES.get(cause) or cause


def told(life: Life, lives: Lives) -> dict[str, Any]:
    """One record as the page holds it."""
    written, final = life.written, life.final or life.written
    faults = final.faults if isinstance(final, Sample) else life.pair.chosen_faults if life.pair else ()
    return {
        "id": life.id,
        "life": life.ending.life,
        "row": life.row,
        "kind": life.ending.kind,
        "outcome": life.ending.outcome,
        "cause": life.ending.cause,
        "faults": list(dict.fromkeys(faults)),
        "title": " ".join(_title(final).split())[:TITLE],
        "steps": list(filter(None, [*_beginning(life, lives), *_written(written, life), *_ending(life, lives)])),
    }


def _title(row: Sample | Candidates) -> str:
    if isinstance(row, Candidates):
        read = next((found.example.query for found in read_candidates(row) if found.example), None)
        return read or row.prompt.task or row.prompt.topic or "no prompt"
    return row.example.query if row.example else row.text or row.prompt.task or row.prompt.topic or "nothing written"


def _step(name: str, by: str, *blocks: list[Any] | None) -> dict[str, Any]:
    return {"name": name, "by": by, "blocks": [block for block in blocks if block]}


def _beginning(life: Life, lives: Lives) -> list[dict[str, Any] | None]:
    prompt, call = life.written.prompt, lives.call_of(life)
    path = lives.paths.get(prompt.topic)
    topic = _step(
        "topic", "", ["text", "", prompt.topic], ["note", "plain", path] if path and path != prompt.topic else None
    )
    return [
        topic if prompt.topic else None,
        _brainstormed(call, prompt) if call else _step("task", "", ["text", "", prompt.task]) if prompt.task else None,
        _prompted(prompt) if prompt.text else None,
    ]


def _brainstormed(call: TaskList, prompt: Prompt) -> dict[str, Any]:
    listed = parse_tasks(call.answer, "stop")
    tasks = list(call.tasks) if isinstance(listed, Rejected) else list(listed)
    drawn = [number for number, task in enumerate(tasks) if task == prompt.task]
    return _step(
        "task",
        "teacher",
        ["text", "drawn from the teacher's list", prompt.task],
        ["list", f"all {len(tasks)} tasks of the list", tasks, drawn],
        ["folded", "what the teacher was asked", call.prompt.text],
    )


def _prompted(prompt: Prompt) -> dict[str, Any]:
    slots = [f"{name} = {value}" for name, value in prompt.slots.items()]
    return _step(
        "prompt",
        "",
        ["chips", "drawn values", [prompt.template, *slots]],
        ["folded", "the prompt", prompt.text],
    )


def _read(example: Example | None, text: str) -> list[Any]:
    return ["fields", "", _fields(example)] if example else ["text", "could not be read", text or "(no text)"]


def _fields(example: Example) -> list[list[str]]:
    written = [[key, text] for key, text in example.fields().items()]
    if example.document is None:
        return written
    given = [[f"passage of {example.document}", example.positive], ["another of it", example.negative or ""]]
    return written + [[name, text] for name, text in given if text]


def _why(cause: str | None, detail: str) -> list[Any] | None:
    if cause is None:
        return ["note", "plain", detail] if detail else None
    told_of = meaning(cause)
    return ["note", "bad", f"rejected, {cause}: {told_of}" + (f" ({detail})" if detail else "")]


def _broken(faults: tuple[str, ...]) -> list[Any] | None:
    return ["note", "bad", "breaks " + "; ".join(f"{each}: {meaning(each)}" for each in faults)] if faults else None


def _written(row: Sample | Candidates, life: Life) -> list[dict[str, Any] | None]:
    if isinstance(row, Candidates):
        return [_candidates(row, life), *_judged(life), _repaired(life.revision, row) if life.revision else None]
    if not row.prompt.text and not row.text:
        return [_step("no example", life.author, _why(row.rejected, row.detail))]
    told_of = [f"{row.attempt + 1} attempts"] if row.attempt else []
    told_of += [f"mended {each}" for each in row.mended]
    told_of += [f"{row.tokens} tokens"] if row.tokens else []
    told_of += [f"ended with {row.finish_reason}"] if row.finish_reason not in ("", "stop") else []
    return [
        _step(
            "example",
            life.author,
            _read(row.example, row.text),
            _why(row.rejected, row.detail),
            _broken(row.faults),
            ["chips", "", told_of] if told_of else None,
            ["folded", "the answer as it was written", row.text] if row.text else None,
        )
    ]


def _candidates(row: Candidates, life: Life) -> dict[str, Any]:
    pair, answers = life.pair, []
    for number, (text, found) in enumerate(zip(row.texts, read_candidates(row), strict=True)):
        mark = {pair.best: "best", pair.worst: "worst"}.get(number, "") if pair else ""
        why = found.rejected or ", ".join(found.faults)
        note = f"{why}: {meaning(why)}" if why and "," not in why else why
        body = {"fields": _fields(found.example)} if found.example else {"text": text}
        answers.append({"mark": mark, "note": note, **body})
    return _step(f"{len(row.texts)} answers", life.author, ["answers", "", answers], _why(row.rejected, row.detail))


def _judged(life: Life) -> list[dict[str, Any] | None]:
    pair = life.pair
    if pair is None:
        return []
    blocks: list[list[Any] | None] = []
    for vote in pair.votes:
        found = parse_judgement(vote.answer, len(vote.order), "stop")
        reason = "" if isinstance(found, Rejected) else found.reason
        shown = ", ".join(str(number + 1) for number in vote.order)
        said = f"unreadable, {vote.cause}: {meaning(vote.cause)}" if vote.cause else ""
        said = said or f"best {vote.best + 1}, worst {vote.worst + 1}"
        blocks += [["note", "bad" if vote.cause else "plain", f"{said} (shown in the order {shown})"]]
        blocks += [["text", "the judge's reason", reason]] if reason else []
        blocks += [["folded", "the judge's answer", vote.answer]] if vote.answer else []
    by = ", ".join(dict.fromkeys(vote.model or "teacher" for vote in pair.votes)) or "guidelines"
    return [_step("judgement", by, *blocks), _paired(pair)]


def _paired(pair: Pair) -> dict[str, Any]:
    if pair.rejected is not None:
        return _step("no pair", "", _why(pair.rejected, pair.detail))
    names = f"answer {pair.best + 1} before answer {pair.worst + 1}" if pair.best >= 0 else "a field written anew"
    return _step(
        "pair",
        "",
        ["note", "good", f"the senior learns to prefer {names}"],
        ["folded", "what both begin with", pair.begun] if pair.begun else None,
        ["text", "chosen", pair.chosen] if pair.best < 0 else None,
        ["text", "rejected", pair.rejected_text] if pair.best < 0 else None,
        _broken(pair.chosen_faults),
        _why(None, pair.detail),
    )


def _repaired(row: RevisedAnswer, listed: Candidates) -> dict[str, Any]:
    number = listed.texts.index(row.original) + 1 if row.original in listed.texts else 0
    kind, task = row.prompt.kind, row.prompt.task
    change: list[Any] | None = None
    if row.revision and kind is not None:
        before, after = (
            parse_example(kind, task, text, "stop", ground=row.prompt.ground) for text in (row.original, row.revision)
        )
        if isinstance(after, Example):
            change = _change("", before if isinstance(before, Example) else None, after, row.original)
    return _step(
        f"revision of answer {number}" if number else "revision",
        "teacher",
        ["text", "the teacher's reason", row.reason] if row.reason else None,
        change,
        _why(row.rejected, row.detail),
        ["note", "good", "the revisor learns from it"] if row.rejected is None else None,
        ["folded", "the teacher's answer", row.answer] if row.answer else None,
    )


def _change(label: str, before: Example | None, after: Example, text: str = "") -> list[Any]:
    if before is None:
        return ["diff", label, [["as it was", text, ""], *([key, "", value] for key, value in _fields(after))]]
    old, new = before.fields(), after.fields()
    return ["diff", label, [[key, old.get(key, ""), value] for key, value in new.items()]]


def _ending(life: Life, lives: Lives) -> list[dict[str, Any] | None]:
    steps: list[dict[str, Any] | None] = []
    if isinstance(life.written, Sample) and life.final is not None:
        steps.append(_passed(life.written, life.final))
    if life.ending.life != "corpus":
        return steps
    final = life.final or life.written
    assert isinstance(final, Sample)
    first = lives.firsts.get(-1 if life.first is None else life.first)
    match life.ending.outcome:
        case "kept":
            steps.append(_step("in the corpus", "dedup", ["note", "good", "kept: the embedder learns from it"]))
            if life.ending.cause:
                note = ["note", "plain", f"{life.ending.cause}: {meaning(life.ending.cause)}"]
                steps.append(_step("relabelled", "relabelling", note))
        case "repeat":
            of = "an earlier example" if life.first is None else f"row {life.first:,}"
            change = _change("from that row to this one", first, final.example) if first and final.example else None
            link = None if life.first is None else ["link", f"corpus/{life.first}", f"to row {life.first:,}"]
            steps.append(_step("repeat", "dedup", ["note", "bad", f"dropped: nearly the same as {of}"], change, link))
        case "left out":
            why, by = meaning(life.ending.cause), "relabelling" if life.ending.cause == UNANSWERED else "filter"
            steps.append(_step("left out of the corpus", by, ["note", "bad", f"{life.ending.cause}: {why}"]))
        case "left over":
            steps.append(_step("left over", "dedup", ["note", "plain", "no repeat, but enough were kept of its kind"]))
        case _:
            pass
    return steps


def _passed(before: Sample, after: Sample) -> dict[str, Any] | None:
    """What the revision pass did."""
    kind = before.prompt.kind
    if kind is None or not before.prompt.text:
        return None
    if not after.revised or after.example is None:
        stays = ["note", "plain", "the revision could not be used: it stays as it was"]
        return _step("revision", "revisor", _why(after.rejected, after.detail) if after.rejected else stays)
    found = parse_revision(kind, before.prompt.task, after.text, "stop", ground=before.prompt.ground)
    reason = "" if isinstance(found, Rejected) else found[0]
    same = before.example == after.example
    return _step(
        "revision",
        "revisor",
        ["text", "the revisor's reason", reason] if reason else None,
        ["note", "plain", "nothing was changed"] if same else _change("", before.example, after.example, before.text),
        _broken(after.faults),
        ["folded", "the revisor's answer", after.text],
    )
