"""The loop of contrastive training: load, step, save checkpoints, export; in one process or as a rank of several."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch

from speed.backends.embedder.checkpoint import last_checkpoint, restore, save
from speed.backends.embedder.development import development_figures
from speed.backends.embedder.dropout import cheap_dropout
from speed.backends.embedder.export import export
from speed.backends.embedder.forward import Forward
from speed.backends.embedder.guide import Guide
from speed.backends.embedder.plan import Plan
from speed.backends.embedder.ranks import Ranks, Sharded, join_ranks
from speed.backends.embedder.records import Labelled, labelled
from speed.backends.embedder.settings import ContrastiveSettings
from speed.backends.embedder.step import Steps
from speed.backends.embedder.token_table import TokenTable, Wording, token_table
from speed.backends.encoding.embedding_model import tokenizer_of, transformer
from speed.backends.encoding.token_rows import Frame, training_frame
from speed.backends.runtime.at_once import AtOnce
from speed.backends.runtime.checkpoint_pace import CheckpointPace, make_room
from speed.backends.runtime.device import device_of, quietly
from speed.backends.runtime.disk import disk_errors
from speed.backends.runtime.precision import dtype_of
from speed.backends.runtime.processes import FOLDER, STOP, several
from speed.backends.runtime.stopping import Stop
from speed.core.content import locate_model, sha256_of
from speed.core.errors import UserError
from speed.core.spec import Json, digest
from speed.data.costs.memory import checkpoint_bytes
from speed.model.batching import drawn_from
from speed.runtime import Context


class Rows(NamedTuple):
    """The records of a training, tokenised, and how."""

    table: TokenTable
    tokenizer: Any
    frame: Frame


def run(config: ContrastiveSettings, examples: Path, out: Path, seed: int, ctx: Context) -> None:
    """`ContrastiveTrainer.train` in this process, which may be one of several ranks."""
    torch.set_num_threads(ctx.grant.threads)
    device = torch.device(device_of(ctx))
    if config.precision == "fp16" and device.type == "cpu":
        raise UserError("precision: fp16 needs a GPU; take precision: fp32 (or bf16) on a CPU")
    rows = table_of(config, examples, ctx)
    plan = Plan(rows.table, config, seed)
    if config.listwise and not rows.table.graded.any():
        ctx.say(f"embedder.listwise={config.listwise:g} has no effect: no record has graded documents")
    ranks = join_ranks(ctx, device)
    model = distributed(config, seed, rows, ranks, device)
    pad = rows.tokenizer.pad_token_id if rows.tokenizer.pad_token_id is not None else (rows.tokenizer.eos_token_id or 0)
    forward = Forward(config, model, rows.table, pad, device, ranks)
    guide = None
    if config.masks.guide is not None:
        guide = Guide(config, lambda: labelled(examples, config.sources), content(config, examples), ctx, device, ranks)
    tokens, what = config.chunk_tokens, ["embedder", str(out.resolve()), ctx.grant.processes]
    at_once = AtOnce(ctx, what, tokens, "tokens", "embedder.chunk_tokens")
    steps = Steps(config, forward, plan, seed, guide, at_once)
    checkpoints = out / "checkpoints"
    identity = digest({"config": config.recipe(), "seed": seed, "data": rows.table.key})
    done = resume(steps, checkpoints, identity, ctx)
    with disk_errors(out):
        stopped_at = train(steps, done, examples, checkpoints, identity, ctx)
    if stopped_at is not None:
        raise UserError(
            f"the embedder's training was asked to stop and saved a checkpoint after step {stopped_at} of {len(plan)}\n"
            "  run the same command again: it continues from there"
        )
    at_once.tell()
    if config.listwise:
        ctx.tally.counts["graded"] += int((rows.table.graded > 0).sum())
    ctx.tally.counts["in"] += len(rows.table)
    truncated = int((rows.table.lengths() >= config.max_length).sum())
    ctx.tally.metrics |= {"steps": len(plan), "truncated": truncated, "engine": ranks.engine}
    with quietly(), disk_errors(out):
        model = whole_model(config, seed, rows, steps)
        if ranks.rank == 0:
            facts = facts_of(ctx, plan, seed)
            export(config, model, rows.tokenizer, rows.frame, pad, out, dtype_of(config.precision), facts)
            shutil.rmtree(checkpoints, ignore_errors=True)
    ranks.barrier()


def train(steps: Steps, done: int, examples: Path, checkpoints: Path, identity: str, ctx: Context) -> int | None:
    """Take all steps from `done` on. Returns None, or after a request to stop the number of steps that are saved.

    Raises:
        UserError: when the loss is no number, or the GPU's memory does not suffice.
    """
    plan, ranks, development = steps.plan, steps.ranks, steps.config.development
    stop = Stop(checkpoints.parent / FOLDER / STOP if several(ctx) else None)
    trained = sum(weight.numel() for weight in steps.trained().values())
    pace = CheckpointPace(ctx.runtime.checkpoint_seconds, checkpoint_bytes(trained))
    losses: deque[float] = deque(maxlen=max(3, len(plan) // 4))  # a batch alone is too few records to tell by
    with stop.listening():
        for step in range(done, len(plan)):
            figures = steps.take(step, examples, checkpoints)
            last = step + 1 == len(plan)
            if not steps.pairs:
                ctx.say(f"step {step} had no negatives, so it taught nothing: its records share one label or text")
            if development is not None and (last or (step + 1) % development.every == 0):
                figures |= development_figures(plan, steps.forward)
                scores = {name: value for name, value in figures.items() if name.startswith("development")}
                ctx.tally.metrics["development"] = scores
            ctx.metric(step, **figures)
            losses.append(figures["loss"])
            if step == 0 and not last:
                ctx.tally.metrics["first_loss"] = figures["loss"]
            speed = figures["tokens_per_second"]
            ctx.progress(step + 1, len(plan), "steps", loss=figures["loss"], tokens_per_second=speed)
            if last:
                ctx.tally.metrics |= {"last": figures, "last_loss": figures["loss"], "late_loss": median(losses)}
                return None
            due, ends = ranks.broadcast(pace.due, stop.wanted)
            if due or ends:
                pace.begin()
                if ranks.rank == 0 and (told := make_room(last_checkpoint(checkpoints, identity))):
                    ctx.say(told)
                save(checkpoints, step + 1, identity, steps.trained(), steps.optimizer, steps.scaler, ranks)
                if told := pace.end():
                    ctx.say(told)
            if ends:
                return step + 1
    return None


def table_of(config: ContrastiveSettings, examples: Path, ctx: Context) -> Rows:
    """The token rows of the corpus and of all sources, from the cache or made now."""
    source, revision = locate_model(config.base.name)
    tokenizer = tokenizer_of(source, revision)
    frame = training_frame(tokenizer, config.pooling, config.bos)
    files = [examples, *(source.path.path.expanduser() for source in config.sources)]

    def records() -> Iterator[Labelled]:
        return labelled(examples, config.sources)

    for file in files:
        if not file.is_file():
            raise UserError(f"{file} does not exist: the embedder needs a JSONL file of examples")
    size = max(1, sum(file.stat().st_size for file in files))
    table = token_table(
        records,
        content(config, examples),
        tokenizer,
        frame,
        config.max_length,
        Wording(query=config.instruction),
        ctx.store.home / "cache",
        lambda read: ctx.progress(min(read, size - 1), size, "bytes tokenised"),
        graded=config.listwise > 0,
    )
    return Rows(table, tokenizer, frame)


def content(config: ContrastiveSettings, examples: Path) -> Json:
    """Identity of the records: the content of the files, and what their sources add."""
    sources = [[sha256_of(source.path.path), list(source.tasks), source.kind] for source in config.sources]
    return [sha256_of(examples), *sources]


def distributed(config: ContrastiveSettings, seed: int, rows: Rows, ranks: Ranks, device: torch.device) -> Any:
    """The model that is trained, on its device, divided among the ranks as these do it."""
    model = ranks.distribute(trainable(config, seed, rows, ranks.reads), device).train()
    ranks.check(model)
    if device.type == "cpu":
        cheap_dropout(model)
    return model


def trainable(config: ContrastiveSettings, seed: int, rows: Rows, reads: bool = True) -> Any:
    """The base model with what is trained on it.

    Args:
        reads: whether its weights are read; otherwise the layers alone are there.

    Raises:
        UserError: for a base that cannot be loaded, or that has fewer tokens than its tokenizer.
    """
    source, revision = locate_model(config.base.name)
    # under adapters the base has the type of the arithmetic; weights that are trained stay fp32, under autocast
    dtype = dtype_of(config.precision) if config.lora else torch.float32
    model, _ = transformer(source, revision, dtype, empty=not reads)
    known, highest = model.get_input_embeddings().num_embeddings, int(rows.table.ids.max())
    if highest >= known:
        raise UserError(
            f"the tokenizer of {config.base.name} gives token {highest}, and the model knows {known} of them: "
            "they do not belong together\n  give a folder whose tokenizer is the model's own"
        )
    return adapted(model, config, seed)


def facts_of(ctx: Context, plan: Plan, seed: int) -> dict[str, Json]:
    """Figures of a training for its model card: those of its manifest that do not depend on the machine."""
    metrics = ctx.tally.metrics
    figures = {name: metrics["last"][name] for name in ("loss", "positive_similarity", "negative_similarity")}
    held_out = metrics.get("development", {})
    return {"seed": seed, "records": len(plan.table), "steps": metrics["steps"], **figures, **held_out}


def resume(steps: Steps, checkpoints: Path, identity: str, ctx: Context) -> int:
    """Load the last checkpoint of the same training, if there is one; returns the steps that were done."""
    checkpoint = last_checkpoint(checkpoints, identity)
    if checkpoint is None:
        return 0
    done = restore(checkpoint, steps.trained(), steps.optimizer, steps.scaler, steps.ranks)
    ctx.say(f"resumed at step {done} of {len(steps.plan)}")
    return done


def whole_model(config: ContrastiveSettings, seed: int, rows: Rows, steps: Steps) -> Any:
    """The trained model in one piece. All processes must call it; only the first one's result is used."""
    if not isinstance(steps.ranks, Sharded):
        return steps.forward.model
    trained = {}
    for name, weight in steps.trained().items():
        whole = steps.ranks.whole(weight.detach())
        if steps.ranks.rank == 0:
            trained[name] = whole.cpu()
    if steps.ranks.rank != 0:
        return None
    model = trainable(config, seed, rows)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                weight.copy_(trained[name])
    return model.to(steps.device)


def adapted(model: Any, config: ContrastiveSettings, seed: int) -> Any:
    """The model with fresh adapters on it, or with all its weights trainable.

    Raises:
        UserError: when the base has no layer of the names in `embedder.lora.targets`.
    """
    if config.lora is None:
        return model.requires_grad_(True)
    from peft import LoraConfig, get_peft_model

    targets: str | list[str] = list(config.lora.targets)
    if targets == ["all-linear"]:
        targets = "all-linear"
    adapter = LoraConfig(
        r=config.lora.r,
        lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout,
        target_modules=targets,
        task_type="FEATURE_EXTRACTION",
    )
    try:
        with quietly(), drawn_from(seed, torch.device("cpu")):
            return get_peft_model(model, adapter)
    except ValueError as error:
        raise UserError(
            f"embedder.lora.targets={list(config.lora.targets)} do not fit {config.base.name}: {error}\n"
            "  set embedder.lora.targets to names of its layers (or [all-linear]), or embedder.lora=null"
        ) from error
