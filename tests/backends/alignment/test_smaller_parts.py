"""A micro-batch that does not fit into memory is computed in parts: the same gradients, remembered and told."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_memory import Machine, said, small_machine
from tiny_generator import completions, context, make_base, preferences

from speed.backends.alignment.batch_order import BatchOrder, Parts, repeated_rows
from speed.backends.alignment.trainer import TrlTrainer
from speed.core.errors import UserError
from speed.data.costs.auto_fit import choices
from speed.data.costs.model_shapes import shape_of
from speed.data.trainings import Dpo, Sft

LORA = TrlTrainer(method="lora", r=4, alpha=8, precision="fp32", prompt_format="plain")
SETTINGS: dict[str, Any] = {"learning_rate": 1e-2, "batch_size": 4, "epochs": 1, "max_length": 128, "warmup_ratio": 0.0}
ROWS = 11
"""The last batch of a pass has three rows in the place of four: its parts are unlike."""


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return small_machine(monkeypatch, len)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def junior(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("junior")
    LORA.sft(str(base), completions(8), Sft(**SETTINGS), out, context(out))
    return out


@pytest.mark.parametrize("kind", ["sft", "dpo", "dpo in micro-batches of its own"])
def test_parts_have_the_gradient_of_the_whole_to_a_hundred_thousandth(
    kind: str, base: Path, junior: Path, machine: Machine, tmp_path: Path
) -> None:
    """In fp32, of each step, the last batch of the pass included, which is not full."""
    trainer = LORA.model_copy(update={"micro_batch": 2 if "own" in kind else None})

    def train(out: Path) -> Any:
        ctx = context(tmp_path / "home")
        if kind == "sft":
            trainer.sft(str(base), completions(ROWS), Sft(**SETTINGS), out, ctx)
        else:
            trainer.dpo(junior, preferences(ROWS), Dpo(beta=0.1, **SETTINGS), out, ctx)
        return ctx

    train(tmp_path / "whole")
    whole, machine.gradients = machine.gradients, []
    machine.most = {"sft": 1, "dpo": 4}.get(kind, 2)  # rows of an embedding, of which a pair has two
    ctx = train(tmp_path / "parts")
    assert machine.refused == (2 if kind == "sft" else 1), "4 rows, and 2"
    assert len(machine.gradients) == len(whole) == 3
    for part, one in zip(machine.gradients, whole, strict=True):
        assert (part - one).norm() / one.norm() < 1e-5
    told = ctx.tally.metrics["at_once"]
    assert told in said(ctx)
    left = 2 if kind == "dpo" else 1
    assert told.startswith(f"{left} rows were computed at once, since")
    assert f"trainer.micro_batch={left}" in told


def test_a_training_that_goes_on_after_a_kill_remembers(base: Path, machine: Machine, tmp_path: Path) -> None:
    machine.most = 2

    class Killed(Exception):
        pass

    def killed(event: dict[str, Any]) -> None:
        if event["event"] == "metric" and event["step"] == 2:
            raise Killed

    ctx = context(tmp_path, checkpoint_seconds=0.0)
    ctx.send = killed
    with pytest.raises(Killed):
        LORA.sft(str(base), completions(ROWS), Sft(**SETTINGS), tmp_path / "out", ctx)
    assert machine.refused == 1
    ctx = context(tmp_path)
    LORA.sft(str(base), completions(ROWS), Sft(**SETTINGS), tmp_path / "out", ctx)
    assert machine.refused == 1
    assert "2 rows were computed at once" in ctx.tally.metrics["at_once"]


def test_one_row_that_does_not_fit_ends_the_training(base: Path, machine: Machine, tmp_path: Path) -> None:
    machine.most = 0
    with pytest.raises(UserError, match="does not fit into the GPU's memory"):
        LORA.sft(str(base), completions(4), Sft(**SETTINGS), tmp_path / "out", context(tmp_path))
    assert machine.refused == 3, "4 rows, 2 and 1"


def test_a_likelihood_term_is_never_cut(junior: Path, machine: Machine, tmp_path: Path) -> None:
    """It is a mean over the tokens of a forward pass, which fewer rows would change."""
    machine.most = 2
    config = Dpo(beta=0.1, sft_weight=0.5, **SETTINGS)
    with pytest.raises(UserError, match="does not fit into the GPU's memory"):
        LORA.dpo(junior, preferences(4), config, tmp_path / "out", context(tmp_path))
    assert machine.refused == 1


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.data())
def test_weighted_parts_have_the_mean_of_the_whole_micro_batches(a: int, b: int, c: int, data: Any) -> None:
    parts = Parts(rows=a, whole=a * b, share=a * b * c)
    batch = data.draw(st.integers(1, parts.share))
    losses = data.draw(st.lists(st.floats(-9, 9), min_size=batch, max_size=batch))
    wholes = [fmean(losses[start : start + parts.whole]) for start in range(0, batch, parts.whole)]
    found = [fmean(losses[start : start + a]) for start in range(0, batch, a)]
    weighted = [parts.weight(batch, place) * loss for place, loss in enumerate(found)]
    assert fmean(weighted) == pytest.approx(fmean(wholes), abs=1e-9)


@given(st.integers(2, 40), st.integers(2, 4), st.sampled_from([(1, 2), (1, 4), (2, 4)]))
def test_processes_fill_a_last_batch_up_as_without_parts(rows: int, processes: int, sizes: tuple[int, int]) -> None:
    part, whole = sizes
    batch_size = whole * processes
    order = BatchOrder([1] * rows, batch_size, 0, Parts(part, whole, whole))
    plain = list(BatchOrder([1] * rows, batch_size, 0))
    assert list(order) == [*plain, *(plain * 30)[: repeated_rows(rows, whole, processes)]]
    assert len(order) == len(list(order))
    assert repeated_rows(len(order), part, processes) == 0, "nothing is left to accelerate"


@pytest.mark.parametrize(
    ("kind", "place", "precision", "within"),
    [("sft", 1, "fp32", 1e-5), ("dpo", -1, "fp32", 1e-5), ("sft", -1, "bf16", 1e-2), ("dpo", 1, "bf16", 1e-2)],
)
def test_auto_has_the_gradient_and_the_key_of_the_whole_batch(
    kind: str, place: int, precision: str, within: float, base: Path, junior: Path, machine: Machine, tmp_path: Path
) -> None:
    """In bf16 to a hundredth of its norm: a batch's make-up shows there. The last choice is checkpointed."""
    plain = LORA.model_copy(update={"precision": precision})
    auto = plain.model_copy(update={"micro_batch": "auto", "gradient_checkpointing": "auto"})
    assert auto.recipe() == plain.recipe()
    config: Any = Sft(**SETTINGS) if kind == "sft" else Dpo(beta=0.1, **SETTINGS)
    shape = shape_of(str(base))
    assert shape is not None
    chosen = choices(shape, auto.footprint(), config, 1, False)[place]

    def train(trainer: TrlTrainer, out: Path) -> Any:
        ctx = context(tmp_path, device_gb=chosen.gigabytes)
        if kind == "sft":
            trainer.sft(str(base), completions(ROWS), config, out, ctx)
        else:
            trainer.dpo(junior, preferences(ROWS), config, out, ctx)
        return ctx

    assert "auto" not in train(plain, tmp_path / "plain").tally.metrics
    whole, machine.gradients = machine.gradients, []
    ctx = train(auto, tmp_path / "auto")
    rows, again = (2, "false") if place == 1 else (1, "true")
    assert ctx.tally.metrics["auto"] == f"micro_batch={rows} gradient_checkpointing={again}"
    assert said(ctx)[0].startswith(ctx.tally.metrics["auto"])
    assert "at_once" not in ctx.tally.metrics, "nothing was out of memory"
    first, other = machine.gradients[0], whole[0]
    assert (first - other).norm() / other.norm() < within


def test_a_probe_says_what_does_not_fit_and_measures_what_does(base: Path, machine: Machine, tmp_path: Path) -> None:
    machine.most = 2
    ctx = context(tmp_path / "home")
    measured = LORA.probe(str(base), Sft(**SETTINGS | {"epochs": 9}), tmp_path / "out", ctx)
    assert machine.refused == 1, "4 rows"
    assert len(machine.gradients) == 3, "steps of a batch each, however many epochs a training has"
    assert measured.cut.endswith("trainer.micro_batch=2 begins with them")
    assert measured.gigabytes > 0
    assert measured.tokens_per_second > 0
    assert not (tmp_path / "out" / "model").exists()
    machine.most = 0
    with pytest.raises(UserError, match="does not fit into the GPU's memory\n.*trainer.micro_batch"):
        LORA.probe(str(base), Sft(**SETTINGS), tmp_path / "none", context(tmp_path / "another"))
