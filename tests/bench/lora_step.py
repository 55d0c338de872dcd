"""A LoRA step of a small model in bf16 on cores: what our attention and dropout gain; prints one JSON object.

The model has the widths of SmolLM2-135M and a few of its layers, LoRA of rank 16 on all of them, and dropout of 0.1;
each pass reads 1,024 tokens, in texts of one length. Of each length: `attention`: the step's time with transformers'
attention over that with ours, both with our dropout; `dropout`: the same with PyTorch's dropout and ours; `together`:
with both of theirs over both of ours. CPU seconds on one thread, the median of rounds in drawn orders. How much it is
depends on the processor: one without instructions for bf16 gains otherwise.

    python tests/bench/lora_step.py [--quick]
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaModel

from speed.backends.embedder.dropout import cheap_dropout
from speed.backends.runtime.attention import fast_on_cores

SMOLLM2 = {"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3}
LAYERS, TOKENS, VOCABULARY = 6, 1024, 2048
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def step(length: int, our_attention: bool, our_dropout: bool) -> Callable[[], float]:
    """A function that takes one step and returns its CPU seconds."""
    torch.manual_seed(0)
    bare = LlamaModel(LlamaConfig(**SMOLLM2, num_hidden_layers=LAYERS, vocab_size=VOCABULARY, dtype=torch.bfloat16))
    lora = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.1, target_modules=TARGETS)
    model = get_peft_model(bare.to(torch.bfloat16), lora).train()
    if our_dropout:
        cheap_dropout(model)
    ids = torch.randint(0, VOCABULARY, (TOKENS // length, length))

    def taken() -> float:
        begun = time.process_time()
        with fast_on_cores(model) if our_attention else nullcontext(), torch.autocast("cpu", torch.bfloat16):
            states = model(input_ids=ids, use_cache=False).last_hidden_state
        states[:, -1].float().square().sum().backward()
        spent = time.process_time() - begun
        model.zero_grad(set_to_none=True)
        return spent

    return taken


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one length and two rounds in place of four and seven")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    figures: dict[str, dict[str, float]] = {}
    for length in (64,) if quick else (32, 64, 128, 256):
        steps = {(a, d): step(length, a, d) for a in (False, True) for d in (False, True)}
        for each in steps.values():
            each()
        times: dict[tuple[bool, bool], list[float]] = {each: [] for each in steps}
        draw = random.Random(0)
        for _ in range(2 if quick else 7):
            for each in draw.sample([*steps], len(steps)):
                times[each].append(steps[each]())
        spent = {each: statistics.median(found) for each, found in times.items()}
        best = spent[True, True]
        gains = {"attention": spent[False, True], "dropout": spent[True, False], "together": spent[False, False]}
        figures[str(length)] = {name: round(theirs / best, 2) for name, theirs in gains.items()}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
