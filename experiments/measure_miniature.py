"""Measure what alignment, revision and data size are worth in the miniature, where the facts are known.

    python experiments/measure_miniature.py --home speed_home --seeds 1 2 3 4 5

Runs what is missing, seed by seed, with the commands that a user types. Finished stages are found again, so the script
can be stopped at any time, and `--only N` measures one seed while another process measures others. A seed in
miniature.json whose runs have the same keys today is not measured again, whichever machine it was measured on. Writes
miniature.json and miniature.svg beside itself and prints the tables of miniature.md. Seeds differ in everything:
topics, errors of the teacher, texts, orders and new weights.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
KEPT = 920
"""Examples that each embedder is trained on, for all writers."""
MEASURED = (
    "counts.sft=920",
    "counts.pairs=230",
    "counts.revisions=920",
    "generator.sft.epochs=4",
)
"""Settings in which the table takes more than the default run, which must be quick."""
WRITTEN = (1610, 2760)
"""Examples that each writer writes: the second number if the first gives too few valid ones of a kind for KEPT."""
SIZES = (161, 345, KEPT)
"""Sizes in the picture: multiples of 23, so that each kind has its exact share."""
WRITERS = {
    "junior": ("+experiment=ablation_sft_only",),
    "senior": ("+experiment=ablation_no_revisor",),
    "junior and revisor": ("+experiment=ablation_no_dpo", "revisor.sft.epochs=1.5"),
    "senior and revisor": ("revisor.sft.epochs=1.5",),
    "teacher": ("+experiment=teacher_data",),
}
WRITES = {
    "junior": "synthesis",
    "senior": "synthesis",
    "junior and revisor": "revision",
    "senior and revisor": "revision",
    "teacher": "seed data",
}
"""Stage that holds what each writer has written."""
DRAWN = {
    "teacher": ("^-", "#1b7837"),
    "senior and revisor": ("D-", "#2166ac"),
    "senior": ("s-", "#542788"),
    "junior": ("o--", "#b35806"),
}
"""Writers in the picture, with mark and colour."""
PAIRS = (
    ("senior", "junior"),
    ("junior and revisor", "junior"),
    ("senior and revisor", "senior"),
    ("senior and revisor", "junior"),
    ("teacher", "senior and revisor"),
)
"""Differences that the paper's Table 2 is about, better first in the paper."""
HELD_OUT = 230
"""Judged lists beyond those that the senior was trained on."""
BASE_ROWS = 230
FEW = 0.1
"""Share of valid answers up to which nothing is said of what they hold."""
OF_READABLE = ("relevant", "true", "hard")
"""Shares of the answers that can be read."""


def overrides(seed: int, writer: str, kept: int, written: int = WRITTEN[0]) -> list[str]:
    """Command line arguments of one point."""
    seeds = [f"seed.{name}={seed}" for name in ("data", "sample", "train")]
    return [*WRITERS[writer], *MEASURED, *seeds, f"scale.examples={written}", f"scale.keep={kept}", "tracker=none"]


