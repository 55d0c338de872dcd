"""Calibrate the miniature: what known faults of the teacher's examples cost, and which differences five seeds tell.

    python experiments/calibrate_miniature.py --home speed_home --seeds 0 1 2 3 4

Spoils a share (the dose) of the teacher's examples in one way, trains the embedder and evaluates it; no other model
takes part. Each finished point is a line of calibration.jsonl, so the script can be stopped at any time, and several
may run side by side on other seeds or kinds. `--table` only prints what is there, and draws calibration.svg; with
`--write` it puts the spread of differences where reports of runs on these tasks find it (speed/data/calibration.json).
Seeds differ in everything: topics, texts, which examples are spoilt, order and new weights.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from measure_miniature import ROOT, Built, interval, mean

from speed.miniature.lexicon import domain_of, lexicon, meaning, mentions
from speed.miniature.phrasing import any_word, replace_words
from speed.miniature.tasks import write_tasks
from speed.miniature.world import seeded
from speed.miniature.yardsticks import revisions

EXAMPLES = 920
"""Examples that an embedder is trained on, as in measure_miniature.py."""
WRITTEN = 1.75
"""Examples that the teacher writes for each that is trained on; those of one topic are taken from all of them."""
DOSES = (10, 25, 50, 100)
"""Percent of the examples that are spoilt. Nothing is spoilt at dose 0, for all kinds alike."""
POWER = 0.8
LEVEL = 0.05

Row = dict[str, Any]
Spoil = Callable[[Row, Sequence[Row], random.Random], Row]


def wrong_positive(row: Row, others: Sequence[Row], rng: random.Random) -> Row:
    """The positive of another example of the kind."""
    return row | {"positive": rng.choice(_alike(row, others))["positive"]}


def easy_negative(row: Row, others: Sequence[Row], rng: random.Random) -> Row:
    """The negative of another example of the kind, which has nothing to do with the query."""
    return row | {"negative": rng.choice(_alike(row, others))["negative"]} if row.get("negative") else row


def right_negative(row: Row, others: Sequence[Row], rng: random.Random) -> Row:
    """The positive in other words as the negative."""
    del others
    return row | {"negative": in_other_words(row["positive"], rng)} if row.get("negative") else row


def copied_positive(row: Row, others: Sequence[Row], rng: random.Random) -> Row:
    """The query as the positive."""
    del others, rng
    return row | {"positive": row["query"]}


def one_topic(row: Row, others: Sequence[Row], rng: random.Random) -> Row:
    """An example of the kind about the first domain of the list, in place of this one."""
    first = _domain(others[0])
    about = [other for other in _alike(row, others) if _domain(other) == first]
    return rng.choice(about) if about else row


SPOILT: dict[str, Spoil] = {
    "wrong positive": wrong_positive,
    "easy negative": easy_negative,
    "negative that is right": right_negative,
    "query copied": copied_positive,
    "one topic": one_topic,
}
"""Ways to spoil one example. Two more concern a whole set: `three tasks a topic` and `half as many`."""
KINDS = (*SPOILT, "three tasks a topic", "half as many")


def _alike(row: Row, others: Sequence[Row]) -> list[Row]:
    return [other for other in others if other["kind"] == row["kind"] and other != row]


def _domain(row: Row) -> str:
    things = [concept for slot, concept in mentions(f"{row['query']} {row['positive']}") if slot == "things"]
    return domain_of(things[0]) if things else ""


def in_other_words(text: str, rng: random.Random) -> str:
    """Replace every word of the lexicon by a synonym."""
    said = meaning(text)
    used = {form for slot, concepts in said.items() for c in concepts for form in lexicon()[slot][c] if form in text}
    for slot, concepts in said.items():
        for concept in sorted(concepts):
            text = replace_words(text, {slot: ({concept}, concept)}, any_word(rng, avoid=used))
    return text


def spoilt(rows: Sequence[Row], fewer_tasks: Sequence[Row], kind: str, dose: int, seed: int, size: int) -> list[Row]:
    """The first `size` rows, `dose` percent of them spoilt; the spoilt ones of a dose are among those of a higher one.

    Args:
        fewer_tasks: rows that were written with three tasks a topic.
    """
    rng = seeded("spoilt", kind, seed)
    kept = [dict(row) for row in rows[:size]]
    order = rng.sample(range(size), size)[: round(size * dose / 100)]
    if kind == "half as many":
        dropped = set(order[: len(order) // 2])
        return [row for place, row in enumerate(kept) if place not in dropped]
    for place in order:
        kept[place] = (
            dict(fewer_tasks[place]) if kind == "three tasks a topic" else SPOILT[kind](kept[place], rows, rng)
        )
    return kept


def teacher_rows(home: Path, seed: int, size: int, *more: str) -> tuple[Built, list[Row]]:
    """Examples of the teacher, built if they are missing, and the run that they belong to."""
    from speed.core.build import build
    from speed.core.graph import goals
    from speed.core.stage import silence
    from speed.runtime import Runtime

    seeds = [f"seed.{name}={seed}" for name in ("data", "sample", "train")]
    written = math.ceil(WRITTEN * size / 23) * 23  # every kind has its exact share
    point = Built(home, ["+experiment=teacher_data", f"scale.examples={written}", *seeds, *more, "tracker=none"])
    for missing in goals([point.goals["dedup"].node]):
        build(missing, point.store, Runtime(home=point.store.home), silence)
    lines = (point.payload("dedup") / "examples.jsonl").read_text(encoding="utf-8").splitlines()
    return point, [json.loads(line) for line in lines]


def one_point(home: Path, kind: str, dose: int, seed: int, size: int) -> dict[str, Any]:
    """Train and evaluate on the examples of one kind, dose and seed."""
    from speed.runtime import Context, Runtime

    point, rows = teacher_rows(home, seed, size)
    few = teacher_rows(home, seed, size, "diversity=three_tasks")[1] if kind == "three tasks a topic" else rows
    folder = home / "cache" / f"calibration-{kind.replace(' ', '-')}-{dose}-{seed}-{size}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    corpus = folder / "examples.jsonl"
    chosen = spoilt(rows, few, kind, dose, seed, size)
    corpus.write_text("".join(json.dumps(row) + "\n" for row in chosen), encoding="utf-8")
    started = time.monotonic()
    ctx = Context(store=point.store, runtime=Runtime(home=point.store.home), label="calibration")
    point.config.embedder.train(corpus, folder / "embedder", seed, ctx)
    tasks = dict(point.config.eval.evaluate(folder / "embedder" / "model", folder / "scores", ctx).tasks)
    shutil.rmtree(folder)
    seconds = round(time.monotonic() - started)
    return {"kind": kind, "dose": dose, "seed": seed, "size": size, "seconds": seconds, "tasks": tasks}


def smallest_difference(deviation: float, seeds: int, freedom: float) -> float:
    """Smallest mean of paired differences that so many seeds tell from none, two-sided, with the wanted power.

    Args:
        deviation: of one difference, in points.
        freedom: degrees of freedom of `deviation`.
    """
    from scipy.optimize import brentq
    from scipy.stats import nct, t

    limit = t.ppf(1 - LEVEL / 2, freedom)

    def lack(effect: float) -> float:
        shift = effect * seeds**0.5
        power = float(nct.sf(limit, freedom, shift) + nct.cdf(-limit, freedom, shift))
        return (1.0 if math.isnan(power) else power) - POWER  # scipy has no number for very large effects

    return deviation * float(brentq(lack, 1e-6, 50.0))


def seeds_for(deviation: float, difference: float, freedom: float) -> int:
    """Fewest seeds that tell such a difference."""
    return next(seeds for seeds in range(1, 10_000) if smallest_difference(deviation, seeds, freedom) <= difference)


def losses(points: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int], list[float]]:
    """What each kind and dose costs against no dose, seed by seed."""
    score = {(each["kind"], each["dose"], each["seed"]): mean(each["tasks"].values()) for each in points}
    clean = {seed: value for (_, dose, seed), value in score.items() if dose == 0}
    found: dict[tuple[str, int], list[float]] = {}
    for (kind, dose, seed), value in sorted(score.items(), key=lambda item: item[0][2]):
        if dose and seed in clean:
            found.setdefault((kind, dose), []).append(value - clean[seed])
    return found


def pooled_deviation(points: Sequence[Mapping[str, Any]]) -> tuple[float, float] | None:
    """Standard deviation over seeds of a difference, of all kinds and doses together, and its degrees of freedom.

    All differences of a seed have its sound run in common, so two of them correlate by one half and their squares by
    a quarter: k cells of n seeds have (n - 1) / (1/k + (k - 1)/k/4) degrees of freedom and not k (n - 1).
    None without two seeds.
    """
    several = [pairs for pairs in losses(points).values() if len(pairs) > 1]
    if not several:
        return None
    spreads = [sum((value - mean(pairs)) ** 2 for value in pairs) / (len(pairs) - 1) for pairs in several]
    cells = len(several)
    return mean(spreads) ** 0.5, (min(map(len, several)) - 1) / (1 / cells + (cells - 1) / cells / 4)


def half_width(deviation: float, seeds: int, freedom: float) -> float:
    """Half of the 95 % interval of a mean difference."""
    from scipy.stats import t

    return float(t.ppf(1 - LEVEL / 2, freedom)) * deviation / seeds**0.5


def calibrated(points: Sequence[Mapping[str, Any]], datasets: Sequence[str], size: int) -> dict[str, Any]:
    """Contents of speed/data/calibration.json.

    Args:
        datasets: revisions of the data of the tasks.
    """
    pooled = pooled_deviation(points)
    if pooled is None:
        raise SystemExit("--write needs points of two seeds at least")
    deviation, freedom = pooled
    row = {
        "datasets": sorted(datasets), "examples": size, "deviation": round(deviation, 3),
        "five_seeds": round(smallest_difference(deviation, 5, freedom), 2),
        "seeds_for_a_point": seeds_for(deviation, 1.0, freedom),
    }  # fmt: skip
    return {"rows": [row]}


def table(points: Sequence[Mapping[str, Any]]) -> str:
    """Markdown of the curves: what each dose costs against no dose, paired by seed, with the smallest difference.

    Intervals are those of the pooled deviation; a loss that differs from none is bold.
    """
    found, pooled = losses(points), pooled_deviation(points)
    doses = sorted({dose for _, dose in found})
    lines = ["| spoilt | " + " | ".join(f"{dose} %" for dose in doses) + " |", "|---|" + "---:|" * len(doses)]
    for kind in dict.fromkeys(each["kind"] for each in points if each["dose"]):
        cells = []
        for dose in doses:
            pairs = found.get((kind, dose), [])
            if not pairs or pooled is None:
                cells.append(f"{mean(pairs):+.1f}" if pairs else "")
                continue
            half = half_width(pooled[0], len(pairs), pooled[1])
            mark = "**" if abs(mean(pairs)) > half else ""
            cells.append(f"{mark}{mean(pairs):+.1f} ± {half:.1f}{mark}")
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    if pooled is not None:
        deviation, freedom = pooled
        lines += ["", f"Paired differences have a standard deviation of {deviation:.2f} points (pooled, {freedom:.0f} "
                  "degrees of freedom).",
                  f"Five seeds tell {smallest_difference(deviation, 5, freedom):.1f} points; one point takes "
                  f"{seeds_for(deviation, 1.0, freedom)} seeds."]  # fmt: skip
    return "\n".join(lines)


def picture(points: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Draw the score of each kind by dose, with 95 % intervals over seeds."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "speed"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4.0), layout="constrained")
    clean = [mean(each["tasks"].values()) for each in points if each["dose"] == 0]
    for kind in dict.fromkeys(each["kind"] for each in points if each["dose"]):
        doses = sorted({each["dose"] for each in points if each["kind"] == kind})
        values = [[mean(e["tasks"].values()) for e in points if (e["kind"], e["dose"]) == (kind, d)] for d in doses]
        middles = [interval(each) for each in ([clean] if clean else []) + values]
        places = ([0] if clean else []) + doses
        axes.errorbar(places, [m for m, _ in middles], [h for _, h in middles], marker="o", capsize=2, label=kind)
    axes.set_xlabel("examples spoilt, %")
    axes.set_ylabel("mean score, 8 miniature tasks")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--home", type=Path, default=ROOT / "speed_home")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--doses", type=int, nargs="+", default=list(DOSES))
    parser.add_argument("--size", type=int, default=EXAMPLES, help="examples that an embedder is trained on")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("calibration"))
    parser.add_argument("--table", action="store_true", help="print and draw what is there, and train nothing")
    parser.add_argument("--write", action="store_true", help="with --table: write speed/data/calibration.json")
    arguments = parser.parse_args()
    file = arguments.out.with_suffix(".jsonl")

    def finished() -> list[dict[str, Any]]:
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        return [point for point in map(json.loads, lines) if point["size"] == arguments.size]

    wanted = [(seed, "none", 0) for seed in arguments.seeds]
    wanted += [(seed, kind, dose) for seed in arguments.seeds for dose in arguments.doses for kind in arguments.kinds]
    for seed, kind, dose in () if arguments.table else wanted:
        if any((each["seed"], each["kind"], each["dose"]) == (seed, kind, dose) for each in finished()):
            continue
        point = one_point(arguments.home.resolve(), kind, dose, seed, arguments.size)
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(point) + "\n")
        print(f"seed {seed}, {kind}, {dose} %: {mean(point['tasks'].values()):.1f} in {point['seconds']} s", flush=True)
    print(table(finished()))
    if arguments.table and arguments.write:
        with tempfile.TemporaryDirectory() as made:
            write_tasks(Path(made))
            datasets = list(revisions(Path(made)).values())
        text = json.dumps(calibrated(finished(), datasets, arguments.size), indent=1)
        (ROOT / "speed" / "data" / "calibration.json").write_text(text + "\n", encoding="utf-8")
    picture(finished(), arguments.out.with_suffix(".svg"))


if __name__ == "__main__":
    main()
