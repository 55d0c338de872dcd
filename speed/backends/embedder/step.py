"""One optimiser step of contrastive training, the same in one process and in several."""

from __future__ import annotations

import math
import time
from pathlib import Path

import torch
from torch import Tensor

from speed.backends.embedder.checkpoint import complete_checkpoints
from speed.backends.embedder.forward import Forward
from speed.backends.embedder.guide import Guide
from speed.backends.embedder.plan import Batch, Plan, batch_of
from speed.backends.embedder.records import CORPUS
from speed.backends.embedder.settings import ContrastiveSettings
from speed.backends.runtime.at_once import AtOnce, DoesNotFit, free_memory
from speed.backends.runtime.attention import fast_on_cores
from speed.core.errors import UserError
from speed.model.batching import backward
from speed.model.loss import Nce, above_positive, blocked, info_nce, list_wise, text_hash

OVERFLOWS = 16
"""Steps in a row that may overflow in fp16: each is skipped and halves the loss's scale, from 65,536 to 1."""


class Steps:
    """The state that changes from step to step: weights, optimiser, scaler."""

    def __init__(
        self,
        config: ContrastiveSettings,
        forward: Forward,
        plan: Plan,
        seed: int,
        guide: Guide | None = None,
        at_once: AtOnce | None = None,
    ) -> None:
        self.config, self.forward, self.plan, self.seed, self.guide = config, forward, plan, seed, guide
        self.device, self.ranks, self.at_once = forward.device, forward.ranks, at_once
        if at_once is not None:
            forward.use(at_once.value)
        self.pairs = 0
        """Pairs of a query and a negative in the last step."""
        self.listwise = 0.0
        """Mean list-wise loss of the last step that had graded documents."""
        self.overflows = 0
        """Steps in a row without a finite gradient."""
        weights = list(self.trained().values())
        decayed, plain = [w for w in weights if w.ndim > 1], [w for w in weights if w.ndim < 2]
        groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=config.learning_rate, fused=True)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "fp16")

    def trained(self) -> dict[str, Tensor]:
        """The trainable weights by name."""
        return {name: weight for name, weight in self.forward.model.named_parameters() if weight.requires_grad}

    def take(self, step: int, examples: Path, checkpoints: Path) -> dict[str, float]:
        """One optimiser step; the figures of the training curves.

        Args:
            examples, checkpoints: named when the training has diverged.

        Raises:
            UserError: when the loss or the gradient is no longer a number.
        """
        began = time.perf_counter()
        batch = batch_of(self.plan, self.plan.batch(step), step, self.device)
        with fast_on_cores(self.forward.model):
            loss, sizes, seen = self._fitting(batch, step)
        self.scaler.unscale_(self.optimizer)
        limit = self.config.max_gradient_norm or math.inf
        norm = self.ranks.whole(torch.nn.utils.clip_grad_norm_(list(self.trained().values()), limit))
        value, self.pairs = float(seen[0].loss.mean()), int(seen[0].pairs)
        self.overflows = 0 if math.isfinite(float(norm)) else self.overflows + 1
        if not math.isfinite(value) or self.overflows > (OVERFLOWS if self.config.precision == "fp16" else 0):
            raise self._not_a_number(step, batch, examples, checkpoints, float(loss))
        rate = self.config.learning_rate * schedule(self.config, step, len(self.plan))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if step + 1 == len(self.plan):  # no later loss can show that this step broke the weights, so some rows must
            some = max(8, self.ranks.count)
            if not torch.isfinite(self.forward.all(batch.rows[:some], batch.lengths[:some])).all():
                raise self._not_a_number(step, batch, examples, checkpoints, float(loss))
        real = sum(batch.lengths)
        lists = {"listwise": self.listwise} if len(batch.asked) else {}
        return lists | {
            "loss": value,
            "learning_rate": rate,
            "gradient_norm": float(norm),
            "tokens_per_second": real / (time.perf_counter() - began),
            "padding": sum(sizes) * self.ranks.count / real - 1.0,
            "masked": float(seen[0].masked),
            "positive_similarity": float(seen[0].positive),
            "negative_similarity": float(seen[0].negative),
        }

    def _fitting(self, batch: Batch, step: int) -> tuple[Tensor, list[int], list[Nce]]:
        """The loss, with its gradient left in every process; the sizes of the chunks; what was seen of the batch.

        A batch that does not fit into memory is computed again in chunks of half the tokens: at once where this process
        is alone, and from the last checkpoint where others have passed this step by.

        Raises:
            UserError: when single texts do not fit.
            DoesNotFit: in one of several processes.
        """
        while True:
            seen: list[Nce] = []
            parts, sizes = self.forward.chunks(batch.lengths)
            try:
                return self.gradient(batch, step, parts, sizes, seen), sizes, seen
            except torch.OutOfMemoryError as error:
                if self.at_once is None or max(map(len, parts)) < 2:
                    raise UserError(
                        "the embedder's training does not fit into the GPU's memory\n  set embedder.kept_tokens=0 or "
                        "embedder.chunk_tokens lower, which changes no gradient; the last checkpoint is kept"
                    ) from error
                told = self.at_once.lower(min(self.at_once.value, max(sizes)) // 2)
                if self.ranks.count > 1:
                    raise DoesNotFit(told) from error
            self.at_once.ctx.say(told)
            self.forward.use(self.at_once.value)
            self.optimizer.zero_grad(set_to_none=True)
            free_memory()

    def gradient(self, batch: Batch, step: int, parts: list[list[int]], sizes: list[int], seen: list[Nce]) -> Tensor:
        """Leave the exact gradient of the whole batch's loss in every process; returns the (scaled) loss."""
        loss = backward(
            encode=self.forward.encoder(batch.rows),
            parts=parts,
            sizes=sizes,
            loss_of=lambda vectors: self._loss(vectors, batch, seen),
            kept_tokens=self.forward.kept_tokens,
            # each process draws from a stream of its own
            seed=text_hash(f"{self.seed} {step} {self.ranks.rank}") % 2**62,
            device=self.device,
            rows=len(batch.rows),
            all_reduce=self.ranks.all_reduce if self.ranks.count > 1 else None,
        )
        self.ranks.add_gradients(self.trained().values())
        return loss

    def _loss(self, vectors: Tensor, batch: Batch, seen: list[Nce]) -> Tensor:
        masks = self.config.masks
        mask = blocked(
            batch.ids,
            batch.targets,
            identical_positives=masks.identical_positives,
            own_duplicates=masks.own_duplicates,
            same_label=masks.same_label,
            share_hard_negatives=self.config.share_hard_negatives,
        )
        if self.guide is not None:
            mask |= above_positive(self.guide.similarity(batch), batch.targets, masks.guide_margin)
        queries, documents = vectors[: len(batch.records)], vectors[batch.compared]
        nce = info_nce(queries, documents, batch.targets, mask, self.config.temperature, masks.score_margin)
        seen.append(nce._replace(loss=nce.loss.detach()))
        value = nce.loss.mean()
        if len(batch.asked):
            lists = list_wise(queries[batch.asked], vectors[batch.graded], self.config.temperature)
            self.listwise = float(lists.detach().mean())
            value = value + self.config.listwise * lists.sum() / len(batch.records)  # records without a list have none
        loss: Tensor = self.scaler.scale(value)
        return loss

    def _not_a_number(self, step: int, batch: Batch, examples: Path, checkpoints: Path, loss: float) -> UserError:
        """The error of a training that has diverged."""
        table, some = self.plan.table, 8
        lines: dict[int, list[str]] = {}
        for record in batch.records[:some]:
            lines.setdefault(int(table.records["source"][record]), []).append(str(table.records["number"][record]))
        files = {CORPUS: examples} | {place: source.path.path for place, source in enumerate(self.config.sources)}
        where = "; ".join(f"{', '.join(numbers)} of {files[place]}" for place, numbers in lines.items())
        more = f" (the first {some} of {len(batch.records)})" if len(batch.records) > some else ""
        kept = complete_checkpoints(checkpoints)
        last = f"the last good checkpoint is {kept[-1]}" if kept else "there is no checkpoint yet"
        return UserError(
            f"the embedder's loss or its gradient is no longer a number (loss {loss}) at step {step}, on the records "
            f"of lines {where}{more}; {last}\n"
            "  lower embedder.learning_rate, raise embedder.temperature, or take precision: bf16 instead of fp16"
        )


def schedule(config: ContrastiveSettings, step: int, total: int) -> float:
    """Factor of the learning rate: linear warm-up over a share of the steps, then the decay. No step has rate 0."""
    warmup = math.ceil(config.warmup_ratio * total)
    if step < warmup:
        return (step + 1) / warmup
    left = (total - step) / max(1, total - warmup)
    if config.schedule == "constant":
        return 1.0
    return left if config.schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left))
