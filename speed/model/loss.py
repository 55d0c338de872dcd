"""The contrastive loss: one function for plain, cached and distributed training, and the mask of false negatives.

InfoNCE (E5-mistral, arXiv 2401.00368, equation 2): each query's positive against every other document of the batch,
over cosine similarities divided by a temperature. Similarities and softmax are fp32 whatever the model's type, also
under autocast: at temperature 0.02 bf16 leaves some twenty distinct logits in a row of 3,072, and a gradient that is
10 % off.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, NamedTuple

import torch
from torch import Tensor


def text_hash(text: str) -> int:
    """64-bit hash of a text, signed, never 0. The chance of any collision among 10^9 texts is under 3 %."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True) or 1


def label_hash(text: str) -> int:
    """64-bit hash of a class label, never 0; equal for labels that differ in case and spaces only."""
    return text_hash(" ".join(text.casefold().split()))


class Identities(NamedTuple):
    """What the mask compares: 64-bit hashes of the queries of this process and of all documents."""

    query: Annotated[Tensor, "rows"]
    """Hash of each query's text."""
    document: Annotated[Tensor, "documents"]
    """Hash of each document's text."""
    label: Annotated[Tensor, "documents"]
    """`label_hash` of each document that is a class label; 0 for all others."""
    answers: Annotated[Tensor, "documents"]
    """Hash of the query that the document is the positive of; 0 for hard negatives."""
    owner: Annotated[Tensor, "documents"]
    """Number of the record that each document came with."""


def blocked(
    ids: Identities,
    targets: Annotated[Tensor, "rows"],
    identical_positives: bool = True,
    own_duplicates: bool = True,
    same_label: bool = True,
    share_hard_negatives: bool = True,
) -> Annotated[Tensor, "rows documents"]:
    """True where a document must not count as a negative of a query. Never true for the query's own positive.

    Args:
        ids: identities of the queries (the rows of this process) and of all documents.
        targets: index of each query's positive among the documents.
        identical_positives: leave out documents whose text equals the positive's.
        own_duplicates: leave out documents whose text equals the query's own, and positives of equal queries.
        same_label: leave out labels equal to the positive's in classification, whatever their spelling.
        share_hard_negatives: whether a hard negative counts for every query, or only for the one it came with.
    """
    rows, documents = ids.query.shape[0], ids.document.shape[0]
    out = torch.zeros(rows, documents, dtype=torch.bool, device=ids.document.device)
    if identical_positives:
        out |= ids.document[targets][:, None] == ids.document[None, :]
    if own_duplicates:
        out |= ids.query[:, None] == ids.document[None, :]
        out |= ids.query[:, None] == ids.answers[None, :]
    if same_label:
        mine = ids.label[targets][:, None]
        out |= (mine == ids.label[None, :]) & (mine != 0)
    if not share_hard_negatives:
        out |= (ids.answers == 0)[None, :] & (ids.owner[None, :] != ids.owner[targets][:, None])
    out[torch.arange(rows, device=out.device), targets] = False
    return out


def above_positive(
    similarity: Annotated[Tensor, "rows documents"], targets: Annotated[Tensor, "rows"], margin: float
) -> Annotated[Tensor, "rows documents"]:
    """True for documents that score above the query's positive by more than the margin; never for the positive."""
    out = similarity.detach() > similarity.detach().gather(1, targets[:, None]) + margin
    out[torch.arange(len(targets), device=out.device), targets] = False
    return out


class Nce(NamedTuple):
    """The loss of each row, and figures for the training curves; all but the loss are detached."""

    loss: Annotated[Tensor, "rows"]
    masked: Annotated[Tensor, ""]
    """Share of the (query, document) pairs that the mask left out."""
    positive: Annotated[Tensor, ""]
    """Mean similarity of queries and their positives."""
    negative: Annotated[Tensor, ""]
    """Mean similarity of queries and the documents that counted as negatives."""
    pairs: Annotated[Tensor, ""]
    """Number of pairs of a query and a negative."""


def info_nce(
    queries: Annotated[Tensor, "rows dim"],
    documents: Annotated[Tensor, "documents dim"],
    targets: Annotated[Tensor, "rows"],
    mask: Annotated[Tensor, "rows documents"],
    temperature: float,
    score_margin: float | None = None,
) -> Nce:
    """-log softmax of the positive's similarity over all documents that are not masked; one value a row.

    Args:
        score_margin: also leave out documents that score higher than the positive by more than this
            (Qwen3-Embedding, arXiv 2506.05176: 0.1): more likely unlabelled positives than negatives.
    """
    with torch.autocast(device_type=queries.device.type, enabled=False):
        similarity = queries.float() @ documents.float().T
        own = similarity.gather(1, targets[:, None])
        if score_margin is not None:
            mask = mask | above_positive(similarity, targets, score_margin)
        logits = (similarity / temperature).masked_fill(mask, float("-inf"))
        loss = torch.logsumexp(logits, dim=1) - own[:, 0] / temperature
    with torch.no_grad():
        counted = ~mask
        counted[torch.arange(len(targets), device=mask.device), targets] = False
        pairs = counted.sum()
        negative = (similarity * counted).sum() / pairs.clamp(min=1)
        return Nce(loss, mask.float().mean(), own.mean(), negative, pairs)


def list_wise(
    query: Annotated[Tensor, "lists dim"], documents: Annotated[Tensor, "lists levels dim"], temperature: float
) -> Annotated[Tensor, "lists"]:
    """How far the order of each query's documents is from that of their levels, the most relevant first.

    ListNet's top-one loss (Cao et al. 2007): the Kullback-Leibler divergence of the softmax of similarities, divided by
    the temperature, from the softmax of the grades levels - 1 ... 0. It is 0 where each level is one temperature nearer
    than the next. SyCL (arXiv 2503.23239), which has such documents, compares distributions over the whole batch by
    their Wasserstein distance; here the batch is InfoNCE's business.
    """
    with torch.autocast(device_type=query.device.type, enabled=False):
        similarity = torch.einsum("nd,nld->nl", query.float(), documents.float())
        grades = torch.arange(similarity.shape[1] - 1, -1, -1, device=query.device, dtype=torch.float32)
        wanted = grades.log_softmax(0)
        found = (similarity / temperature).log_softmax(1)
        return (wanted.exp() * (wanted - found)).sum(1)
