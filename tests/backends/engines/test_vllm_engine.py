"""The engine keeps the contract with vLLM underneath, and writes what the other engine writes.

What needs vLLM is run by tests/vllm_on_cpu.sh, in an environment of its own.
"""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import subprocess
import sys
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_contract import GREEDY, PROMISES, WARM, Promise, adapter_of, requests, texts
from tiny_generator import context, make_base

from speed.backends.engines.prompt_format import prompt_ids
from speed.backends.engines.transformers_engine import TransformersEngine
from speed.backends.engines.vllm_engine import ENVIRONMENT, VllmEngine
from speed.backends.engines.vllm_server import explain_errors
from speed.backends.engines.weights import load
from speed.core.allocation import Grant, most_of
from speed.core.errors import UserError
from speed.data.answers.schemas import example_form
from speed.data.records import KEYS, Kind
from speed.export import export
from speed.ports import Generate, Generated, Sampling
from speed.runtime import Runtime

ENGINE = VllmEngine(precision="fp32", cache_tokens=4096, step_tokens=512, step_texts=16)
OTHER = TransformersEngine(precision="fp32")
HEADS = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}
"""vLLM's attention for CPUs begins at heads of 32."""
TIE = 1e-4
"""Two tokens whose logits are as near as this may come in either order."""

HERE = importlib.util.find_spec("vllm") is not None
needs_vllm = pytest.mark.skipif(not HERE, reason="vLLM is not installed: tests/vllm_on_cpu.sh makes an environment")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"), **HEADS)


@pytest.mark.skipif(HERE, reason="vLLM is installed")
def test_where_vllm_is_not_installed_it_is_said_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"vLLM, which is not installed\n  pip install"):
        texts(ENGINE, tmp_path, requests(1), GREEDY)


@pytest.mark.parametrize(
    ("gigabytes", "numbers"), [(80, (1,)), (40, (1, 2)), (24, (1, 2, 4)), (4, (1, 2, 4, 8, 16)), (None, (1,))]
)
def test_a_model_is_shared_by_as_many_gpus_as_it_needs(gigabytes: float | None, numbers: tuple[int, ...]) -> None:
    """LLaMA-3-8B and its 262,144 tokens of keys and values are 47 GB."""
    engine = VllmEngine(precision="bf16")
    assert engine.groups("meta-llama/Meta-Llama-3-8B", Runtime(device_gb=gigabytes)) == numbers
    assert engine.groups("somebody/unknown", Runtime(device_gb=24)) == (1,)


def test_a_group_divides_the_heads_whatever_is_left_of_a_machine() -> None:
    """28 heads are never divided by eight; of three GPUs, by a plan or after a loss, two share a model."""
    engine = VllmEngine(precision="bf16")
    assert engine.groups("Qwen/Qwen2.5-7B", Runtime(device_gb=4)) == (1, 2, 4)
    assert most_of(engine.groups("meta-llama/Meta-Llama-3-8B", Runtime(device_gb=24)), 3) == 2


def test_what_vllm_cannot_serve_is_said_and_a_bug_stays_a_bug() -> None:
    for error in (ValueError("no such architecture"), NotImplementedError("no such layer")):
        with pytest.raises(UserError, match="vLLM cannot serve this model: no such"), explain_errors():
            raise error
    with pytest.raises(RuntimeError, match="a bug"), explain_errors():
        raise RuntimeError("a bug")


@needs_vllm
def test_more_texts_than_tokens_of_a_pass_are_refused() -> None:
    with pytest.raises(UserError, match="step_tokens=8 is less than engine.step_texts=9"):
        VllmEngine(step_tokens=8, step_texts=9).check(Runtime())


@needs_vllm
@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_contract(promise: Promise, base: Path, tmp_path: Path) -> None:
    promise(ENGINE, base, tmp_path)


