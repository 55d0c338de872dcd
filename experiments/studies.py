"""All studies that are committed, by one command: their sweeps over five seeds, their pages, and what that takes.

    python experiments/studies.py --home speed_home --list
    python experiments/studies.py --home speed_home [--seeds 1 2 3 4 5] [--only table2 figure4]
    python experiments/studies.py --pages

The second makes what is missing, study by study, and copies each page with its numbers (`table2.md`, `table2.json`,
`table2.svg`) beside itself. Stages are shared, finished ones are found again, and the script can be stopped at any
time; two of them with other studies may run side by side on one root. `--list` says the points, what of them is
built, and the core-hours that are left by those that the same kinds of stages have taken in this root. `--pages`
writes the pages again from their JSON and today's texts, after a line of `learnt` was written into a definition, and
fits the laws of scores by data size again to the figures of the runs that the JSON has.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from speed.core.graph import Goal
from speed.core.store import Store
from speed.runs.finished_runs import Seeds
from speed.runs.tables import Table
from speed.studies.answer import Answer
from speed.studies.collect import price_of_an_example
from speed.studies.definition import TEXTS, Study, studies
from speed.studies.missing import commands
from speed.studies.pages import markdown
from speed.studies.picture import draw
from speed.studies.scaling_law import Law, Laws, fit_laws

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "experiments"
COMMITTED = (
    *("table2", "table3", "table4"),
    *("figure3a", "figure3b", "figure3c", "figure3d", "figure3e", "figure4"),
    *("objective", "judge", "levers", "preferences"),
)
"""Studies with a page here, in the order in which they are made."""
SEEDS = (1, 2, 3, 4, 5)
CORES = 2
"""That the hours of `--list` are also told for."""


def made_by(study: Study, seeds: Sequence[int]) -> list[list[str]]:
    """What is typed to make all runs of a study, without `python -m speed.run`."""
    points = study.expected("miniature")
    wanted = {point.name: [Seeds.of(seed) for seed in seeds] for point in points}
    return [shlex.split(command)[3:] for command in commands(study, points, wanted, (), None)]


def make(study: Study, home: Path, seeds: Sequence[int], run: Callable[[Sequence[str]], bool]) -> bool:
    """Make the runs that a study lacks, then its page with its numbers in `home/studies`.

    Args:
        run: carries out `python -m speed.run` with these arguments, and says whether it ended well.
    """
    from speed.report import report

    ended = [run([*typed, "tracker=none"]) for typed in made_by(study, seeds)]
    report(study, home, seeds, None, None)
    return all(ended)


def copied(name: str, home: Path, pages: Path = PAGES) -> None:
    """Copy a study's page, numbers and picture from its root."""
    for ending in ("json", "svg"):
        source = home / "studies" / f"{name}.{ending}"
        if source.is_file():
            shutil.copyfile(source, pages / source.name)
    (pages / f"{name}.md").write_text(page_of(pages / f"{name}.json"), encoding="utf-8")


def page_of(numbers: Path) -> str:
    """The page that a committed JSON gives, under the texts that its study has today.

    Raises:
        ValueError: for numbers of another definition: other points, measures or settings.
    """
    found = Answer.model_validate_json(numbers.read_text(encoding="utf-8"))
    today = studies().get(found.study.name)
    if today is None or today.model_dump(exclude=set(TEXTS)) != found.study.model_dump(exclude=set(TEXTS)):
        raise ValueError(f"{numbers.name} was made for another definition of its study: make it again")
    picture = numbers.with_suffix(".svg")
    return markdown(found.model_copy(update={"study": today}), picture.name if picture.is_file() else None, ours=True)


def _said_before(numbers: Path) -> str:
    """What was expected when the numbers were made."""
    return Answer.model_validate_json(numbers.read_text(encoding="utf-8")).study.hypothesis


def written_again(numbers: Path) -> None:
    """Write a committed page again, with today's laws in its JSON and its picture."""
    found = Answer.model_validate_json(numbers.read_text(encoding="utf-8"))
    if found.laws is not None:
        found, picture = refitted(found), numbers.with_suffix(".svg")
        numbers.write_text(found.model_dump_json(indent=1), encoding="utf-8")
        if picture.is_file():
            draw(found, [picture])
    numbers.with_suffix(".md").write_text(page_of(numbers), encoding="utf-8")


