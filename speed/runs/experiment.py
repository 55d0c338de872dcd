"""One run of one experiment: plan it, build what is missing, report what came out."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from speed.config import Config
from speed.core.content import load_memory, save_memory
from speed.core.errors import CorruptArtifact, UserError
from speed.core.graph import Goal, StageStatus, stage_statuses
from speed.core.manifest import commit
from speed.core.scheduler import build_all
from speed.core.spec import Json, Spec
from speed.core.stage import Pool, Stage, Work
from speed.core.store import Store
from speed.data.costs.prices import SECONDS_A_CALL, SECONDS_A_TOKEN
from speed.data.records import Scores
from speed.pipeline import Pipeline, pipeline
from speed.runs import report
from speed.runs.machines import machine_table, trainings
from speed.runs.preview import previews
from speed.runs.progress import Screen
from speed.runs.status import recorded, runs_to_show, status_of, told
from speed.teaching.journal import Spending
from speed.teaching.spending import caps_of

PRELOAD = ("hydra", "speed.pipeline")
"""Modules that every stage's process needs."""
QUIET = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # litellm otherwise asks the network for prices when it is imported
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    # stages are forked from a process that has imported torch: a library that looks for a GPU while it is imported must
    # not start CUDA there, or no stage could use it
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
}
"""What libraries must find in the environment when they are imported."""


class Origin(Spec):
    """How a config came about."""

    preset: str
    overrides: tuple[str, ...] = ()
    sweep: str | None = None
    """Name of the sweep that this run is a point of."""


def run(config: Config, composed: str, origin: Origin) -> float | None:
    """Plan or build one experiment.

    Args:
        composed: the config as YAML, kept beside the report.

    Returns:
        The mean score over tasks (what a sweeper optimises); None for a plan.
    """
    for variable, value in QUIET.items():
        os.environ.setdefault(variable, value)
    store = Store(config.runtime.home.expanduser().resolve())
    if config.status:
        print_status(store)
        return None
    if not config.plan and not config.preview:
        store.open()
    load_memory(store.home / "cache" / "hashes.json")
    pipe = pipeline(config)
    order = pipe.goals()
    found = stage_statuses(order, store)
    for status in found:
        if status.damaged:
            print(f"damaged and set aside: {status.damaged}; it will be built again", file=sys.stderr)
    for remark in dict.fromkeys(remark for teacher in config.asked for remark in teacher.remarks()):
        print(f"note: {remark}", file=sys.stderr)
    if config.plan:
        print_plan(config, origin, found, pipe)
        try:
            refuse_impossible(config, found)
        except UserError as mistake:
            print(f"\nas things stand here, the run would be refused: {mistake}")
        return None
    if config.preview:
        for text in previews(order, store, config.runtime):
            print(text)
        return None
    refuse_over_caps(config, store, found)
    refuse_impossible(config, found)
    save_memory(store.home / "cache" / "hashes.json")
    if config.verify and verify(order, store):
        found = stage_statuses(order, store)
    _announce_other_code(found)
    return _build_and_report(config, composed, origin, store, pipe, order, found)


def _build_and_report(
    config: Config,
    composed: str,
    origin: Origin,
    store: Store,
    pipe: Pipeline,
    order: list[Goal],
    found: list[StageStatus],
) -> float:
    begun = time.monotonic()
    folder = run_folder(store, config.name)
    (folder / "config.yaml").write_text(composed, encoding="utf-8")
    todo = {status.goal.key for status in found if status.state != "hit"}
    print(_opening(config, origin, found, folder), file=sys.stderr)
    if todo:
        labels = tuple(goal.label for goal in order)
        missing = tuple(goal.label for goal in order if goal.key in todo)
        with Screen() as screen, recorded(folder, config.name, " ".join(sys.argv), labels, missing) as events:

            def listen(label: str, event: dict[str, Json]) -> None:
                events.write(json.dumps({"at": round(time.monotonic() - begun, 3), "stage": label, **event}) + "\n")
                events.flush()
                screen.show(label, event)

            build_all(order, store, config.runtime, listen, folder / "logs", PRELOAD)
    lines = [report.stage_line(goal, store, goal.key in todo) for goal in order]
    scores = _scores(pipe, store)
    seconds = time.monotonic() - begun
    about = {
        "command": " ".join(sys.argv),
        "preset": origin.preset,
        "overrides": " ".join(origin.overrides) or "none",
        "sweep": origin.sweep or "none",
        "seeds": f"data {config.seed.data}, sample {config.seed.sample}, train {config.seed.train}",
        "commit": commit(),
        "seconds": f"{seconds:.1f}",
        "key": pipe.key,
    }
    written = report.write(folder, config.name, about, lines, scores)
    _link(folder, order, store)
    _append_to_ledger(store, folder, config, origin, about, lines, scores, todo)
    print("\n".join([report.stages_table(lines).plain(), *report.remarks(lines), ""]))
    if asked := [each for line in lines for each in line.ledger]:
        print(report.ledger_table(asked, kinds=False).plain() + "\n")
    print(report.scores_table(scores).plain())
    print(f"\n{len(todo)} of {len(order)} stages built, {seconds:.1f} s. Report: {_near(written)}")
    config.tracker.mirror(folder, config.runtime.tracking_dir or folder)
    return scores.mean


