"""A table or figure of the paper from the runs of a root: our numbers with their intervals, the paper's beside them.

    python -m speed.report                     the studies, and how much of each is there
    python -m speed.report table2              one of them: what it says, what is missing, and the command that makes it

A study finds its runs by what their configs differ in. Written are a page (Markdown and HTML), a table (LaTeX),
numbers (CSV and JSON) and a picture (PNG and SVG), into `<root>/studies/`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from speed.core.errors import UserError
from speed.core.escape import escape
from speed.runs.entry import one_message
from speed.runs.finished_runs import DEFAULT_ROOT, FinishedRun, finished_runs
from speed.runs.tables import Table
from speed.studies.answer import Answer
from speed.studies.collect import answer
from speed.studies.definition import Study, studies
from speed.studies.pages import all_laws, comma_separated, latex, main_table, markdown, spread_table, told
from speed.studies.picture import draw
from speed.studies.web_page import html


def parser() -> argparse.ArgumentParser:
    """What can be typed."""
    out = argparse.ArgumentParser(prog="python -m speed.report", description=(__doc__ or "").split("\n")[0])
    out.add_argument("name", nargs="?", choices=sorted(studies()), metavar="NAME", help=", ".join(studies()))
    root = os.environ.get("SPEED_HOME") or DEFAULT_ROOT
    out.add_argument("--root", type=Path, default=Path(root), help="root of the runs (default: %(default)s)")
    out.add_argument("--seeds", type=_seeds, default=(), metavar="N,N", help="that each point should have: 0,1,2")
    out.add_argument("--like", type=Path, metavar="RUN", help="folder of a run that must be among them")
    out.add_argument("--to", type=Path, metavar="DIR", help="where files are written (default: ROOT/studies)")
    return out


def _seeds(text: str) -> tuple[int, ...]:
    return tuple(int(each) for each in text.split(","))


def overview(runs: Sequence[FinishedRun]) -> Table:
    """Every study, and how much of it is there."""
    table = Table("study", "points", "seeds", "")
    for study in studies().values():
        found = answer(study, runs, with_laws=False)
        rows = [row for row in found.rows if row.runs or row.missing]
        there = sum(bool(row.runs) for row in rows)
        most = max((len(row.runs) for row in rows), default=0)
        table.add(study.name, f"{there} of {len(rows)}", most, study.title)
    return table


def write(found: Answer, folder: Path) -> list[str]:
    """Write everything about a study.

    Returns:
        What to tell about it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = found.study.name
    pictures = [folder / f"{name}.{ending}" for ending in ("png", "svg")]
    for old in pictures:
        old.unlink(missing_ok=True)
    without = draw(found, pictures)
    page = markdown(found, None if without else f"{name}.svg")
    svg = None if without else pictures[-1].read_text(encoding="utf-8")
    texts = {
        "md": page,
        "html": html(found, svg),
        "tex": latex(found),
        "csv": comma_separated(found),
        "json": found.model_dump_json(indent=1),
    }
    for ending, text in texts.items():
        (folder / f"{name}.{ending}").write_text(text, encoding="utf-8")
    endings = ", ".join([*texts, *([] if without else ["png", "svg"])])
    return [f"written: {folder / name}.{{{endings}}}", *([without] if without else [])]


def report(study: Study, root: Path, seeds: Sequence[int], like: Path | None, to: Path | None) -> None:
    """Print a study and write its files.

    Raises:
        UserError: if `like` is no finished run of this root, or none of the study.
    """
    runs, unread = finished_runs(root)
    found = answer(study, runs, seeds, _like(runs, like), None if _is_default(root) else str(root))
    print(f"{escape(study.title)}\n{escape(study.question)}\n")
    print(main_table(found).text() + "\n")
    print("\n".join(escape(each) for each in [*told(found), *unread]))
    if spread := spread_table(found):
        print(f"\nSpread over seeds:\n{spread.text()}")
    if laws := all_laws(found):
        print("\n" + "\n".join(each.text() if isinstance(each, Table) else each for each in laws))
    if found.missing:
        print("\nto make what is missing:\n" + "\n".join(f"  {escape(command)}" for command in found.missing))
    print("\n" + "\n".join(escape(each) for each in write(found, to or root / "studies")))


def _like(runs: Sequence[FinishedRun], like: Path | None) -> FinishedRun | None:
    if like is None:
        return None
    for run in runs:
        if run.folder.resolve() == like.resolve():
            return run
    raise UserError(f"{like} is no finished run of this root: give the folder of a run that its ledger has, and --root")


def _refuse_files(root: Path, to: Path | None) -> None:
    """Refuse a root that is none, lest a misspelt one be made; where nothing was run yet the default may be absent."""
    if not root.is_dir() and (root.exists() or root != Path(DEFAULT_ROOT)):
        raise UserError(f"{root} is no folder: give the root of runs (--root, or SPEED_HOME)")
    if to is not None and to.exists() and not to.is_dir():
        raise UserError(f"{to} is a file: give a folder with --to")


def _is_default(root: Path) -> bool:
    """Whether a command finds the root without being told."""
    return root.resolve() == Path(os.environ.get("SPEED_HOME") or DEFAULT_ROOT).resolve()


def main(arguments: Sequence[str] | None = None) -> None:
    """Console entry."""
    given = parser().parse_args(arguments)
    with one_message("reporting"):
        _refuse_files(given.root, given.to)
        if given.name is None:
            runs, unread = finished_runs(given.root)
            print("\n".join([overview(runs).text(), *map(escape, unread)]))
        else:
            report(studies()[given.name], given.root, given.seeds, given.like, given.to)


if __name__ == "__main__":
    main()
