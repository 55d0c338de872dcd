"""What a check of a teacher found, in words: shares by purpose and kind, and a verdict for each role."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from speed.data.records import Kind
from speed.runs.tables import Table, paragraph
from speed.runs.teacher_check import LISTS, Found, mean

VALID = 0.8
"""Share of readable answers below which a role is not filled well: each further one is a row lost and paid for."""
ON_TOPIC = 0.5
"""Share of examples that are nearest to what they were asked about; by chance it is about a sixth."""
RIGHT = 2 / 3
"""Share of judgements that find the only whole answer of a list; blind guesses find a third."""


def told(found: Found, encoder: str) -> str:
    """What came out, for the screen: shares by purpose and kind, and a verdict for each role."""
    table = Table("asked to", *(kind.value for kind in Kind), "valid")
    names = {"brainstorm": "brainstorm", "seed": "write", "judge": "judge", "revise": "repair"}
    for purpose, name in names.items():
        cells = [found.valid.get((purpose, kind), []) for kind in Kind]
        shown = [f"{sum(cell)} of {len(cell)}" if cell else "-" for cell in cells]
        table.add(name, *shown, f"{100 * found.share(purpose):.0f}%")
    lines = [table.text(), ""]
    if found.causes:
        lines.append(f"not valid: {', '.join(f'{count} {cause}' for cause, count in found.causes.most_common())}")
    topics = "not measured: too few examples can be read"
    if found.on_topic:
        topics = (
            f"{sum(found.on_topic)} of {len(found.on_topic)} examples are nearest to their own topic (by {encoder})"
        )
    lines.append(f"on topic: {topics}")
    if found.copied:
        lines.append(f"copied: {found.copied} examples repeat a worked example")
    lines += [f"places: {places(found)}", "", *map(paragraph, verdicts(found))]
    return "\n".join(lines)


def places(found: Found) -> str:
    """Whether the judge follows places."""
    if not found.places:
        return "not measured: no judgement can be read"
    place, most = Counter(found.places).most_common(1)[0]
    of = len(found.places)
    agreed = f"{sum(found.agreed)} of {len(found.agreed)} lists have the same best answer when their order is reversed"
    return f"the judge chose place {place + 1} in {most} of {of} lists of three; {agreed}"


def follows_places(found: Found) -> bool:
    """Whether nearly all judgements name one place, though each answer stood in every third of them."""
    return len(found.places) >= LISTS and Counter(found.places).most_common(1)[0][1] / len(found.places) > 0.8


def verdicts(found: Found) -> Iterator[str]:
    """One sentence or two for each role."""
    unread = f"cannot be read: {found.mend}."
    useless = "are of no use: try a larger teacher.model." if found.copied else unread
    share = found.share("brainstorm")
    if share >= VALID:
        yield "brainstorm: good enough. Its lists of tasks can be read."
    else:
        yield f"brainstorm: not good enough. {100 - 100 * share:.0f}% of its lists of tasks {unread}"
    share, near = found.share("seed", "revise"), mean(found.on_topic)
    if found.copied > 1 and 2 * found.copied > found.invalid("seed", "revise"):
        yield "writer: not good enough. It repeats worked examples: try teacher.examples=0 or a larger teacher.model."
    elif share < VALID:
        yield f"writer: not good enough. {100 - 100 * share:.0f}% of its examples and repairs {useless}"
    elif near < ON_TOPIC:
        yield (
            f"writer: not good enough. {100 - 100 * near:.0f}% of its examples are nearer to another topic than to "
            "their own: try a larger teacher.model."
        )
    else:
        yield "writer: good enough. Its examples can be read and are about what was asked."
    other = "take preference=verified_pairs (no judge), or another judge.models"
    if found.share("judge") < VALID:
        yield f"judge: not good enough. {100 - 100 * found.share('judge'):.0f}% of its verdicts {unread}"
    elif follows_places(found):
        yield f"judge: not good enough. It names one place whatever stands there: {other}; judge=swap drops such lists."
    elif mean(found.right) < RIGHT:
        yield (
            f"judge: not good enough. It found the only whole answer in {sum(found.right)} of {len(found.right)} lists "
            f"(guesses find a third): {other}."
        )
    else:
        yield f"judge: good enough. It found the only whole answer in {sum(found.right)} of {len(found.right)} lists."
