"""Estimates agree with published parameter counts and with sums done by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from peft import LoraConfig, get_peft_model

from speed.backends.engines.weights import load
from speed.backends.runtime.precision import Precision
from speed.core.graph import stage_statuses
from speed.core.machine import GIGABYTE
from speed.core.store import Store
from speed.data.costs.memory import (
    Footprint,
    activation_bytes,
    cache_bytes,
    embedder_bytes,
    fit,
    head_bytes,
    rows_at_once,
    state_bytes,
    trained_weights,
    training_hours,
)
from speed.data.costs.model_shapes import KNOWN, shape_of
from speed.data.trainings import Dpo, Loss, Sft
from speed.pipeline import pipeline
from speed.runs.plan import machine_table
from speed.runs.tables import Table
from tests.backends.tiny_generator import make_base

LLAMA = KNOWN["meta-llama/Meta-Llama-3-8B"]
LORA = Footprint(lora=16, weight_bytes=2, checkpointing=False)
FULL = Footprint(lora=None, weight_bytes=2, checkpointing=True)
DPO = Dpo(beta=0.1, learning_rate=1e-6, batch_size=16, epochs=1.0, max_length=1_024)


def sft(batch_size: int, max_length: int) -> Sft:
    return Sft(learning_rate=1e-4, batch_size=batch_size, epochs=1.0, max_length=max_length)


@pytest.mark.parametrize(
    ("base", "parameters"),
    [
        ("meta-llama/Meta-Llama-3-8B@main", 8_030_261_248),
        ("meta-llama/Llama-2-7b-hf", 6_738_415_616),
        ("mistralai/Mistral-7B-v0.1", 7_241_732_096),
        ("google/gemma-7b", 8_537_680_896),
        ("Qwen/Qwen2.5-7B", 7_615_616_512),
        ("Qwen/Qwen2.5-0.5B", 494_032_768),
        ("HuggingFaceTB/SmolLM2-135M", 134_515_008),
        ("HuggingFaceTB/SmolLM2-360M", 361_821_120),
        ("Qwen/Qwen3-0.6B-Base", 596_049_920),
        ("Qwen/Qwen3-8B-Base", 8_190_735_360),
        ("google/gemma-3-270m", 268_098_176),
        ("google/gemma-3-1b-pt", 999_885_952),
        ("meta-llama/Llama-3.2-1B", 1_235_814_400),
        ("meta-llama/Llama-3.1-8B", 8_030_261_248),
        ("mistralai/Mistral-7B-v0.3", 7_248_023_552),
    ],
)
def test_parameters_are_the_published_ones(base: str, parameters: int) -> None:
    shape = shape_of(base)
    assert shape is not None
    assert shape.parameters == parameters


@pytest.mark.parametrize("base", ["llama", "qwen", "gemma"])
def test_parameters_of_a_folder_are_those_of_its_weights(base: str) -> None:
    from safetensors import safe_open

    folder = ROOT / "speed" / "miniature" / "bases" / base
    with safe_open(folder / "model.safetensors", "np") as file:
        weights = sum(file.get_tensor(name).size for name in file.keys())  # noqa: SIM118
    for reference in (str(folder), f"package:miniature/bases/{base}"):
        shape = shape_of(reference)
        assert shape is not None
        assert shape.parameters == weights


def test_a_model_that_nobody_knows_has_no_shape(tmp_path: Path) -> None:
    assert shape_of("someone/something") is None
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 3}))
    assert shape_of(str(tmp_path)) is None


def test_an_adapter_of_rank_16_on_mistral_is_that_of_e5() -> None:
    assert KNOWN["mistralai/Mistral-7B-v0.1"].lora(16) == 41_943_040
    assert trained_weights(LLAMA, LORA) == 41_943_040
    assert trained_weights(LLAMA, FULL) == 8_030_261_248


def test_state_is_weights_gradients_moments_and_reference() -> None:
    adapter, whole = 41_943_040, 8_030_261_248
    assert state_bytes(LLAMA, LORA, sft(16, 1_024)) == state_bytes(LLAMA, LORA) == 2 * whole + 16 * adapter
    assert state_bytes(LLAMA, LORA, DPO) == 2 * whole + 20 * adapter
    assert state_bytes(LLAMA, FULL, sft(16, 1_024)) == 18 * whole
    assert state_bytes(LLAMA, FULL, DPO) == 22 * whole


@pytest.mark.parametrize("loss", ["simpo", "cpo", "orpo"])
def test_an_objective_without_a_reference_is_planned_without_one(loss: Loss) -> None:
    """Beside all weights no second model, and no forward pass of one; TRL copies an adapter for every objective."""
    free = DPO.model_copy(update={"loss": loss})
    assert state_bytes(LLAMA, FULL, free) == state_bytes(LLAMA, FULL)
    assert state_bytes(LLAMA, LORA, free) == state_bytes(LLAMA, LORA, DPO)
    fitted = fit(LLAMA, LORA, free, 80)
    assert fitted is not None
    assert fitted == fit(LLAMA, LORA, DPO, 80), "two answers a pair, as of any objective"
    hours = [training_hours(LLAMA, LORA, 1_000_000, fitted, 80, config) for config in (free, DPO)]
    assert hours[0] == training_hours(LLAMA, LORA, 1_000_000, fitted, 80) < hours[1]


def test_a_reference_that_ran_before_is_not_held_beside_all_weights() -> None:
    before = FULL.model_copy(update={"precomputed_reference": True})
    assert state_bytes(LLAMA, before, DPO) == state_bytes(LLAMA, FULL)


def test_keys_and_values_of_llama_3_are_128_kilobytes_a_token() -> None:
    assert cache_bytes(LLAMA) == 131_072
    assert rows_at_once(LLAMA, 2_048, 80) == int((78 * GIGABYTE - 2 * 8_030_261_248) / (2_048 * 131_072)) == 252
    assert rows_at_once(LLAMA, 2_048, 16) == 0


def test_eight_billion_weights_on_24_40_and_80_gigabytes() -> None:
    """An adapter fits everywhere, with more rows where there is more room; all weights need several GPUs."""
    found = {gigabytes: fit(LLAMA, LORA, sft(16, 3_072), gigabytes) for gigabytes in (24, 40, 80)}
    assert all(one is not None and one.gpus == 1 and one.gigabytes <= size for size, one in found.items())
    assert found[24] is not None and found[24].checkpointing  # noqa: PT018
    assert found[80] is not None and not found[80].checkpointing  # noqa: PT018
    thrifty = LORA.model_copy(update={"checkpointing": True})
    rows = [one.micro_batch for size in (24, 40, 80) if (one := fit(LLAMA, thrifty, sft(16, 3_072), size))]
    assert len(rows) == 3
    assert rows == sorted(rows)
    assert rows[0] < rows[-1]
    whole = {gigabytes: fit(LLAMA, FULL, sft(24, 6_144), gigabytes) for gigabytes in (24, 40, 80)}
    assert [one.gpus if one else None for one in whole.values()] == [8, 4, 2]
    assert all(one is not None and 24 % (one.gpus * one.micro_batch) == 0 for one in whole.values())


def test_logits_never_stand_there_all_at_once() -> None:
    """A tile of 4,096 tokens and 32,768 words in bf16 is a quarter of a GB; all of Llama-3's for 16 x 3,072 are 12."""
    assert head_bytes(LORA, 16 * 3_072) == head_bytes(LORA, 4_096) == GIGABYTE // 4
    assert head_bytes(LORA, 512) == GIGABYTE // 32


