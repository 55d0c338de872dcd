"""One run of one experiment: plan it, build what is missing, report what came out."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from speed.config import Config
from speed.core.cache import write_aside
from speed.core.content import load_memory, noted_absence, save_memory
from speed.core.errors import CorruptArtifact, Later, UserError
from speed.core.graph import Goal, StageStatus, stage_statuses
from speed.core.manifest import commit
from speed.core.stage import Pool, Stage
from speed.core.store import Store
from speed.core.work import Work
from speed.pipeline import Pipeline, pipeline
from speed.ports import TrackedRun
from speed.runs.access import LACKING, access_lines, fetch_descriptions, hub_access, lacking
from speed.runs.answered import PLANNED, answered_calls
from speed.runs.building import Building, Origin
from speed.runs.ending import build_and_tell
from speed.runs.gpu_memory import memory_lines
from speed.runs.host import host_lines
from speed.runs.labelled_sources import listed_small, missing_sources, refuse_missing_sources, source_lines
from speed.runs.named_keys import with_key
from speed.runs.plan import print_plan
from speed.runs.preview import model_prompts, previews
from speed.runs.probe import probe, probe_lines
from speed.runs.refusals import model_refusals, refusals, refuse, work_at_most
from speed.runs.resources import resource_lines
from speed.runs.status import runs_to_show, status_of, status_text
from speed.runs.tables import money, near, paragraph
from speed.runs.teacher_check import TeacherCheck, announced
from speed.runs.teacher_verdicts import told
from speed.runs.topic_use import tell_recurring_topics

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


def run(config: Config, composed: str, origin: Origin, clock: Callable[[], float] = time.monotonic) -> float | None:
    """Plan or build one experiment.

    Args:
        composed: the config as YAML, kept beside the report.
        clock: see `Building`.

    Returns:
        The mean score over tasks (what a sweeper optimises); None for a plan.
    """
    for variable, value in QUIET.items():
        os.environ.setdefault(variable, value)
    store = Store(config.runtime.home.expanduser().resolve())
    if config.status:
        print_status(store)
        return None
    config = config.model_copy(update={"runtime": config.runtime.on_this_machine()})
    planned = config.plan or config.probe
    if not planned and not config.preview:
        store.open()
    load_memory(store.home / "cache" / "hashes.json")
    if not planned:
        refuse_missing_sources(config)
    try:
        with noted_absence(planned) as absent:
            pipe = pipeline(config)
            order = pipe.goals()
            found = stage_statuses(order, store)
    except UserError as mistake:
        told = with_key(config, str(mistake))
        if not planned:
            raise type(mistake)(told) from None
        print(f"no plan can be made of this, and the run would be refused: {told}")
        return None
    absent = [with_key(config, each) for each in absent]
    for status in found:
        if status.damaged:
            print(f"damaged and set aside: {status.damaged}; it will be built again", file=sys.stderr)
    remarks = [remark for teacher in config.asked for remark in (*teacher.remarks(), teacher.under_way(store.home))]
    for remark in dict.fromkeys(filter(None, [*remarks, *config.embedder.remarks()])):
        print(f"note: {remark}", file=sys.stderr)
    tell_recurring_topics(found, store)
    if planned:
        measured = probe(config, found) if config.probe else {}
        answered = answered_calls(found, store, config.runtime, PLANNED)
        print_plan(config, origin.preset, found, pipe.key, answered)
        if origin.sweep is not None:
            PLANNED.extend(order)
        print("\n".join(source_lines(config, pipe.embedder.rows)))
        _print_obstacles(config, origin, store, found, absent)
        hours = {label: each.gpu_hours for label, each in measured.items() if each.gpu_hours is not None}
        known = [label for label, each in measured.items() if each.measured is not None]
        rest = [status for status in found if status.goal.label not in known]
        print(
            "\n".join(
                [
                    "",
                    *resource_lines(config, found, hours),
                    *(probe_lines(measured, config.runtime) if config.probe else ()),
                    *memory_lines(config, rest),
                    *host_lines(config, rest, store.home),
                ]
            )
        )
        return None
    if config.preview:
        for text in previews(order, store, config.runtime):
            print(text)
        for text in model_prompts(order, store, config.runtime):
            print(text)
        return None
    if config.teach_check:
        check_teacher(config, order, store)
        return None
    access = hub_access(found, store.home)
    for line in access_lines([each for each in access if each.state == "unknown"]):
        print(f"note: {line}", file=sys.stderr)
    refuse(refusals(config, store, found, access, origin.overrides))
    if fetch_descriptions(access):
        refuse(model_refusals(found))
    for status in found:
        if status.state != "hit":
            status.goal.node.read_inputs(config.runtime, lambda message: print(message, file=sys.stderr))
    save_memory(store.home / "cache" / "hashes.json")
    if config.verify and verify(order, store):
        found = stage_statuses(order, store)
    _announce_other_code(found)
    return _build_and_report(config, composed, origin, store, pipe, order, found, clock)


def _print_obstacles(config: Config, origin: Origin, store: Store, found: list[StageStatus], absent: list[str]) -> None:
    """What a run would need of the hub, and everything for which it would be refused.

    Args:
        absent: files that the config names and that are not there.
    """
    access = hub_access(found, store.home)
    if access:
        print("\n".join(["", "needed from the hub (stages that are built need nothing):", *access_lines(access)]))
    reasons = refusals(config, store, found, [], origin.overrides)
    unsaid = [each for each in absent if not any(each.partition(":")[0] in reason for reason in reasons)]
    reasons = [*unsaid, *reasons]
    if lacking(access):
        reasons.append(f"{LACKING}: see above")
    if sets := missing_sources(config):  # the table above has them, one by one
        reasons = [reason for reason in reasons if not any(f"{file} " in f"{reason} " for file in sets)]
        reasons.append(f"labelled sets are missing: {len(sets)}, see above")
    if small := listed_small(config):
        reasons = [reason.replace(small, "see above") for reason in reasons]
    told = [f"as things stand here, the run would be refused: {reason}" for reason in dict.fromkeys(reasons)]
    if any(status.work.calls for status in found):
        unready = filter(None, dict.fromkeys(teacher.unready(config.runtime) for teacher in config.asked))
        told += [f"its first call would be refused, unless the journal has all answers: {why}" for why in unready]
    for line in told:
        print("\n" + paragraph(line))


def _build_and_report(
    config: Config,
    composed: str,
    origin: Origin,
    store: Store,
    pipe: Pipeline,
    order: list[Goal],
    found: list[StageStatus],
    clock: Callable[[], float],
) -> float | None:
    begun = time.monotonic()
    folder = run_folder(store, config.name)
    point_to(folder, store.home / "runs" / "latest")
    (folder / "config.yaml").write_text(composed, encoding="utf-8")
    todo = {status.goal.key for status in found if status.state != "hit"}
    print(_opening(config, origin, found, folder), file=sys.stderr)
    tracked = config.tracker.follow(
        TrackedRun(
            folder=folder,
            key=pipe.key,
            preset=origin.preset,
            sweep=origin.sweep,
            home=store.home,
            directory=config.runtime.tracking_dir or folder,
        )
    )
    planned = {status.goal.label: status.work.dollars for status in found}
    rows = {status.goal.label: float(status.work.generated or status.work.trained) for status in found}
    building = Building(config, store, order, todo, folder, begun, planned, tracked, rows, clock)
    try:
        mean = build_and_tell(building, origin, pipe)
    except Later:
        tracked.leave()
        raise
    except BaseException:
        tracked.fail()
        raise
    tracked.finish()
    return mean


def check_teacher(config: Config, order: list[Goal], store: Store) -> None:
    """Say what a check of the teacher costs, make its calls and print what came out.

    Raises:
        UserError: for a teacher that answers in batches.
    """
    if config.teacher.reads_ahead:
        raise UserError(
            "teach_check=true asks its twenty questions in four steps, and this teacher may take a day for each\n  ask "
            "the same model by itself, with the same settings: teacher=gpt4o, or teacher=openai_compatible for a "
            "server of your own"
        )
    config.teacher.check(config.runtime)
    check = TeacherCheck(config, order, store)
    print(announced(config, check.cost()), file=sys.stderr)
    name, encode = config.embedder.quick_encoder(config.runtime) or ("hashed words", None)
    print(told(check.run(encode), name))


def print_status(store: Store) -> None:
    """How the runs of a root stand: those that live, or the last one."""
    found = runs_to_show(store.home)
    if not found:
        raise UserError(f"no run has been started under {store.home}: set runtime.home or SPEED_HOME to its root")
    print("\n\n".join(status_text(status_of(folder)) for folder in found))


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


def point_to(folder: Path, link: Path) -> None:
    """Have a link lead to a folder, relative so that the root may move; left alone where there are no links."""
    with suppress(OSError), write_aside(link) as aside:
        aside.symlink_to(os.path.relpath(folder, link.parent))


def _opening(config: Config, origin: Origin, found: list[StageStatus], folder: Path) -> str:
    hits = sum(status.state == "hit" for status in found)
    work = sum((status.work for status in found), Work())
    most = work_at_most(config, found).calls
    upto = f", at most {most:,} where rows and answers are tried again" if most != work.calls else ""
    return (
        f"{config.name}: preset {origin.preset}; {hits} of {len(found)} stages are built already; "
        f"{work.calls:,} teacher calls to make{upto} ({money(work.dollars)}); folder {near(folder)}"
    )
