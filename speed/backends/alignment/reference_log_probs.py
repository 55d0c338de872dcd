"""Log-probabilities of the reference, computed once before a preference training and shared by content.

They depend on the start's weights, the rows and the arithmetic, and on nothing that the training varies: the points of
a sweep over beta, loss or learning rate pay for them once, and a training of all weights needs no second model.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speed.core.spec import Json, digest

COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")
"""As TRL names them."""


def cache_file(home: Path, start: Json, rows: Sequence[dict[str, list[int]]], precision: str) -> Path:
    """Where the log-probabilities of these rows under these weights stand, or will stand."""
    return home / "cache" / "reference" / f"{digest({'start': start, 'rows': list(rows), 'precision': precision})}.json"


def with_reference(trainer_class: Any, file: Path) -> Any:
    """A subclass of TRL's DPO trainer that takes the reference's log-probabilities from `file`, or puts them there.

    TRL's own cache lies beside the data set's files, of which rows made in memory have none that ranks share.
    """

    class Precomputed(trainer_class):  # type: ignore[misc]
        def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
            if not file.is_file():
                found = self._log_probs(dataset, batch_size)
                if self.is_world_process_zero():
                    file.parent.mkdir(parents=True, exist_ok=True)
                    partial = file.with_suffix(f".{os.getpid()}")
                    partial.write_text(json.dumps(found))
                    partial.replace(file)
            self.accelerator.wait_for_everyone()
            columns = json.loads(file.read_text())
            for column, values in zip(COLUMNS, columns, strict=True):
                dataset = dataset.add_column(column, values)
            return dataset

        def _log_probs(self, dataset: Any, batch_size: int) -> tuple[list[float], list[float]]:
            """(chosen, rejected) of every row; each rank computes its share of the batches."""
            from accelerate.utils import gather_object

            model = self.ref_model or self.model
            training = model.training
            model.eval()
            starts = range(0, len(dataset), batch_size)[self.args.process_index :: self.args.world_size]
            mine = []
            for start in starts:
                rows = [dataset[place] for place in range(start, min(start + batch_size, len(dataset)))]
                batch = {key: value.to(self.accelerator.device) for key, value in self.data_collator(rows).items()}
                chosen, rejected = self.compute_ref_log_probs(model, batch)
                mine.append((start, chosen.float().tolist(), rejected.float().tolist()))
            model.train(training)
            shares = sorted(gather_object(mine))
            return [value for share in shares for value in share[1]], [value for share in shares for value in share[2]]

    return Precomputed
