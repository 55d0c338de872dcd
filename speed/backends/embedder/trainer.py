"""The trainer of the embedder: contrastive, with LoRA or of all weights (paper §3.1, §4.1).

A bare loop over token rows made once. A step pools queries and documents, sorts them by length, cuts them into
chunks and accumulates the exact gradient of the whole batch's loss (`speed.model.batching`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from speed.backends.embedder.records import check_sources, read_sources
from speed.backends.embedder.settings import ContrastiveSettings
from speed.backends.encoding.retriever import EmbeddingRetriever
from speed.backends.runtime.at_once import until_it_fits
from speed.backends.runtime.model_folder import described
from speed.backends.runtime.probe_steps import left
from speed.backends.runtime.processes import Job, run_in_processes, several
from speed.core.content import HubRepository, ModelReference, hub_model, locate_model
from speed.core.errors import UserError, mistakes_of, refuse_for
from speed.data.costs.loads import EmbedderLoad, Measured
from speed.data.costs.memory import Footprint
from speed.data.costs.model_shapes import shape_of
from speed.ports import Encode
from speed.runtime import Context, Runtime

LARGE = 1_000_000_000
"""Weights of a base above which it is not scored without training: that takes GPUs as long as the run's evaluation."""
WORKER = "speed.backends.embedder.worker"


