"""Evaluate one model, ours or anybody's, on tasks of mteb; its scores next to published ones.

python -m speed.evaluate speed_home/runs/DATE/RUN --folder my_tasks       the embedder of a run, on a folder of tasks
python -m speed.evaluate intfloat/e5-small-v2 --benchmark mteb_v1         a model of the hub, or of its local cache
python -m speed.evaluate models/mine --tasks SciFact STSBenchmark         any folder, on some tasks of mteb
python -m speed.evaluate text-embedding-3-small --url https://api.openai.com/v1 --max-usd 2 --benchmark dev
python -m speed.evaluate my_embedder --url http://127.0.0.1:8000/v1 --checkpoint my_embedder --folder my_tasks

The last holds a served model against the checkpoint that it should be: 64 texts first, then the same tasks on both, and
what the server loses or wins on each.

Results are kept in mteb's own layout under `<home>/evaluations/results`, by the identity of model and protocol: the
same command continues where it was stopped, and a model that has changed is another model.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from speed import compare
from speed.backends.evaluation.evaluator import BENCHMARKS
from speed.config import explanation
from speed.core.allocation import Grant
from speed.core.content import load_memory, save_memory
from speed.core.devices import Devices
from speed.core.errors import UserError
from speed.core.machine import gpus
from speed.core.manifest import commit
from speed.core.store import Store
from speed.data.evaluation_record import EvaluationRecord
from speed.data.query_scores import queries_folder, query_files
from speed.runs.entry import one_message
from speed.runs.experiment import QUIET, run_folder
from speed.runs.progress import Screen
from speed.runs.tables import Table, escaped
from speed.runtime import Context, Runtime

if TYPE_CHECKING:
    from speed.backends.evaluation.evaluated_model import EvaluatedModel
    from speed.backends.evaluation.evaluator import ProtocolEvaluator
    from speed.backends.evaluation.jobs import Job
    from speed.backends.evaluation.served import Checkpoint


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    out = argparse.ArgumentParser(
        prog="python -m speed.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    out.add_argument("model", help="folder of a run or a model, name on the hub (with @revision), or name at --url")
    what = out.add_argument_group("tasks")
    what.add_argument("--benchmark", choices=(*BENCHMARKS, "miniature"), help="a list of tasks")
    what.add_argument("--folder", type=Path, metavar="DIR", help="a folder of tasks of your own")
    what.add_argument("--tasks", nargs="+", default=[], metavar="TASK", help="only these (alone: tasks of mteb)")
    what.add_argument("--mirror", type=Path, metavar="DIR", help="copies of mteb's data sets, in place of the hub")
    how = out.add_argument_group("how")
    how.add_argument(
        "--protocol", choices=("e5", "native"), help="instructions, or the model's own way (default: its own)"
    )
    how.add_argument("--max-length", type=int, metavar="TOKENS", help="of a text (default: the model's own)")
    how.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    how.add_argument("--name", help="the model's name in tables and result files")
    how.add_argument(
        "--queries", action="store_true", help="score tasks again whose scores of single queries were not kept"
    )
    how.add_argument("--no-published", action="store_true", help="leave the published scores out")
    where = out.add_argument_group("an endpoint (the key comes from the environment)")
    where.add_argument("--url", help="of an OpenAI-compatible server, such as http://127.0.0.1:8000/v1")
    where.add_argument("--dimensions", type=int, metavar="N", help="width of the vectors to ask for")
    where.add_argument(
        "--price", type=float, metavar="USD", help="of a million tokens, where the table does not know it"
    )
    where.add_argument("--max-usd", type=float, metavar="USD", help="cap of the cost; needed wherever there is one")
    where.add_argument("--checkpoint", metavar="DIR", help="the run or model that is served: its scores beside it")
    where.add_argument("--anyway", action="store_true", help="measure a server whose vectors have a known fault, too")
    machine = out.add_argument_group("the machine")
    machine.add_argument("--home", type=Path, default=Path(os.environ.get("SPEED_HOME") or "speed_home"))
    machine.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="all GPUs of CUDA_VISIBLE_DEVICES, or none"
    )
    machine.add_argument("--threads", type=int, default=1)
    machine.add_argument("--concurrency", type=int, default=16, help="requests to an endpoint in flight")
    machine.add_argument("--vectors-gb", type=float, default=50.0, help="cap of the cache of vectors; 0 for no cache")
    return out


def evaluate(given: argparse.Namespace) -> tuple[EvaluationRecord, Path]:
    """The evaluation, and the folder that it is written to.

    Raises:
        UserError: for a mistake in the options, a task or a model that cannot be read, and a cost over the cap.
    """
    for variable, value in QUIET.items():
        os.environ.setdefault(variable, value)
    store = Store(given.home.expanduser().resolve()).open()
    load_memory(store.home / "cache" / "hashes.json")
    there = tuple(range(len(gpus()))) if given.device != "cpu" else ()
    runtime = Runtime(
        home=store.home,
        devices=there or ((0,) if given.device == "cuda" else given.device),
        threads=given.threads,
        concurrency=given.concurrency,
        max_usd=given.max_usd,
        vectors_gb=given.vectors_gb,
    )
    with Screen() as screen:
        grant = Grant(devices=there, threads=given.threads)
        ctx = Context(store=store, runtime=runtime, label=Path(given.model).name, granted=grant)
        ctx.send = lambda event: screen.show(ctx.label, event)
        checkpoint = _checkpoint(given)
        model = _model(given)
        evaluator = _evaluator(given, checkpoint or model)
        jobs = evaluator.jobs(ctx)
        _show_price(model, jobs, given.max_usd, checkpoint)
        from speed.backends.evaluation.run import run

        begun = time.monotonic()
        out = store.home / "evaluations"
        with Devices(there if checkpoint or not given.url else ()).all_at_once(ctx.say):
            if checkpoint is None:
                record, drift = run(evaluator, jobs, model, out, ctx, given.queries), list[Table | str]()
            else:
                record, drift = _beside(checkpoint, model, given, evaluator, out, ctx)
    save_memory(store.home / "cache" / "hashes.json")
    folder = run_folder(store, f"evaluate-{model.name.replace('/', '_')}")
    (folder / "evaluation.json").write_text(record.model_dump_json(indent=1), encoding="utf-8")
    for file in query_files([queries_folder(out, record.name, record.model)], record).values():
        (folder / "queries").mkdir(exist_ok=True)
        shutil.copy2(file, folder / "queries")
    about = {
        "command": " ".join(sys.argv),
        "commit": commit(),
        "seconds": f"{time.monotonic() - begun:.1f}",
        "texts encoded": ctx.tally.counts["texts_encoded"],
        "texts from the cache": ctx.tally.counts["texts_from_cache"],
        "calls": ctx.tally.cost["calls"],
        "dollars": "unknown" if ctx.tally.dollars is None else f"{ctx.tally.dollars:.4f}",
        "result files": store.home / "evaluations" / "results" / model.name.replace("/", "__") / record.model,
    }
    lines = "\n".join(f"- {name}: {value}" for name, value in about.items())
    parts = [*drift, *compare.comparison([record], not given.no_published)]
    table = compare.markdown(parts)
    safe = "\n".join(f"- {name}: {escaped(str(value))}" for name, value in about.items())
    (folder / "report.md").write_text(f"# {escaped(model.name)}\n\n{safe}\n\n{table}", encoding="utf-8")
    print(lines, file=sys.stderr)
    if drift:
        print(compare.printed(drift))
    return record, folder


def _beside(
    checkpoint: Checkpoint,
    model: EvaluatedModel,
    given: argparse.Namespace,
    evaluator: ProtocolEvaluator,
    out: Path,
    ctx: Context,
) -> tuple[EvaluationRecord, list[Table | str]]:
    """The served model's evaluation, and its drift from the checkpoint's."""
    from speed.backends.encoding.endpoint import EndpointModel
    from speed.backends.evaluation.run import run
    from speed.backends.evaluation.served import ServedCheckpoint

    assert isinstance(model, EndpointModel)
    served = ServedCheckpoint(model, checkpoint, given.anyway)
    near = served.probe(ctx)
    record = run(evaluator, evaluator.jobs(ctx), served, out, ctx, given.queries)
    own = run(evaluator, evaluator.jobs(ctx), checkpoint, out, ctx)
    remarks = [
        f"{near.texts} texts before the tasks: lowest cosine {near.lowest:.6f}, mean {near.mean:.6f}.",
        "Vectors of both sides have length 1, as servers give them; a classification of the checkpoint alone may "
        "score otherwise.",
    ]
    if cut := ctx.tally.counts["texts_cut_for_endpoint"]:
        remarks.append(f"{cut} texts are longer than the server takes, and were cut for it.")
    return record, [*compare.drift(record, own), *remarks]


def _checkpoint(given: argparse.Namespace) -> Checkpoint | None:
    """What is served, where the command says so.

    Raises:
        UserError: without a URL, or for a folder or name without a model.
    """
    from speed.backends.evaluation.evaluated_model import model_at
    from speed.backends.evaluation.served import Checkpoint

    for option, value in (("checkpoint", given.checkpoint), ("anyway", given.anyway)):
        if value and given.url is None:
            raise UserError(f"--{option} is for an endpoint: give its --url, or leave it out")
    if given.anyway and not given.checkpoint:
        raise UserError("--anyway has no effect without a checkpoint: give --checkpoint DIR, or leave it out")
    if given.checkpoint is None:
        return None
    local = model_at(given.checkpoint)
    return Checkpoint(local.folder, local.name)


def _model(given: argparse.Namespace) -> EvaluatedModel:
    from speed.backends.encoding.endpoint import EndpointModel
    from speed.backends.evaluation.evaluated_model import model_at

    if given.url is not None:
        return EndpointModel(given.url, given.model, given.dimensions, given.price, given.name)
    for option in ("dimensions", "price", "max_usd"):
        if getattr(given, option) is not None:
            raise UserError(f"--{option.replace('_', '-')} is for an endpoint: give its --url, or leave it out")
    return model_at(given.model, given.name)


def _evaluator(given: argparse.Namespace, model: EvaluatedModel) -> ProtocolEvaluator:
    from speed.backends.evaluation.evaluated_model import LocalModel, asks_for_instructions
    from speed.backends.evaluation.evaluator import LocalEvaluator, MtebEvaluator

    own = "e5" if isinstance(model, LocalModel) and asks_for_instructions(model.folder) else "native"
    fields: dict[str, Any] = {
        "protocol": given.protocol or own,
        "max_length": given.max_length,
        "precision": given.precision,
        "only": tuple(given.tasks),
    }
    if given.folder is not None and (given.benchmark or given.mirror):
        raise UserError(
            "--folder goes with neither --benchmark nor --mirror: it is a folder of tasks, --mirror one of data sets"
        )
    if given.mirror is not None and given.benchmark == "miniature":
        raise UserError("the miniature makes its own tasks: leave --mirror out")
    if not (given.folder or given.benchmark or given.tasks):
        raise UserError("which tasks? give --benchmark NAME, --folder DIR or --tasks TASK ...")
    try:
        if given.folder is not None:
            return LocalEvaluator(tasks=given.folder, **fields)
        if given.benchmark == "miniature":
            from speed.miniature.evaluation import MiniatureEvaluator

            return MiniatureEvaluator(**fields)
        return MtebEvaluator(benchmark=given.benchmark or "any", mirror=given.mirror, **fields)
    except ValidationError as error:
        raise UserError("the options have mistakes:\n" + explanation(error, MtebEvaluator)) from error


def _show_price(
    model: EvaluatedModel, jobs: Sequence[Job], allowed: float | None, checkpoint: Checkpoint | None
) -> None:
    """Print what an endpoint would cost, before anything is sent.

    Raises:
        UserError: when the cost is over the cap, or not known.
    """
    from speed.backends.encoding.endpoint import EndpointModel, estimated

    if not isinstance(model, EndpointModel):
        return
    uncounted = [job.task.metadata.name for job in jobs if job.characters is None]
    characters = sum(job.characters or 0 for job in jobs)
    first, beside = "", ""
    if checkpoint is not None:
        from speed.backends.encoding.probe_texts import PROBES

        first, beside = f"{len(PROBES)} texts, and then ", f", beside {checkpoint.folder}"
        characters += sum(len(probe.text) for probe in PROBES)
    shown, dollars = estimated(model, characters)
    print(
        f"{first}{len(jobs)} tasks on {model.name}{beside}: at most {shown}"
        + (f", and {', '.join(uncounted)}, of unknown length" if uncounted else "")
        + "; texts whose vectors are in the cache cost nothing",
        file=sys.stderr,
    )
    if dollars is None:
        raise UserError(
            f"the price of {model.model} is not known: give --price USD (of a million tokens) and --max-usd"
        )
    if dollars > 0 and allowed is None:
        raise UserError("this costs money and has no cap: run the same command again with --max-usd USD")
    if allowed is not None and dollars > allowed:
        raise UserError(f"that is more than --max-usd {allowed:g}: raise it, or take fewer tasks")


def main(arguments: Sequence[str] | None = None) -> None:
    """Console entry."""
    given = parser().parse_args(arguments)
    with one_message("evaluating"):
        try:
            record, folder = evaluate(given)
        except KeyboardInterrupt:
            kept = "Finished tasks and encoded texts are kept: the same command continues from here."
            print(f"\nstopped. {kept}", file=sys.stderr)
            sys.exit(130)
        print(compare.printed(compare.comparison([record], not given.no_published)))
        print(f"\nReport: {folder / 'report.md'}")


if __name__ == "__main__":
    main()
