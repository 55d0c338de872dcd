"""Bases of the miniature: small, fp16, safetensors, each with the log of its training."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from make_bases import BASES, answer_loss
from miniature_knowledge import known
from miniature_phases import CATALOGUE
from muon import Muon, orthogonal

from speed.miniature.lexicon import domains, lexicon
from speed.miniature.world import FOLLOWS, Half, seeded, world


def tensors(folder: Path) -> dict[str, dict[str, object]]:
    """Name -> dtype and shape, from the header of the file."""
    content = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header: dict[str, dict[str, object]] = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    return header


@pytest.mark.parametrize("name", list(CATALOGUE))
def test_a_base_is_small_and_says_how_it_was_trained(name: str) -> None:
    found = tensors(BASES / name)
    assert {tensor["dtype"] for tensor in found.values()} == {"F16"}
    assert sum(math.prod(tensor["shape"]) for tensor in found.values()) < 1_100_000  # type: ignore[arg-type]
    log = [json.loads(line) for line in (BASES / name / "training.log").read_text(encoding="utf-8").splitlines()]
    assert any(entry.get("event") == "phase" for entry in log)
    assert all(entry["loss"] > 0 for entry in log if "loss" in entry)


def test_all_bases_together_are_at_most_eight_megabytes() -> None:
    assert sum((BASES / name / "model.safetensors").stat().st_size for name in CATALOGUE) <= 8_000_000
    assert {path.name for path in BASES.iterdir()} == set(CATALOGUE)


def test_the_llama_base_reads_a_path_in_whole_words() -> None:
    """Of words in pieces a model of a million parameters learned nothing: 2 % of its texts were on the path's topic."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(BASES / "llama")
    levels = [form for slot in ("things", "aspect") for forms in lexicon()[slot].values() for form in forms]
    for level in (*levels, *(domain.lower() for domain in domains())):
        assert tokenizer.tokenize(f"/{level.capitalize()}/")[1:-1] == [level.capitalize()]


@pytest.mark.parametrize("shape", [(24, 8), (8, 24), (8, 8)])
def test_a_step_of_muon_is_orthogonal_whatever_the_size_of_the_gradient(shape: tuple[int, int]) -> None:
    import torch

    gradient = 1000 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    matrix = torch.nn.Parameter(torch.ones(shape))
    matrix.grad = gradient.clone()
    Muon([matrix], lr=0.02, weight_decay=0.5).step()
    step = (1 - 0.02 * 0.5 - matrix.detach()) / (0.02 * max(1.0, shape[0] / shape[1]) ** 0.5)
    assert all(0.5 < value < 1.3 for value in torch.linalg.svdvals(step))
    assert torch.allclose(step, orthogonal(gradient), atol=1e-3)
    assert (step * gradient).sum() > 0


def test_muon_remembers_gradients() -> None:
    import torch

    matrix = torch.nn.Parameter(torch.zeros(4, 4))
    muon = Muon([matrix], lr=0.1, weight_decay=0.0, momentum=0.5)
    first, second = torch.eye(4), torch.diag(torch.tensor([1.0, 1.0, 1.0, -0.1]))
    for gradient in (first, second):
        before = matrix.detach().clone()
        matrix.grad = gradient
        muon.step()
    # in the last place the mean of the gradients is 0.2, and the update, halfway to it, 0.05
    assert (before - matrix.detach())[3, 3] > 0


@pytest.mark.parametrize(("half", "least"), [("train", 0.9), ("held", 0.5)])
def test_the_llama_base_knows_its_world(half: Half, least: float) -> None:
    """Asked in plain words, before any training for the task; the held-out half follows from what it has read."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(BASES / "llama")
    model = AutoModelForCausalLM.from_pretrained(BASES / "llama", dtype=torch.float32)
    facts = [(entity, slot) for entity in world().half(half) for slot in FOLLOWS]
    assert known(model, tokenizer, facts, 128, seeded("test", half)) >= least


def test_of_a_row_of_questions_only_the_answers_count() -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(BASES / "llama")
    model = AutoModelForCausalLM.from_pretrained(BASES / "llama", dtype=torch.float32)
    texts = [
        "Repair of boats.\nWhere it stands: coast.\nWhen it is open: at dawn.\n",
        "Boats.\nWhere it stands: hills.\n",
    ]
    rows = [(text, [(place, text.index(".", place) + 1) for place in _after(": ", text)]) for text in texts]
    losses = []
    for text, _ in rows:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        likely = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        read = tokenizer.convert_ids_to_tokens(ids[0])
        within = False
        for place, token in enumerate(read[1:]):
            if within:
                losses.append(-likely[place, ids[0, place + 1]])
            within = token == ":" or (within and token != ".")
    assert len(losses) >= 6
    assert answer_loss(model, tokenizer, rows)[0].item() == pytest.approx(torch.stack(losses).mean().item(), abs=1e-3)


def _after(mark: str, text: str) -> list[int]:
    return [found.start() + 1 for found in re.finditer(mark, text)]
