"""Generation through vLLM, offline: the engine for millions of texts on GPUs.

vLLM packs a new batch at every token, from the requests that wait, what fits into its memory and the prefixes that it
has cached. Rounding depends on the packing, so everything that the packing depends on is a field of this spec or a
function of the block: the scheduler runs in this process, synchronously, with a memory of a stated size whose prefix
cache is emptied before each block. A block that is generated again after a crash then gives the same texts on the same
machine. What did not fit into memory is halved once (`vllm_server.py`): each text is drawn from a seed of its own, so
that shows in rounding alone.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from speed.backends.engines.decoding import Prefix
from speed.backends.engines.local_weights import LocalWeights
from speed.backends.engines.merged_copy import merged_copy
from speed.backends.engines.transcription import Transcription, Written, context_length, format_of
from speed.backends.engines.vllm_server import Amounts, Server, explain_errors
from speed.backends.engines.weights import (
    end_tokens,
    load_configs,
    load_tokenizer,
    read_card,
)
from speed.backends.runtime.device import quietly
from speed.backends.runtime.precision import Precision
from speed.core.content import locate_model
from speed.core.errors import UserError, refuse_for
from speed.data.costs.loads import EngineLoad
from speed.data.costs.memory import cache_bytes
from speed.data.costs.model_shapes import shape_of
from speed.ports import Generate, Generated, Sampling
from speed.runtime import Context, Runtime

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the scheduler runs here: no race, and a daemon may start no process
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # on CPUs: runtime.threads decides, and stages run side by side
}
"""Environment variables that vLLM reads when it is imported."""

PAGE = 32
"""Tokens of one page of its memory: a multiple of what kernels for GPUs (16) and for CPUs (32) need."""

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


class VllmEngine(LocalWeights):
    """Samples with vLLM."""

    precision: Precision = "bf16"
    """Arithmetic of the forward pass, and of keys and values."""
    cache_tokens: int = Field(default=262_144, ge=2 * PAGE)
    """Tokens whose keys and values are kept, prompts and answers of all running texts together. No text is longer."""
    step_tokens: int = Field(default=8_192, ge=1)
    """Most tokens of one forward pass. No prompt is cut into pieces for it, so no text is longer than this either: vLLM
    draws a number at the end of each piece, and cannot give it back on every device."""
    step_texts: int = Field(default=256, ge=1)
    """Most texts of one forward pass."""
    quantization: Literal["fp8"] | None = None
    """Of the weights, made as they are loaded; null keeps them as they are."""
    guided: bool = False
    """Whether an example can have no other form than the JSON object that its prompt asks for. The paper's models wrote
    freely. An answer that goes on from a given beginning is never guided."""

    def check(self, runtime: Runtime) -> None:
        mistakes = []
        if find_spec("vllm") is None:
            mistakes.append(
                "this engine is vLLM, which is not installed\n"
                '  pip install -e ".[vllm]" (on a machine with a GPU), or take engine=gpu'
            )
        if self.step_tokens < self.step_texts:
            mistakes.append(
                f"engine.step_tokens={self.step_tokens} is less than engine.step_texts={self.step_texts}: "
                "each text needs a token of each pass\n  raise the one, or lower the other"
            )
        refuse_for(mistakes)

    def load(self, base: str) -> EngineLoad | None:
        """Weights, and the keys and values of `cache_tokens`; GPUs share both (tensor parallelism)."""
        shape = shape_of(base)
        if shape is None:
            return None
        wide = 4 if self.precision == "fp32" else 2
        weights = float(shape.parameters * (1 if self.quantization == "fp8" else wide))
        token = float(cache_bytes(shape, wide))
        merged = float(shape.parameters * wide)
        return EngineLoad(weights, token, self.cache_tokens, "engine.cache_tokens", shape.shared_by, merged)

    @property
    def held_tokens(self) -> int:
        return self.cache_tokens

    def generate(
        self,
        weights: Path,
        calls: Iterable[Sequence[Generate]],
        sampling: Sampling,
        ctx: Context,
        *,
        endless: bool = False,
    ) -> Iterator[list[Generated]]:
        """For each block its texts, ordered by (request, index). Candidate i has the request's seed plus i.

        Raises:
            UserError: where vLLM is not installed or not made for `runtime.devices`, for weights whose prompt format is
                no longer what they were trained on, prompts that all fill the model's context, or a model that vLLM
                cannot serve or that does not fit into memory.
        """
        self.check(ctx.runtime)
        transcription = self._transcription(weights)
        transcription = replace(transcription, ends=()) if endless else transcription
        with self._server(weights, transcription, ctx) as server:

            def write(requests: Sequence[Generate], work: Sequence[Prefix]) -> Written:
                return self._written(server, requests, work, sampling, transcription)

            yield from transcription.blocks(calls, write, ctx)

    def _written(
        self,
        server: Server,
        requests: Sequence[Generate],
        work: Sequence[Prefix],
        sampling: Sampling,
        transcription: Transcription,
    ) -> Written:
        """Token ids that vLLM writes for one block."""
        places = [place for place, prefix in enumerate(work) if prefix.indices]

        def write(llm: Any) -> Any:
            llm.reset_prefix_cache()  # prefixes of earlier blocks would change how this one is packed
            return llm.generate(
                [{"prompt_token_ids": list(work[place].ids)} for place in places],
                [self._parameters(requests[place], work[place], transcription, sampling) for place in places],
                use_tqdm=False,
            )

        answers = server.do(write)
        written: dict[tuple[int, int], Sequence[int]] = {}
        for place, answer in zip(places, answers, strict=True):
            for text in answer.outputs:
                if text.finish_reason not in ("stop", "length"):
                    raise RuntimeError(f"vLLM ended request {requests[place].key} with {text.finish_reason!r}")
                written[place, text.index] = text.token_ids
        return written

    def _parameters(self, request: Generate, prefix: Prefix, transcription: Transcription, sampling: Sampling) -> Any:
        """One request in vLLM's terms. Its ids are decoded by our tokenizer, as those of every engine are."""
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        guided = self.guided and request.form is not None and not request.begun
        return SamplingParams(
            n=len(prefix.indices),
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=prefix.seed % 2**63,
            max_tokens=prefix.max_tokens,
            stop_token_ids=list(transcription.ends),
            ignore_eos=not transcription.ends,
            detokenize=False,
            structured_outputs=StructuredOutputsParams(json=request.form.body) if guided and request.form else None,
        )

    def _transcription(self, weights: Path) -> Transcription:
        card = read_card(weights)
        with quietly():
            tokenizer = load_tokenizer(weights)
            config, generation_config = load_configs(*_whole(weights))
        context = context_length(config)
        return Transcription(
            tokenizer,
            format_of(card, tokenizer, weights),
            end_tokens(tokenizer, generation_config),
            min(self.cache_tokens, self.step_tokens, *(() if context is None else (context,))),
        )

    def _server(self, weights: Path, transcription: Transcription, ctx: Context) -> Server:
        """The model, to be started; merged first if it is an adapter."""
        os.environ.update(ENVIRONMENT)
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        with explain_errors():
            import torch
            from vllm.platforms import current_platform

        on_cpu = current_platform.is_cpu()
        if ctx.runtime.devices != "auto" and (ctx.runtime.devices == "cpu") != on_cpu:
            asked = "cpu" if ctx.runtime.devices == "cpu" else "[" + ",".join(map(str, ctx.runtime.devices)) + "]"
            raise UserError(
                f"runtime.devices={asked}, and the vLLM that is installed is made for "
                f"{'CPUs' if on_cpu else 'GPUs'}\n  take runtime.devices=auto, or engine=transformers"
            )
        group = max(1, len(ctx.grant.devices))
        if group > 1:
            # vLLM starts one process a GPU, which a daemon may not; they end with this process
            multiprocessing.current_process().daemon = False
        ctx.gpus = 0 if on_cpu else group
        torch.set_num_threads(ctx.grant.threads)
        context = transcription.context
        assert context is not None

        def start(amounts: Amounts) -> Any:
            return self._started(weights, amounts, context, group, on_cpu, ctx)

        what = ["generation", self.recipe(), str(weights), group]
        most = Amounts(self.cache_tokens, self.step_tokens, self.step_texts)
        return Server(start, most, context, what, ctx)

    def _started(self, weights: Path, amounts: Amounts, context: int, group: int, on_cpu: bool, ctx: Context) -> Any:
        """A `vllm.LLM`, with the model in memory."""
        from vllm import LLM

        options: dict[str, Any] = {}
        if self.guided:
            options["structured_outputs_config"] = {"backend": "guidance", "disable_any_whitespace": True}
        with _whole_model(weights, self.precision, ctx) as (folder, revision):
            return LLM(
                model=folder,
                revision=revision,
                tokenizer_revision=revision,
                dtype=DTYPES[self.precision],
                quantization=self.quantization,
                max_model_len=context,
                block_size=PAGE,
                num_gpu_blocks_override=-(-amounts.cache_tokens // PAGE) + 1,  # vLLM keeps one for itself
                kv_cache_memory_bytes=2**30,  # any size keeps vLLM from measuring the machine; the line above decides
                gpu_memory_utilization=0.01,  # nor is anything refused because others use the GPU too
                max_num_batched_tokens=amounts.step_tokens,
                max_num_seqs=amounts.step_texts,
                enable_prefix_caching=True,
                enable_chunked_prefill=False,
                async_scheduling=False,  # it packs by when results arrive
                enforce_eager=on_cpu,
                tensor_parallel_size=group,
                generation_config="vllm",
                trust_remote_code=False,
                seed=0,
                **options,
            )


def _whole(weights: Path) -> tuple[str, str | None]:
    """(folder or hub name, revision) of the whole model, without what an adapter adds to it."""
    card = read_card(weights)
    if card is None:
        return locate_model(weights)
    if not card.trained:
        return locate_model(card.base)
    if not card.adapter:
        return str(weights / "model"), None
    if card.base.startswith("relative:"):
        return _whole((weights / card.base.removeprefix("relative:")).resolve())
    return locate_model(card.base)


@contextmanager
def _whole_model(weights: Path, precision: Precision, ctx: Context) -> Iterator[tuple[str, str | None]]:
    """What vLLM loads: the model as it is, or a merged copy."""
    card = read_card(weights)
    if card is None or not card.adapter:
        yield _whole(weights)
        return
    with merged_copy(weights, precision, ctx.store.home / "cache") as folder:
        yield str(folder), None
