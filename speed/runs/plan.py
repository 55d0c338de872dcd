"""What a run would do and cost: the plan on the screen."""

from __future__ import annotations

from collections.abc import Sequence

from speed.config import Config
from speed.core.escape import escape
from speed.core.graph import StageStatus
from speed.core.machine import GIGABYTE
from speed.core.stage import Pool
from speed.core.work import Work
from speed.data.costs.call_tokens import PAPER
from speed.data.costs.loads import EmbedderLoad
from speed.data.costs.memory import (
    PEAKS,
    RESERVED,
    Footprint,
    embedder_bytes,
    fit,
    rows_at_once,
    trained_weights,
    training_hours,
)
from speed.data.costs.model_shapes import Shape, shape_of
from speed.data.costs.prices import CHARACTERS_PER_TOKEN, SECONDS_A_CALL, SECONDS_A_TOKEN
from speed.ports import Training
from speed.runs.answered import Answered, answered_lines
from speed.runs.resources import embedder_hours
from speed.runs.tables import WIDTH, Table, money, paragraph
from speed.stages.base import GeneratingPool, tokens_about
from speed.stages.embedder import Embedder

TELLING = 3
"""Differences of a stage that a plan names."""
WORTH_A_LINE = 100_000_000
"""Weights below which any machine will do."""


def print_plan(
    config: Config, preset: str, found: list[StageStatus], key: str, answered: Sequence[Answered] = ()
) -> None:
    """The plan on the screen.

    Args:
        answered: the calls of `found` that need not be paid for.
    """
    print(f"plan of {config.name} (preset {preset}), key {key[:12]}, store {config.runtime.home}")
    print(plan_table(found).text(WIDTH))
    if known := answered_lines(answered):
        print("\n".join(["", *known]))
    print("\n".join(["", *reason_lines(found, None if config.plan_details else TELLING)]))
    for line in whole_block_lines(found):
        print(paragraph(line))
    machines = machine_table(config, found)
    if machines is not None:
        print(f"\n{machines.text(WIDTH)}")
    told = (
        "calls are what the teacher will be asked, retries aside; what the journal answers, from other runs, is free; "
        "Table 5's 45K leave out brainstorming; dollars are list prices of the dated table in speed/data"
    )
    print(f"\n{paragraph(told)}")
    if calls := tokens_a_call(found):
        print(paragraph(calls))
    if (tries := config.teacher.tries) > 1:
        told = (
            f"an answer of no use is paid for and asked for again ({config.teacher.tried_again_by}): at most {tries} "
            "times the calls and input tokens shown; a truncated answer has filled its limit and is asked for again "
            f"with twice the limit, so output tokens and dollars may be more than {tries} times those shown"
        )
        print(paragraph(told))
    if rows := planned_calls(found, config.teacher.tries):
        print(paragraph(f"paid calls a row, at least and at most: {rows}"))
    print(paragraph(config.teacher.lasting() or _hours(found, config.runtime.concurrency)))


def plan_table(found: list[StageStatus]) -> Table:
    """State of every stage, and what is left to do."""
    table = Table("stage", "state", "have", "want", "calls", "tokens", "dollars", "to generate", "to train")
    for status in found:
        table.add(
            status.goal.label, status.state, f"{status.built:,}", f"{status.wanted:,}", *_work_cells([status])
        )  # fmt: skip
    table.add("total", "", "", "", *_work_cells(found))
    brainstorming = [status for status in found if status.goal.node.purpose == "brainstorm"]
    beside = [status for status in found if status.goal.node.purpose in ("relevance", "graded")]
    alignment = [status for status in found if status not in (*brainstorming, *beside)]
    table.add("  of which alignment (Table 5)", "", "", "", *_work_cells(alignment))
    table.add("  of which brainstorming", "", "", "", *_work_cells(brainstorming))
    for status in beside:
        table.add(f"  of which {status.goal.label}", "", "", "", *_work_cells([status]))
    return table


def reason_lines(found: list[StageStatus], most: int | None) -> list[str]:
    """Why stages are built: stages with the same reasons in one paragraph, with `most` reasons and how many more."""
    stages: dict[str, list[str]] = {}
    for status in found:
        if status.damaged or status.reasons:
            rest = len(status.reasons) - (most or len(status.reasons))
            shown = ", ".join(status.reasons[:most]) + (f" and {rest} more (plan_details=true)" if rest > 0 else "")
            stages.setdefault(status.damaged or shown, []).append(status.goal.label)
    return [paragraph(f"{', '.join(labels)}: {escape(why)}") for why, labels in stages.items()]


def whole_block_lines(found: list[StageStatus]) -> list[str]:
    """Why stages write more rows than are wanted of them."""
    wanted: dict[int, list[str]] = {}
    for status in found:
        pool = status.goal.node
        if (
            isinstance(pool, Pool)
            and pool.whole_blocks
            and (rest := -status.wanted % pool.block)
            and status.work.generated
        ):
            wanted.setdefault(pool.block, []).append(
                f"{status.goal.label} {status.wanted + rest:,} for {status.wanted:,}"
            )
    return [
        f"rows are generated in whole blocks of engine.block={block}, more than are wanted: {', '.join(stages)}; a "
        "smaller block, which is part of keys, wastes less (engine=laptop: 46)"
        for block, stages in wanted.items()
    ]


