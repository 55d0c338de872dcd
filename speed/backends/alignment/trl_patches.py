"""Where trainings change what TRL does, and the release that makes each change needless. Losses that TRL's DPO trainer
does not have stand in `reference_free`.

Written against TRL 1.16.0 with transformers 5.23 and accelerate 1.15; no later TRL was published when this was written.
Each patch says what a release must offer before the patch can go.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list, gather_object
from transformers import TrainerCallback
from trl.trainer import utils

from speed.backends.alignment.batch_order import BatchOrder
from speed.core.cache import is_whole, make_once

REFERENCE_FILE = "log_probs.json"
REFERENCE_COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")
"""TRL's names for the log-probabilities that it computes before a preference training."""


class TellPass(TrainerCallback):  # type: ignore[misc]
    """Tells the order, at the beginning of each pass, by the steps done which pass it is."""

    def __init__(self, order: BatchOrder) -> None:
        self.order = order

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.order.set_step(state.global_step)


def in_order(trainer_class: Any, order: BatchOrder) -> Any:
    """A subclass of one of TRL's trainers that takes its rows in this order, already as token ids.

    Needless when
    - transformers' Trainer takes a sampler (5.23 takes none), and reaches it with `set_epoch` in a training of several
      processes that is resumed in the middle of a pass (5.23 and accelerate 1.15 do not: the rest of that pass would
      have the order of the first one);
    - DPOConfig has `dataset_kwargs={"skip_prepare_dataset": True}`, as SFTConfig has (1.16.0: not yet). TRL tokenises
      prompt and completion together, so that a token may span both; our rows come as token ids.
    """

    class Ordered(trainer_class):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.add_callback(TellPass(order))

        def _get_train_sampler(self, train_dataset: Any = None) -> BatchOrder:
            return order

        def _prepare_dataset(self, dataset: Any, *rest: Any) -> Any:
            return dataset

    return Ordered


def weighted(trainer_class: Any, order: BatchOrder) -> Any:
    """A subclass of TRL's DPO trainer in which the parts of a micro-batch count by their rows.

    Needless when a preference training's loss is a sum over rows divided by those of the batch, as a supervised one's
    is over tokens (TRL 1.16.0: a mean over each forward pass, and transformers 5.23 takes the mean of these).
    """
    if order.parts is None:
        return trainer_class

    class Weighted(trainer_class):  # type: ignore[misc]
        at = (-1, 0)
        """Steps done, and the place of the next part in its batch."""

        def compute_loss(self, *arguments: Any, **options: Any) -> Any:
            loss = super().compute_loss(*arguments, **options)
            step = self.state.global_step
            place = self.at[1] if self.at[0] == step else 0
            self.at = (step, place + 1)
            return loss * order.weight(step, place)

    return Weighted


@contextmanager
def project_completions_only() -> Iterator[None]:
    """While this lasts, TRL's trainers project the positions of completions only, on a CPU as on a GPU.

    TRL 1.16.0 projects the hidden states that a label asks for on CUDA and XPU; elsewhere it projects every one,
    prompts included, and throws most of it away. A prompt of the paper is four times as long as its answer: on a CPU
    that was a third of a training. Both ways give the same loss and gradient (a test compares them). TRL decides by one
    private function of its module `utils`; where a version has no such function, nothing changes here.

    Needless when TRL projects only labelled positions on CPUs too (1.16.0: not yet).
    """
    original = getattr(utils, "_use_triton", None)
    if original is None:
        yield
        return

    def use_compact(device: Any) -> bool:
        return device.type == "cpu" or bool(original(device))

    utils._use_triton = use_compact
    try:
        yield
    finally:
        utils._use_triton = original


def with_reference(trainer_class: Any, folder: Path) -> Any:
    """A subclass of TRL's DPO trainer that takes the reference's log-probabilities from `folder`, or puts them there.

    Needless when TRL lets its caller say where they are kept (1.16.0 takes the cache folder of the data set: one that
    is made of rows in memory has none that ranks or later trainings share).

    Args:
        folder: named by all that they depend on (see `speed.core.cache`).
    """

    class Precomputed(trainer_class):  # type: ignore[misc]
        def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
            is_missing = [not is_whole(folder)]
            broadcast_object_list(is_missing)  # ranks compute together: they must agree
            if is_missing[0]:
                columns = self._log_probs(dataset, batch_size)
                if self.is_world_process_zero():
                    make_once(folder, lambda aside: _write_json(aside / REFERENCE_FILE, columns))
            self.accelerator.wait_for_everyone()
            columns = json.loads((folder / REFERENCE_FILE).read_text())
            for column, values in zip(REFERENCE_COLUMNS, columns, strict=True):
                dataset = dataset.add_column(column, values)
            return dataset

        def _log_probs(self, dataset: Any, batch_size: int) -> tuple[list[float], ...]:
            """(chosen, rejected) of every row; each rank computes its share of the batches."""
            model = self.ref_model or self.model
            training = model.training
            model.eval()
            starts = range(0, len(dataset), batch_size)[self.args.process_index :: self.args.world_size]
            share = []
            for start in starts:
                rows = [dataset[place] for place in range(start, min(start + batch_size, len(dataset)))]
                batch = {key: value.to(self.accelerator.device) for key, value in self.data_collator(rows).items()}
                chosen, rejected = self.compute_ref_log_probs(model, batch)
                share.append((start, chosen.float().tolist(), rejected.float().tolist()))
            model.train(training)
            batches = sorted(gather_object(share))
            return tuple([value for batch in batches for value in batch[column]] for column in (1, 2))

    return Precomputed


def _write_json(file: Path, value: object) -> None:
    file.write_text(json.dumps(value))
