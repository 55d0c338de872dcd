"""What a run did, for the reader: from manifests alone, never from W&B.

For each stage what went in, what came out, what was rejected and why, seconds, calls, tokens and dollars; then the
scores by task type. The same tables are printed and written as Markdown.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speed.core.escape import escape
from speed.core.graph import Goal
from speed.core.ledger import Line, gathered
from speed.core.ledger import total as sum_of
from speed.core.manifest import Manifest
from speed.core.spec import Json, Spec
from speed.core.stage import Pool
from speed.core.store import Store
from speed.data.evaluation_record import scores_of, shown
from speed.data.published_scores import published
from speed.data.quality.retention import published_shares
from speed.data.records import Scores
from speed.data.yardsticks import known_yardsticks, yardsticks
from speed.runs.ledger_table import ledger_table
from speed.runs.quiet_faults import quiet_faults
from speed.runs.table_one import OwnRow, is_comparable, table_one
from speed.runs.tables import Table, escaped, money

LARGE = ("scores", "judged", "untrained", "own_domain")
"""Metrics that have tables of their own."""
UNTRAINED = "untrained"
"""Heading of the column of the embedder's base."""


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
    cpu_seconds: float = 0.0
    """Of the processes that built it; those of a training's processes and of servers are not among them."""


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
        cpu_seconds=round(sum(manifest.cpu_seconds for manifest in manifests), 2),
    )


def _manifests(goal: Goal, store: Store) -> list[Manifest]:
    node = goal.node
    if isinstance(node, Pool):
        spans = (span for span in store.shards(node) if span.start < goal.rows)
        found = [store.shard_manifest(node, span) for span in spans]
    else:
        found = [store.manifest(node)]  # type: ignore[arg-type]
    return [manifest for manifest in found if manifest is not None]


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
    table.add(f"mean over {len(scores.tasks)} tasks", *(shown(each.mean) for each in every))
    table.add(f"mean over {len(scores.types)} types", *(shown(each.mean_of_types) for each in every))
    return table


def beside_the_scores(lines: list[StageLine]) -> list[str]:
    """What the yardsticks of the table of scores are."""
    judged = _judged(lines)
    names = yardsticks(judged["pins"]["datasets"]) if judged is not None else {}
    told = [f"{each.name}: {each.about}" for each in known_yardsticks() if each.name in names]
    if _untrained(lines) is not None:
        told.insert(0, f"{UNTRAINED}: the embedder's base as it came, under the protocol of the run")
    return [f"Beside the run, without training: {'; '.join(told)}."] if told else []


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
        table.add(name, shown(old), shown(new), "-" if old is None or new is None else f"{new - old:+.1f}")
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


def beside_table_one(name: str, lines: list[StageLine], scores: Scores) -> list[str]:
    """The paper's Table 1 with a row of this run; nothing unless the run is scored on all of its tasks."""
    judged = _judged(lines)
    if judged is None or not is_comparable(scores.tasks, judged["pins"].get("splits", {})):
        return []
    corpus = next((line.rows_out for line in lines if line.label in ("dedup", "given corpus")), None)
    trained_on = "this run" if corpus is None else f"this run, {corpus:,} examples kept"
    table = table_one([OwnRow(name, trained_on, scores.types, scores.mean)])
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
        by_task = Table("task", "score")
        for task, score in scores.tasks.items():
            by_task.add(task, shown(score))
        parts += ["## Scores", scores_table(lines, scores).markdown(), *beside_the_scores(lines)]
        parts += [by_task.markdown(), *measured(lines)]
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
