"""A study as a picture: our points with their intervals, and the paper's numbers beside them on an own axis."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from speed.core.escape import on_one_line
from speed.studies.answer import Answer, Figure

OURS, PAPERS = "#0072b2", "#d55e00"
"""Colours that colour-blind readers tell apart (Okabe and Ito)."""
WITHOUT = "no picture was drawn: matplotlib is not installed; pip install -e '.[figures]'"


class Mark(NamedTuple):
    """One point of a picture."""

    name: str
    x: float | None
    figure: Figure


def draw(answer: Answer, files: Sequence[Path]) -> str | None:
    """Draw a study once for each file, in the format of its name.

    Returns:
        Why nothing was drawn; None where something was.
    """
    marks = marks_of(answer)
    if not any(mark.figure.ours is not None for mark in marks):
        return "no picture was drawn: there is no run of this study yet"
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure as Canvas
    except ImportError:
        return WITHOUT
    study = answer.study
    one_axis = study.layout == "measures"
    papers = any(mark.figure.paper is not None for mark in marks)
    settings: Any = {"svg.hashsalt": "speed", "svg.fonttype": "none", "text.parse_math": False}
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        numeric = all(mark.x is not None for mark in marks)
        height = 3.6 if numeric else 1.2 + 0.32 * len(marks)
        canvas = Canvas(figsize=(9.0 if papers and not one_axis else 6.0, height), layout="constrained")
        panels = canvas.subplots(
            1, 2 if papers and not one_axis else 1, squeeze=False, sharex=numeric, sharey=not numeric
        )
        _panel(panels[0][0], answer, marks, paper=False)
        if papers:
            _panel(panels[0][-1], answer, marks, paper=True)
        if one_axis and papers:
            canvas.legend(loc="outside lower center", ncols=2)
        canvas.suptitle(on_one_line(study.title, 90))
        for file in files:
            unchanging = {"Date": None} if file.suffix == ".svg" else {"Software": None}
            canvas.savefig(file, metadata=unchanging, dpi=150)
    return None


def marks_of(answer: Answer) -> list[Mark]:
    """What is shown: the first measure of each point, or the pictured measures of the only one."""
    study = answer.study
    if study.layout == "measures":
        return [Mark(name, None, answer.rows[0].figures[name]) for name in study.pictured if answer.rows]
    first = study.measures[0].name
    marks = [Mark(row.name, row.x, row.figures[first]) for row in answer.rows]
    return [mark for mark in marks if mark.figure.ours is not None or mark.figure.paper is not None]


def _panel(axes: Any, answer: Answer, marks: Sequence[Mark], paper: bool) -> None:
    study = answer.study
    title = "the paper" if paper else f"ours ({answer.preset})"
    shown = [mark for mark in marks if (mark.figure.paper if paper else mark.figure.ours) is not None]
    values = [(mark.figure.paper if paper else mark.figure.ours) or 0.0 for mark in shown]
    reach = [
        [0.0 if paper or bound is None else abs(value - bound) for value, bound in zip(values, bounds, strict=True)]
        for bounds in ([mark.figure.low for mark in shown], [mark.figure.high for mark in shown])
    ]
    style = {"fmt": "s" if paper else "o", "color": PAPERS if paper else OURS, "capsize": 3, "label": title}
    if all(mark.x is not None for mark in marks):
        line = "-" if len(shown) > 1 else ""
        axes.errorbar([mark.x for mark in shown], values, yerr=reach, linestyle=line, **style)
        if not paper:
            _law(axes, answer)
        axes.set_xscale("log" if study.log_x else "linear")
        axes.set_xticks([mark.x for mark in marks], [on_one_line(mark.name, 12) for mark in marks], fontsize=8)
        axes.minorticks_off()
        axes.set_xlabel(on_one_line(study.x or "", 60))
        axes.set_ylabel(f"{study.measures[0].name} score")
    else:
        places = [marks.index(mark) for mark in shown]
        axes.errorbar(values, places, xerr=reach, linestyle="", **style)
        axes.set_yticks(range(len(marks)), [on_one_line(mark.name, 40) for mark in marks], fontsize=8)
        axes.set_ylim(len(marks) - 0.5, -0.5)
        if study.log_x:
            _logarithmic(axes)
    if study.layout != "measures":
        axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)


def _logarithmic(axes: Any) -> None:
    """Values on a logarithmic axis, with plain numbers: matplotlib's own are mathematics, which is not parsed."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if high > 100 * low else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _law(axes: Any, answer: Answer) -> None:
    """The best law of scores by data size, or the first where none is, with its band over seeds."""
    if answer.laws is None or not answer.laws.laws:
        return
    law = next((each for each in answer.laws.laws if each.form == answer.laws.best), answer.laws.laws[0])
    places = sorted((row.x, law.curve[row.size]) for row in answer.rows if row.x is not None and row.size in law.curve)
    xs, estimates = [x for x, _ in places], [estimate for _, estimate in places]
    label = law.form + (", does not fit" if law.fit is not None and law.fit.refused else "")
    axes.plot(xs, [each.value for each in estimates], color="0.4", linestyle="--", linewidth=1, label=label)
    bands = [each.seeds for each in estimates]
    if all(bands):
        axes.fill_between(xs, [b.low for b in bands if b], [b.high for b in bands if b], color="0.4", alpha=0.15)
    axes.legend(fontsize=8)
