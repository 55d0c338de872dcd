"""The processes that share an embedder's training: none, copies of the model (DDP), or parts of it (ZeRO-3).

Every process computes the loss of the whole batch from the vectors of all rows: each fills in its own rows, and an
all-reduce adds them up. The sum of the processes' gradients is then the exact gradient, and nothing has to be divided
by their number. ZeRO-3 is torch's own `fully_shard`: weights, gradients and optimizer state are divided among the
processes, and a layer is gathered only while it computes. The first process alone reads the base model; the others
begin with a model without weights and are sent their parts, so that memory holds the model once and not once a process.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from speed.core.errors import UserError
from speed.runtime import Context

BUCKET = 2**24
"""Gradient entries of one all-reduce."""


class Ranks:
    """Training in one process; the base of the other two."""

    rank, count, engine = 0, 1, "one process"
    reads = True
    """Whether this process reads the base model's weights; otherwise `distribute` brings its part of them."""

    def distribute(self, model: Any, device: torch.device) -> Any:
        """The model on the device, divided as it is trained."""
        return model.to(device)

    def all_reduce(self, tensor: Tensor) -> None:
        """Add a tensor up over all processes, in place."""

    def add_gradients(self, weights: Iterable[Tensor]) -> None:
        """Make every process's gradient the sum over all of them."""

    def whole(self, tensor: Tensor) -> Tensor:
        """The whole of a tensor of which each process may hold a part; all of them must call it."""
        return tensor

    def part(self, whole: Tensor, like: Tensor) -> Tensor:
        """This process's part of the first one's whole tensor, divided as `like` is; a new tensor on its device."""
        return whole.to(like.device, copy=True)

    def broadcast(self, *values: bool) -> tuple[bool, ...]:
        """The values of rank 0, in every process: clocks differ, and a checkpoint needs all processes at one step."""
        return values

    def barrier(self) -> None:
        """Wait for all processes."""

    def check(self, model: Any) -> None:
        """Raise unless the model is distributed as it should be."""


class Replicated(Ranks):
    """Each process has the whole model (DDP)."""

    def __init__(self, ctx: Context, device: torch.device) -> None:
        if not dist.is_initialized():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        self.device = device
        self.rank, self.count = dist.get_rank(), dist.get_world_size()
        self.engine = f"ddp, {self.count} processes, {dist.get_backend()}"
        if self.count != ctx.grant.processes:
            raise RuntimeError(f"{ctx.grant.processes} processes were asked for, and {self.count} train")

    def all_reduce(self, tensor: Tensor) -> None:
        dist.all_reduce(tensor)

    def add_gradients(self, weights: Iterable[Tensor]) -> None:
        bucket: list[Tensor] = []
        for weight in [*weights, None]:
            if weight is not None and weight.grad is not None:
                bucket.append(weight.grad)
            if bucket and (weight is None or sum(grad.numel() for grad in bucket) >= BUCKET):
                flat = torch.cat([grad.flatten() for grad in bucket])
                dist.all_reduce(flat)
                sizes = [grad.numel() for grad in bucket]
                for grad, summed in zip(bucket, torch.split(flat, sizes), strict=True):
                    grad.copy_(summed.view_as(grad))
                bucket = []

    def broadcast(self, *values: bool) -> tuple[bool, ...]:
        tensor = torch.tensor(values, dtype=torch.int32, device=self.device)
        dist.broadcast(tensor, src=0)
        return tuple(map(bool, tensor.tolist()))

    def barrier(self) -> None:
        dist.barrier()

    def check(self, model: Any) -> None:
        """All processes must start from the same weights."""
        sums = torch.stack([weight.detach().double().sum() for weight in model.parameters() if weight.requires_grad])
        most, least = sums.clone(), sums.clone()
        dist.all_reduce(most, op=dist.ReduceOp.MAX)
        dist.all_reduce(least, op=dist.ReduceOp.MIN)
        if not torch.equal(most, least):
            raise RuntimeError("the processes do not start from the same weights")


class Sharded(Replicated):
    """Each process holds a part of every weight (ZeRO stage 3)."""

    def __init__(self, ctx: Context, device: torch.device) -> None:
        super().__init__(ctx, device)
        self.engine = f"zero3 (fully_shard), {self.count} processes, {dist.get_backend()}"
        self.reads = self.rank == 0

    def distribute(self, model: Any, device: torch.device) -> Any:
        """The same structure in all processes, with the weights and buffers of the first one's model."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        tensors = dict(chain(model.named_parameters(), model.named_buffers()))
        refuse_to_divide(model, model.config.name_or_path)
        model = model.to("meta")  # what is read stays in `tensors`
        mesh = init_device_mesh(device.type, (self.count,))
        names = set(getattr(model, "_no_split_modules", None) or ())
        for module in list(model.modules()):
            if type(module).__name__ in names:
                fully_shard(module, mesh=mesh)
        fully_shard(model, mesh=mesh)
        model = model.to_empty(device=device)
        with torch.no_grad():
            for name, mine in chain(model.named_parameters(), model.named_buffers()):
                read = tensors.pop(name).detach()
                whole = read.to(device) if self.reads else torch.empty(read.shape, dtype=read.dtype, device=device)
                if hasattr(mine, "device_mesh"):
                    mine.copy_(self.part(whole, mine))
                else:
                    dist.broadcast(whole, src=0)
                    mine.copy_(whole)
        return model

    def add_gradients(self, weights: Iterable[Tensor]) -> None:
        for weight in weights:
            if weight.grad is not None:  # fully_shard has divided it by the number of processes
                weight.grad.mul_(self.count)

    def whole(self, tensor: Tensor) -> Tensor:
        return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor

    def part(self, whole: Tensor, like: Any) -> Tensor:
        from torch.distributed.tensor import distribute_tensor

        if not hasattr(like, "device_mesh"):
            return whole.to(like.device, copy=True)
        return distribute_tensor(whole.to(self.device), like.device_mesh, like.placements)

    def check(self, model: Any) -> None:
        """Every weight must be divided among the processes."""
        from torch.distributed.tensor import DTensor

        for name, weight in model.named_parameters():
            if not isinstance(weight, DTensor) or not weight.placements[0].is_shard():
                raise RuntimeError(f"strategy zero3 was asked for, and {name} lies whole in every process")


def refuse_to_divide(model: Any, base: str) -> None:
    """Refuse a model of which two layers share a weight: it would be divided twice, and be two.

    Raises:
        UserError: with the remedy.
    """
    once = {name for name, _ in model.named_parameters()}
    if shared := sorted({name for name, _ in model.named_parameters(remove_duplicate=False)} - once):
        raise UserError(
            f"runtime.strategy=zero3 cannot divide embedder.base={base}, of which several layers share one weight "
            f"({', '.join(shared[:2])})\n  take runtime.strategy=ddp, or a base of another architecture"
        )


def join_ranks(ctx: Context, device: torch.device) -> Ranks:
    """Join the processes that torchrun has started; a single process where it has not."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return Ranks()
    return Sharded(ctx, device) if ctx.runtime.strategy == "zero3" else Replicated(ctx, device)
