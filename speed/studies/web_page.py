"""A study as one HTML file beside its Markdown: the same answer, with its picture inside."""

from __future__ import annotations

from typing import Any

from speed.runs.page.document import page
from speed.runs.page.drawing import inlined
from speed.studies.answer import Answer
from speed.studies.pages import EXPECTED, LEARNT, all_laws, main_table, runs_table, spread_table, told


def html(answer: Answer, picture: str | None = None) -> str:
    """The page of a study.

    Args:
        picture: its picture, as matplotlib wrote it (SVG).
    """
    study, has_runs = answer.study, any(row.runs for row in answer.rows)
    values: dict[str, Any] = {
        "title": study.title,
        "eyebrow": f"study {study.name}" + (f", {answer.preset}" if answer.preset else ""),
        "question": study.question,
        "hypothesis": study.hypothesis,
        "expected": EXPECTED,
        "learnt": study.learnt,
        "learnt_from": LEARNT,
        "commands": answer.commands if answer.commands != answer.missing else (),
        "answer": main_table(answer),
        "picture": inlined(picture, study.title) if picture else None,
        "told": told(answer),
        "spread": spread_table(answer),
        "law": all_laws(answer),
        "missing": answer.missing,
        "runs": runs_table(answer) if has_runs else None,
    }
    present = {
        "Answer": True,
        "Spread": values["spread"],
        "Law": values["law"],
        "Missing": values["missing"],
        "Runs": has_runs,
    }
    footer = f"One file, nothing fetched: it may be sent, kept and opened anywhere. The same as text: {study.name}.md."
    return page(
        "study.html", parts=[part for part, there in present.items() if there], data="", footer=footer, **values
    )