def test_a_preference_training_needs_more_than_a_supervised_one() -> None:
    supervised, preference = (fit(LLAMA, LORA, config, 80) for config in (sft(16, 1_024), DPO))
    assert supervised is not None
    assert preference is not None
    assert preference.micro_batch <= supervised.micro_batch
    same = supervised._replace(checkpointing=preference.checkpointing)
    hours = [training_hours(LLAMA, LORA, 1_000_000, same, 80, config) for config in (None, DPO)]
    assert hours[1] > hours[0]


def test_time_is_operations_over_speed() -> None:
    found = fit(LLAMA, LORA, sft(16, 1_024), 80)
    assert found is not None
    assert not found.checkpointing
    expected = 4 * 8_030_261_248 * 20_000_000 / (312e12 * 0.4) / 3600
    assert training_hours(LLAMA, LORA, 20_000_000, found, 80) == pytest.approx(expected)


def test_a_plan_of_eight_billion_weights_says_which_gpu_it_needs(compose: Any, tmp_path: Path) -> None:
    def machines(*overrides: str) -> Table | None:
        config = compose(*overrides)
        return machine_table(config, stage_statuses(pipeline(config).goals(), Store(tmp_path / "home")))

    table = machines("preset=one_gpu", "topics=miniature")
    assert table is not None
    said = table.plain()
    for part in ("junior", "senior", "revisor", "generation", "8,030,261,248", "micro_batch=", "80 GB"):
        assert part in said
    whole = machines("preset=paper", "topics=miniature")
    assert whole is not None
    assert "zero3 on 2" in whole.plain(), "the paper's revisor trains all weights"
    assert machines() is None, "a million weights need no plan"
    small, large = (
        next(row for row in table.rows if row[0] == "embedder")
        for table in (whole, machines("preset=paper", "topics=miniature", "embedder.chunk_tokens=16384"))
        if table is not None
    )
    assert small[3:6] == ("does not fit (57 GB)", "does not fit (57 GB)", "57 GB")
    assert large[5] == "does not fit (181 GB)"
    said = (ROOT / "conf" / "embedder" / "mistral_7b.yaml").read_text()
    assert "about 57 GB by our estimate (16384: 181)" in said, "the file says what a plan says"


