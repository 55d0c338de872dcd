"""The loop of contrastive training: load, step, checkpoint, export."""

from __future__ import annotations

import math
import shutil
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from speed.backends.contrastive import ContrastiveTrainer
from speed.backends.contrastive_checkpoint import last_checkpoint, restore, save
from speed.backends.contrastive_data import Batch, Record, batch_of, read_examples, records_of
from speed.backends.contrastive_export import export
from speed.backends.device import device_of, quietly
from speed.backends.embedding_model import ignores_later_tokens, transformer, vectors
from speed.backends.token_rows import training_frame
from speed.backends.weights import resolved
from speed.core.context import Context
from speed.core.errors import UserError
from speed.core.spec import digest
from speed.model.batching import backward, chunks, drawn_from, epoch
from speed.model.loss import Nce, blocked, info_nce

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def run(config: ContrastiveTrainer, examples: Path, out: Path, seed: int, ctx: Context) -> None:
    """`ContrastiveTrainer.train`."""
    torch.set_num_threads(ctx.runtime.threads)
    device = torch.device(device_of(ctx))
    if config.precision == "fp16" and device.type == "cpu":
        raise UserError("precision: fp16 needs a GPU; take precision: fp32 (or bf16) on a CPU")
    read = read_examples(examples)
    source, revision = resolved(config.base.name)
    # adapters stand on a base in the arithmetic's type; fully trained weights stay fp32 and autocast does the rest
    model, tokenizer = transformer(source, revision, DTYPES[config.precision] if config.lora else torch.float32)
    frame = training_frame(tokenizer, config.pooling, config.bos)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (tokenizer.eos_token_id or 0)
    records = records_of(read, config, tokenizer, frame)
    model = adapted(model, config, seed).to(device).train()
    plan = [
        batch
        for number in range(config.epochs)
        for batch in epoch(
            [r.kind for r in records], config.batch_size, config.batching == "homogeneous", seed + number
        )
    ]
    steps = Steps(config, model, pad, device, seed, len(plan))
    checkpoints = out / "checkpoints"
    identity = digest(
        {
            "config": config.recipe(),
            "seed": seed,
            "data": [[r.kind, r.query_hash, r.positive_hash, r.negative_hash] for r in records],
        }
    )
    done = resume(steps, checkpoints, identity, ctx)
    saved = time.monotonic()
    for step in range(done, len(plan)):
        figures = steps.take(step, [records[number] for number in plan[step]], checkpoints)
        ctx.metric(step, **figures)
        ctx.progress(step + 1, len(plan), "steps", loss=figures["loss"], tokens_per_second=figures["tokens_per_second"])
        if time.monotonic() - saved >= ctx.runtime.checkpoint_seconds and step + 1 < len(plan):
            save(checkpoints, step + 1, identity, steps.trained(), steps.optimizer, steps.scaler)
            saved = time.monotonic()
        if step + 1 == len(plan):
            ctx.tally.metrics["last"] = figures
    ctx.tally.counts["in"] += len(records)
    ctx.tally.metrics |= {"steps": len(plan), "truncated": truncated(records, config.max_length)}
    with quietly():
        export(config, model, tokenizer, frame, pad, out, DTYPES[config.precision])
    shutil.rmtree(checkpoints, ignore_errors=True)


def resume(steps: Steps, checkpoints: Path, identity: str, ctx: Context) -> int:
    """Steps already done, after taking over the last checkpoint of the same training."""
    found = last_checkpoint(checkpoints, identity)
    if found is None:
        return 0
    done = restore(found, steps.trained(), steps.optimizer, steps.scaler)
    ctx.say(f"resumed at step {done} of {steps.total}")
    return done