def refitted(found: Answer) -> Answer:
    """An answer with its laws fitted again to the figures of its runs. Bands over tasks stay: no task has figures."""
    further = {name: _refitted(found, name, laws) for name, laws in found.further_laws.items()}
    assert found.laws is not None
    laws = _refitted(found, found.study.measures[0].name, found.laws, priced=True)
    return found.model_copy(update={"laws": laws, "further_laws": further})


def _refitted(found: Answer, measure: str, before: Laws, priced: bool = False) -> Laws:
    seeds = list(dict.fromkeys(run.seed for row in found.rows for run in row.runs))
    measured: dict[int, dict[int, dict[str, float]]] = {}
    for row in found.rows:
        for run in row.runs:
            if row.size is not None and (figure := run.figures[measure]):
                measured.setdefault(row.size, {})[seeds.index(run.seed)] = {measure: figure}
    paid = {row.size: [run.dollars for run in row.runs] for row in found.rows if row.size is not None and priced}
    laws = fit_laws(measured, dollars_per_example=price_of_an_example(paid))
    kept = {law.form: law for law in before.laws}
    return laws.model_copy(update={"laws": tuple(_with_tasks(law, kept.get(law.form)) for law in laws.laws)})


def _with_tasks(law: Law, before: Law | None) -> Law:
    """A law with the bands over tasks of an earlier fit."""
    if before is None:
        return law
    gain = law.points_a_doubling.model_copy(update={"tasks": before.points_a_doubling.tasks})
    curve = {
        size: found.model_copy(update={"tasks": before.curve[size].tasks}) if size in before.curve else found
        for size, found in law.curve.items()
    }
    return law.model_copy(update={"points_a_doubling": gain, "curve": curve})


def stale(pages: Path = PAGES) -> list[str]:
    """What is wrong with the committed pages of studies: one sentence each."""
    found = []
    for name in studies():
        page, numbers = pages / f"{name}.md", pages / f"{name}.json"
        if not page.is_file() and not numbers.is_file():
            continue
        try:
            wanted = page_of(numbers)
            if (said := _said_before(numbers)) != studies()[name].hypothesis:
                found.append(f"{name}: its definition expects something else than before its runs: {said}")
        except (OSError, ValueError) as error:
            found.append(f"{page.name}: {error}")
            continue
        if not page.is_file() or page.read_text(encoding="utf-8") != wanted:
            found.append(f"{page.name} differs from {numbers.name}: python experiments/studies.py --pages")
    return found


def configs(study: Study) -> list[Any]:
    """The config of each point under the default preset, with seed 0."""
    from hydra import compose, initialize_config_dir

    from speed.config import validated
    from speed.run import CONF, composed

    typed = [list(point.typed) for point in study.expected("miniature")]
    where = f"hydra.searchpath=[file://{CONF}]"
    folder, name = (ROOT / "sweeps", study.sweep) if study.sweep else (CONF, "config")
    with initialize_config_dir(str(folder), version_base="1.3"):
        return [validated(composed(compose(name, overrides=[where, *overrides]))) for overrides in typed]


def goals_of(config: Any, seed: int) -> list[Goal]:
    """The stages of a point with a seed, which sets what `seed=` sets."""
    from speed.pipeline import pipeline

    seeds = config.seed.model_copy(update={"sample": seed, "train": seed})
    return pipeline(config.model_copy(update={"seed": seeds})).goals()