class ContrastiveTrainer(ContrastiveSettings):
    """InfoNCE with in-batch and hard negatives; LoRA or full fine-tuning; one process or several."""

    version: ClassVar[int] = 2
    heavy: ClassVar[tuple[str, ...]] = ("torch", "peft", "transformers.modeling_utils")

    def check(self, runtime: Runtime) -> None:
        """Refuse what the runtime cannot carry out, and labelled sources or a guide that cannot be read.

        Raises:
            UserError: with the remedy.
        """
        guide = self.masks.guide
        checks = [lambda: super(ContrastiveTrainer, self).check(runtime), lambda: check_sources(self.sources)]
        checks += [] if guide is None else [lambda: _check_guide(guide.name)]
        devices = len(runtime.devices) if isinstance(runtime.devices, tuple) else 1
        if runtime.strategy == "zero3" and runtime.nodes * devices > 1:
            checks.append(self._check_divided)
        refuse_for(mistakes_of(checks))

    def _check_divided(self) -> None:
        from speed.backends.embedder.base_check import refuse_shared_weights

        refuse_shared_weights(self.base.name)

    def check_base(self) -> None:
        from speed.backends.embedder.base_check import check_embedder

        check_embedder(self)

    def read_query(self, task: str) -> str:
        from speed.backends.embedder.base_check import read_query

        return read_query(self, task)

    def read_inputs(self, runtime: Runtime, say: Callable[[str], None]) -> None:
        """Read the labelled sources whole, once for the same content."""
        read_sources(self.sources, runtime.home.expanduser() / "cache" / "read", say)

    def hub_repositories(self) -> tuple[HubRepository, ...]:
        """The base model."""
        return hub_model(self.base.name)

    def load(self) -> EmbedderLoad:
        """Texts beyond `kept_tokens`, about all of them, pass the model twice."""
        footprint = Footprint(
            lora=None if self.lora is None else self.lora.r,
            weight_bytes=4 if self.precision == "fp32" else 2,
            checkpointing=not self.kept_tokens or self.checkpointing == "all",
        )
        checkpointing = self.checkpointing != "off"
        return EmbedderLoad(
            self.base.name,
            footprint,
            self.chunk_tokens,
            self.kept_tokens,
            checkpointing,
            self.hard_negatives,
            self.listwise > 0,
            scored=1 if self._is_large else 2,
        )

    @property
    def _is_large(self) -> bool:
        shape = shape_of(self.base.name)
        return shape is not None and shape.parameters > LARGE

    def remarks(self) -> list[str]:
        """A base that is an embedder and never saw instructions, though these settings put one before each query."""
        folder = described(self.base.name) if self.instructs else None
        if folder is None or not (Path(folder) / "modules.json").is_file():
            return []
        try:
            saved = json.loads((Path(folder) / "config_sentence_transformers.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            saved = {}
        if any((saved.get("prompts") or {}).values()):
            return []
        return [
            f"embedder.base={self.base.name} is an embedder that never saw instructions, and embedder.instruction puts "
            "one before each query: untrained it loses by that (all-MiniLM-L6-v2: 11 to 15 points); "
            'embedder.instruction="{query}" eval.protocol=native go without'
        ]

    def quick_encoder(self, runtime: Runtime) -> tuple[str, Encode] | None:
        """See `EmbedderTrainer.quick_encoder`. A base that never was an embedder says little."""
        folder = described(self.base.name)
        if folder is None or not (Path(folder) / "modules.json").is_file() or self._is_large:
            return None

        def encode(texts: Sequence[str]) -> Sequence[Sequence[float]]:
            from speed.backends.embedder.export import export_untrained
            from speed.backends.encoding.encoder import Encoder

            with TemporaryDirectory() as scratch:
                export_untrained(self, Path(scratch))
                found = Encoder.load(Path(scratch) / "model").encode(texts, normalize=True)
            return [[float(each) for each in row] for row in found]

        return self.base.name, encode

    def untrained(self, out: Path, ctx: Context) -> Path | None:
        """See `EmbedderTrainer.untrained`."""
        if self._is_large:
            return None
        from speed.backends.embedder.export import export_untrained

        export_untrained(self, out)
        return out / "model"

    def untrained_retriever(self) -> EmbeddingRetriever:
        """The base with the pooling, special tokens and length of a training, and without instructions, which it never
        saw: one in front of each query makes all queries alike."""
        return EmbeddingRetriever(
            model=self.base,
            instruction="{query}",
            document="",
            max_length=self.max_length,
            pooling=self.pooling,
            bos=self.bos,
        )

    def labelled_files(self) -> tuple[Path, ...]:
        return tuple(source.path.path.expanduser() for source in self.sources)

    @property
    def loss_temperature(self) -> float:
        return self.temperature

    def trained_retriever(self, folder: Path) -> EmbeddingRetriever:
        return EmbeddingRetriever(
            model=ModelReference(name=str(folder / "model")),
            instruction=self.instruction,
            document="",
            max_length=self.max_length,
        )

    def train(self, examples: Path, out: Path, seed: int, ctx: Context) -> None:
        """Train on the `Example`s of a JSONL file; the model, in sentence-transformers layout, into `out/model`.

        A training that was stopped resumes, to the bit, from its last checkpoint in `out/checkpoints`.

        Raises:
            UserError: for no usable records, a base that cannot be loaded, a setting that this machine cannot carry
                out, or a loss that is no longer a number (with the step and the records; checkpoints stay).
        """
        from speed.backends.embedder.loop import run, table_of

        self.check(ctx.runtime)
        if not several(ctx):
            run(self, examples, out, seed, ctx)  # a step that does not fit is computed again where it stands
            return
        table_of(self, examples, ctx)  # tokenised once, with all cores, before the ranks start
        self._in_processes(examples, out, seed, ctx)

    def probe(self, out: Path, ctx: Context) -> Measured:
        """See `EmbedderTrainer.probe`."""
        from speed.backends.embedder.probing import measure_steps

        if several(ctx):
            self._in_processes(None, out, 0, ctx)
        else:
            measure_steps(self, out, ctx)
        return left(ctx)

    def _in_processes(self, examples: Path | None, out: Path, seed: int, ctx: Context) -> None:
        runtime = ctx.runtime.model_copy(update={"home": ctx.store.home})
        job = EmbedderJob(
            trainer=self, examples=examples, seed=seed, out=str(out.resolve()), runtime=runtime, grant=ctx.grant
        )
        until_it_fits(lambda: run_in_processes(job, WORKER, ctx), ctx)


def _check_guide(name: str) -> None:
    """Look whether a folder holds an embedder, without loading it."""
    folder, where = Path(locate_model(name)[0]), f"embedder.masks.guide={name}"
    if not folder.is_dir():
        raise UserError(
            f"{where} is a model of the hub: download it ({hub_model(name)[0].download}), and give its folder"
        )
    wanted = {
        "config.json": ("config.json", "adapter_config.json"),
        "tokenizer.json": ("tokenizer.json", "tokenizer.model", "vocab.*"),
        "its weights (*.safetensors)": ("*.safetensors", "*.bin"),
    }
    lacking = [what for what, patterns in wanted.items() if not any(any(folder.glob(each)) for each in patterns)]
    if lacking:
        raise UserError(
            f"{where} holds no embedder: {', '.join(lacking)} missing; give a folder in sentence-transformers layout"
        )


class EmbedderJob(Job):
    """One training as its ranks read it."""

    trainer: ContrastiveTrainer
    examples: Path | None
    """JSONL file of the synthetic records; None where a few steps on random ones are measured instead."""
    seed: int