def print_plan(config: Config, origin: Origin, found: list[StageStatus], pipe: Pipeline) -> None:
    """The plan on the screen."""
    print(f"plan of {config.name} (preset {origin.preset}), key {pipe.key[:12]}, store {config.runtime.home}")
    print(report.plan_table(found).plain())
    machines = machine_table(config, found)
    if machines is not None:
        print(f"\n{machines.plain()}")
    print(
        "\ncalls are what the teacher will be asked, retries aside; tokens are estimates at the paper's lengths"
        "\n(Table 5, whose 45K calls leave out brainstorming); dollars are list prices of the dated table in speed/data"
    )
    if (tries := config.teacher.tries) > 1:
        print(
            f"an answer of no use is paid for and asked for again (teacher.content_retries={tries - 1}): at most "
            f"{tries} times the calls\nand input tokens shown; a truncated answer has filled its limit and is asked "
            f"for again with twice the limit,\nso output tokens and dollars may be more than {tries} times those shown"
        )
    if rows := report.planned_calls(found, config.teacher.tries):
        print(f"paid calls a row, at least and at most: {rows}")
    print(_hours(found, config.runtime.concurrency))


def print_status(store: Store) -> None:
    """How the runs of a root stand: those that live, or the last one."""
    found = runs_to_show(store.home)
    if not found:
        raise UserError(f"no run has been started under {store.home}: set runtime.home or SPEED_HOME to its root")
    print("\n\n".join(told(status_of(folder)) for folder in found))


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


def verify(order: list[Goal], store: Store) -> int:
    """Check the sha256 of everything built that the run stands on; set aside what is damaged, and say so."""
    damaged = 0
    for goal in order:
        while True:
            try:
                if isinstance(goal.node, Pool):
                    built = min(goal.rows, max((span.stop for span in store.shards(goal.node)), default=0))
                    for _ in store.rows(goal.node.take(built)) if not store.missing(goal.node, built) else ():
                        pass
                elif isinstance(goal.node, Stage) and store.manifest(goal.node) is not None:
                    store.payload(goal.node)
                break
            except CorruptArtifact as corrupt:
                store.set_aside(corrupt.path)
                print(f"damaged and set aside: {corrupt}; it will be built again", file=sys.stderr)
                damaged += 1
    return damaged


def refuse_impossible(config: Config, found: list[StageStatus]) -> None:
    """What this machine or its settings cannot carry out, before anything is built; what is built already asks nothing.

    Raises:
        UserError: with the remedy.
    """
    missing = {status.goal.label for status in found if status.state != "hit"}
    for training in trainings(config):
        if training.label in missing:
            training.trainer.check(training.config, config.runtime)
    if "embedder" in missing:
        config.embedder.check(config.runtime)
    if missing:
        config.engine.check(config.runtime)
    config.eval.check()


