"""A study's answer as Markdown, LaTeX and CSV. Names and values come from configs, and stand there as text."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from speed.core.escape import escape
from speed.runs.tables import Table, escaped, money
from speed.studies.answer import Answer, Figure, Row
from speed.studies.definition import Measure
from speed.studies.law_tables import law_tables
from speed.studies.statistics import Difference


def main_table(answer: Answer, narrow: bool = False) -> Table:
    """The answer in one table, in the layout of the study.

    Args:
        narrow: a star for a difference that is resolved over seeds, in place of verdicts in words.
    """
    match answer.study.layout:
        case "pairs":
            return _pairs(answer)
        case "measures":
            return _measures(answer)
        case _:
            return _points(answer, narrow)


def _points(answer: Answer, narrow: bool) -> Table:
    """A row for each point, with the difference from the reference and what was paid."""
    study = answer.study
    first, *others = study.measures
    beside = [each for each in others if any(row.figures[each.name].ours is not None for row in answer.rows)]
    paper = ["paper"] if study.paper else []
    apart = [f"from {study.reference}", *([] if narrow else ["verdict"])] if study.reference else []
    heads = [
        head
        for each in beside
        for head in (each.name, *([f"from {study.reference}"] if study.reference and each.compared else []))
    ]
    table = Table("point", *paper, "ours", "seeds", *apart, *heads, "calls", "dollars")
    for row in answer.rows:
        figure = row.figures[first.name]
        cells = [_number(figure.paper, _of_paper(first))] if study.paper else []
        cells += [ours(figure, first), str(figure.seeds) if figure.seeds else "-"]
        if study.reference:
            cells += _difference(row, study.reference, narrow)
        for each in beside:
            cells.append(ours(row.figures[each.name], each))
            cells += _beside(row, each) if study.reference and each.compared else []
        calls = max((run.calls for run in row.runs), default=None)
        paid = [run.dollars for run in row.runs]
        dollars = "-" if not paid else money(None if None in paid else max(price or 0.0 for price in paid))
        table.add(row.name, *cells, "-" if calls is None else f"{calls:,}", dollars)
    return table


def _difference(row: Row, reference: str, narrow: bool) -> list[str]:
    found = row.difference
    if found is None:
        return ["-"] if narrow else ["-", "the reference" if row.name == reference else "-"]
    reach = f" ({found.low:+z.2f} to {found.high:+z.2f})" if found.low is not None and found.high is not None else ""
    told = f"{found.mean:+z.2f}{reach}"
    star = " *" if found.seeds is not None and found.resolved else ""
    return [told + star] if narrow else [told, found.verdict()]


def _beside(row: Row, measure: Measure) -> list[str]:
    """The difference of a further measure; a star where it is resolved."""
    found = row.beside.get(measure.name)
    if found is None:
        return ["-"]
    reach = found.interval
    told = f"{found.mean:+z.{measure.decimals}f}"
    if reach is not None:
        told += f" ({reach.low:+z.{measure.decimals}f} to {reach.high:+z.{measure.decimals}f})"
    needed = f", {found.seeds_told} seeds" if found.seeds_needed else ""
    return [told + (" *" if found.resolved else needed)]


def _pairs(answer: Answer) -> Table:
    """The paper's numbers of a point over ours."""
    table = Table("point", "whose", "seeds", *(each.name for each in answer.study.measures))
    for row in answer.rows:
        figures = [(each, row.figures[each.name]) for each in answer.study.measures]
        if any(figure.paper is not None for _, figure in figures):
            table.add(
                row.name, "the paper's", "-", *(_number(figure.paper, _of_paper(each)) for each, figure in figures)
            )
        if row.runs or row.missing:
            table.add(row.name, "ours", str(len(row.runs)), *(ours(figure, each) for each, figure in figures))
    return table


def _measures(answer: Answer) -> Table:
    """A row for each measure of each point."""
    table = Table("measure", "of", "paper", "ours", "seeds")
    for row in answer.rows:
        for each in answer.study.measures:
            figure = row.figures[each.name]
            if figure.paper is not None or figure.ours is not None:
                seeds = str(figure.seeds) if figure.seeds else "-"
                table.add(each.name, row.name, _number(figure.paper, each.decimals), ours(figure, each), seeds)
    return table


def spread_table(answer: Answer) -> Table | None:
    """How far apart single runs are, where the study is of that and there are two."""
    if not answer.spreads:
        return None
    table = Table("score", "standard deviation", "95 % interval", "seeds")
    for name, found in answer.spreads.items():
        table.add(name, _number(found.value, 2), f"{_number(found.low, 2)} to {_number(found.high, 2)}", found.count)
    return table


def _of_paper(measure: Measure) -> int:
    """The paper's scores have one decimal."""
    return min(measure.decimals, 1)


def _number(value: float | None, decimals: int) -> str:
    return "-" if value is None else f"{value:z,.{decimals}f}"


def ours(figure: Figure, measure: Measure) -> str:
    """A mean with its interval, where there is one."""
    told = _number(figure.ours, measure.decimals)
    if figure.ours is None or figure.high is None:
        return told
    return f"{told} ± {_number(figure.high - figure.ours, measure.decimals)}"


def runs_table(answer: Answer) -> Table:
    """The runs behind the rows."""
    table = Table("point", "seed", *(each.name for each in answer.study.measures), "run", "commit", "key")
    for row in answer.rows:
        for run in row.runs:
            figures = (_number(run.figures.get(each.name), each.decimals) for each in answer.study.measures)
            table.add(row.name, run.seed, *figures, run.run, run.commit, run.key[:12])
    return table


