"""Tables for a terminal and for Markdown. Figures stand on the right of their column, words on the left."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from textwrap import fill, wrap
from typing import Any

from speed.core.escape import escape

_NUMBER = r"[-+]?\$?\d[\d,.]*%?"
_FIGURE = re.compile(rf"|-|unknown|{_NUMBER}( (to|±) {_NUMBER})?")
"""A cell of a column of figures: a number, a range, or that there is none."""
NOTHING = ("", "-", "0", "$0.00")
"""What a column may hold throughout to be left out on a terminal, whose width is dear."""


WIDTH = 120
"""Characters of a line on the screen."""


class Table:
    """Rows of text under a head."""

    def __init__(self, *head: str) -> None:
        self.head = head
        self.rows: list[tuple[str, ...]] = []

    def add(self, *cells: object) -> None:
        """Add one row."""
        self.rows.append(tuple(escape(str(cell)) for cell in cells))

    def markdown(self) -> str:
        """A Markdown table; whatever could be markup in a cell is shown as text."""
        rule = tuple("---:" if right else "---" for right in self.to_the_right())
        return "\n".join("| " + " | ".join(map(escaped, line)) + " |" for line in [self.head, rule, *self.rows])

    def latex(self, caption: str, label: str, notes: Sequence[str] = ()) -> str:
        """A LaTeX table (package booktabs); whatever could be a command in a cell is shown as text."""
        columns = "".join("r" if right else "l" for right in self.to_the_right())
        lines = [" & ".join(map(in_latex, line)) + r" \\" for line in [self.head, *self.rows]]
        return "\n".join([
            r"\begin{table}", r"\centering", rf"\caption{{{in_latex(caption)}}}", rf"\label{{{label}}}",
            rf"\begin{{tabular}}{{{columns}}}", r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule",
            r"\end{tabular}", *(rf"\par\footnotesize {in_latex(note)}" for note in notes), r"\end{table}", "",
        ])  # fmt: skip

    def text(self, width: int | None = None) -> str:
        """For printing: drawn by rich on a terminal, plain where the output is piped.

        Args:
            width: characters of a plain line at most, see `plain`.
        """
        return self._drawn() if sys.stdout.isatty() else self.plain(width)

    def plain(self, width: int | None = None) -> str:
        """Columns without a frame, a line for each row.

        Args:
            width: characters of a line at most: what does not fit is broken between words, in the widest columns first.
        """
        columns = [[line[place] for line in [self.head, *self.rows]] for place in range(len(self.head))]
        widths = [max(map(len, column)) for column in columns]
        least = [max(len(word) for cell in column for word in ["", *cell.split()]) for column in columns]
        while width is not None and sum(widths) + 2 * (len(widths) - 1) > width:
            shrinking = [place for place, wide in enumerate(widths) if wide > least[place]]
            if not shrinking:
                break
            widths[max(shrinking, key=lambda place: widths[place])] -= 1
        head, *rows = [_broken(line, widths) for line in [self.head, *self.rows]]
        lines = [*head, tuple("-" * wide for wide in widths), *(line for row in rows for line in row)]
        aligned = list(zip(widths, self.to_the_right(), strict=True))
        return "\n".join(
            "  ".join(
                cell.rjust(wide) if right else cell.ljust(wide)
                for cell, (wide, right) in zip(line, aligned, strict=True)
            ).rstrip()
            for line in lines
        )

    def _drawn(self) -> str:
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table as Drawn
        from rich.text import Text

        drawn = Drawn(box=SIMPLE_HEAD, pad_edge=False)
        told = [
            place for place in range(len(self.head)) if not place or any(row[place] not in NOTHING for row in self.rows)
        ]
        for place in told:
            drawn.add_column(Text(self.head[place]), justify="right" if self.to_the_right()[place] else "left")
        for row in self.rows:
            drawn.add_row(*(Text(row[place]) for place in told))
        console = Console()
        with console.capture() as captured:
            console.print(drawn)
        return captured.get().rstrip()

    def to_the_right(self) -> list[bool]:
        """For each column but the first, whether it holds nothing but figures."""
        return [
            place > 0 and all(_FIGURE.fullmatch(row[place]) for row in self.rows) for place in range(len(self.head))
        ]


_WHOLE: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}


def paragraph(text: str, indent: int = 2) -> str:
    """Text in lines of at most 118 characters. Its own lines stay apart; words, paths and commands stay whole."""
    out = []
    for line in text.split("\n"):
        first = " " * (len(line) - len(line.lstrip()))
        more = first + " " * indent
        out.append(fill(line.strip(), 118, initial_indent=first, subsequent_indent=more, **_WHOLE))
    return "\n".join(out)


def _broken(line: tuple[str, ...], widths: list[int]) -> list[tuple[str, ...]]:
    """A row as the lines that its cells take in columns of these widths."""
    cells = [
        wrap(cell, width, **_WHOLE) if len(cell) > width else [cell] for cell, width in zip(line, widths, strict=True)
    ]
    return list(zip_longest(*cells, fillvalue=""))


def escaped(cell: str) -> str:
    """Text in which nothing is markup."""
    cell = escape(cell)
    for mark in "\\|<>`*_[]":
        cell = cell.replace(mark, "\\" + mark) if mark in "\\|" else cell.replace(mark, f"&#{ord(mark)};")
    return cell.replace("\n", " ")


_IN_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", "±": r"$\pm$", "β": r"$\beta$",
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
}  # fmt: skip
"""What LaTeX would take for a command or cannot print, and what to write for it."""


def in_latex(cell: str) -> str:
    """Text in which nothing is a command."""
    return "".join(_IN_LATEX.get(mark, mark) for mark in escape(cell).replace("\n", " "))


def counted(count: int, what: str) -> str:
    """`1 task`, `6 tasks`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def p_value(chance: float) -> str:
    """A probability by chance; one that is too small for a float is no 0."""
    return f"p = {chance:.2g}" if chance >= 1e-4 else "p < 0.0001"


def money(dollars: float | None) -> str:
    """`$12.30`; `unknown` is never shown as nothing."""
    return "unknown" if dollars is None else f"${dollars:,.2f}"


def near(path: Path) -> str:
    """The path as one would type it from here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
