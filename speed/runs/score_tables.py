"""The scores of a run, beside what they are to be read beside: its base untrained, the yardsticks, the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from speed.core.escape import escape
from speed.data.calibration import calibration
from speed.data.evaluation_record import scores_of, shown
from speed.data.published_scores import published
from speed.data.quality.contaminated_records import Contamination
from speed.data.records import Scores
from speed.data.yardsticks import known_yardsticks, yardsticks
from speed.runs.stage_lines import StageLine, corpus_of
from speed.runs.table_one import OwnRow, is_comparable, table_one
from speed.runs.tables import Table, counted, escaped

UNTRAINED = "untrained"
"""Heading of the column of the embedder's base."""
NAMED = 8
"""Tasks that a sentence names; the table of all tasks has the others."""
CEILING = "near its ceiling"
NEAR_CEILING = 95.0
"""From here on a task is near its ceiling. All main scores end at 100 at best. Noise in the gold may end a task's
earlier, by an amount that is not known, so one without the mark may be at its ceiling too."""


def scored_without_training(lines: Sequence[StageLine]) -> dict[str, Scores]:
    """What to read a run's scores beside, by name: its embedder's base, and the yardsticks of its tasks."""
    judged = _judged(lines)
    beside: dict[str, Scores] = {}
    if (untrained := _untrained(lines)) is not None:
        beside[UNTRAINED] = untrained
    if judged is not None:
        for name, row in yardsticks(judged["pins"]["datasets"]).items():
            beside[name] = scores_of(dict(row), judged["kinds"])
    return beside


def scores_table(lines: list[StageLine], scores: Scores) -> Table:
    """Main scores by task type, then the two means; beside them those without training, where they are known."""
    beside = scored_without_training(lines)
    table = Table("task type", "score", *beside)
    every = [scores, *beside.values()]
    for kind in scores.types:
        table.add(kind, *(shown(each.types[kind]) for each in every))
    table.add(f"mean over {counted(len(scores.tasks), 'task')}", *(shown(each.mean) for each in every))
    table.add(f"mean over {counted(len(scores.types), 'type')}", *(shown(each.mean_of_types) for each in every))
    return table


def beside_the_scores(lines: list[StageLine]) -> list[str]:
    """What the yardsticks of the table of scores are, and which differences mean something, where that is known."""
    judged = _judged(lines)
    datasets = {} if judged is None else judged["pins"]["datasets"]
    names, calibrated = yardsticks(datasets), calibration(datasets)
    told = [f"{each.name}: {each.about}" for each in known_yardsticks() if each.name in names]
    if _untrained(lines) is not None:
        told.insert(0, f"{UNTRAINED}: the embedder's base as it came, under the protocol of the run")
    beside = [f"Beside the run, without training: {'; '.join(told)}."] if told else []
    return [*beside, *([calibrated.told()] if calibrated else [])]


def task_table(lines: Sequence[StageLine], scores: Scores) -> Table:
    """Main scores by task; how many examples of the corpus hold a text of it, where that is known; which are near their
    ceiling, if any are."""
    kinds, found, full = (_judged(lines) or {}).get("kinds", {}), _contamination(lines), near_ceiling(scores.tasks)
    table = Table("task", "type", "score", *([_examples_of(found)] if found else []), *([""] if full else []))
    for task, score in scores.tasks.items():
        overlap = found.tasks.get(task) if found else None
        held = [f"{overlap.records:,}" if overlap else "-"] if found else []
        table.add(task, kinds.get(task, "-"), shown(score), *held, *([CEILING * (task in full)] if full else []))
    return table


def about_the_tasks(lines: Sequence[StageLine], scores: Scores) -> list[str]:
    """Which scores say less than they seem to: the corpus holds texts of their tasks, or little more can be won."""
    told, found, full = list[str](), _contamination(lines), near_ceiling(scores.tasks)
    if found and found.tasks:
        held = {task: overlap.records for task, overlap in found.tasks.items() if overlap.records}
        named = _few([f"{task} {count:,}" for task, count in sorted(held.items(), key=lambda each: -each[1])])
        sets = f" and of {found.labelled} labelled set{'s' * (found.labelled > 1)}" if found.labelled else ""
        read = f"the corpus{sets}"
        whole = f"{found.records:,} examples of {read}"
        part = f"the {found.records:,} examples that were searched, {_every(found)} of {read},"
        told.append(
            f"Contamination: {f'{found.contaminated:,}' if held else 'none'} of {whole if found.every == 1 else part} "
            f"{'holds' if found.contaminated == 1 else 'hold'} a text of these tasks or nearly so (a run of "
            f"{found.words} words, or a Jaccard similarity of {found.similarity:g})"
            f"{f': {named}. Those scores may owe something to that' if held else ''}."
        )
    if found and found.left_out:
        told.append(
            "Contamination by tasks of too much text, or of an unknown amount, was not looked for: "
            f"{_few(found.left_out)}."
        )
    if cause := next((line.metrics["not_searched"] for line in lines if "not_searched" in line.metrics), None):
        told.append(f"Contamination by these tasks was not searched: {escape(str(cause))}")
    return [*told, *ceilings_told(full)]


