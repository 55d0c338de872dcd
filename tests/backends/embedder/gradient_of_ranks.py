"""The gradient of the first step of a job, by one process or by one of several; and its first steps in fp16.

torchrun ... gradient_of_ranks.py FOLDER    for each NAME.job.json there, rank 0 writes NAME-STRATEGY.pt
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from speed.backends.embedder.forward import Forward
from speed.backends.embedder.loop import table_of, trainable
from speed.backends.embedder.plan import Plan, batch_of
from speed.backends.embedder.ranks import Ranks, join_ranks
from speed.backends.embedder.step import Steps
from speed.backends.embedder.trainer import ContrastiveTrainer, EmbedderJob
from speed.core.store import Store
from speed.runtime import Context

CPU = torch.device("cpu")


def gradient_of(file: Path, strategy: str) -> dict[str, Any]:
    """Loss, gradient and engine of a job's first step; `strategy` is `alone`, `ddp` or `zero3`.

    Of a job in fp16 what `first_steps` returns.
    """
    job = EmbedderJob.model_validate_json(file.read_text())
    ctx = Context(Store(job.runtime.home), job.runtime, granted=job.grant)
    if strategy != "alone":
        ctx.runtime = job.runtime.model_copy(update={"strategy": strategy})
    ranks = Ranks() if strategy == "alone" else join_ranks(ctx, CPU)
    take = first_steps if job.trainer.precision == "fp16" else first_gradient
    return take(job.trainer, job.examples, job.seed, ctx, ranks)


def first_gradient(config: ContrastiveTrainer, examples: Path, seed: int, ctx: Context, ranks: Ranks) -> dict[str, Any]:
    """Loss and gradient of the first step, and how often a layer computed."""
    torch.set_num_threads(1)
    rows = table_of(config, examples, ctx)
    model = trainable(config, seed, rows)
    torch.manual_seed(5)
    with torch.no_grad():  # fresh adapters leave half of the gradient zero
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.1)
    calls = []
    first = next(module for name, module in model.named_modules() if name.endswith("layers.0.mlp"))
    first.register_forward_pre_hook(lambda *call: calls.append(torch.is_grad_enabled()))
    model = ranks.distribute(model, CPU).train()
    ranks.check(model)
    plan = Plan(rows.table, config, seed)
    steps = Steps(config, Forward(config, model, rows.table, 2, CPU, ranks), plan, seed)
    batch = batch_of(plan, plan.batch(0), 0, CPU)
    parts, sizes = steps.forward.chunks(batch.lengths)
    assert len(parts) > 3, "the batch must be cut for this to say anything"
    loss = steps.gradient(batch, 0, parts, sizes, [])
    found = torch.cat([ranks.whole(w.grad).flatten() for w in steps.trained().values() if w.grad is not None])
    about = {"engine": ranks.engine, "rank": ranks.rank, "chunks": len(parts), "calls": len(calls)}
    return {"loss": loss, "gradient": found, **about}


def scaled(config: ContrastiveTrainer, examples: Path, seed: int, ctx: Context, ranks: Ranks, scale: float) -> Steps:
    """A training in fp16 before its first step, on a CPU, where a run would refuse it."""
    torch.set_num_threads(1)
    rows = table_of(config, examples, ctx)
    model = ranks.distribute(trainable(config, seed, rows), CPU).train()
    plan = Plan(rows.table, config, seed)
    steps = Steps(config, Forward(config, model, rows.table, 2, CPU, ranks), plan, seed)
    steps.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    return steps


def first_steps(config: ContrastiveTrainer, examples: Path, seed: int, ctx: Context, ranks: Ranks) -> dict[str, Any]:
    """Losses and gradient norms of three scaled steps, and how far the weights move (0) and the scale falls (0.5) in a
    fourth, in which one entry of the gradient overflows, in the last process alone."""
    steps = scaled(config, examples, seed, ctx, ranks, 1024.0)
    figures = [steps.take(step, examples, examples) for step in range(3)]
    gradient = steps.gradient

    def overflowing(*rest: Any) -> Any:
        loss = gradient(*rest)
        weight = next(weight for weight in steps.trained().values() if weight.grad is not None)
        if ranks.rank == ranks.count - 1:
            (weight.grad.to_local() if hasattr(weight.grad, "to_local") else weight.grad).view(-1)[0] = torch.inf
        return loss

    steps.gradient = overflowing
    before = [ranks.whole(weight.detach()).clone() for weight in steps.trained().values()]
    steps.take(3, examples, examples)
    after = [ranks.whole(weight.detach()) for weight in steps.trained().values()]
    return {
        "engine": ranks.engine,
        "rank": ranks.rank,
        "loss": torch.tensor([line["loss"] for line in figures]),
        "norm": torch.tensor([line["gradient_norm"] for line in figures]),
        "moved": max(float((a - b).abs().max()) for a, b in zip(after, before, strict=True)),
        "scale": steps.scaler.get_scale() / 1024.0,
    }


def main(folder: Path) -> None:
    for file in sorted(folder.glob("*.job.json")):
        for strategy in ("ddp", "zero3"):
            found = gradient_of(file, strategy)
            if found["rank"] == 0:
                torch.save(found, folder / f"{file.name.partition('.')[0]}-{strategy}.pt")
    torch.distributed.barrier()  # as in a training: one that leaves first can bring the others down
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