def narrowest_choice(weights: Path, request: Generate) -> float:
    """The smallest gap between the two likeliest tokens on the way of a greedy text."""
    loaded = load(weights, "fp32", "cpu")
    name = loaded.card.prompt_format.name if loaded.card else "plain"
    ids = torch.tensor([prompt_ids(request.prompt, name, loaded.tokenizer)])
    options: dict[str, Any] = {"do_sample": False, "max_new_tokens": request.max_tokens, "output_logits": True}
    made = loaded.model.generate(ids, attention_mask=torch.ones_like(ids), return_dict_in_generate=True, **options)
    return min(float(torch.diff(step[0].topk(2).values).abs()) for step in made.logits)


@needs_vllm
@pytest.mark.parametrize("kind", ["base", "adapter"])
def test_greedy_text_is_that_of_the_other_engine_up_to_ties(kind: str, base: Path, tmp_path: Path) -> None:
    weights = adapter_of(base, tmp_path) if kind == "adapter" else base
    block = requests(12, max_tokens=40)
    ours, theirs = (texts(engine, weights, block, GREEDY) for engine in (ENGINE, OTHER))
    assert len({text.text for text in theirs}) > 4
    for request, one, other in zip(block, ours, theirs, strict=True):
        assert one == other or narrowest_choice(weights, request) < TIE
    same = sum(one == other for one, other in zip(ours, theirs, strict=True))
    print(f"greedy texts of {kind}: {same} of {len(block)} equal")
    assert same > len(block) // 2


def shares(found: list[Generated]) -> Counter[str]:
    """How often each first token came."""
    return Counter({text: count / len(found) for text, count in Counter(text.text for text in found).items()})


@needs_vllm
@pytest.mark.parametrize(
    "sampling", [WARM, Sampling(temperature=0.5), Sampling(temperature=1.0, top_p=0.6)], ids=["warm", "cool", "nucleus"]
)
def test_tokens_come_as_often_as_from_the_other_engine(sampling: Sampling, base: Path) -> None:
    """Total variation of 3,000 draws of each; between two draws of one engine it is 0.04 to 0.06 here."""
    block = [Generate(key=str(i), prompt="Write", seed=1000 * i, n=300, max_tokens=1) for i in range(10)]
    ours, theirs = (shares(texts(engine, base, block, sampling)) for engine in (ENGINE, OTHER))
    distance = sum(abs(ours[token] - theirs[token]) for token in {*ours, *theirs}) / 2
    print(f"total variation: {distance:.3f} over {len(theirs)} tokens")
    assert distance < 0.1


@needs_vllm
def test_a_guided_example_has_the_form_of_its_prompt(base: Path, tmp_path: Path) -> None:
    """A random model would never write one: what is complete has the keys, and what was cut off began with them."""
    form = example_form(Kind.STS)
    asked = [request.model_copy(update={"form": form, "max_tokens": 400}) for request in requests(6)]
    begun = asked[0].model_copy(update={"key": "begun", "begun": '{"S1": "'})
    guided = ENGINE.model_copy(update={"guided": True})
    *found, free = next(guided.generate(base, [[*asked, begun]], WARM, context(tmp_path)))
    first = KEYS[Kind.STS].all[0]
    assert all(text.text.startswith(f'{{"{first}"') for text in found)
    assert not free.text.startswith("{")
    assert not any(text.text.startswith("{") for text in texts(ENGINE, base, asked, WARM))


@needs_vllm
def test_texts_that_crowd_one_another_out_are_the_same_again(base: Path) -> None:
    """Room for one text of 64 tokens: the others wait, or are put off and begun again."""
    narrow = ENGINE.model_copy(update={"cache_tokens": 64})
    block = requests(6, n=3, max_tokens=500)
    found = texts(narrow, base, block, WARM)
    assert found == texts(narrow, base, block, WARM)
    assert [(text.key, text.index) for text in found] == [(str(i), j) for i in range(6) for j in range(3)]
    assert max(text.tokens for text in found if text.key == "0") in range(50, 64)


@needs_vllm
def test_a_model_that_does_not_fit_is_told_with_the_remedies(base: Path) -> None:
    """So many keys and values no machine holds."""
    vast = ENGINE.model_copy(update={"cache_tokens": 2**42})
    with pytest.raises(UserError, match=r"engine.cache_tokens=\d+ do not fit into memory\n  lower engine.cache_tokens"):
        texts(vast, base, requests(1), GREEDY)