def _examples_of(found: Contamination) -> str:
    return "examples with its texts" + (f" ({_every(found)} was searched)" if found.every > 1 else "")


def _every(found: Contamination) -> str:
    """Which examples were searched."""
    return "every second" if found.every == 2 else f"one in {found.every}"


def ceilings_told(tasks: Sequence[str]) -> list[str]:
    """What follows for tasks that are near their ceiling; nothing without such a task."""
    if not tasks:
        return []
    return [
        f"{CEILING.capitalize()}: {_few(tasks)}. From a score of {NEAR_CEILING:g} on at most "
        f"{100 - NEAR_CEILING:g} points are left to win, so such a task hardly tells embedders apart any more."
    ]


def _few(names: Sequence[str]) -> str:
    return ", ".join(map(escape, names[:NAMED])) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def near_ceiling(tasks: Mapping[str, float | None]) -> list[str]:
    """Tasks that are near their ceiling by these scores."""
    return [task for task, score in tasks.items() if score is not None and score >= NEAR_CEILING]


def _contamination(lines: Sequence[StageLine]) -> Contamination | None:
    found = next((line.metrics["contamination"] for line in lines if "contamination" in line.metrics), None)
    return None if found is None else Contamination.model_validate(found)


def own_domain_table(lines: Sequence[StageLine], scores: Scores) -> Table | None:
    """Base and embedder side by side on held-out documents and on the run's tasks; None for a run without documents."""
    found: dict[str, Any] | None = next(
        (line.metrics["own_domain"] for line in lines if "own_domain" in line.metrics), None
    )
    if found is None:
        return None
    table = Table("", UNTRAINED, "tuned", "won or lost")
    base, tuned = found.get("base", {}), found["tuned"]
    rows = [(f"own documents: {name}", base.get(name), tuned[name]) for name in tuned]
    before = _untrained(lines)
    for kind, score in scores.types.items():
        rows.append((kind, None if before is None else before.types.get(kind), score))
    rows.append((f"mean over {len(scores.tasks)} general tasks", None if before is None else before.mean, scores.mean))
    for name, old, new in rows:
        table.add(name, shown(old), shown(new), "-" if old is None or new is None else f"{new - old:+z.1f}")
    return table


def own_domain_remark(lines: Sequence[StageLine]) -> str:
    """What the test on own documents is."""
    found = next(line.metrics["own_domain"] for line in lines if "own_domain" in line.metrics)
    return (
        f"{found['queries']} queries by the teacher for passages of documents that were held out before anything was "
        f"generated; all {found['passages']} passages are searched, the training documents' too."
    )


def _untrained(lines: Sequence[StageLine]) -> Scores | None:
    """Scores of the embedder's base without training, where the run has them."""
    found = next((line.metrics["untrained"] for line in lines if "untrained" in line.metrics), None)
    return None if found is None else Scores.model_validate(found)


def _judged(lines: Sequence[StageLine]) -> dict[str, Any] | None:
    """The evaluation record of a run."""
    return next((line.metrics["judged"] for line in lines if "judged" in line.metrics), None)


def own_row(name: str, lines: Sequence[StageLine], scores: Scores) -> OwnRow:
    """The row of a run in the paper's Table 1, with how many examples its embedder learned from."""
    corpus = corpus_of(lines)
    trained_on = "this run" if corpus is None else f"this run, {corpus.rows_out:,} examples"
    return OwnRow(name, trained_on, scores.types, scores.mean)


def beside_table_one(name: str, lines: list[StageLine], scores: Scores) -> list[str]:
    """The paper's Table 1 with a row of this run; nothing unless the run is scored on all of its tasks."""
    judged = _judged(lines)
    if judged is None or not is_comparable(scores.tasks, judged["pins"].get("splits", {})):
        return []
    table = table_one([own_row(name, lines, scores)])
    return ["## The paper's Table 1", table.markdown(), escaped(published().table_1.source)]


def measured(lines: list[StageLine]) -> list[str]:
    """How the scores came about: what another run must share to be compared with this one (`speed.compare`)."""
    found = _judged(lines)
    if found is None:
        return []
    pins = found["pins"]
    how = f"mteb {pins['mteb']}, {pins['precision']}, protocol {found['protocol']}, batches of {pins['batch']}"
    splits = {task: f" ({split})" for task, split in pins.get("splits", {}).items()}
    data = ", ".join(f"{task} {revision}{splits.get(task, '')}" for task, revision in pins["datasets"].items())
    return [escaped(f"{how}. Data: {data}.")]