def tokens_a_call(found: list[StageStatus]) -> str:
    """Tokens of a call of each stage that has still to ask a teacher, beside the paper's."""
    cells, longer = [], False
    for status in found:
        if status.work.calls:
            tokens = (status.work.tokens_in + status.work.tokens_out) / status.work.calls
            paper = PAPER.get(status.goal.node.purpose)
            longer |= paper is not None and tokens > 1.1 * paper
            cells.append(f"{status.goal.label} {tokens:,.0f}" + (f" (the paper's {paper:,.0f})" if paper else ""))
    if not cells:
        return ""
    why = "; the paper's examples were shorter than its prompts ask for: about 156 tokens, by its Table 5"
    return (
        "tokens a call, counted on rendered prompts with answers as long as they ask for "
        f"({CHARACTERS_PER_TOKEN:g} characters a token): {', '.join(cells)}{why if longer else ''}"
    )


def planned_calls(found: list[StageStatus], tries: int) -> str:
    """Paid calls that a row takes of each stage that has still to ask a teacher, `seed data 1 to 10`.

    Args:
        tries: times that a request is paid for at most (`Teacher.tries`).
    """
    cells = []
    for status in found:
        if status.work.calls and isinstance(status.goal.node, Pool):
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


def machine_table(config: Config, found: list[StageStatus]) -> Table | None:
    """How each training fits into GPUs of 24, 40 and 80 GB, and how many texts are written side by side; None where the
    base is small, or of unknown sizes."""
    shape = shape_of(config.generator.base.name)
    if shape is None or shape.parameters < WORTH_A_LINE:
        return None
    table = Table("of one GPU (estimates)", "weights", "trained", *(f"{size} GB" for size in PEAKS), "hours on 80 GB")
    for status in found:
        training: Training | None = status.goal.node.training()
        footprint = None if training is None else training.trainer.footprint()
        if training is not None and footprint is not None:
            table.add(status.goal.label, *_training_cells(training, shape, footprint, status.work.trained))
    load = config.embedder.load()
    base = None if load is None else shape_of(load.base)
    for status in found:
        if isinstance(status.goal.node, Embedder) and load is not None and base is not None:
            table.add("embedder", *_embedder_cells(status.goal.node, load, base, status.work.trained))
    pools = [status.goal.node for status in found if isinstance(status.goal.node, GeneratingPool)]
    lengths = [tokens_about(pool, pool.writes_like)[0] + max(pool.max_tokens.values()) for pool in pools]
    if not lengths:
        return table
    longest = max(lengths)
    texts = [f"{rows_at_once(shape, longest, size):,} texts of {longest:,} tokens" for size in PEAKS]
    table.add("generation (bf16)", f"{shape.parameters:,}", "-", *texts, "-")
    return table


def _training_cells(training: Training, shape: Shape, footprint: Footprint, rows: int) -> list[str]:
    config = training.config
    fits = {size: fit(shape, footprint, config, size) for size in PEAKS}
    widest = fits[max(PEAKS)]
    tokens = rows * training.tokens_a_row
    hours = "-"
    if widest is not None:
        alone = training_hours(shape, footprint, tokens, widest, max(PEAKS), config)
        hours = f"{alone:,.1f}" + (f" on {widest.gpus}" if widest.gpus > 1 else "")
    counts = [f"{shape.parameters:,}", f"{trained_weights(shape, footprint):,}"]
    return [*counts, *(str(one) if one else "does not fit" for one in fits.values()), hours]


def _embedder_cells(node: Embedder, load: EmbedderLoad, shape: Shape, rows: int) -> list[str]:
    needed = embedder_bytes(shape, load.footprint, load.chunk, load.kept, load.checkpointing) / GIGABYTE + RESERVED
    fits = [f"{needed:.0f} GB" if needed <= size else f"does not fit ({needed:.0f} GB)" for size in PEAKS]
    counts = [f"{shape.parameters:,}", f"{trained_weights(shape, load.footprint):,}"]
    return [*counts, *fits, f"{embedder_hours(node, shape, load, rows):,.1f}"]


def _hours(found: list[StageStatus], concurrency: int) -> str:
    """How long the teacher takes, and what that assumes."""
    least, most = (
        _lasting(sum(work.waiting for work in works) / concurrency)
        for works in ([status.work for status in found], [status.at_most for status in found])
    )
    return (
        f"answers of the teacher take {least if least == most else f'{least} to {most}'} at runtime.concurrency="
        f"{concurrency}: {SECONDS_A_CALL:g} s a call and {1 / SECONDS_A_TOKEN:g} tokens a second are assumed, "
        "and no rate limit; rules answer at once"
    )


def _lasting(seconds: float) -> str:
    """A length of time in the unit that fits it."""
    if seconds < 60:
        return "under a minute"
    return f"about {seconds / 60:.0f} minutes" if seconds < 5400 else f"about {seconds / 3600:,.1f} hours"