def refuse_over_caps(config: Config, store: Store, found: list[StageStatus]) -> None:
    """A cap that the whole experiment cannot keep is told before anything is bought.

    What its stages cost already counts with what they still want; answers that a killed run has paid for may be free
    now, so the rest is left to the caps themselves, which hold while answers are bought.
    """
    caps, work = caps_of(config.runtime), sum((status.work for status in found), Work())
    if caps.none or not work.calls:
        return
    if caps.dollars is not None and work.dollars is None:
        raise UserError(
            "runtime.max_usd is set, but the price of this teacher is unknown, so no cap can be kept\n"
            "  take a teacher of the price table (speed/data/costs/prices.json) or leave runtime.max_usd=null;\n"
            "  runtime.max_tokens and runtime.max_calls need no price"
        )
    spent = Spending()
    for status in found:
        line = report.stage_line(status.goal, store, built_now=False)
        cost = Counter(line.cost)
        calls = cost["calls"] + cost["retries"]
        spent = spent.plus(Spending(line.dollars or 0.0, cost["tokens_in"] + cost["tokens_out"], calls))
    whole = spent.plus(_spending(work))
    passed = caps.passed(whole)
    if passed is not None:
        shown = f"${whole.dollars:,.2f}" if passed == "dollars" else f"{getattr(whole, passed):,} {passed}"
        raise UserError(
            f"the plan costs about {shown}, more than {_cap_name(passed)}={getattr(caps, passed):g}\n"
            "  raise the cap, or take smaller counts; plan=true shows where the money goes"
        )
    passed = caps.passed(spent.plus(_spending(_at_most(config, found))))
    if passed is not None:
        print(
            f"note: {_cap_name(passed)}={getattr(caps, passed):g} is enough where few rows and answers are tried "
            "again, not where all tries are spent; the run stops at the cap, and the same command with a larger one "
            "goes on",
            file=sys.stderr,
        )


def _at_most(config: Config, found: list[StageStatus]) -> Work:
    """What teachers may be paid for, about, where every row needs all its attempts and every answer all its tries."""
    return sum((status.at_most for status in found for _ in range(config.teacher.tries)), Work())


def _spending(work: Work) -> Spending:
    return Spending(work.dollars or 0.0, work.tokens_in + work.tokens_out, work.calls)


def _cap_name(cap: str) -> str:
    return "runtime.max_usd" if cap == "dollars" else f"runtime.max_{cap}"


def _announce_other_code(found: list[StageStatus]) -> None:
    here = commit()
    others = sorted({status.commit for status in found if status.commit not in ("", here)})
    if others:
        labels = [status.goal.label for status in found if status.commit in others]
        builders = ", ".join(others)
        print(
            f"reusing {len(labels)} stages that other code built ({builders}; this is {here}): {', '.join(labels)}",
            file=sys.stderr,
        )


def run_folder(store: Store, name: str) -> Path:
    """A new folder `runs/<date>/<time>-<name>`; two runs of one second get different ones."""
    base = store.home / "runs" / time.strftime("%Y-%m-%d")
    base.mkdir(parents=True, exist_ok=True)
    stamp = time.strftime("%H-%M-%S")
    for place in range(1, 10_000):
        folder = base / (f"{stamp}-{name}" if place == 1 else f"{stamp}-{name}-{place}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise UserError(f"{base} holds too many runs of this second")


def _opening(config: Config, origin: Origin, found: list[StageStatus], folder: Path) -> str:
    hits = sum(status.state == "hit" for status in found)
    work = sum((status.work for status in found), Work())
    most = _at_most(config, found).calls
    upto = f", at most {most:,} where rows and answers are tried again" if most != work.calls else ""
    return (
        f"{config.name}: preset {origin.preset}; {hits} of {len(found)} stages are built already; "
        f"{work.calls:,} teacher calls to make{upto} ({report.money(work.dollars)}); folder {_near(folder)}"
    )


def _scores(pipe: Pipeline, store: Store) -> Scores:
    path = store.payload(pipe.evaluation) / "scores.json"
    return Scores.model_validate_json(path.read_text(encoding="utf-8"))


def _link(folder: Path, order: list[Goal], store: Store) -> None:
    """Links into the store, by name, relative so that the root may move."""
    (folder / "stages").mkdir(exist_ok=True)
    for goal in order:
        link = folder / "stages" / goal.label.replace(" ", "-")
        link.symlink_to(os.path.relpath(store.folder(goal.node), link.parent))


def _append_to_ledger(
    store: Store,
    folder: Path,
    config: Config,
    origin: Origin,
    about: dict[str, Any],
    lines: list[report.StageLine],
    scores: Scores,
    built: set[str],
) -> None:
    """One line a run in runs/ledger.jsonl; a single write, so that parallel runs do not mix theirs."""
    line = {
        "run": folder.relative_to(store.home / "runs").as_posix(),
        "name": config.name,
        **origin.model_dump(mode="json"),
        "commit": about["commit"],
        "key": about["key"],
        "seconds": float(about["seconds"]),
        "built": [entry.label for entry in lines if entry.key in built],
        "calls_now": sum(entry.cost.get("calls", 0) for entry in lines if entry.key in built),
        "mean": scores.mean,
        "types": scores.types,
    }
    with (store.home / "runs" / "ledger.jsonl").open("ab", buffering=0) as file:
        file.write(json.dumps(line).encode() + b"\n")


def _near(path: Path) -> str:
    """The path as one would type it from here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