def run(home: Path, arguments: Sequence[str]) -> bool:
    """Find or build one run. False if too few examples are valid for the number to keep."""
    command = [sys.executable, "-m", "speed.run", *arguments, f"runtime.home={home}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode and "wants more examples than are left" not in done.stdout + done.stderr:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return not done.returncode


class Built:
    """The artifacts of one point."""

    def __init__(self, home: Path, arguments: Sequence[str]) -> None:
        from hydra import compose, initialize_config_dir

        from speed.config import validated
        from speed.core.store import Store
        from speed.pipeline import pipeline
        from speed.run import CONF, composed

        with initialize_config_dir(CONF, version_base="1.3"):
            self.config = validated(composed(compose("config", overrides=[*arguments, f"runtime.home={home}"])))
        self.store = Store(home.resolve())
        self.pipeline = pipeline(self.config)
        self.goals = {goal.label: goal for goal in self.pipeline.goals()}

    def rows(self, label: str) -> list[Any]:
        """Rows of a pool that this point uses."""
        goal = self.goals[label]
        return list(self.store.rows(goal.node.take(goal.rows)))  # type: ignore[attr-defined]

    def payload(self, label: str) -> Path:
        """Folder of a stage."""
        return self.store.payload(self.goals[label].node)  # type: ignore[arg-type]

    def scores(self) -> dict[str, float]:
        """Score of each task."""
        tasks: dict[str, float] = json.loads((self.payload("evaluation") / "scores.json").read_text())["tasks"]
        return tasks


def mean(values: Iterable[float]) -> float:
    """Arithmetic mean."""
    listed = list(values)
    return sum(listed) / len(listed)


def one_seed(home: Path, seed: int) -> dict[str, Any]:
    """All figures of one seed."""
    from speed.core.manifest import commit
    from speed.miniature.quality import measure_quality, win_rate

    built = {}
    for writer in WRITERS:
        for size in (KEPT, *SIZES[:-1]) if writer in DRAWN else (KEPT,):
            print(f"seed {seed}: {writer}, {size} examples", flush=True)
            tried = [overrides(seed, writer, size, written) for written in WRITTEN]
            enough = next((arguments for arguments in tried if run(home, arguments)), None)
            if enough is None:
                raise SystemExit(f"seed {seed}: {WRITTEN[-1]:,} examples of the {writer} hold too few valid ones")
            built[writer, size] = Built(home, enough)
    texts = {name: built[name, KEPT].rows(label)[: WRITTEN[0]] for name, label in WRITES.items()}
    texts["base"] = base_texts(built["junior", KEPT].config.generator.base.name, texts["junior"][:BASE_ROWS], seed)
    whole = built["senior and revisor", KEPT]
    answers = {name: [(row.prompt, row.text) for row in texts[name]] for name in ("junior", "senior")}
    return {
        "seed": seed,
        "commit": commit(),
        "keys": {f"{writer}, {size}": point.pipeline.key for (writer, size), point in built.items()},
        "quality": {name: measure_quality(rows).model_dump() for name, rows in texts.items()},
        "senior_wins": win_rate(answers["senior"], answers["junior"]),
        "preference_accuracy": preference_accuracy(whole),
        "downstream": {name: built[name, KEPT].scores() for name in WRITERS},
        "by_size": {name: {size: mean(built[name, size].scores().values()) for size in SIZES} for name in DRAWN},
    }


def known(home: Path, results: Path, seed: int) -> dict[str, Any] | None:
    """Figures of a seed that were measured before, if each of its runs has the key today that it had then."""
    before = json.loads(results.read_text(encoding="utf-8"))["seeds"] if results.is_file() else []
    for figures in before:
        if figures.get("seed") == seed and all(
            key in (Built(home, overrides(seed, *_point(name), written)).pipeline.key for written in WRITTEN)
            for name, key in figures["keys"].items()
        ):
            return dict(figures)
    return None


def _point(name: str) -> tuple[str, int]:
    """Writer and number of examples, from their name in the results."""
    writer, _, size = name.rpartition(", ")
    return writer, int(size)


def base_texts(base: str, asked: Sequence[Any], seed: int) -> list[Any]:
    """Answers of the untrained base model to the prompts of `asked`."""
    import torch

    from speed.backends.engines.decoding import Prefix, continuations
    from speed.backends.engines.prompt_format import prompt_ids
    from speed.backends.engines.weights import load
    from speed.data.answers.accept_or_reject import accept_or_reject
    from speed.ports import Sampling
    from speed.stages.generating import request_seed

    torch.set_num_threads(1)
    loaded = load(base, "fp32", "cpu")
    prefixes = [
        Prefix(
            prompt_ids(row.prompt.text, "plain", loaded.tokenizer), request_seed(seed, "base", row.row), range(1), 256
        )
        for row in asked
    ]
    eos = loaded.tokenizer.eos_token_id
    answers = []
    with torch.no_grad():
        for start in range(0, len(asked), 46):
            part = slice(start, start + 46)
            written = continuations(loaded.model, prefixes[part], Sampling(temperature=1.0), [eos])
            for row, ids in zip(asked[part], written, strict=True):
                reason = "stop" if ids and ids[-1] == eos else "length"
                text = loaded.tokenizer.decode([token for token in ids if token != eos])
                answers.append(accept_or_reject(row.row, row.prompt, text, reason, len(ids)))
    return answers


def preference_accuracy(point: Built) -> float:
    """How often the senior's implicit reward ranks a held-out judged pair like the teacher, who errs."""
    from speed.core.build import build
    from speed.core.graph import goals
    from speed.core.stage import silence
    from speed.runtime import Runtime

    goal = point.goals["preferences"]
    taken = goal.node.take(goal.rows + HELD_OUT)  # type: ignore[attr-defined]
    for missing in goals([taken]):
        build(missing, point.store, Runtime(home=point.store.home), silence)
    pairs = [pair for pair in point.store.rows(taken) if pair.row >= goal.rows and pair.rejected is None]
    likelihoods = {}
    for name in ("junior", "senior"):
        likelihoods[name] = [log_likelihoods(point.payload(name), pair) for pair in pairs]
    wins = []
    for after, before in zip(likelihoods["senior"], likelihoods["junior"], strict=True):
        margin = (after[0] - before[0]) - (after[1] - before[1])
        wins.append(0.5 if margin == 0 else float(margin > 0))
    return mean(wins)


_MODELS: dict[Path, Any] = {}


def log_likelihoods(weights: Path, pair: Any) -> tuple[float, float]:
    """Log-likelihood, in nats, of the chosen and the rejected answer under some weights."""
    import torch

    from speed.backends.engines.prompt_format import completion_ids, prompt_ids
    from speed.backends.engines.weights import load

    if weights not in _MODELS:
        _MODELS[weights] = load(weights, "fp32", "cpu")
    loaded = _MODELS[weights]
    prompt = prompt_ids(pair.prompt.text, "plain", loaded.tokenizer)
    likelihoods = []
    for text in (pair.chosen, pair.rejected_text):
        answer = completion_ids(text, loaded.tokenizer)
        ids = torch.tensor([[*prompt, *answer]])
        with torch.no_grad():
            likely = loaded.model(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        likelihoods.append(float(likely.gather(1, ids[0, len(prompt) :, None]).sum()))
    return likelihoods[0], likelihoods[1]


def untrained(home: Path, seed: int) -> dict[str, dict[str, float]]:
    """Scores without training: of hashed words, of the true meanings, and of the embedder's base, which no seed changes
    (any that has been measured here will do)."""
    from speed.data.quality.hashed_words import hashed_words
    from speed.miniature.tasks import write_tasks
    from speed.miniature.yardsticks import oracle, scores

    point = Built(home, overrides(seed, "senior and revisor", KEPT))
    with tempfile.TemporaryDirectory() as made:
        write_tasks(Path(made) / "tasks")
        scores_by_name = {"bag of words": scores(hashed_words, Path(made) / "tasks")}
        scores_by_name["oracle"] = scores(oracle, Path(made) / "tasks")
        scores_by_name["untrained embedder"] = as_it_is(point, Path(made))
    return scores_by_name


def as_it_is(point: Built, folder: Path) -> dict[str, float]:
    """Scores of the embedder's base, pooled like the trained one."""
    from speed.runtime import Context, Runtime

    ctx = Context(store=point.store, runtime=Runtime(home=point.store.home), label="untrained")
    trainer = point.config.embedder
    still = trainer.model_copy(update={"learning_rate": 1e-12, "epochs": 1})
    corpus = point.payload("dedup") / "examples.jsonl"
    still.train(corpus, folder / "embedder", 0, ctx)
    return dict(point.config.eval.evaluate(folder / "embedder" / "model", folder / "scores", ctx).tasks)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean over seeds, and half the width of its 95 % interval by Student's t."""
    from scipy.stats import sem, t

    centre = mean(values)
    if len(values) < 2:
        return centre, math.nan
    return centre, float(t.ppf(0.975, len(values) - 1) * sem(values))


def tables(seeds: Sequence[dict[str, Any]], fixed: dict[str, dict[str, float]]) -> str:
    """The Markdown of the lab book."""
    names = ["base", *WRITERS]
    lines = ["| what was written | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    rows = {
        "valid JSON": "valid",
        "keeps every guideline": "conforming",
        "on topic": "relevant",
        "facts right": "true",
        "negative hard and wrong": "hard",
        "flawless": "flawless",
        "duplicates": "duplicates",
    }
    judged = [name for name in names if mean(seed["quality"][name]["valid"] for seed in seeds) > FEW]
    for label, key in rows.items():
        cells = [
            with_interval([100 * seed["quality"][name][key] for seed in seeds], "%")
            if name in judged or key not in OF_READABLE
            else "-"
            for name in names
        ]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    cells = [
        f"{mean(seed['quality'][name]['flaws'] for seed in seeds):.2f}" if name in judged else "-" for name in names
    ]
    lines.append("| flaws a well-formed example | " + " | ".join(cells) + " |")
    lines += ["", "| | |", "|---|---:|"]
    lines.append(
        f"| senior beats junior by the hidden truth | {with_interval([100 * s['senior_wins'] for s in seeds], '%')} |"
    )
    accuracy = [100 * seed["preference_accuracy"] for seed in seeds]
    lines.append(f"| senior's implicit reward agrees with the judge, held-out lists | {with_interval(accuracy, '%')} |")
    for name in list(WRITERS)[:-1]:
        flawed = [100 * (1 - seed["quality"][name]["flawless"]) for seed in seeds]
        lines.append(f"| flawed examples, {name} | {with_interval(flawed, '%')} |")
    for name in ("junior", "senior"):
        change = [
            100 * (s["quality"][name]["flawless"] - s["quality"][f"{name} and revisor"]["flawless"]) for s in seeds
        ]
        lines.append(f"| change of that by the revisor, {name} | {with_interval(change, ' points')} |")
    columns = " | ".join(fixed)
    lines += [
        "",
        f"| embedder trained on {KEPT} examples by | mean over 8 tasks | above {columns.replace(' | ', ' | above ')} |",
    ]
    lines.append("|---|---:|" + "---:|" * len(fixed))
    yardsticks = {name: mean(scores.values()) for name, scores in fixed.items()}
    for name, score in yardsticks.items():
        lines.append(f"| *{name}* | {score:.1f} |" + " |" * len(fixed))
    means = {name: [mean(seed["downstream"][name].values()) for seed in seeds] for name in WRITERS}
    for name, values in means.items():
        above = " | ".join(with_interval([value - score for value in values]) for score in yardsticks.values())
        lines.append(f"| {name} | {with_interval(values)} | {above} |")
    lines += ["", "| difference downstream, paired by seed | points |", "|---|---:|"]
    for better, worse in PAIRS:
        change = [after - before for after, before in zip(means[better], means[worse], strict=True)]
        lines.append(f"| {better} - {worse} | {with_interval(change)} |")
    return "\n".join(lines)


def with_interval(values: Sequence[float], unit: str = "") -> str:
    """Mean and interval as text."""
    centre, half = interval(values)
    return f"{centre:.1f}{unit}" + ("" if math.isnan(half) else f" ± {half:.1f}")


def picture(seeds: Sequence[dict[str, Any]], fixed: dict[str, dict[str, float]], file: Path) -> None:
    """Draw scores by data size for each writer, with 95 % intervals over seeds as bands."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "speed"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 3.6), layout="constrained")
    for name, (mark, colour) in DRAWN.items():
        points = [interval([seed["by_size"][name][str(size)] for seed in seeds]) for size in SIZES]
        middles, halves = [centre for centre, _ in points], [half for _, half in points]
        axes.plot(SIZES, middles, mark, color=colour, label=name, markersize=4)
        low, high = ([m + sign * h for m, h in zip(middles, halves, strict=True)] for sign in (-1, 1))
        axes.fill_between(SIZES, low, high, color=colour, alpha=0.15, linewidth=0)
    for name, scores in fixed.items():
        if name == "oracle":  # far above all others: the table has it
            continue
        axes.axhline(mean(scores.values()), color="#777777", linewidth=1, linestyle=":")
        axes.text(SIZES[0], mean(scores.values()) + 0.4, name, color="#777777", fontsize=8)
    axes.set_xscale("log")
    axes.set_xticks(SIZES, [str(size) for size in SIZES])
    axes.minorticks_off()
    axes.set_xlabel("training examples")
    axes.set_ylabel("mean score, 8 miniature tasks")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    """Command line."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the run that it waits for ends with it
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--home", type=Path, default=ROOT / "speed_home")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--only", type=int, help="measure this seed alone and keep its figures for the whole table")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix("").with_name("miniature"))
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    home = arguments.home.resolve()
    results = arguments.out.with_suffix(".json")
    from speed.core.manifest import commit

    measured: list[dict[str, Any]] = []
    for seed in arguments.seeds if arguments.only is None else [arguments.only]:
        cached = home / "cache" / f"miniature-{commit()}-{seed}.json"
        if not cached.is_file():
            figures = known(home, results, seed) or one_seed(home, seed)
            cached.parent.mkdir(parents=True, exist_ok=True)
            cached.write_text(json.dumps(figures), encoding="utf-8")
        measured.append(json.loads(cached.read_text(encoding="utf-8")))
    if arguments.only is not None:
        return
    fixed = untrained(home, arguments.seeds[0])
    command = " ".join(["python experiments/measure_miniature.py --seeds", *map(str, arguments.seeds)])
    whole = {"command": command, "kept": KEPT, "untrained": fixed, "seeds": measured}
    results.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    picture(measured, fixed, arguments.out.with_suffix(".svg"))
    print(tables(measured, fixed))


if __name__ == "__main__":
    main()
