"""The trainings are wired right: losses, gradients and references against values computed by hand."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_generator import completions, context, make_base, preferences
from transformers import ByT5Tokenizer

from speed.backends.alignment import checkpoints, measures
from speed.backends.alignment.checkpoints import Watch
from speed.backends.alignment.measures import reference
from speed.backends.alignment.rows import dpo_rows, sft_rows
from speed.backends.alignment.trainer import TrlTrainer
from speed.backends.alignment.training import summary_of
from speed.backends.engines.prompt_format import completion_ids, prompt_ids
from speed.backends.engines.weights import load, read_card
from speed.backends.runtime.checkpoint_pace import WRITTEN
from speed.backends.runtime.stopping import Stop
from speed.core.cache import SUMS, file_sha256
from speed.core.errors import UserError
from speed.data.trainings import Completion, Dpo, Preference, Sft

LORA = TrlTrainer(method="lora", r=4, alpha=8, precision="fp32", prompt_format="plain")
FULL = LORA.model_copy(update={"method": "full"})
SFT = Sft(learning_rate=1e-2, batch_size=4, epochs=1, max_length=128, warmup_ratio=0.0)
DPO = Dpo(beta=0.1, learning_rate=1e-2, batch_size=4, epochs=1, max_length=128, warmup_ratio=0.0)


@pytest.fixture(scope="module", autouse=True)
def _two_pairs_are_measured() -> Iterator[None]:
    """How far a model is from its reference takes a fifth of so small a training; no test here needs it of 32 pairs."""
    with pytest.MonkeyPatch.context() as here:
        here.setattr(measures, "PAIRS", 2)
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def junior(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("junior")
    LORA.sft(str(base), completions(12), SFT, out, context(out))
    return out


@pytest.fixture(scope="module")
def full_junior(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("full")
    FULL.sft(str(base), completions(12), SFT.model_copy(update={"learning_rate": 1e-3}), out, context(out))
    return out


def trained(out: Path) -> dict[str, torch.Tensor]:
    return load_file(next((out / "model").glob("*.safetensors")))


def curve(out: Path) -> list[dict[str, float]]:
    found: list[dict[str, float]] = json.loads((out / "training.json").read_text())["curve"]
    return found


def log_prob(model: Any, prompt: list[int], completion: list[int]) -> torch.Tensor:
    """Sum of the completion's token log-probabilities, from the plain logits."""
    logits = model(input_ids=torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
    return torch.log_softmax(logits, -1).gather(1, torch.tensor(completion)[:, None]).sum()


def test_the_first_supervised_loss_is_that_of_the_completions_and_one_eos(base: Path, tmp_path: Path) -> None:
    rows = completions(4)
    LORA.sft(str(base), rows, SFT, tmp_path, context(tmp_path))
    model, tokenizer, _ = load(base, "fp32", "cpu")
    nats, tokens = 0.0, 0
    for row in rows:
        completion = completion_ids(row.completion, tokenizer)
        assert completion.count(tokenizer.eos_token_id) == 1
        assert completion[-1] == tokenizer.eos_token_id
        prompt = prompt_ids(row.prompt, "plain", tokenizer)
        assert prompt[0] == tokenizer.bos_token_id
        assert prompt.count(tokenizer.bos_token_id) == 1
        nats -= float(log_prob(model, prompt, completion))
        tokens += len(completion)
    assert curve(tmp_path)[0]["loss"] == pytest.approx(nats / tokens, rel=1e-5)


def test_a_tokenizer_without_a_padding_token_trains_the_same_end(base: Path, tmp_path: Path) -> None:
    """Padding is then the end of text, as Llama-3's; a mask built from ids would leave the end unlearned."""
    shutil.copytree(base, tmp_path / "base")
    tokenizer = load(base, "fp32", "cpu").tokenizer
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path / "base")
    for name, source in (("with", base), ("without", tmp_path / "base")):
        LORA.sft(str(source), completions(8), SFT, tmp_path / name, context(tmp_path))
        LORA.dpo(tmp_path / name, preferences(4), DPO, tmp_path / f"{name}-dpo", context(tmp_path))
    assert load(tmp_path / "base", "fp32", "cpu").tokenizer.pad_token_id == tokenizer.eos_token_id
    for stage in ("", "-dpo"):
        with_padding, without = (
            [line["loss"] for line in curve(tmp_path / f"{name}{stage}")] for name in ("with", "without")
        )
        assert without == pytest.approx(with_padding, rel=1e-5)


