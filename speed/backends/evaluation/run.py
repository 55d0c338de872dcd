"""Run mteb's tasks one by one: a task's result and vectors are on disk before the next task begins."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from mteb.abstasks.aggregated_task import AbsTaskAggregate
from mteb.results import TaskResult

from speed.backends.encoding.instructions import instruction_table
from speed.backends.encoding.shared_encoder import SharedEncoder
from speed.backends.encoding.text_encoder import TextEncoder
from speed.backends.encoding.vector_cache import VectorCache
from speed.backends.evaluation.evaluated_model import EvaluatedModel
from speed.backends.evaluation.jobs import Job
from speed.backends.evaluation.kept_queries import Kept, gives_queries, of_parts, queries_kept, write_queries
from speed.backends.evaluation.mteb_encoder import MtebEncoder
from speed.backends.evaluation.mteb_globals import globals_seeded, quiet
from speed.backends.evaluation.protocol import EvaluationProtocol
from speed.core.cache import write_aside
from speed.data.evaluation_record import EvaluationRecord, Pins, scores_of
from speed.data.query_scores import queries_folder
from speed.runtime import Context

MTEB_BATCH = 1024
"""Texts that mteb hands over at once; our encoder makes its own batches."""


def run(
    config: EvaluationProtocol,
    jobs: list[Job],
    model: EvaluatedModel,
    out: Path,
    ctx: Context,
    with_queries: bool = False,
) -> EvaluationRecord:
    """Run what has no result yet; the scores of all, as they stand in the result files.

    Args:
        out: mteb's result files are written below `out/results`, the scores of single queries below `out/queries`.
        with_queries: also run again what has a result and could have scores of single queries, but has none.
    """
    torch.set_num_threads(ctx.grant.threads)
    revision = config.identity(model.identity())
    results = out / "results" / model.name.replace("/", "__") / revision
    results.mkdir(parents=True, exist_ok=True)
    queries = queries_folder(out, model.name, revision)
    done: dict[str, TaskResult] = {}
    texts = 0

    def add_texts(more: int) -> None:
        nonlocal texts
        texts += more
        ctx.progress(len(done), len(jobs), "tasks", texts=float(texts))

    with ExitStack() as closing:
        encoder: MtebEncoder | None = None
        for job in jobs:
            name = job.task.metadata.name
            file, by_query = results / f"{name}.json", queries / f"{name}.json"
            lacking = with_queries and gives_queries(job.task) and not by_query.is_file()
            if lacking or not _finished(file, job.task):
                if encoder is None:
                    encoder = _load_encoder(config, model, jobs, revision, add_texts, ctx, closing)
                    _write(results / "model_meta.json", encoder.mteb_model_meta.to_dict())
                result, kept = _aggregate(job, done, queries) if job.parts else _run_task(job, encoder, ctx)
                # first, since a task with a result is not run again
                write_queries(by_query, job.task, kept, float(result.get_score()))
                with write_aside(file) as aside:
                    result.to_disk(aside)
            done[name] = TaskResult.from_disk(file)
            ctx.progress(len(done), len(jobs), "tasks", texts=float(texts))
        if encoder is not None:
            _count(encoder, ctx)
    record = _record(config, model, jobs, done, revision, ctx)
    ctx.tally.counts["tasks"] += len(record.kinds)
    ctx.tally.metrics["judged"] = record.model_dump(mode="json")
    return record


def _record(
    config: EvaluationProtocol,
    model: EvaluatedModel,
    jobs: list[Job],
    done: dict[str, TaskResult],
    revision: str,
    ctx: Context,
) -> EvaluationRecord:
    parts = {part.metadata.name for job in jobs for part in job.parts}
    kinds = {job.task.metadata.name: str(job.task.metadata.type) for job in jobs}
    kinds = {name: kind for name, kind in kinds.items() if name not in parts}
    main: dict[str, float | None] = {}
    for name in kinds:
        score = 100 * float(done[name].get_score())
        main[name] = None if math.isnan(score) else score
        if main[name] is None:
            ctx.say(f"{name}: the embedder gives all texts the same vector, so this score and its means are undefined")
    pins = Pins(
        mteb=importlib.metadata.version("mteb"),
        precision=model.precision(config.precision),
        batch=model.batch,
        instructions=instruction_table().identity(kinds),
        datasets={name: str(result.dataset_revision) for name, result in done.items()},
        splits={name: "+".join(sorted(result.scores)) for name, result in done.items()},
        subsets={job.task.metadata.name: job.subsets for job in jobs},
    )
    return EvaluationRecord(
        name=model.name,
        model=revision,
        protocol=config.protocol,
        max_length=config.max_length,
        pins=pins,
        kinds=kinds,
        scores=scores_of(main, kinds),
    )


def _load_encoder(
    config: EvaluationProtocol,
    model: EvaluatedModel,
    jobs: list[Job],
    revision: str,
    add_texts: Callable[[int], None],
    ctx: Context,
    closing: ExitStack,
) -> MtebEncoder:
    at_most = instruction_table().max_length if config.protocol == "e5" else None
    encoder = model.load(config.max_length, at_most, config.precision, ctx)
    if isinstance(encoder, SharedEncoder):
        closing.callback(encoder.close)
    cache = _cache(config, model, encoder, ctx)
    if cache is not None:
        closing.callback(cache.close)
    own = {job.task.metadata.name: job.instruction for job in jobs if job.instruction}
    return MtebEncoder(encoder, config.protocol, instruction_table(), own, revision, add_texts, cache, model.name)


def _cache(config: EvaluationProtocol, model: EvaluatedModel, encoder: TextEncoder, ctx: Context) -> VectorCache | None:
    if not ctx.runtime.vectors_gb:
        return None
    identity = {
        "model": model.identity(),
        "precision": config.precision,
        "max_length": encoder.max_length,
        "version": config.version,
    }
    root = ctx.store.home / "cache" / "vectors"
    return VectorCache(root, identity, encoder.dimension, int(ctx.runtime.vectors_gb * 1e9), ctx.say)


def _count(encoder: MtebEncoder, ctx: Context) -> None:
    """Count, for the manifest, the texts that were encoded and those whose vectors were in the cache."""
    if encoder.cache is not None:
        ctx.tally.counts["texts_encoded"] += encoder.cache.misses
        ctx.tally.counts["texts_from_cache"] += encoder.cache.hits
    if at_once := getattr(encoder.encoder, "at_once", None):
        at_once.tell()
    if cut := getattr(encoder.encoder, "cut", 0):
        ctx.tally.counts["texts_cut_for_endpoint"] += cut
        ctx.say(f"{cut} texts were longer than the endpoint takes, and were cut")


def _finished(file: Path, task: Any) -> bool:
    """Whether the file is a result of this task, on the same data and splits, by this version of mteb."""
    if not file.is_file():
        return False
    try:
        result = TaskResult.from_disk(file)
    except (OSError, ValueError, KeyError):
        return False
    same_data = result.dataset_revision == task.metadata.revision
    if not isinstance(task, AbsTaskAggregate):
        same_data = same_data and set(result.scores) == set(task.eval_splits)
    return bool(same_data and result.mteb_version == importlib.metadata.version("mteb"))


def _run_task(job: Job, encoder: MtebEncoder, ctx: Context) -> tuple[TaskResult, Kept]:
    began = time.monotonic()
    task = job.task
    with quiet(), globals_seeded(task.seed):
        for remark in job.load():
            ctx.say(remark)
        options = {"batch_size": MTEB_BATCH, "show_progress_bar": False}
        with queries_kept(task) as kept:
            scores = {split: task.evaluate(encoder, split, encode_kwargs=options) for split in task.eval_splits}
    now = datetime.datetime.now(tz=datetime.UTC)
    result = TaskResult.from_task_results(task, scores, evaluation_time=time.monotonic() - began, date=now)
    task.unload_data()  # only now, since it puts the published revision in the place of the local one
    return result, kept


def _aggregate(job: Job, done: dict[str, TaskResult], queries: Path) -> tuple[TaskResult, Kept]:
    names = [part.metadata.name for part in job.parts]
    kept = of_parts(job.task, [queries / f"{name}.json" for name in names])
    return job.task.combine_task_results([done[name] for name in names]), kept


def _write(file: Path, value: object) -> None:
    file.write_text(json.dumps(value, indent=2, default=str) + "\n", encoding="utf-8")