def test_a_step_of_the_embedder_holds_its_largest_chunk_or_what_it_keeps() -> None:
    mistral = KNOWN["mistralai/Mistral-7B-v0.1"]
    state = state_bytes(mistral, LORA) - 2 * mistral.embedding
    adapters = 3 * mistral.layers * (6 * mistral.hidden + mistral.feed_forward)
    token = activation_bytes(mistral, LORA, checkpointing=False) + adapters
    assert embedder_bytes(mistral, LORA, 4096, 0, checkpointing=False) == state + 4096 * token
    assert embedder_bytes(mistral, LORA, 4096, 32768, checkpointing=False) == state + 32768 * token
    inputs = 2 * mistral.hidden * mistral.layers
    assert embedder_bytes(mistral, LORA, 4096, 32768, checkpointing=True) == (
        state + 32768 * inputs + 4096 * token / mistral.layers
    )


@pytest.mark.parametrize(
    ("precision", "dropout", "least"), [("bf16", 0.0, 0.9), ("bf16", 0.1, 0.9), ("fp32", 0.1, 0.65)]
)
def test_what_a_step_under_adapters_keeps_for_the_backward_pass_is_what_is_estimated(
    tmp_path: Path, precision: Precision, dropout: float, least: float
) -> None:
    size = {"hidden_size": 256, "intermediate_size": 768, "num_attention_heads": 4, "num_key_value_heads": 2}
    base = make_base(tmp_path, **size, num_hidden_layers=2)
    model: Any = load(base, precision, "cpu").model.model
    lora = LoraConfig(r=4, lora_dropout=dropout, target_modules="all-linear", task_type="FEATURE_EXTRACTION")
    model = get_peft_model(model, lora).train()
    own = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    ids = torch.randint(3, 300, (4, 64))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast(precision):
        states = model(input_ids=ids, use_cache=False).last_hidden_state  # bound: what is freed frees its address
    found = sum(storage.nbytes() for storage in kept.values()) / states.shape[:2].numel()
    shape = shape_of(str(base))
    assert shape is not None
    width = 4 if precision == "fp32" else 2
    footprint = Footprint(lora=4, weight_bytes=width, checkpointing=False)
    estimated = activation_bytes(shape, footprint, checkpointing=False)
    if dropout:
        estimated = round(embedder_bytes(shape, footprint, 1, 0, checkpointing=False)) - state_bytes(shape, footprint)
        estimated += 0 if shape.tied else shape.embedding * width
        estimated += shape.layers * (6 * shape.hidden + shape.feed_forward) * (width - 1)  # on cores a mask is as wide
    assert least < found / estimated < 1.1


def autocast(precision: Precision) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
