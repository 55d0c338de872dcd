"""`report.html` of a run: what it was, what it cost, how it went, and its records to look through."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from speed.core.graph import Goal
from speed.core.store import Store
from speed.data.calibration import calibration
from speed.data.evaluation_record import shown
from speed.data.published_scores import published
from speed.data.quality.retention import published_shares
from speed.data.records import Scores
from speed.runs import report, score_tables
from speed.runs.ledger_table import ledger_table
from speed.runs.page.curves import curves, scores_by_type
from speed.runs.page.document import page
from speed.runs.page.flow import duration, flow
from speed.runs.page.lives import Ending, Lives, lives
from speed.runs.page.packing import packed_records
from speed.runs.page.telling import meaning, told
from speed.runs.quiet_faults import quiet_faults
from speed.runs.stage_lines import StageLine, corpus_of
from speed.runs.table_one import is_comparable, table_one
from speed.runs.tables import Table, counted, money, p_value

LIVES = {"corpus": "examples of the corpus", "lists": "judged lists", "seed": "the teacher's examples"}
HABITS = {
    "calls_per_list": "judgements of a list",
    "swap_flips": "lists judged otherwise when shown in reverse",
    "agreement_best": "judgements that agree on the best",
    "agreement_worst": "judgements that agree on the worst",
    "longer_wins": "pairs whose chosen answer is the longer one",
    "length_gap": "characters that the chosen answer has more",
    "chosen_faulty": "chosen answers with a fault",
    "rejected_faulty": "rejected answers with a fault",
}
"""Figures of a judge, in words."""
SHARES = {"swap_flips", "agreement_best", "agreement_worst", "longer_wins", "chosen_faulty", "rejected_faulty"}


def write(folder: Path, page: Callable[[], str]) -> Path | None:
    """Write the page of a run, which `html` makes; where that fails, say so and leave the run alone."""
    try:
        (folder / "report.html").write_text(page(), encoding="utf-8")
    except Exception as error:  # a run that took days is not lost for its picture
        print(
            f"warning: report.html could not be made ({type(error).__name__}: {error}); report.md and summary.json are "
            "whole",
            file=sys.stderr,
        )
        return None
    return folder / "report.html"


def html(
    name: str,
    about: dict[str, Any],
    order: Sequence[Goal],
    store: Store,
    lines: Sequence[StageLine],
    scores: Scores | None,
    stopped: str = "",
    found: Lives | None = None,
) -> str:
    """The page of a run.

    Args:
        scores: None where the run stopped before.
        stopped: why it did.
        found: the lives of its records, where they were read already.
    """
    found = found or lives(order, store)
    records = [told(life, found) for life in found.sample]
    data, held = packed_records({}, records) if records else ("", 0)
    asked, faults = [each for line in lines for each in line.ledger], quiet_faults(lines)
    values: dict[str, Any] = {
        "title": name,
        "eyebrow": f"a run of SPEED, {about.get('preset', '')}, {folder_date(about)}".strip(", "),
        "about": about,
        "stopped": [line.strip() for line in stopped.splitlines()],
        "tiles": _tiles(lines, scores, about),
        "faults": faults,
        "remarks": [remark for remark in report.remarks(list(lines)) if remark not in faults],
        "flow": flow(order, lines),
        "scores": _scores(name, lines, scores, store.home) if scores else None,
        "curves": curves(order, store),
        "judge": _judge(lines),
        "kept": _kept(lines),
        "browser": _browser(found, held) if records else None,
        "stages": report.stages_table(list(lines)),
        "teacher": ledger_table(asked, kinds=False) if asked else None,
        "teacher_by_kind": ledger_table(asked) if asked else None,
        "details": _details(lines),
        "data": data,
        "footer": "One file, nothing fetched: it may be sent, kept and opened anywhere. The same as text: report.md.",
    }
    present = {
        "Pipeline": True, "Scores": values["scores"], "Training": values["curves"], "Judge": values["judge"],
        "Deduplication": values["kept"], "Records": values["browser"], "Costs": True, "Stages": True,
    }  # fmt: skip
    return page("run.html", parts=[part for part, there in present.items() if there], **values)


def folder_date(about: dict[str, Any]) -> str:
    """Which code made it."""
    return f"code {about['commit']}" if about.get("commit") else ""


def _tiles(lines: Sequence[StageLine], scores: Scores | None, about: dict[str, Any]) -> list[dict[str, str]]:
    calls = sum(line.cost.get("calls", 0) for line in lines)
    tokens = sum(line.cost.get(name, 0) for line in lines for name in ("tokens_in", "tokens_out"))
    prices = [line.dollars for line in lines]
    spent = None if None in prices else sum(price or 0.0 for price in prices)
    corpus = corpus_of(lines)
    built = sum(line.state == "built" for line in lines)
    tiles = []
    if scores is not None:
        tiles.append(("mean score", shown(scores.mean), f"over {counted(len(scores.tasks), 'task')}"))
    if corpus is not None:
        tiles.append(("examples", f"{corpus.rows_out:,}", f"of {corpus.rows_in:,} that {corpus.label} read"))
    tiles += [
        ("calls to the teacher", f"{calls:,}", f"{tokens:,} tokens"),
        ("paid for answers", money(spent), "list prices, whenever they were paid"),
        ("time of all stages", duration(sum(line.seconds for line in lines)), "whenever they were built"),
        ("stages", f"{built} of {len(lines)}", "built in this run"),
    ]
    return [{"name": name, "value": value, "note": note} for name, value, note in tiles]


def _scores(name: str, lines: Sequence[StageLine], scores: Scores, home: Path) -> dict[str, Any]:
    judged: dict[str, Any] = next((line.metrics["judged"] for line in lines if "judged" in line.metrics), {})
    comparable = is_comparable(scores.tasks, judged.get("pins", {}).get("splits", {}))
    speed = next(row for row in published().table_1.rows if row.name == "SPEED" and row.group == "synthetic data only")
    kinds = judged.get("kinds", {})
    beside = score_tables.scored_without_training(lines)
    every, tasks = [scores, *beside.values()], Counter(kinds.values())
    by_type = Table("task type", "tasks", "this run", *beside, "paper")
    for kind in scores.types:
        cells = (shown(each.types.get(kind)) for each in every)
        by_type.add(kind, tasks[kind] or "-", *cells, shown(speed.types.get(kind)))
    by_type.add("mean over tasks", len(scores.tasks), *(shown(each.mean) for each in every), shown(speed.mean))
    by_type.add("mean over types", len(scores.types), *(shown(each.mean_of_types) for each in every), "-")
    paper = {**speed.types, "mean over tasks": speed.mean} if comparable else {}
    caption = "Strokes are tasks, dots are means. " if len(scores.tasks) > len(scores.types) else ""
    calibrated = calibration(judged.get("pins", {}).get("datasets", {}))
    if calibrated is not None:
        caption += "Bar: the mean of another single run must lie outside of it to be told from this one. "
    caption += "".join(f"{told} " for told in score_tables.beside_the_scores(list(lines)))
    if not comparable:
        caption += (
            "The paper's scores are over 56 other tasks: levels do not compare, so they stand in the table alone."
        )
    own_table = score_tables.own_domain_table(lines, scores)
    return {
        "own": own_table,
        "own_remark": score_tables.own_domain_remark(lines) if own_table is not None else "",
        "picture": scores_by_type(
            scores, kinds, beside, paper, None if calibrated is None else calibrated.single, home
        ),
        "caption": caption,
        "types": by_type,
        "tasks": score_tables.task_table(lines, scores),
        "about_tasks": score_tables.about_the_tasks(lines, scores),
        "table_one": table_one([score_tables.own_row(name, lines, scores)]) if comparable else None,
        "source": published().table_1.source,
        "measured": _measured(judged),
    }


def _measured(judged: dict[str, Any]) -> list[str]:
    if not judged:
        return []
    pins = judged["pins"]
    return [f"Measured with mteb {pins['mteb']}, {pins['precision']}, protocol {judged['protocol']}."]


def _judge(lines: Sequence[StageLine]) -> dict[str, Any] | None:
    judged = [line for line in lines if line.metrics.get("best_by_place") is not None]
    line = next(iter(judged), None)
    if line is None or not (line.rows_in or 0):
        return None
    places = []
    for name in ("best", "worst"):
        seen = line.metrics[f"{name}_by_place"]
        total, p = sum(seen), line.metrics.get(f"{name}_by_place_p")
        if not total:
            continue
        rows = [
            {"name": f"place {place}", "share": count / total, "count": f"{count:,}"}
            for place, count in enumerate(seen, 1)
        ]
        verdict = ""
        if p is not None:
            favours = "The judge favours places." if p < 0.05 else "No place is favoured that one could tell."
            verdict = f"Against an even spread: {p_value(p)}. {favours}"
        places.append(
            {"name": f"named {name}, by place shown", "rows": rows, "even": 1 / len(seen), "verdict": verdict}
        )
    habits = Table("habit", "")
    for key, words in HABITS.items():
        value = line.metrics.get(key)
        if value is not None:
            habits.add(words, f"{100 * value:.1f}%" if key in SHARES else f"{value:,.1f}")
    of_round = f" in the first of {len(judged)} rounds" if len(judged) > 1 else ""
    lead = f"{line.rows_in:,} lists were judged{of_round}, {line.rows_out or 0:,} gave a pair. "
    lead += "The stroke is an even spread."
    return {"lead": lead, "places": places, "habits": habits}


def _kept(lines: Sequence[StageLine]) -> dict[str, Any] | None:
    line = next((line for line in lines if "not_repeated_by_kind" in line.metrics), None)
    if line is None:
        return None
    shares, paper = line.metrics["not_repeated_by_kind"], published_shares()
    rows = [{"kind": kind, "share": shares[kind], "paper": paper[kind]} for kind in paper if kind in shares]
    if line.rows_in:
        whole = 1 - line.rejected.get("duplicate", 0) / line.rows_in
        rows.append({"kind": "all", "share": whole, "paper": paper["whole"]})
    note = f"{line.rejected.get('duplicate', 0):,} of {line.rows_in or 0:,} examples repeat an earlier one."
    return {"rows": rows, "note": note}


def _browser(found: Lives, held: int) -> dict[str, Any]:
    total = found.counts.total()
    every = "all" if held == total else f"{held:,} of {total:,}, spread over kinds, endings and faults,"
    lead = f"Each record with its whole life, from its topic on: {every} are in this page. Counts are of all records."
    counts = []
    for life, words in LIVES.items():
        endings = {ending: count for ending, count in found.counts.items() if ending.life == life}
        if endings:
            counts.append(
                {"name": f"all {sum(endings.values()):,} {words}: how they ended", "table": _endings(endings)}
            )
        faults = {key[1:]: count for key, count in found.faults.items() if key[0] == life}
        if faults:
            counts.append({"name": f"guidelines that {words} break", "table": _by_kind("guideline", faults)})
    return {"lead": lead, "counts": counts}


def _endings(endings: dict[Ending, int]) -> Table:
    cells: Counter[tuple[str, str]] = Counter()
    for ending, count in endings.items():
        cells[ending.kind, f"{ending.outcome}, {ending.cause}" if ending.cause else ending.outcome] += count
    return _by_kind("ended", cells)


def _by_kind(head: str, cells: dict[tuple[str, str], int]) -> Table:
    """Counts by kind, in columns, and something else."""
    kinds = sorted({kind for kind, _ in cells})
    names: Counter[str] = Counter()
    for (_, name), count in cells.items():
        names[name] += count
    table = Table(head, *kinds, "all", "meaning")
    for name, count in names.most_common():
        cause = name.rpartition(", ")[2]
        words = meaning(cause)
        table.add(
            name, *(f"{cells.get((kind, name), 0):,}" for kind in kinds), f"{count:,}", "" if words == cause else words
        )
    return table


def _details(lines: Sequence[StageLine]) -> list[dict[str, Any]]:
    out = []
    for line in lines:
        figures = {**line.noted, **{name: value for name, value in line.metrics.items() if name not in report.LARGE}}
        told_of = [(name.replace("_", " "), _figure(value)) for name, value in figures.items()]
        out.append({"label": line.label, "key": line.key[:20], "figures": told_of})
    return out


def _figure(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