def adapted(model: Any, config: ContrastiveTrainer, seed: int) -> Any:
    """The model with fresh adapters on it, or with all its weights trainable.

    Raises:
        UserError: when the base has no layer of the names in `lora.targets`.
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
        raise UserError(f"lora.targets {config.lora.targets} do not fit {config.base.name}: {error}") from error


def truncated(records: list[Record], max_length: int) -> int:
    """Texts that fill `max_length`, nearly all of which were longer."""
    texts = (row for r in records for row in (r.query, r.positive, r.negative) if row is not None)
    return sum(len(row) >= max_length for row in texts)


class Steps:
    """What changes from step to step: weights, optimiser, scaler."""

    def __init__(
        self, config: ContrastiveTrainer, model: Any, pad: int, device: torch.device, seed: int, total: int
    ) -> None:
        self.config, self.model, self.pad, self.device, self.seed, self.total = config, model, pad, device, seed, total
        self.causal = ignores_later_tokens(model)
        weights = list(self.trained().values())
        decayed, plain = [w for w in weights if w.ndim > 1], [w for w in weights if w.ndim < 2]
        groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=config.learning_rate, fused=True)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")

    def trained(self) -> dict[str, Tensor]:
        """The trainable weights by name."""
        return {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}

    def take(self, step: int, records: list[Record], checkpoints: Path) -> dict[str, float]:
        """One optimiser step; the figures of the training curves.

        Raises:
            UserError: when the loss or the gradient is no longer a number.
        """
        began = time.perf_counter()
        batch = batch_of(records, self.device)
        lengths = [len(row) for row in batch.rows]
        parts = chunks(lengths, self.config.chunk_tokens)
        sizes = [len(part) * lengths[part[0]] for part in parts]
        seen: list[Nce] = []
        loss = backward(
            encode=lambda part: self._vectors(batch, part),
            parts=parts,
            sizes=sizes,
            loss_of=lambda found: self._loss(found, batch, seen),
            kept_tokens=self.config.kept_tokens,
            seed=(self.seed << 32) + step * 4096,
            device=self.device,
        )
        self.scaler.unscale_(self.optimizer)
        limit = self.config.max_gradient_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(list(self.trained().values()), limit)
        value = float(seen[0].loss.mean())
        if not math.isfinite(value) or (self.config.precision != "fp16" and not math.isfinite(float(norm))):
            raise not_a_number(step, records, checkpoints, float(loss))
        rate = self.config.learning_rate * schedule(self.config, step, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        real = sum(lengths)
        return {
            "loss": value,
            "learning_rate": rate,
            "gradient_norm": float(norm),
            "tokens_per_second": real / (time.perf_counter() - began),
            "padding": sum(sizes) / real - 1.0,
            "masked": float(seen[0].masked),
            "positive_similarity": float(seen[0].positive),
            "negative_similarity": float(seen[0].negative),
        }

    def _vectors(self, batch: Batch, part: list[int]) -> Tensor:
        half = self.config.precision != "fp32"
        with torch.autocast(self.device.type, DTYPES[self.config.precision]) if half else nullcontext():
            rows = [batch.rows[row] for row in part]
            return vectors(self.model, rows, self.pad, self.causal, self.config.pooling, self.config.normalize)

    def _loss(self, found: Tensor, batch: Batch, seen: list[Nce]) -> Tensor:
        masks = self.config.masks
        mask = blocked(
            batch.ids,
            batch.targets,
            identical_positives=masks.identical_positives,
            own_duplicates=masks.own_duplicates,
            same_label=masks.same_label,
            share_hard_negatives=self.config.share_hard_negatives,
        )
        count = len(batch.records)
        nce = info_nce(found[:count], found[count:], batch.targets, mask, self.config.temperature, masks.score_margin)
        seen.append(nce._replace(loss=nce.loss.detach()))
        loss: Tensor = self.scaler.scale(nce.loss.mean())
        return loss


def schedule(config: ContrastiveTrainer, step: int, total: int) -> float:
    """Factor of the learning rate: linear warm-up over a share of the steps, then the decay. No step has rate 0."""
    warmup = math.ceil(config.warmup_ratio * total)
    if step < warmup:
        return (step + 1) / warmup
    left = (total - step) / max(1, total - warmup)
    if config.schedule == "constant":
        return 1.0
    return left if config.schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left))


def not_a_number(step: int, records: list[Record], checkpoints: Path, loss: float) -> UserError:
    """What to say when training has diverged."""
    lines = ", ".join(str(record.number) for record in records[:8]) + (" ..." if len(records) > 8 else "")
    kept = sorted(checkpoints.glob("step-*")) if checkpoints.is_dir() else []
    last = f"the last good checkpoint is {kept[-1]}" if kept else "there is no checkpoint yet"
    return UserError(
        f"the embedder's loss is no longer a number ({loss}) at step {step}, on the records of lines {lines}; {last}\n"
        "  lower embedder.learning_rate, raise embedder.temperature, or take precision: bf16 instead of fp16"
    )