def told(answer: Answer) -> list[str]:
    """What a reader of the table should know, one sentence each."""
    out = [*_read_as(answer)]
    if lacking := [f"{row.name} (seed {', '.join(row.missing)})" for row in answer.rows if row.missing]:
        out.append(f"Missing: {'; '.join(lacking)}.")
    return [*out, *answer.remarks]


def _read_as(answer: Answer) -> list[str]:
    study = answer.study
    out = [f"The paper's numbers: {study.paper.source}."] if study.paper else ["The paper has no such study."]
    if any(figure.high is not None for row in answer.rows for figure in row.figures.values()):
        out.append("± is the 95 % interval of a mean over seeds (Student's t).")
    if compared := [row.difference for row in answer.rows if row.difference]:
        several = _corrected_for(compared)
        beside = any(row.beside for row in answer.rows)
        star = "; of further measures * marks those that are resolved, a number of seeds what the others need" * beside
        out.append(
            f"Differences with 95 % intervals, seed by seed where seeds are shared; verdicts at 5 %{several}{star}."
        )
    if study.layout == "points":
        out.append(
            "Calls and dollars are what a run stands on, whenever that was paid, of several seeds the most; points "
            "share most of it."
        )
    return out


def _corrected_for(compared: Sequence[Difference]) -> str:
    """For how many comparisons the verdicts over seeds and over tasks are corrected; nothing where none is."""
    counts = {
        over: sum((found := getattr(one, over)) is not None and not found.is_of_the_same(one.mean) for one in compared)
        for over in ("seeds", "tasks")
    }
    several = [f"{count} comparisons over {over}" for over, count in counts.items() if count > 1]
    if not several:
        return ""
    alike = len({*counts.values()} - {0}) == 1
    return f", corrected for {f'{max(counts.values())} comparisons' if alike else ' and '.join(several)} (Holm)"


EXPECTED, LEARNT = "Expected, by the study's definition", "Learnt from the runs of the study's definition"
"""Over what a definition says, on a page of whatever runs. The project's own say it of runs in the miniature."""


def markdown(answer: Answer, picture: str | None = None, ours: bool = False) -> str:
    """The page of a study.

    Args:
        picture: file name of its picture.
        ours: whether its runs are the project's own, of which its definition says what was expected and learnt.
    """
    study = answer.study
    parts = [f"# {escaped(study.title)}", escaped(study.question)]
    parts += ["## Expected" if ours else f"## {EXPECTED}", escaped(study.hypothesis)] if study.hypothesis else []
    if answer.commands and answer.commands != answer.missing:
        parts += ["## Command", in_a_shell([*answer.commands, f"python -m speed.report {study.name}"])]
    parts += ["## Found", main_table(answer).markdown()]
    parts += [f"![{escaped(study.title)}]({picture})"] if picture else []
    parts.append("\n".join(f"- {escaped(each)}" for each in told(answer)))
    if spread := spread_table(answer):
        parts += ["## Spread over seeds", spread.markdown()]
    if laws := all_laws(answer):
        parts += ["## The law", _in_turn(laws)]
    learnt = "\n".join(f"- {escaped(each)}" for each in study.learnt)
    parts += ["## Learnt" if ours else f"## {LEARNT}", learnt] if learnt else []
    parts += ["## What is missing", in_a_shell(answer.missing)] if answer.missing else []
    if any(row.runs for row in answer.rows):
        parts += ["## Runs", runs_table(answer).markdown()]
    return "\n\n".join(parts) + "\n"


def all_laws(answer: Answer) -> list[Table | str]:
    """The laws of a study's mean score, and of the further measures that it fits laws to."""
    out = law_tables(answer.laws) if answer.laws else []
    for name, laws in answer.further_laws.items():
        out += [f"The same for {name}:", *law_tables(laws, 3)]
    return out


def _in_turn(parts: Sequence[Table | str]) -> str:
    """Tables, and sentences as items of lists, in their order."""
    blocks: list[str] = []
    for before, part in zip([None, *parts], parts, strict=False):
        if isinstance(part, Table):
            blocks.append(part.markdown())
        elif isinstance(before, str):
            blocks[-1] += f"\n- {escaped(part)}"
        else:
            blocks.append(f"- {escaped(part)}")
    return "\n\n".join(blocks)


def in_a_shell(commands: Sequence[str]) -> str:
    """Commands as Markdown shows them, to be copied."""
    lines = "\n".join(escape(command).replace("\n", " ") for command in commands)
    return f"```bash\n{lines}\n```"


def latex(answer: Answer) -> str:
    """The table for a paper, with booktabs."""
    notes = _read_as(answer) + (["* resolved over seeds."] if answer.study.reference else [])
    return main_table(answer, narrow=True).latex(answer.study.title, f"tab:{answer.study.name}", notes)


def comma_separated(answer: Answer) -> str:
    """One line for each measure of each point."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["study", "point", "x", "measure", "paper", "ours", "low", "high", "seeds"])
    for row in answer.rows:
        for measure, figure in row.figures.items():
            cells = (figure.paper, figure.ours, figure.low, figure.high)
            numbers = ["" if value is None else f"{value:.6g}" for value in cells]
            place = "" if row.x is None else f"{row.x:g}"
            writer.writerow([answer.study.name, _no_formula(row.name), place, measure, *numbers, figure.seeds])
    return out.getvalue()


def _no_formula(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    text = escape(text)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t")) else text
