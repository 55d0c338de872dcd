"""Why a run would not start: everything that is known before something is built or paid for. A plan prints it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence

from speed.cluster.ray_cluster import Cluster
from speed.config import Config
from speed.core.errors import UserError, mistakes_of
from speed.core.graph import StageStatus
from speed.core.store import Store
from speed.core.work import Work
from speed.runs.access import Access, refuse_without_access
from speed.runs.gpu_memory import refuse_beyond_memory
from speed.runs.labelled_sources import refuse_small_sources
from speed.runs.stage_lines import stage_line
from speed.runs.topic_use import recurring_topics, refuse_recurring_topics
from speed.stages.embedder import Embedder
from speed.teaching.entry import Spending
from speed.teaching.spending import caps_of

MINIATURE = "package:miniature/"
"""Beginning of the names of the miniature's models."""


def refusals(
    config: Config, store: Store, found: list[StageStatus], access: list[Access], typed: Sequence[str] = ()
) -> list[str]:
    """Everything that speaks against a run, each with its remedy. What is built already asks nothing of the machine.

    Args:
        found: the run's stages, upstream first.
        access: to what they need of the hub.
        typed: the overrides of the command line.
    """
    missing = [status for status in found if status.state != "hit"]
    checks: list[Callable[[], None]] = [lambda: refuse_over_caps(config, store, found)]
    if any(status.work.calls for status in missing):
        checks += [lambda teacher=teacher: teacher.check(config.runtime) for teacher in config.asked]  # type: ignore[misc]
        if any(teacher.costs_money(config.runtime) for teacher in config.asked):
            checks.append(lambda: refuse_small_models(config, typed))
            if not config.topics.recur:
                checks.append(lambda: refuse_recurring_topics(recurring_topics(found, store)))
    if any(status.goal.node.demand(config.runtime).devices for status in missing):
        checks.append(config.runtime.check_devices)
    checks.append(lambda: refuse_without_cluster(config, missing))
    checks += [lambda node=status.goal.node: node.check(config.runtime) for status in missing]  # type: ignore[misc]
    checks.append(lambda: refuse_beyond_memory(config, missing))
    if any(isinstance(status.goal.node, Embedder) for status in missing):
        checks.append(lambda: refuse_small_sources(config))
    checks += [status.goal.node.check_models for status in missing]
    checks.append(lambda: refuse_without_access(access))
    return mistakes_of(checks)


def model_refusals(found: list[StageStatus]) -> list[str]:
    """What speaks against the base models alone, once those of the hub are described on this machine."""
    return mistakes_of(status.goal.node.check_models for status in found if status.state != "hit")


def refuse(reasons: list[str]) -> None:
    """Do not start a run that something speaks against.

    Raises:
        UserError: with all reasons.
    """
    if len(reasons) == 1:
        raise UserError(reasons[0])
    if reasons:
        listed = "\n".join("- " + reason.replace("\n", "\n  ") for reason in reasons)
        raise UserError(f"the run is refused, for {len(reasons)} reasons:\n{listed}")


def refuse_small_models(config: Config, typed: Sequence[str]) -> None:
    """Do not pay a teacher for the miniature's models, which can learn nothing from it, unless they were asked for.

    Args:
        typed: the overrides of the command line, in which an option counts as asked for by name.

    Raises:
        UserError: naming the groups.
    """
    named = {override.lstrip("+").partition("=")[0].partition(".")[0] for override in typed}
    bases = {"generator=tiny_llama": config.generator.base, "embedder=tiny": getattr(config.embedder, "base", None)}
    small = [
        option
        for option, base in bases.items()
        if option.partition("=")[0] not in named and str(getattr(base, "name", base)).startswith(MINIATURE)
    ]
    if small:
        raise UserError(
            "a teacher that costs money would be paid for the miniature's models, of a million parameters\n"
            "  take a preset with larger ones (laptop, one_gpu, paper); or name the miniature's, to pay for them: "
            + " ".join(small)
        )


def refuse_without_cluster(config: Config, missing: list[StageStatus]) -> None:
    """A cluster that is asked for is joined, and its machines are looked at, before anything is built.

    Raises:
        UserError: with the remedy.
    """
    demands = [status.goal.node.demand(config.runtime) for status in missing]
    if config.runtime.cluster == "ray" and any(demand.workers for demand in demands):
        Cluster(config.runtime.address).check()


def refuse_over_caps(config: Config, store: Store, found: list[StageStatus]) -> None:
    """A cap that the whole experiment cannot keep is told before anything is bought.

    What its stages cost already counts with what they still want; answers that a killed run has paid for may be free
    now, so the rest is left to the caps themselves, which hold while answers are bought.

    Raises:
        UserError: naming the cap.
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
        line = stage_line(status.goal, store, built_now=False)
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
    passed = caps.passed(spent.plus(_spending(work_at_most(config, found))))
    if passed is not None:
        print(
            f"note: {_cap_name(passed)}={getattr(caps, passed):g} is enough where few rows and answers are tried "
            "again, not where all tries are spent; the run stops at the cap, and the same command with a larger one "
            "goes on",
            file=sys.stderr,
        )


def work_at_most(config: Config, found: list[StageStatus]) -> Work:
    """What teachers may be paid for, about, where every row needs all its attempts and every answer all its tries."""
    return sum((status.at_most for status in found for _ in range(config.teacher.tries)), Work())


def _spending(work: Work) -> Spending:
    return Spending(work.dollars or 0.0, work.tokens_in + work.tokens_out, work.calls)


def _cap_name(cap: str) -> str:
    return "runtime.max_usd" if cap == "dollars" else f"runtime.max_{cap}"