class Hours:
    """Core-hours of stages: of those that are built, and by them of those that are not."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.needed: dict[str, Goal] = {}
        """By key, each pool at the largest size that any point reads."""
        self._rates: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self._built: dict[str, tuple[float, float]] = {}

    def need(self, goals: Iterable[Goal]) -> None:
        """Take the stages of a run in."""
        for goal in goals:
            if goal.rows >= self.needed.get(goal.key, goal).rows:
                self.needed[goal.key] = goal

    def measure(self) -> None:
        """Look up what is built and how long it took."""
        for goal in self.needed.values():
            hours, share = self._spent(goal)
            self._built[goal.key] = hours, share
            if share:
                rate = self._rates[goal.label]
                rate[0], rate[1] = rate[0] + hours, rate[1] + share * _amount(goal)

    def _spent(self, goal: Goal) -> tuple[float, float]:
        """Core-hours, and the share of the goal that they have built."""
        node: Any = goal.node
        if goal.rows:
            spans = [span for span in self.store.shards(node) if span.start < goal.rows]
            found = [self.store.shard_manifest(node, span) for span in spans]
            share = min(1.0, sum(span.stop - span.start for span in spans) / goal.rows)
        else:
            found = [self.store.manifest(node)]
            share = float(found[0] is not None)
        return sum(each.cpu_seconds or each.seconds for each in found if each) / 3600, share

    def of(self, key: str) -> tuple[float, float | None]:
        """Core-hours that a stage has taken, and that it will still take; None where no such stage is built."""
        hours, share = self._built[key]
        goal = self.needed[key]
        if share == 1:
            return hours, 0.0
        of_rate, amount = self._rates[goal.label]
        return hours, (1 - share) * _amount(goal) * of_rate / amount if amount else None


def _amount(goal: Goal) -> float:
    """What a stage's time grows with: rows of a pool, records that a training reads, or nothing."""
    node: Any = goal.node
    return float(goal.rows or node.work().trained or 1)


def overview(names: Sequence[str], home: Path, seeds: Sequence[int]) -> tuple[Table, list[str]]:
    """Each study with its points, what is built, and the core-hours of what no study before it needs."""
    store = Store(home)
    hours = Hours(store)
    runs = {name: [goals_of(config, seed) for config in configs(studies()[name]) for seed in seeds] for name in names}
    for goals in runs.values():
        for each in goals:
            hours.need(each)
    hours.measure()
    table = Table("study", "points", "runs", "built", "stages", "built", "core-hours spent", "left")
    counted: set[str] = set()
    total, unknown = [0.0, 0.0], set()
    for name, found in runs.items():
        keys = list(dict.fromkeys(goal.key for goals in found for goal in goals))
        new = [key for key in keys if key not in counted]
        counted |= set(new)
        costs = {key: hours.of(key) for key in new}
        spent, left = sum(cost[0] for cost in costs.values()), sum(cost[1] or 0.0 for cost in costs.values())
        unknown |= {hours.needed[key].label for key, cost in costs.items() if cost[1] is None}
        total = [total[0] + spent, total[1] + left]
        finished = sum(hours.of(goals[-1].key)[1] == 0 for goals in found)
        whole = sum(hours.of(key)[1] == 0 for key in keys)
        points = len(found) // len(seeds)
        table.add(name, points, len(found), finished, len(keys), whole, f"{spent:.1f}", f"{left:.1f}")
    table.add("together", "", "", "", "", "", f"{total[0]:.1f}", f"{total[1]:.1f}")
    told = ["Hours of a study are of stages that no study above it has."]
    if unknown:
        told.append(f"Not in them, since no such stage is built in this root: {', '.join(sorted(unknown))}.")
    told.append(f"On {CORES} cores about {sum(total) / CORES:.1f} hours for all, {total[1] / CORES:.1f} of them left.")
    return table, told


def main() -> None:
    """Command line."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the run that it waits for ends with it
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--home", type=Path, default=Path("speed_home"), help="root of everything built")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--only", nargs="+", choices=COMMITTED, default=list(COMMITTED))
    parser.add_argument("--list", action="store_true", help="say what is built and what is left, and build nothing")
    parser.add_argument("--pages", action="store_true", help="write the committed pages again, and build nothing")
    given = parser.parse_args()
    home = given.home.resolve()
    if given.pages:
        for numbers in (PAGES / f"{name}.json" for name in studies()):
            if numbers.is_file():
                written_again(numbers)
        return
    if given.list:
        table, told = overview(given.only, home, given.seeds)
        print("\n".join([table.text(), *told]))
        return
    os.environ["SPEED_HOME"] = str(home)  # so that no command on a page names this machine's folder

    def run(typed: Sequence[str]) -> bool:
        return not subprocess.run([sys.executable, "-m", "speed.run", *typed], cwd=ROOT, check=False).returncode

    failed = []
    for name in given.only:
        if not make(studies()[name], home, given.seeds, run):
            failed.append(name)
        copied(name, home)
    if failed:
        raise SystemExit(f"runs of {', '.join(failed)} did not finish: the same command goes on with them")


if __name__ == "__main__":
    main()