@needs_vllm
def test_nothing_of_a_merged_adapter_is_left(base: Path, tmp_path: Path) -> None:
    ctx = context(tmp_path / "home")
    next(ENGINE.generate(adapter_of(base, tmp_path / "payload", "plain"), [requests(1)], GREEDY, ctx))
    assert all(left.suffix == ".lock" for left in (tmp_path / "home" / "cache").iterdir())


@needs_vllm
def test_a_device_that_the_installed_vllm_is_not_made_for_is_refused(base: Path) -> None:
    ctx = context(base)
    ctx.runtime = ctx.runtime.model_copy(update={"device": "cpu" if torch.cuda.is_available() else "cuda"})
    with pytest.raises(UserError, match="the vLLM that is installed is made for"):
        next(ENGINE.generate(base, [requests(1)], GREEDY, ctx))


FRESH = """
import json, sys
from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest
assert "speed" not in sys.modules
kind, folder, ids = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
options, request = {}, None
if kind == "adapter":
    options = {"enable_lora": True, "max_lora_rank": 8, "tokenizer": folder}
    request = LoRARequest("ours", 1, folder)
    with open(folder + "/adapter_config.json") as config:
        folder = json.load(config)["base_model_name_or_path"]
llm = LLM(folder, dtype="float32", enforce_eager=True, max_model_len=256, max_num_seqs=2, max_logprobs=-1, **options)
asked = SamplingParams(temperature=0.0, max_tokens=1, logprobs=-1, detokenize=False)
made = llm.generate([{"prompt_token_ids": ids}], asked, lora_request=request, use_tqdm=False)
found = made[0].outputs[0].logprobs[0]
print(json.dumps([llm.get_tokenizer().encode("a text of some tokens"), [found[i].logprob for i in range(len(found))]]))
"""


@needs_vllm
@pytest.mark.parametrize("kind", ["merged", "adapter"])
def test_vllm_loads_our_exports_elsewhere_with_equal_logits(kind: str, base: Path, tmp_path: Path) -> None:
    """In a fresh process, without this package; logits up to the constant that log-probabilities leave out."""
    payload = adapter_of(base, tmp_path / "payload")
    loaded = load(payload, "fp32", "cpu")
    ids = loaded.tokenizer("a text of some tokens")["input_ids"]
    with torch.no_grad():
        wanted, bare = (
            torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0, -1], -1)
            for model in (loaded.model, load(base, "fp32", "cpu").model)
        )
    to = export(payload, None, tmp_path / kind, kind == "adapter", "fp32")
    surroundings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    surroundings |= ENVIRONMENT | {"VLLM_CPU_KVCACHE_SPACE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", FRESH, kind, str(to), json.dumps(ids)],
        env=surroundings, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    tokens, found = json.loads(done.stdout.splitlines()[-1])
    assert tokens == ids
    error = float((torch.tensor(found) - wanted).abs().max())
    print(f"log-probabilities of the {kind} export: largest difference {error:.1e}")
    assert error < 1e-4
    assert not torch.allclose(bare, wanted, atol=1e-1), "the adapter must matter"


def stage(base: Path, gpus: int, parent: Connection) -> None:
    """Body of a process like that of a stage: forked from the server, and a daemon."""
    ctx = context(base, processes=gpus)
    ctx.granted = Grant(devices=tuple(range(gpus)) if gpus > 1 else ())
    found = next(ENGINE.generate(base, [requests(6)], GREEDY, ctx))
    parent.send((multiprocessing.current_process().daemon, [text.text for text in found]))


@needs_vllm
@pytest.mark.slow
def test_a_model_is_shared_by_two_processes_of_a_stage(base: Path) -> None:
    """Tensor parallelism with two CPU processes in the place of GPUs."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["torch", "transformers.modeling_utils"])
    found = []
    for gpus in (1, 2):
        here, there = server.Pipe(duplex=False)
        child = server.Process(target=stage, args=(base, gpus, there), daemon=True)
        child.start()
        there.close()
        found.append(here.recv())
        child.join()
        assert child.exitcode == 0
    (_, alone), (_, shared) = found
    assert shared == alone
