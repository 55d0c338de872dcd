"""Records to what a contrastive step needs: token rows, and the identities that the mask compares."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError
from torch import Tensor

from speed.backends.contrastive import ContrastiveTrainer
from speed.backends.token_rows import Frame, token_rows
from speed.core.errors import UserError
from speed.data.records import Example, Kind
from speed.model.batching import Ids
from speed.model.loss import Identities, label_hash, text_hash


class Record(NamedTuple):
    """One record as token rows and hashes."""

    number: int
    """Line in the file, from 1."""
    kind: str
    query: Ids
    positive: Ids
    negative: Ids | None
    query_hash: int
    positive_hash: int
    negative_hash: int
    positive_label: int
    negative_label: int


def read_examples(file: Path) -> list[tuple[int, Example]]:
    """(line number, example) of every line.

    Raises:
        UserError: for a missing or empty file, a line that is no example, or an empty query or positive.
    """
    if not file.is_file():
        raise UserError(f"{file} does not exist: the embedder needs a JSONL file of examples")
    out: list[tuple[int, Example]] = []
    with file.open(encoding="utf-8", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                example = Example.model_validate_json(line)
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(map(str, first["loc"])) or "line"
                raise UserError(f"{file}, line {number}: no usable example ({where}: {first['msg']})") from error
            for field in ("query", "positive"):
                if not getattr(example, field).strip():
                    raise UserError(
                        f"{file}, line {number}: {field} is empty; every record needs a query and a positive"
                    )
            out.append((number, example))
    if len(out) < 2:
        raise UserError(
            f"{file} holds {len(out)} examples; contrastive training needs at least 2 (and better thousands)"
        )
    return out


def records_of(
    examples: Sequence[tuple[int, Example]], config: ContrastiveTrainer, tokenizer: Any, frame: Frame
) -> list[Record]:
    """Token rows and hashes; each distinct text is tokenised once."""
    queries = [query_text(example, config.instruction) for _, example in examples]
    negatives = [example.negative or None if config.hard_negatives else None for _, example in examples]
    texts = dict.fromkeys([*queries, *(example.positive for _, example in examples), *(n for n in negatives if n)])
    rows = dict(zip(texts, token_rows(tokenizer, list(texts), frame, config.max_length), strict=True))
    out: list[Record] = []
    for (number, example), query, negative in zip(examples, queries, negatives, strict=True):
        is_label = example.kind is Kind.CLASSIFICATION
        out.append(
            Record(
                number=number,
                kind=example.kind.value,
                query=rows[query],
                positive=rows[example.positive],
                negative=rows[negative] if negative else None,
                query_hash=text_hash(example.query),
                positive_hash=text_hash(example.positive),
                negative_hash=text_hash(negative) if negative else 0,
                positive_label=label_hash(example.positive) if is_label else 0,
                negative_label=label_hash(negative) if is_label and negative else 0,
            )
        )
    return out


def query_text(example: Example, instruction: str) -> str:
    """The query under its instruction; alone where the record has no task."""
    if not example.task:
        return example.query
    before, _, after = instruction.partition("{query}")
    return before.replace("{task}", example.task) + example.query + after


class Batch(NamedTuple):
    """The rows of one step: queries, then their positives, then the hard negatives there are."""

    records: list[Record]
    rows: list[Ids]
    ids: Identities
    targets: Tensor


def batch_of(records: list[Record], device: torch.device) -> Batch:
    """Rows and identities of one step; documents are numbered from 0 after the queries."""
    with_negative = [record for record in records if record.negative is not None]
    rows = [record.query for record in records] + [record.positive for record in records]
    rows += [record.negative for record in with_negative if record.negative is not None]

    def tensor(values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=device)

    ids = Identities(
        query=tensor([r.query_hash for r in records]),
        document=tensor([r.positive_hash for r in records] + [r.negative_hash for r in with_negative]),
        label=tensor([r.positive_label for r in records] + [r.negative_label for r in with_negative]),
        answers=tensor([r.query_hash for r in records] + [0] * len(with_negative)),
        owner=tensor([r.number for r in records] + [r.number for r in with_negative]),
    )
    return Batch(records, rows, ids, torch.arange(len(records), device=device))
