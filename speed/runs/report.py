"""What a run did, for the reader: from manifests alone, never from W&B.

For each stage what went in, what came out, what was rejected and why, seconds, calls, tokens and dollars; then the
scores by task type. The same tables are printed and written as Markdown.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from speed.core.escape import escape
from speed.core.spec import Json
from speed.data.quality.retention import published_shares
from speed.data.records import Scores
from speed.runs.ledger_table import ledger_table
from speed.runs.quiet_faults import quiet_faults
from speed.runs.score_tables import (
    about_the_tasks,
    beside_table_one,
    beside_the_scores,
    measured,
    own_domain_remark,
    own_domain_table,
    scores_table,
    task_table,
)
from speed.runs.stage_lines import StageLine
from speed.runs.tables import Table, escaped, money

LARGE = ("scores", "judged", "untrained", "own_domain", "contamination", "not_searched")
"""Metrics that have tables of their own."""


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


def remarks(lines: list[StageLine]) -> list[str]:
    """What a reader of the table should know beside it."""
    models = sorted({each.model for line in lines for each in line.ledger if each.dollars is None})
    found = [f"The price of {model} is unknown: its answers are in no sum of dollars." for model in models]
    if guessed := sum(each.estimated for line in lines for each in line.ledger):
        found.append(
            f"The tokens and dollars of {guessed:,} answers are estimated from prompt and answer: their provider did "
            "not say what they took, or nothing that can be true."
        )
    found += [
        f"{line.label}: {line.cost['in_reasoning']:,} answers stood in the provider's field for reasoning, and nothing "
        "in the answer itself. Each was one whole record, and was taken."
        for line in lines
        if line.cost.get("in_reasoning")
    ]
    repeated = "answers_repeated_for_the_next_prompt"
    found += [
        f"{line.label}: {line.noted[repeated]:,} answers repeat those to the prompt before, which was another."
        for line in lines
        if line.noted.get(repeated)
    ]
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
    found += [
        _overlap(line.label, line.metrics["query_words_in_positive"], line.metrics["query_words_in_negative"])
        for line in lines
        if line.metrics.get("query_words_in_positive")
    ]
    found += [_noticed(line.label, line.metrics["detection"]) for line in lines if "detection" in line.metrics]
    found += [f"{line.label}: {remark}" for line in lines for remark in line.metrics.get("remarks", [])]
    found += [f"{line.label}: {line.metrics['at_once']}" for line in lines if "at_once" in line.metrics]
    return found + quiet_faults(lines)


def _noticed(label: str, curve: dict[str, Any]) -> str:
    """The S-curve of a deduplication."""
    chances = ", ".join(f"{chance:.1%} at {similarity}" for similarity, chance in curve["chance"].items())
    how = f"by {curve['bands']} bands of {curve['rows']} rows"
    return f"{label} notices a pair, {how}, with a chance of {chances}; a repeat has {curve['threshold']:g} or more."


def _overlap(label: str, positive: dict[str, float], negative: dict[str, float]) -> str:
    """How far words alone find the positives of a corpus."""
    told = [
        f"{share:.0%} of {kind}" + (f" ({negative[kind]:.0%} in its hard negative)" if kind in negative else "")
        for kind, share in positive.items()
    ]
    return (
        f"{label}: of a query's words its positive has {', '.join(told)}: the more, and the more beyond the hard "
        "negative's, the more is found by words alone, and the less is there to learn."
    )


def retention_table(line: StageLine) -> Table | None:
    """What a deduplication kept of each kind, beside the paper's Table 6; None for any other stage."""
    shares = line.metrics.get("not_repeated_by_kind")
    if shares is None:
        return None
    published = published_shares()
    table = Table("kind", "kept", "in the paper (Table 6)")
    for kind in (kind for kind in published if kind in shares):
        table.add(kind, f"{shares[kind]:.1%}", f"{published[kind]:.1%}")
    repeats = line.rejected.get("duplicate", 0)
    table.add("all", f"{1 - repeats / line.rows_in:.1%}" if line.rows_in else "-", f"{published['whole']:.1%}")
    return table


def markdown(name: str, about: dict[str, Any], lines: list[StageLine], scores: Scores | None, stopped: str = "") -> str:
    """The run's report.

    Args:
        scores: None where the run stopped before.
        stopped: why it did.
    """
    parts = [f"# {name}", "\n".join(f"- {key}: {_about(key, str(value))}" for key, value in about.items())]
    if stopped:
        parts += ["## Stopped", "\n".join(f"- {escaped(line.strip())}" for line in stopped.splitlines())]
    if scores is not None:
        parts += ["## Scores", scores_table(lines, scores).markdown(), *beside_the_scores(lines)]
        parts += [task_table(lines, scores).markdown(), *map(escaped, about_the_tasks(lines, scores)), *measured(lines)]
        if (own := own_domain_table(lines, scores)) is not None:
            parts += ["## Your own documents", own.markdown(), own_domain_remark(lines)]
        parts += beside_table_one(name, lines, scores)
    parts += ["## Stages", stages_table(lines).markdown(), *remarks(lines)]
    asked = [each for line in lines for each in line.ledger]
    parts += ["## Teacher", ledger_table(asked).markdown()] if asked else []
    for table in filter(None, map(retention_table, lines)):
        parts += ["## What deduplication kept", table.markdown()]
    for line in lines:
        figures = {
            **line.noted,
            **{name: value for name, value in line.metrics.items() if name not in LARGE},
        }
        if figures:
            parts += [f"### {line.label}", _figures(figures)]
    parts += ["## Keys", "\n".join(f"- {line.label}: `{line.key}`" for line in lines)]
    return "\n\n".join(parts) + "\n"


def _about(key: str, value: str) -> str:
    """A value of a report's head; what is typed into a terminal as code, so that it can be copied."""
    is_code = key in ("command", "overrides") and "`" not in value and "\n" not in value
    return f"`{escape(value)}`" if is_code and value != "none" else escaped(value)


def _figures(figures: dict[str, Json]) -> str:
    lines = []
    for name, value in figures.items():
        shown = f"{value:.6g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
        lines.append(f"- {escaped(name)}: {escaped(shown)}")
    return "\n".join(lines)


def write_stopped(folder: Path, name: str, about: dict[str, Any], lines: list[StageLine], why: str) -> Path:
    """`report.md` of a run that stopped before its scores. It is no finished run, and has no `summary.json`."""
    (folder / "report.md").write_text(markdown(name, about, lines, None, why), encoding="utf-8")
    return folder / "report.md"


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