def test_supervised_training_learns(base: Path, tmp_path: Path) -> None:
    config = SFT.model_copy(update={"epochs": 5.0})
    LORA.sft(str(base), completions(8), config, tmp_path, context(tmp_path))
    losses = [line["loss"] for line in curve(tmp_path)]
    assert len(losses) == 10
    assert losses[-1] < 0.8 * losses[0]


def test_a_training_of_one_step_trains(junior: Path, tmp_path: Path) -> None:
    """The rate of a warm-up's first step is 0, and the only step must not be that one."""
    ctx = context(tmp_path)
    LORA.dpo(junior, preferences(4), DPO.model_copy(update={"warmup_ratio": 0.1}), tmp_path, ctx)
    assert [line["learning_rate"] for line in curve(tmp_path)] == [DPO.learning_rate]
    assert ctx.tally.metrics["kl_reference"] > 0


@pytest.mark.parametrize("loss", ["sigmoid", "robust", "hinge", "ipo"])
def test_a_preference_training_starts_at_its_reference(loss: str, junior: Path, tmp_path: Path) -> None:
    config = DPO.model_copy(update={"loss": loss, "label_smoothing": 0.1 if loss == "robust" else 0.0})
    ctx = context(tmp_path)
    LORA.dpo(junior, preferences(8), config, tmp_path, ctx)
    first = curve(tmp_path)[0]
    expected = {"sigmoid": math.log(2), "robust": math.log(2), "hinge": 1.0, "ipo": 25.0}[loss]
    assert first["loss"] == pytest.approx(expected, abs=1e-3)
    assert first["rewards_margins"] == pytest.approx(0, abs=1e-5)
    assert curve(tmp_path)[1]["loss"] != pytest.approx(expected, abs=1e-3)
    assert ctx.tally.metrics["kl_reference"] > 0
    assert [event["done"] for event in ctx.events if event["event"] == "progress"][-1] == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "start", ["continued adapter", "new adapter on full weights", "full weights", "senior", "senior on full weights"]
)
def test_the_reference_stays_the_start(
    start: str, junior: Path, full_junior: Path, plain_senior: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A junior, or in a further round the senior before."""
    if start == "senior on full weights":
        LORA.dpo(full_junior, preferences(8), DPO, tmp_path / "senior", context(tmp_path))
    trainer, folder = {
        "continued adapter": (LORA, junior),
        "new adapter on full weights": (LORA, full_junior),
        "full weights": (FULL, full_junior),
        "senior": (LORA, plain_senior),
        "senior on full weights": (LORA, tmp_path / "senior"),
    }[start]
    seen: list[Any] = []
    import speed.backends.alignment.dpo as module

    measured = module.kl_reference
    monkeypatch.setattr(module, "kl_reference", lambda done, data: seen.append(done) or measured(done, data))
    trainer.dpo(folder, preferences(8), DPO, tmp_path, context(tmp_path))
    frozen, tokenizer, _ = load(folder, "fp32", "cpu")
    row = dpo_rows(preferences(3), "plain", tokenizer, 128, context(tmp_path))[2]
    with torch.no_grad():
        expected = log_prob(frozen, row["prompt_ids"], row["chosen_ids"])
        with reference(seen[0]) as model:
            assert log_prob(model, row["prompt_ids"], row["chosen_ids"]) == pytest.approx(float(expected), abs=1e-4)
        policy = log_prob(seen[0].model, row["prompt_ids"], row["chosen_ids"])
    assert abs(float(policy - expected)) > 1e-2, "the policy must have moved"
    exported = load(tmp_path, "fp32", "cpu").model
    with torch.no_grad():
        again = log_prob(exported, row["prompt_ids"], row["chosen_ids"])
    assert float(again) == pytest.approx(float(policy), abs=1e-4)


def test_the_likelihood_term_is_that_of_the_chosen_answers(junior: Path, tmp_path: Path) -> None:
    config = DPO.model_copy(update={"sft_weight": 0.5})
    LORA.dpo(junior, preferences(4), config, tmp_path, context(tmp_path))
    model, tokenizer, _ = load(junior, "fp32", "cpu")
    rows = dpo_rows(preferences(4), "plain", tokenizer, 128, context(tmp_path))
    with torch.no_grad():
        nats = -sum(float(log_prob(model, row["prompt_ids"], row["chosen_ids"])) for row in rows)
    expected = math.log(2) + 0.5 * nats / sum(len(row["chosen_ids"]) for row in rows)
    assert curve(tmp_path)[0]["loss"] == pytest.approx(expected, rel=1e-4)


def test_what_both_answers_begin_with_is_context_and_nothing_is_learned_on_it(junior: Path, tmp_path: Path) -> None:
    pairs = [pair.model_copy(update={"begun": '{"input":'}) for pair in preferences(4)]
    _, tokenizer, _ = load(junior, "fp32", "cpu")
    ctx = context(tmp_path)
    bare, begun = (dpo_rows(rows, "plain", tokenizer, 128, ctx) for rows in (preferences(4), pairs))
    ids = tokenizer('{"input":', add_special_tokens=False)["input_ids"]
    assert [row["prompt_ids"] for row in begun] == [row["prompt_ids"] + ids for row in bare]
    assert [(row["chosen_ids"], row["rejected_ids"]) for row in begun] == [
        (row["chosen_ids"], row["rejected_ids"]) for row in bare
    ]
    LORA.dpo(junior, pairs, DPO, tmp_path, context(tmp_path))
    assert curve(tmp_path)[0]["loss"] == pytest.approx(math.log(2), abs=1e-3)


TWO_TOKENS = [Preference(prompt="Q", chosen="ab", rejected="c"), Preference(prompt="R", chosen="d", rejected="ef")]
"""Pairs whose answers are one or two tokens and their end."""


def by_hand(policy: Path, frozen: Path, beta: float) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradient of equation 2 on TWO_TOKENS, its derivative written out: the mean over pairs of
    -beta sigmoid(-beta margin) (grad log p(chosen) - grad log p(rejected))."""
    model, tokenizer, _ = load(policy, "fp32", "cpu", for_training=True)
    fixed = load(frozen, "fp32", "cpu").model
    loss, objective = 0.0, torch.zeros(())
    for pair in TWO_TOKENS:
        prompt = prompt_ids(pair.prompt, "plain", tokenizer)
        answers = [completion_ids(text, tokenizer) for text in (pair.chosen, pair.rejected)]
        chosen, rejected = (log_prob(model, prompt, answer) for answer in answers)
        with torch.no_grad():
            margin = float(
                (chosen - rejected) - (log_prob(fixed, prompt, answers[0]) - log_prob(fixed, prompt, answers[1]))
            )
        loss += math.log1p(math.exp(-beta * margin)) / len(TWO_TOKENS)
        objective = objective - beta / (1 + math.exp(beta * margin)) * (chosen - rejected) / len(TWO_TOKENS)
    objective.backward()  # type: ignore[no-untyped-call]
    return loss, {name: weight.grad for name, weight in model.named_parameters()}


def test_the_preference_gradient_is_the_hand_written_one(full_junior: Path, tmp_path: Path) -> None:
    """In each weight, at the start and where the policy has left its reference.

    AdamW's first step has the gradient's sign in every weight, and TRL tells the gradient's norm; that of the second
    step belongs to the gradient after the first one.
    """
    config = DPO.model_copy(update={"batch_size": 2, "beta": 0.3, "learning_rate": 1e-3})
    steady = FULL.model_copy(update={"schedule": "constant", "max_grad_norm": 1e9})
    steady.dpo(full_junior, TWO_TOKENS, config, tmp_path / "one", context(tmp_path))
    steady.dpo(full_junior, TWO_TOKENS, config.model_copy(update={"epochs": 2}), tmp_path / "two", context(tmp_path))
    before, after = (load(folder, "fp32", "cpu").model.state_dict() for folder in (full_junior, tmp_path / "one"))
    _, gradient = by_hand(full_junior, full_junior, 0.3)
    signs = 0
    for name, wanted in gradient.items():
        clear = wanted.abs() > 1e-5
        signs += int(clear.sum())
        assert torch.equal((before[name] - after[name])[clear].sign(), wanted[clear].sign()), name
    assert signs > 10_000
    for step, policy in enumerate((full_junior, tmp_path / "one")):
        loss, gradient = by_hand(policy, full_junior, 0.3)
        told = curve(tmp_path / "two")[step]
        assert told["loss"] == pytest.approx(loss, rel=1e-4)
        norm = math.sqrt(sum(float(part.pow(2).sum()) for part in gradient.values()))
        assert told["grad_norm"] == pytest.approx(norm, rel=1e-3)
    assert loss < math.log(2) - 1e-2, "the policy has left its reference"


SFT_KNOBS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"r": 2}, {}),
    ({"alpha": 16}, {}),
    ({"dropout": 0.3}, {}),
    ({"weight_decay": 0.5}, {}),
    ({"schedule": "cosine"}, {}),
    ({"schedule": "constant"}, {}),
    ({"max_grad_norm": 0.05}, {}),
    ({"prompt_format": "inst"}, {}),
    ({"prompt_format": "released"}, {}),
    ({"precision": "bf16"}, {}),
    ({"embeddings": True}, {}),
    ({"packing": True}, {}),
    ({"method": "full"}, {}),
    ({}, {"learning_rate": 2e-2}),
    ({}, {"batch_size": 2}),
    ({}, {"epochs": 2}),
    ({}, {"warmup_ratio": 0.5}),
    ({}, {"seed": 1}),
    ({}, {"max_length": 20}),
]


