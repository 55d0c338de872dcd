"""What a run did, for the reader: from manifests alone, never from W&B.

For each stage what went in, what came out, what was rejected and why, seconds, calls, tokens and dollars; then the
scores by task type. The same tables are printed and written as Markdown.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from speed.core.escape import escape
from speed.core.graph import Goal, StageStatus
from speed.core.ledger import Line, gathered
from speed.core.ledger import total as sum_of
from speed.core.manifest import Manifest
from speed.core.spec import Json, Spec
from speed.core.stage import Pool
from speed.core.store import Store
from speed.core.work import Work
from speed.data.costs.prices import dollars
from speed.data.records import Scores


class StageLine(Spec):
    """One stage of a finished run."""

    label: str
    key: str
    state: str
    """`built` in this run, or `reused`."""
    rows_in: int | None
    """None where the stage reads no rows."""
    rows_out: int | None
    """None where the stage writes a model."""
    rejected: dict[str, int]
    seconds: float
    """Of building what the run uses, whenever that was."""
    gpu_seconds: float
    cost: dict[str, int]
    dollars: float | None
    metrics: dict[str, Json]
    noted: dict[str, int] = {}
    """Whatever else the stage counted."""
    calls_per_row: float | None = None
    """Calls to teachers that an accepted row took, whenever they were paid for; those of rejected rows and second tries
    included. None where no teacher was asked, or no row accepted."""
    ledger: tuple[Line, ...] = ()
    """Its requests to teachers, by purpose, kind, model and cause."""


def stage_line(goal: Goal, store: Store, built_now: bool) -> StageLine:
    """A stage's line from its manifest; a pool's from the shards that the run reads."""
    manifests = _manifests(goal, store)
    counts: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    cost: Counter[str] = Counter()
    for manifest in manifests:
        counts.update(manifest.counts)
        rejected.update(manifest.rejected)
        cost.update(manifest.cost)
    prices = [manifest.dollars for manifest in manifests]
    ledger = gathered(line for manifest in manifests for line in manifest.ledger)
    figures = goal.node.figures(counts, rejected) if isinstance(goal.node, Pool) and manifests else {}
    return StageLine(
        label=goal.label,
        key=goal.key,
        state="built" if built_now else "reused",
        rows_in=counts.get("in"),
        rows_out=counts.get("out"),
        rejected=dict(rejected.most_common()),
        seconds=round(sum(manifest.seconds for manifest in manifests), 1),
        gpu_seconds=round(sum(manifest.gpu_seconds for manifest in manifests), 1),
        cost=dict(cost),
        dollars=None if None in prices else sum(price or 0.0 for price in prices),
        metrics={**manifests[-1].metrics, **figures} if manifests else {},
        noted={name: n for name, n in counts.items() if n and name not in ("in", "out") and "/" not in name},
        calls_per_row=round(sum_of(ledger).requests / counts["out"], 4) if ledger and counts["out"] else None,
        ledger=tuple(ledger),
    )


def _manifests(goal: Goal, store: Store) -> list[Manifest]:
    node = goal.node
    if isinstance(node, Pool):
        spans = (span for span in store.shards(node) if span.start < goal.rows)
        found = [store.shard_manifest(node, span) for span in spans]
    else:
        found = [store.manifest(node)]  # type: ignore[arg-type]
    return [manifest for manifest in found if manifest is not None]


class Table:
    """Rows of text with a title line; numbers are aligned to the right."""

    def __init__(self, *head: str) -> None:
        self.head = head
        self.rows: list[tuple[str, ...]] = []

    def add(self, *cells: object) -> None:
        """One row."""
        self.rows.append(tuple(escape(str(cell)) for cell in cells))

    def markdown(self) -> str:
        """A Markdown table; whatever could be markup in a cell is shown as text."""
        lines = [self.head, tuple("---" if place == 0 else "---:" for place in range(len(self.head))), *self.rows]
        return "\n".join("| " + " | ".join(escaped(cell) for cell in line) + " |" for line in lines)

    def plain(self) -> str:
        """Columns for a terminal."""
        widths = [max(len(line[place]) for line in [self.head, *self.rows]) for place in range(len(self.head))]
        lines = [self.head, tuple("-" * width for width in widths), *self.rows]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if place == 0 else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )


def escaped(cell: str) -> str:
    """Text in which nothing is markup."""
    cell = escape(cell)
    for mark in "\\|<>`*_[]":
        cell = cell.replace(mark, "\\" + mark) if mark in "\\|" else cell.replace(mark, f"&#{ord(mark)};")
    return cell.replace("\n", " ")


def stages_table(lines: list[StageLine], why: bool = True) -> Table:
    """Flow and cost by stage."""
    table = Table("stage", "", "in", "out", "rejected", "seconds", "calls", "tokens", "dollars")
    for line in lines:
        causes = ", ".join(f"{count} {cause}" for cause, count in line.rejected.items() if count) if why else ""
        tokens = line.cost.get("tokens_in", 0) + line.cost.get("tokens_out", 0)
        table.add(
            line.label,
            line.state,
            "-" if line.rows_in is None else f"{line.rows_in:,}",
            "-" if line.rows_out is None else f"{line.rows_out:,}",
            causes or "-",
            f"{line.seconds:,.1f}",
            f"{line.cost.get('calls', 0):,}",
            f"{tokens or line.cost.get('generated_tokens', 0):,}",
            money(line.dollars),
        )
    total = Counter[str]()
    for line in lines:
        total.update(line.cost)
    prices = [line.dollars for line in lines]
    table.add(
        "total", "", "", "", "", f"{sum(line.seconds for line in lines):,.1f}", f"{total['calls']:,}",
        f"{total['tokens_in'] + total['tokens_out'] + total['generated_tokens']:,}",
        money(None if None in prices else sum(price or 0.0 for price in prices)),
    )  # fmt: skip
    return table


def ledger_table(lines: Iterable[Line], kinds: bool = True) -> Table:
    """Requests to teachers by purpose, model and (unless told otherwise) kind: how they ended, what they took and cost.

    The causes of a row sum to its requests. Brainstorming, which the paper's Table 5 leaves out, has rows of its own.
    """
    table = Table(
        "purpose", "kind", "model", "requests", "cached", "retries", "resent", "tokens in", "out", "in its cache",
        "dollars", "in batches", "ended",
    )  # fmt: skip
    lines = gathered(lines)
    for names in dict.fromkeys(line.place[:3] for line in lines) if kinds else ():
        _ledger_row(table, names, [line for line in lines if line.place[:3] == names])
    for purpose, model in dict.fromkeys((line.purpose, line.model) for line in lines):
        ended = [line for line in lines if (line.purpose, line.model) == (purpose, model)]
        _ledger_row(table, (purpose, "all" if kinds else "", model), ended)
    _ledger_row(table, ("total", "", ""), lines)
    return table


def _ledger_row(table: Table, names: tuple[str, str, str], lines: list[Line]) -> None:
    whole, causes = sum_of(lines), Counter[str]()
    for line in lines:
        causes[line.cause] += line.requests
    batches = [dollars(line.model, line.tokens_in, line.tokens_out, batch=True) for line in lines if line.calls]
    counts = (whole.requests, whole.cached, whole.retries, whole.resent)
    tokens = (whole.tokens_in, whole.tokens_out, whole.tokens_cached)
    table.add(
        *names, *(f"{count:,}" for count in (*counts, *tokens)), money(whole.dollars),
        money(None if None in batches else sum(price or 0.0 for price in batches)),
        ", ".join(f"{count:,} {cause}" for cause, count in causes.most_common()),
    )  # fmt: skip


def remarks(lines: list[StageLine]) -> list[str]:
    """What a reader of the table should know beside it."""
    models = sorted({each.model for line in lines for each in line.ledger if each.dollars is None})
    found = [f"The price of {model} is unknown: its answers are in no sum of dollars." for model in models]
    unknown = {line.label: line.noted.get("topics_unknown_to_teacher", 0) for line in lines}
    if any(unknown.values()):
        where = ", ".join(f"{count:,} of {label}" for label, count in unknown.items() if count)
        found.append(f"The teacher knew nothing of the topic of {where}: there it wrote from the topic's words alone.")
    for line in lines:
        if short := line.metrics.get("short"):
            missing = ", ".join(f"{count:,} {kind}" for kind, count in short.items())
            tried = sum(line.metrics["candidates"].values())
            found.append(f"{line.label} is short of {missing}: all attempts are spent, after {tried:,} candidates.")
    if taken := [f"{line.calls_per_row:.2f} for {line.label}" for line in lines if line.calls_per_row is not None]:
        calls = ", ".join(taken)
        found.append(f"Calls that a usable row took, second tries and answers from the journal included: {calls}.")
    found += [_noticed(line.label, line.metrics["detection"]) for line in lines if "detection" in line.metrics]
    return found


def _noticed(label: str, curve: dict[str, Any]) -> str:
    """The S-curve of a deduplication."""
    chances = ", ".join(f"{chance:.1%} at {similarity}" for similarity, chance in curve["chance"].items())
    how = f"by {curve['bands']} bands of {curve['rows']} rows"
    return f"{label} notices a pair, {how}, with a chance of {chances}; a repeat has {curve['threshold']:g} or more."


def scores_table(scores: Scores) -> Table:
    """Main scores by task type, then the two means."""
    table = Table("task type", "score")
    for kind, score in scores.types.items():
        table.add(kind, f"{score:.2f}")
    table.add(f"mean over {len(scores.tasks)} tasks", f"{scores.mean:.2f}")
    table.add(f"mean over {len(scores.types)} types", f"{scores.mean_of_types:.2f}")
    return table


def measured(lines: list[StageLine]) -> list[str]:
    """How the scores came about: what another run must share to be compared with this one (`speed.compare`)."""
    found = next((line.metrics["judged"] for line in lines if "judged" in line.metrics), None)
    if found is None:
        return []
    pins = found["pins"]
    how = f"mteb {pins['mteb']}, {pins['precision']}, protocol {found['protocol']}, batches of {pins['batch']}"
    data = ", ".join(f"{task} {revision}" for task, revision in pins["datasets"].items())
    return [escaped(f"{how}. Data: {data}.")]


def plan_table(found: list[StageStatus]) -> Table:
    """State of every stage, what is left to do, and why."""
    table = Table("stage", "state", "have", "want", "calls", "tokens", "dollars", "to generate", "to train", "why")
    for status in found:
        table.add(
            status.goal.label, status.state, f"{status.built:,}", f"{status.wanted:,}",
            *_work_cells([status]), status.damaged or status.why,
        )  # fmt: skip
    table.add("total", "", "", "", *_work_cells(found), "")
    brainstorming = [status for status in found if status.goal.label.startswith("tasks for")]
    alignment = [status for status in found if status not in brainstorming]
    table.add("  of which alignment (Table 5)", "", "", "", *_work_cells(alignment), "")
    table.add("  of which brainstorming", "", "", "", *_work_cells(brainstorming), "")
    return table


def planned_calls(found: list[StageStatus], tries: int) -> str:
    """Paid calls that a row takes of each stage that has still to ask a teacher, `seed data 1 to 10`.

    Args:
        tries: times that a request is paid for at most (`Teacher.tries`).
    """
    cells = []
    for status in found:
        if status.work.calls:
            rows = status.wanted - status.built
            least, most = status.work.calls / rows, tries * status.at_most.calls / rows
            cells.append(f"{status.goal.label} {least:g}" + (f" to {most:g}" if most > least else ""))
    return ", ".join(cells)


def _work_cells(found: list[StageStatus]) -> tuple[str, ...]:
    """What some stages have still to spend; `400 to 2,000` where rows may need several tries."""
    least = _work_shown(sum((status.work for status in found), Work()))
    most = _work_shown(sum((status.at_most for status in found), Work()))
    return tuple(low if low == high else f"{low} to {high}" for low, high in zip(least, most, strict=True))


def _work_shown(work: Work) -> tuple[str, ...]:
    tokens = work.tokens_in + work.tokens_out
    return f"{work.calls:,}", f"{tokens:,}", money(work.dollars), f"{work.generated:,}", f"{work.trained:,}"


def money(dollars: float | None) -> str:
    """`$12.30`; `unknown` is never shown as nothing."""
    return "unknown" if dollars is None else f"${dollars:,.2f}"


def markdown(name: str, about: dict[str, Any], lines: list[StageLine], scores: Scores) -> str:
    """The run's report."""
    parts = [f"# {name}", "\n".join(f"- {key}: {escaped(str(value))}" for key, value in about.items())]
    parts += ["## Scores", scores_table(scores).markdown()]
    by_task = Table("task", "score")
    for task, score in scores.tasks.items():
        by_task.add(task, f"{score:.2f}")
    parts += [by_task.markdown(), *measured(lines), "## Stages", stages_table(lines).markdown(), *remarks(lines)]
    asked = [each for line in lines for each in line.ledger]
    parts += ["## Teacher", ledger_table(asked).markdown()] if asked else []
    for line in lines:
        figures = {
            **line.noted,
            **{name: value for name, value in line.metrics.items() if name not in ("scores", "judged")},
        }
        if figures:
            parts += [f"### {line.label}", _figures(figures)]
    parts += ["## Keys", "\n".join(f"- {line.label}: `{line.key}`" for line in lines)]
    return "\n\n".join(parts) + "\n"


def _figures(figures: dict[str, Json]) -> str:
    lines = []
    for name, value in figures.items():
        shown = f"{value:.6g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
        lines.append(f"- {escaped(name)}: {escaped(shown)}")
    return "\n".join(lines)


def write(folder: Path, name: str, about: dict[str, Any], lines: list[StageLine], scores: Scores) -> Path:
    """`report.md` and `summary.json` (the same, for programs) in the run's folder."""
    (folder / "report.md").write_text(markdown(name, about, lines, scores), encoding="utf-8")
    summary = {
        "name": name,
        "about": about,
        "stages": [line.model_dump(mode="json") for line in lines],
        "scores": scores.model_dump(mode="json"),
    }
    (folder / "summary.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
    return folder / "report.md"
