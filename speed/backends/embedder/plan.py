"""Which records form the batch of a step, and what the step needs of them: token rows, and what the mask compares."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from speed.backends.embedder.records import CORPUS
from speed.backends.embedder.settings import ContrastiveSettings
from speed.backends.embedder.token_table import TokenTable
from speed.core.errors import UserError
from speed.model.batching import epoch
from speed.model.loss import Identities

HELD_OUT, DRAWN, ORDER, NEGATIVES = range(4)
"""What is drawn: each has its own stream of the seed, so that none depends on another."""


class Plan:
    """The batches of a training; a function of the records, the settings and the seed."""

    def __init__(self, table: TokenTable, config: ContrastiveSettings, seed: int) -> None:
        self.table, self.config, self.seed = table, config, seed
        self.held_out = self._held_out()
        weights = np.array([*(source.weight for source in config.sources), 1.0])  # the corpus is number -1
        self._weights = weights[table.groups("source")]
        self._weights[self._kept_apart()] = 0.0
        if config.batching.homogeneous:
            self._groups = table.groups(config.batching.by)
        else:  # mixed batches keep the proportions of kinds and of sources
            self._groups = table.groups("source") * 64 + table.groups("kind")
        self._last: tuple[int, list[NDArray[np.int64]]] = (-1, [])
        self._begins = self._epochs_begin()

    def __len__(self) -> int:
        """Steps."""
        return self.config.max_steps or int(self._begins[-1])

    def batch(self, step: int) -> NDArray[np.int64]:
        """Numbers of the records of a step."""
        number = int(np.searchsorted(self._begins, step, side="right")) - 1
        return self._epoch(number)[step - int(self._begins[number])]

    def negatives(self, record: int, step: int) -> list[int]:
        """Rows of the hard negatives of a record that are used in a step."""
        rows, most = self.table.rows_of(record)[2:], self.config.hard_negatives
        if len(rows) <= most:
            return list(rows)
        number = int(np.searchsorted(self._begins, step, side="right")) - 1
        draw = np.random.default_rng([self.seed, NEGATIVES, max(0, number), record])
        return sorted(int(rows[place]) for place in draw.permutation(len(rows))[:most])

    def _epochs_begin(self) -> NDArray[np.int64]:
        """The first step of each epoch, and the one behind the last."""
        begins, most = [0], self.config.max_steps
        while len(begins) <= self.config.epochs if most is None else begins[-1] < most:
            begins.append(begins[-1] + len(self._epoch(len(begins) - 1)))
        return np.array(begins)

    def _epoch(self, number: int) -> list[NDArray[np.int64]]:
        if self._last[0] != number:
            whole = np.floor(self._weights).astype(np.int64)
            entries = np.repeat(np.arange(len(whole)), whole)
            draw = np.random.default_rng([self.seed, DRAWN, number])
            for source in range(CORPUS, len(self.config.sources)):
                members = np.flatnonzero((self.table.groups("source") == source) & (self._weights > whole))
                rest = self.config.sources[source].weight % 1.0 if source != CORPUS else 0.0
                drawn = draw.permutation(members)[: round(rest * len(members))]
                entries = np.concatenate([entries, drawn])
            config = self.config
            seed = (self.seed, ORDER, number)
            batches = epoch(self._groups[entries], config.batch_size, config.batching.homogeneous, seed)
            self._last = (number, [entries[batch] for batch in batches])
        return self._last[1]

    def _held_out(self) -> NDArray[np.int64]:
        if self.config.development is None:
            return np.zeros(0, np.int64)
        wanted = self.config.development.records
        if 2 * wanted > len(self.table):
            raise UserError(
                f"embedder.development.records={wanted} would hold out more than half of {len(self.table)} records\n"
                "  take fewer, or set embedder.development=null"
            )
        draw = np.random.default_rng([self.seed, HELD_OUT])
        return np.sort(draw.permutation(len(self.table))[:wanted])

    def _kept_apart(self) -> NDArray[np.bool_]:
        """Records that are not trained on: those that are held out, and others of their queries, since a query with
        several positives has a record for each."""
        queries = np.asarray(self.table.texts)[self.table.records["first"]]
        apart = np.isin(queries, queries[self.held_out])
        if len(self.held_out) and (~apart).sum() < 2:
            raise UserError(
                f"embedder.development.records={len(self.held_out)} leaves fewer than two records of other queries to "
                "train on\n  take fewer, or set embedder.development=null"
            )
        return apart


class Batch(NamedTuple):
    """The rows of one step: queries, then their positives, then the hard negatives there are, then graded documents."""

    records: NDArray[np.int64]
    """Number of each record."""
    rows: list[int]
    """Row of each text in the table."""
    lengths: list[int]
    """Tokens of each row."""
    ids: Identities
    targets: Tensor
    """Number of each query's positive among the documents: those follow the queries, numbered from 0."""
    graded: Tensor
    """`[lists levels]` rows of the graded documents, as places in `rows`."""
    asked: Tensor
    """`[lists]` place of each list's query."""

    @property
    def compared(self) -> slice:
        """Places of the documents that InfoNCE compares each query with."""
        return slice(len(self.records), len(self.records) + len(self.ids.document))


def batch_of(plan: Plan, records: NDArray[np.int64], step: int, device: torch.device) -> Batch:
    """Rows and identities of these records in a step."""
    table = plan.table
    queries = [table.rows_of(int(record))[0] for record in records]
    negatives = [(place, row) for place, record in enumerate(records) for row in plan.negatives(int(record), step)]
    documents = [*(row + 1 for row in queries), *(row for _, row in negatives)]
    owners = [*range(len(records)), *(place for place, _ in negatives)]
    asked = [place for place, record in enumerate(records) if len(table.graded_of(int(record)))]
    graded = [row for place in asked for row in table.graded_of(int(records[place]))]
    rows = [*queries, *documents, *graded]

    def tensor(values: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64)).to(device)

    texts = np.asarray(table.texts[queries])
    ids = Identities(
        query=tensor(texts),
        document=tensor(table.texts[documents]),
        label=tensor(table.labels[documents]),
        answers=tensor(np.concatenate([texts, np.zeros(len(negatives), np.int64)])),
        owner=tensor(records[owners]),
    )
    starts = table.starts
    lengths = [int(starts[row + 1] - starts[row]) for row in rows]
    lists = np.arange(len(rows) - len(graded), len(rows)).reshape(len(asked), -1 if asked else 0)
    targets = torch.arange(len(records), device=device)
    return Batch(records, rows, lengths, ids, targets, tensor(lists), tensor(np.array(asked)))
