"""The contrastive loss against figures derived by hand, its precision, and its mask against a search over texts."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from speed.model.loss import Identities, blocked, info_nce, label_hash, list_wise, text_hash


def free(rows: int, documents: int) -> Tensor:
    return torch.zeros(rows, documents, dtype=torch.bool)


def test_the_loss_is_the_one_derived_by_hand() -> None:
    queries = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    documents = torch.tensor([[0.6, 0.8], [0.0, 1.0], [1.0, 0.0]])  # two positives, a hard negative
    found = info_nce(queries, documents, torch.tensor([0, 1]), free(2, 3), temperature=0.5)
    first = math.log(math.exp(1.2) + math.exp(0.0) + math.exp(2.0)) - 1.2
    second = math.log(math.exp(1.6) + math.exp(2.0) + math.exp(0.0)) - 2.0
    assert found.loss.tolist() == pytest.approx([first, second], abs=1e-6)
    assert found.positive.item() == pytest.approx((0.6 + 1.0) / 2)
    assert found.negative.item() == pytest.approx((0.0 + 1.0 + 0.8 + 0.0) / 4)


def test_a_masked_document_does_not_count() -> None:
    queries, documents = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8], [1.0, 0.0], [0.0, 1.0]])
    mask = torch.tensor([[False, True, False]])
    found = info_nce(queries, documents, torch.tensor([0]), mask, temperature=1.0)
    assert found.loss.item() == pytest.approx(math.log(math.exp(0.6) + 1.0) - 0.6, abs=1e-6)
    assert found.masked.item() == pytest.approx(1 / 3)


def test_temperature_is_heeded() -> None:
    torch.manual_seed(0)
    queries, documents = torch.randn(4, 8), torch.randn(4, 8)
    losses = [
        info_nce(queries, documents, torch.arange(4), free(4, 4), temperature).loss.sum().item()
        for temperature in (0.5, 1.0)
    ]
    logits = queries @ documents.T
    expected = [
        torch.nn.functional.cross_entropy(logits / t, torch.arange(4), reduction="sum").item() for t in (0.5, 1)
    ]
    assert losses == pytest.approx(expected, rel=1e-5)
    assert losses[0] != pytest.approx(losses[1], rel=1e-2)


def test_a_batch_with_one_label_only_has_a_finite_loss_and_gradient() -> None:
    queries = torch.randn(3, 4, requires_grad=True)
    documents = torch.randn(1, 4).repeat(3, 1)
    same = torch.full((3,), text_hash("positive"))
    ids = Identities(torch.arange(1, 4), same, same, torch.arange(1, 4), torch.arange(3))
    mask = blocked(ids, torch.arange(3))
    loss = info_nce(queries, documents, torch.arange(3), mask, 0.02).loss.mean()
    loss.backward()
    assert loss.item() == 0.0
    assert torch.isfinite(queries.grad).all()  # type: ignore[arg-type]


def test_documents_that_score_above_the_positive_by_the_margin_are_left_out() -> None:
    queries = torch.tensor([[1.0, 0.0]])
    documents = torch.tensor([[0.5, 0.0], [0.55, 0.0], [0.7, 0.0]])
    found = info_nce(queries, documents, torch.tensor([0]), free(1, 3), 1.0, score_margin=0.1)
    assert found.loss.item() == pytest.approx(math.log(math.exp(0.5) + math.exp(0.55)) - 0.5, abs=1e-6)


@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_vectors_keep_their_gradient(autocast: bool) -> None:
    """In bf16 the similarities of a batch of 1,536 take some twenty values and the gradient is 10 % off."""
    draw = torch.Generator().manual_seed(0)
    unit = torch.nn.functional.normalize
    queries = unit(torch.randn(1536, 64, generator=draw), dim=1).bfloat16()
    documents = unit(queries.float() + 0.8 * torch.randn(1536, 64, generator=draw) / 8, dim=1).bfloat16()
    targets = torch.arange(1536)

    def ours(leaf: Tensor) -> Tensor:
        return info_nce(leaf, documents.to(leaf.dtype), targets, free(1536, 1536), 0.02).loss.mean()

    def in_its_own_type(leaf: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(leaf @ documents.T / 0.02, targets)

    def gradient(loss: Callable[[Tensor], Tensor], of: Tensor, autocast: bool) -> Tensor:
        leaf = of.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss(leaf).backward()  # type: ignore[no-untyped-call]
        assert leaf.grad is not None
        return leaf.grad.float()

    exact = gradient(ours, queries.float(), False)
    assert (gradient(ours, queries, autocast) - exact).norm() / exact.norm() < 0.02
    assert (gradient(in_its_own_type, queries, autocast) - exact).norm() / exact.norm() > 0.05, "the bar must bite"


texts = st.sampled_from(["a", "b", "c", "A ", "d"])


@settings(max_examples=150)
@given(
    rows=st.lists(st.tuples(texts, texts, st.none() | texts, st.booleans()), min_size=1, max_size=6),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()),
)
def test_the_mask_equals_a_search_over_the_texts(
    rows: list[tuple[str, str, str | None, bool]], flags: tuple[bool, bool, bool, bool]
) -> None:
    identical, own, label, share = flags
    documents = [(positive, i, True, is_label) for i, (_, positive, _, is_label) in enumerate(rows)]
    documents += [(negative, i, False, is_label) for i, (_, _, negative, is_label) in enumerate(rows) if negative]
    ids = Identities(
        query=torch.tensor([text_hash(query) for query, *_ in rows]),
        document=torch.tensor([text_hash(text) for text, *_ in documents]),
        label=torch.tensor([label_hash(text) if is_label else 0 for text, _, _, is_label in documents]),
        answers=torch.tensor([text_hash(rows[i][0]) if positive else 0 for _, i, positive, _ in documents]),
        owner=torch.tensor([i for _, i, _, _ in documents]),
    )
    found = blocked(ids, torch.arange(len(rows)), identical, own, label, share)
    for i, (query, positive, _, is_label) in enumerate(rows):
        for j, (text, owner, is_positive, other_is_label) in enumerate(documents):
            expected = (
                (identical and text == positive)
                or (own and text == query)
                or (own and is_positive and rows[owner][0] == query)
                or (label and is_label and other_is_label and text.strip().lower() == positive.strip().lower())
                or (not share and not is_positive and owner != i)
            )
            assert found[i, j].item() == (expected and i != j), (i, j)


def test_hashes_tell_texts_apart_and_labels_together() -> None:
    assert text_hash("a") != text_hash("A")
    assert label_hash("Very  positive ") == label_hash("very positive")
    assert text_hash("\ud800") != text_hash("")  # lone surrogates occur in model output
    assert -(2**63) <= text_hash("a") < 2**63


def unit(*angles: float) -> Tensor:
    return torch.tensor([[math.cos(angle), math.sin(angle)] for angle in angles])


def test_the_list_wise_loss_is_the_divergence_from_the_grades() -> None:
    torch.manual_seed(0)
    queries, documents = torch.randn(3, 8), torch.randn(3, 4, 8)
    similarity = torch.stack([documents[place] @ queries[place] for place in range(3)])
    wanted = torch.tensor([3.0, 2.0, 1.0, 0.0]).softmax(0).expand(3, 4)
    expected = torch.nn.functional.kl_div((similarity / 0.5).log_softmax(1), wanted, reduction="none").sum(1)
    assert list_wise(queries, documents, 0.5).tolist() == pytest.approx(expected.tolist(), rel=1e-5)


def test_the_list_wise_loss_is_0_where_each_level_is_a_temperature_nearer_than_the_next() -> None:
    query = torch.tensor([[1.0, 0.0]])
    spaced = unit(*(math.acos(cosine) for cosine in (0.8, 0.7, 0.6, 0.5)))[None]
    assert list_wise(query, spaced, 0.1).item() == pytest.approx(0.0, abs=1e-6)
    assert list_wise(query, spaced, 0.05).item() > 1e-2
    assert list_wise(query, spaced.flip(1), 0.1).item() > list_wise(query, spaced[:, [0, 2, 1, 3]], 0.1).item() > 0


def test_following_the_list_wise_loss_puts_documents_into_their_order() -> None:
    torch.manual_seed(1)
    query = torch.nn.functional.normalize(torch.randn(1, 8), dim=1)
    free_documents = torch.randn(1, 4, 8, requires_grad=True)
    optimizer = torch.optim.SGD([free_documents], lr=0.05)
    for _ in range(1500):
        optimizer.zero_grad()
        documents = torch.nn.functional.normalize(free_documents, dim=2)
        list_wise(query, documents, 0.1).sum().backward()
        optimizer.step()
    similarity = (documents.detach() @ query[0])[0]
    assert similarity.tolist() == sorted(similarity.tolist(), reverse=True)
    assert torch.diff(similarity).tolist() == pytest.approx([-0.1] * 3, abs=0.02)