def difference(one: Path, other: Path) -> float:
    """Largest difference between two trained adapters; infinite where their shapes differ."""
    a, b = trained(one), trained(other)
    if {name: tensor.shape for name, tensor in a.items()} != {name: tensor.shape for name, tensor in b.items()}:
        return math.inf
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.fixture(scope="module")
def plain_run(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("plain")
    LORA.sft(str(base), completions(12), SFT, out, context(out))
    return out


@pytest.mark.parametrize(("trainer", "config"), SFT_KNOBS)
def test_every_knob_of_supervised_training_does_something(
    trainer: dict[str, Any], config: dict[str, Any], base: Path, plain_run: Path, tmp_path: Path
) -> None:
    changed = LORA.model_copy(update=trainer)
    changed.sft(str(base), completions(12), SFT.model_copy(update=config), tmp_path, context(tmp_path))
    assert difference(plain_run, tmp_path) > 1e-5


@pytest.mark.parametrize(
    "trainer", [{}, {"micro_batch": 2}, {"gradient_checkpointing": True}, {"padding_free": True, "micro_batch": 2}]
)
def test_what_saves_memory_changes_no_result(
    trainer: dict[str, Any], base: Path, plain_run: Path, tmp_path: Path
) -> None:
    LORA.model_copy(update=trainer).sft(str(base), completions(12), SFT, tmp_path, context(tmp_path))
    assert difference(plain_run, tmp_path) <= (0 if not trainer else 1e-4)
    if not trainer:
        for file in ("model/adapter_model.safetensors", "model/adapter_config.json", "training.json"):
            assert (tmp_path / file).read_bytes() == (plain_run / file).read_bytes()


DPO_KNOBS: list[dict[str, Any]] = [
    {"beta": 0.3},
    {"loss": "ipo"},
    {"loss": "hinge"},
    {"loss": "robust"},
    {"loss": "robust", "label_smoothing": 0.3},
    {"loss": "simpo", "gamma": 1.0},
    {"sft_weight": 0.5},
    {"learning_rate": 2e-2},
    {"seed": 3},
    {"batch_size": 2},
    {"epochs": 2},
    {"max_length": 16},
    {"warmup_ratio": 0.5},
]
SAVES_MEMORY = {"micro_batch", "gradient_checkpointing", "padding_free", "precompute_reference", "liger"}
"""Knobs that must change no result, or (liger) cannot be turned here."""


def test_every_knob_has_a_test() -> None:
    turned = {name for trainer, _ in SFT_KNOBS for name in trainer}
    assert turned | SAVES_MEMORY == set(TrlTrainer.model_fields)
    assert {name for _, config in SFT_KNOBS for name in config} == set(Sft.model_fields)
    assert {name for config in DPO_KNOBS for name in config} == set(Dpo.model_fields)


@pytest.fixture(scope="module")
def plain_senior(junior: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("plain_senior")
    LORA.dpo(junior, preferences(12), DPO, out, context(out))
    return out


@pytest.mark.parametrize("config", DPO_KNOBS)
def test_every_knob_of_preference_training_does_something(
    config: dict[str, Any], junior: Path, plain_senior: Path, tmp_path: Path
) -> None:
    LORA.dpo(junior, preferences(12), DPO.model_copy(update=config), tmp_path, context(tmp_path))
    if config == {"loss": "robust"}:  # without smoothing it is the sigmoid loss
        assert difference(plain_senior, tmp_path) == 0
    else:
        assert difference(plain_senior, tmp_path) > 1e-5


def killed_at(step: int, train: Callable[[Any], None], out: Path) -> None:
    """Train in a forked process that is killed with SIGKILL as soon as it reports `step`."""
    child = os.fork()
    if child == 0:
        ctx = context(out, checkpoint_seconds=0.0)

        def watch(event: dict[str, Any]) -> None:
            if event["event"] == "metric" and event["step"] == step:
                os.kill(os.getpid(), signal.SIGKILL)

        ctx.send = watch
        train(ctx)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)


@pytest.mark.parametrize("kind", ["sft", "dpo", "full"])
def test_killed_and_resumed_equals_undisturbed_to_the_bit(kind: str, base: Path, junior: Path, tmp_path: Path) -> None:
    config = SFT.model_copy(update={"epochs": 2.0})
    dropping = LORA.model_copy(update={"dropout": 0.2})

    def train(ctx: Any, out: Path) -> None:
        out.mkdir(exist_ok=True)
        if kind == "dpo":
            LORA.dpo(junior, preferences(20), DPO.model_copy(update={"epochs": 2.0}), out, ctx)
        else:
            (dropping if kind == "sft" else FULL).sft(str(base), completions(20), config, out, ctx)

    straight, broken = tmp_path / "straight", tmp_path / "broken"
    train(context(straight), straight)
    killed_at(6, lambda ctx: train(ctx, broken), broken)
    assert not (broken / "weights.json").exists()
    whole = broken / "checkpoints" / "checkpoint-5"
    assert whole.is_dir()
    cut_short = whole.with_name("checkpoint-9")  # a save that the kill interrupted
    shutil.copytree(whole, cut_short)
    (cut_short / "whole.json").unlink()
    (cut_short / "optimizer.pt").write_bytes(b"")
    ctx = context(broken)
    train(ctx, broken)
    assert any("checkpoint-5" in event.get("message", "") for event in ctx.events)  # type: ignore[attr-defined]
    assert len(curve(broken)) == 10
    assert curve(broken) == curve(straight)
    assert difference(broken, straight) == 0
    assert not (broken / "checkpoints").exists()


def test_a_finished_training_is_not_repeated(plain_run: Path, base: Path, tmp_path: Path) -> None:
    shutil.copytree(plain_run, tmp_path / "again")
    ctx = context(tmp_path)
    LORA.sft(str(base), completions(12), SFT, tmp_path / "again", ctx)
    assert ctx.tally.metrics["steps"] == 3
    assert not ctx.events  # type: ignore[attr-defined]


def test_the_payload_is_the_adapter_alone(junior: Path, base: Path, tmp_path: Path) -> None:
    LORA.dpo(junior, preferences(4), DPO, tmp_path, context(tmp_path))
    files = {file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if file.is_file()}
    assert {file for file in files if "token" not in file} == {
        "weights.json",
        "training.json",
        "model/adapter_model.safetensors",
        "model/adapter_config.json",
    }
    assert not [name for name in trained(tmp_path) if ".ref." in name]
    card = read_card(tmp_path)
    assert card is not None
    assert Path(card.base) == base


def test_rows_that_cannot_be_trained_on_are_counted(base: Path, junior: Path, tmp_path: Path) -> None:
    ctx = context(tmp_path)
    rows = [*completions(4), Completion(prompt="x" * 200, completion="long"), Completion(prompt="y", completion="")]
    LORA.sft(str(base), [*rows, Completion(prompt="z", completion="a</s>b")], SFT, tmp_path / "sft", ctx)
    assert ctx.tally.rejected == {"over_max_length": 1, "empty_completion": 1, "eos_inside": 1}
    ctx = context(tmp_path)
    pairs = [*preferences(4), Preference(prompt="x", chosen="same", rejected="same")]
    pairs.append(Preference(prompt="x", chosen="y" * 200, rejected="short"))
    LORA.dpo(junior, pairs, DPO, tmp_path / "dpo", ctx)
    assert ctx.tally.rejected == {"chosen_equals_rejected": 1, "over_max_length": 1}


@pytest.mark.parametrize(
    ("rows", "config", "says"),
    [
        ([], {}, "of 0 given"),
        (completions(1), {}, "at least two"),
        (completions(9), {"max_length": 3}, "9 over_max_length"),
        (completions(9), {"learning_rate": 1e30}, r"(?s)has diverged at step . of 3: .*now 1e.30"),
    ],
)
def test_data_that_cannot_be_trained_on_are_refused(
    rows: list[Completion], config: dict[str, Any], says: str, base: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=says):
        FULL.sft(str(base), rows, SFT.model_copy(update=config), tmp_path, context(tmp_path))
    assert not (tmp_path / "weights.json").exists()


def test_fp16_may_leave_out_a_step_that_overflows_but_not_all_of_them(tmp_path: Path) -> None:
    """The scaler of the loss does so and halves its scale; other precisions have none."""

    def overflow(fp16: bool, steps: int) -> None:
        watch = Watch(None, context(tmp_path), tmp_path, None, Stop())
        for step in range(1, steps + 1):
            state = SimpleNamespace(global_step=step, max_steps=100)
            args = SimpleNamespace(fp16=fp16, learning_rate=0.01)
            watch.on_log(args, state, None, {"loss": 1.0, "grad_norm": math.inf})

    overflow(True, 16)
    with pytest.raises(
        UserError, match=r"(?s)at step 17 of 100: loss 1.0, gradient norm inf.*now 0.01.*precision=bf16"
    ):
        overflow(True, 17)
    with pytest.raises(UserError, match=r"(?s)at step 1 of 100: loss 1.0, gradient norm inf.*now 0.01.$"):
        overflow(False, 1)


@pytest.mark.parametrize(
    ("strategy", "dtype", "bytes_a_weight"),
    [("ddp", torch.float32, 12), ("zero3", torch.bfloat16, 14), ("zero3", torch.float32, 16)],
)
def test_the_first_checkpoint_is_expected_as_large_as_it_will_be(
    strategy: str, dtype: torch.dtype, bytes_a_weight: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ZeRO-3 leaves an empty weight with its size in each process, and writes the gathered model beside its state."""
    monkeypatch.setattr(checkpoints, "assert_engine", lambda model, ctx: None)
    weight, frozen = torch.nn.Parameter(torch.ones(1000, dtype=dtype)), torch.nn.Parameter(torch.ones(9), False)
    if strategy == "zero3":
        weight.data = torch.empty(0, dtype=dtype)
        weight.ds_numel = 1000  # type: ignore[attr-defined]
    model = SimpleNamespace(parameters=lambda: [weight, frozen])
    trainer = SimpleNamespace(model=model, model_wrapped=model)
    watch = Watch(trainer, context(tmp_path, strategy=strategy), tmp_path, None, Stop())
    watch.on_train_begin(None, None, None)
    assert watch.pace.took * WRITTEN == pytest.approx(1000 * bytes_a_weight)


def test_the_last_step_may_not_break_the_weights(base: Path, junior: Path, tmp_path: Path) -> None:
    """No loss is computed after it, so none would tell."""
    rate = {"learning_rate": 1e30}
    with pytest.raises(UserError, match=r"diverged in its last step .*\n.*now 1e.30"):
        FULL.sft(str(base), completions(4), SFT.model_copy(update=rate), tmp_path / "sft", context(tmp_path))
    with pytest.raises(UserError, match=r"diverged in its last step .*\n.*now 1e.30"):
        LORA.dpo(junior, preferences(4), DPO.model_copy(update=rate), tmp_path / "dpo", context(tmp_path))
    assert not list(tmp_path.rglob("weights.json"))


def test_options_that_would_be_ignored_are_refused(base: Path, junior: Path, tmp_path: Path) -> None:
    ctx = context(tmp_path)
    with pytest.raises(ValueError, match="label_smoothing=0.1 has no effect on loss=sigmoid"):
        Dpo(**(DPO.model_dump() | {"label_smoothing": 0.1}))
    with pytest.raises(UserError, match="never mixed"):
        LORA.model_copy(update={"prompt_format": "inst"}).dpo(junior, preferences(4), DPO, tmp_path, ctx)
    with pytest.raises(UserError, match="r=4"):
        LORA.model_copy(update={"r": 8}).dpo(junior, preferences(4), DPO, tmp_path, ctx)
    with pytest.raises(UserError, match="fp16 needs a GPU"):
        LORA.model_copy(update={"precision": "fp16"}).sft(str(base), completions(4), SFT, tmp_path, ctx)
    with pytest.raises(UserError, match="micro batches of 3"):
        LORA.model_copy(update={"micro_batch": 3}).sft(str(base), completions(4), SFT, tmp_path, ctx)
    with pytest.raises(UserError, match="chat template"):
        LORA.model_copy(update={"prompt_format": "chat"}).sft(str(base), completions(4), SFT, tmp_path, ctx)
    for option in ("padding_free", "packing"):
        with pytest.raises(UserError, match=f"{option}=true has no effect on a preference training"):
            LORA.model_copy(update={option: True}).dpo(junior, preferences(4), DPO, tmp_path, ctx)
    with pytest.raises(UserError, match="no effect beside trainer.packing=true"):
        LORA.model_copy(update={"padding_free": True, "packing": True}).sft(
            str(base), completions(4), SFT, tmp_path, ctx
        )
    zero3 = context(tmp_path, strategy="zero3")
    with pytest.raises(UserError, match="precompute_reference=true needs whole models"):
        LORA.model_copy(update={"precompute_reference": True}).dpo(junior, preferences(4), DPO, tmp_path, zero3)
    with pytest.raises(UserError, match="trainer.liger=true, and it is not installed|trainer.liger=true needs a GPU"):
        LORA.model_copy(update={"liger": True}).sft(str(base), completions(4), SFT, tmp_path, ctx)


@pytest.mark.parametrize("start", ["adapter", "full"])
def test_reference_log_probs_are_computed_once_for_all_that_share_them(
    start: str, junior: Path, full_junior: Path, tmp_path: Path
) -> None:
    trainer, folder = (LORA, junior) if start == "adapter" else (FULL, full_junior)
    once = trainer.model_copy(update={"precompute_reference": True})
    for name, made, beta in (("plain", trainer, 0.1), ("once", once, 0.1), ("other", once, 0.3)):
        config = DPO.model_copy(update={"beta": beta, "epochs": 2.0})
        made.dpo(folder, preferences(9), config, tmp_path / name, context(tmp_path))
    assert [line["loss"] for line in curve(tmp_path / "once")] == pytest.approx(
        [line["loss"] for line in curve(tmp_path / "plain")], rel=1e-4
    )
    told = [json.loads((tmp_path / name / "training.json").read_text())["summary"] for name in ("plain", "once")]
    for figure in ("kl_reference", "length_drift"):
        assert told[1][figure] == pytest.approx(told[0][figure], rel=1e-3)
    (kept_in,) = (tmp_path / "cache" / "reference").glob("*/")  # beta does not change the reference
    assert difference(tmp_path / "once", tmp_path / "other") > 1e-5
    file, sums = kept_in / "log_probs.json", kept_in / SUMS
    chosen, rejected = json.loads(file.read_text())
    file.write_text(json.dumps([[value - 1 for value in chosen], rejected]))
    sums.write_text(json.dumps({file.name: file_sha256(file)}))
    with pytest.raises(RuntimeError, match="the reference model is not the model"):
        once.dpo(folder, preferences(9), DPO, tmp_path / "tampered", context(tmp_path))


def told_of_rows(ctx: Any) -> bool:
    """Whether texts were tokenised, and not read."""
    return any(event.get("unit") == "rows read" for event in ctx.events)


def test_points_of_a_sweep_tokenise_once(junior: Path, tmp_path: Path) -> None:
    """Beta, seed and length change no token: the second training reads them, and trains as if it had made them."""
    made, read, alone = (context(tmp_path), context(tmp_path), context(tmp_path / "elsewhere"))
    other = DPO.model_copy(update={"beta": 0.3, "seed": 1, "max_length": 64})
    LORA.dpo(junior, preferences(9), DPO, tmp_path / "made", made)
    LORA.dpo(junior, preferences(9), other, tmp_path / "read", read)
    LORA.dpo(junior, preferences(9), other, tmp_path / "alone", alone)
    assert [told_of_rows(ctx) for ctx in (made, read, alone)] == [True, False, True]
    assert len(list((tmp_path / "cache" / "tokens").glob("*/ids.npy"))) == 1
    assert difference(tmp_path / "read", tmp_path / "alone") == 0
    assert difference(tmp_path / "made", tmp_path / "read") > 1e-5


def test_other_texts_layouts_and_tokenizers_have_other_tokens(base: Path, tmp_path: Path) -> None:
    tokenizer, other = (load(base, "fp32", "cpu").tokenizer for _ in range(2))
    other.add_tokens(["end"])
    sft: list[tuple[Any, Any, Any]] = [
        (completions(4), "plain", tokenizer),
        (completions(5), "plain", tokenizer),
        (completions(4)[::-1], "plain", tokenizer),
        (completions(4), "inst", tokenizer),
        (completions(4), "plain", other),
    ]
    for rows, name, by in sft:
        found = []
        for told in (True, False):
            ctx = context(tmp_path)
            found.append(sft_rows(rows, name, by, 128, ctx))
            assert told_of_rows(ctx) == told
        made, read = found
        assert made == read
        assert made == [
            {"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer}
            for row in rows
            for prompt, answer in [(prompt_ids(row.prompt, name, by), completion_ids(row.completion, by))]
        ]
    assert len(list((tmp_path / "cache" / "tokens").glob("*/ids.npy"))) == len(sft)


def test_a_tokenizer_without_a_fast_version_keeps_nothing(tmp_path: Path) -> None:
    """What it makes of a text stands in its code, which no file could be named by."""
    tokenizer = ByT5Tokenizer()
    for _ in range(2):
        ctx = context(tmp_path)
        rows = sft_rows(completions(4), "plain", tokenizer, 128, ctx)
        assert [tokenizer.decode(row["input_ids"]) for row in rows] == [
            f"{row.prompt}\n{row.completion}</s>" for row in completions(4)
        ]
        assert told_of_rows(ctx)
    assert not (tmp_path / "cache" / "tokens").exists()


def test_a_damaged_file_of_tokens_is_made_again(base: Path, tmp_path: Path) -> None:
    tokenizer = load(base, "fp32", "cpu").tokenizer
    made = sft_rows(completions(4), "plain", tokenizer, 128, context(tmp_path))
    (file,) = (tmp_path / "cache" / "tokens").glob("*/ids.npy")
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[-20] ^= 1
    for damaged in (b"", whole[: len(whole) // 2], bytes(flipped)):
        file.write_bytes(damaged)
        ctx = context(tmp_path)
        assert sft_rows(completions(4), "plain", tokenizer, 128, ctx) == made
        assert told_of_rows(ctx)
        assert file.read_bytes() == whole


def test_figures_of_a_training_are_those_of_more_than_its_last_batch() -> None:
    """A batch is a few pairs: accuracy and margins are means over the last quarter of the steps."""
    line = {"loss": 0.7, "rewards_accuracies": 0.0}
    steps = [
        line | {"step": step, "rewards_accuracies": share} for step, share in enumerate([0, 0, 0, 0, 0, 0, 1, 0.5], 1)
    ]
    found = summary_of([*steps[:-1], steps[-1] | {"loss": 0.6}])
    assert found == {"steps": 8, "first_loss": 0.7, "last_loss": 0.6, "late_loss": 0.7, "rewards_accuracies": 0.75}
    rest_of_a_pass = steps[-1] | {"step": 9, "loss": 1.3}  # of one pair, where the batch is 16
    assert summary_of([*[each | {"loss": 0.6} for each in steps], rest_of_a_pass])["late_loss"] == 0.6
    assert summary_of(steps[:1])["rewards_accuracies"] == 0.0


def test_a_training_tells_what_it_did_to_the_writing(junior: Path, base: Path, tmp_path: Path) -> None:
    rows = [Completion(prompt=f"Write {i}", completion='{"a": 1}') for i in range(8)]
    ctx = context(tmp_path)
    LORA.sft(str(base), rows, SFT.model_copy(update={"epochs": 20.0}), tmp_path / "json", ctx)
    assert ctx.tally.metrics["written_valid_json"] == 1.0
    tokens = len(completion_ids('{"a": 1}', load(base, "fp32", "cpu").tokenizer))
    assert ctx.tally.metrics["written_tokens"] == tokens
    ctx = context(tmp_path)
    LORA.dpo(tmp_path / "json", preferences(8), DPO.model_copy(update={"learning_rate": 3e-2}), tmp_path / "dpo", ctx)
    found = ctx.tally.metrics
    assert found["reference_valid_json"] == 1.0
    assert found["written_valid_json"] < 1.0, "so hard a training on other texts breaks the form"
    assert found["length_drift"] == pytest.approx(found["written_tokens"] / found["reference_tokens"])
    assert found["chosen_tokens"] > found["rejected_tokens"] > 0


def test_a_gpu_that_is_too_small_is_said_and_the_checkpoint_is_kept(base: Path, tmp_path: Path) -> None:
    ctx = context(tmp_path, checkpoint_seconds=0.0)

    def fails(event: dict[str, Any]) -> None:
        if event["event"] == "metric" and event["step"] == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")

    ctx.send = fails
    with pytest.raises(UserError, match="set trainer.micro_batch to a smaller divisor.*the last checkpoint is kept"):
        LORA.sft(str(base), completions(12), SFT.model_copy(update={"epochs": 2}), tmp_path / "out", ctx)
    assert (tmp_path / "out/checkpoints/checkpoint-2/whole.json").is_file()


def test_pairs_without_a_difference_train_nothing(junior: Path, tmp_path: Path) -> None:
    same = [Preference(prompt=f"p{i}", chosen="same", rejected="same") for i in range(5)]
    with pytest.raises(UserError, match="of 5 given there are 0 .5 chosen_equals_rejected"):
        LORA.dpo(junior, same, DPO, tmp_path, context(tmp_path))
    with pytest.raises(UserError, match="at least two usable rows"):
        LORA.dpo(junior, preferences(1), DPO, tmp_path, context(tmp_path))
