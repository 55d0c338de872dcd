"""Settings of the embedder's training (paper §3.1, §4.1, Appendix B; recipe of E5-mistral, arXiv 2401.00368).

They stand apart from `ContrastiveTrainer`, which is made of them, so that every step of the training can read them
without importing the trainer that starts it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from speed.core.content import Content, ModelReference
from speed.core.errors import refuse_for
from speed.core.spec import Json, Spec, fields_of
from speed.data.records import Kind
from speed.data.text_files import lines_with_text
from speed.ports import EmbedderTrainer
from speed.runtime import Runtime

if TYPE_CHECKING:
    from typing import Self

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Lora(Spec):
    """Low-rank adapters (PEFT); merged into the exported model."""

    r: Annotated[int, Field(ge=1)] = 16
    """Rank (paper, Appendix B)."""
    alpha: Positive = 32
    """Scale; 32 as in the adapter that E5-mistral published."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """On the adapter's input; 0.1 as in the adapter that E5-mistral published."""
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Names of the linear layers; `all-linear` alone stands for all."""


class Masks(Spec):
    """Which documents of the batch are not negatives of a query (`speed.model.loss.blocked`)."""

    identical_positives: bool = True
    own_duplicates: bool = True
    same_label: bool = True
    score_margin: float | None = None
    """Leave out documents that score higher than the positive by more than this (Qwen3-Embedding: 0.1)."""
    guide: ModelReference | None = None
    """An embedder in sentence-transformers layout: documents that it scores above the positive are left out (GISTEmbed,
    arXiv 2402.16829). It is not trained, and reads queries without our instructions under its own prompts."""
    guide_margin: float = 0.0
    """Leave out documents only if the guide scores them higher than the positive by more than this."""

    @model_validator(mode="after")
    def _used(self) -> Self:
        if self.guide_margin and self.guide is None:
            raise ValueError(
                "guide_margin has no effect without guide; name the guide's model, or leave the margin out"
            )
        return self


class Batching(Spec):
    """Which records form a batch (`speed.model.batching.epoch`); all processes of a training share it."""

    homogeneous: Share = 0.0
    """Share of a batch that comes from one group: 0 mixes all in their proportions, 1 takes one group only."""
    by: Literal["kind", "task", "source"] = "kind"
    """What the records of a group have in common."""


class Source(Spec):
    """A JSONL file of labelled records that is trained on beside the synthetic ones (paper §4.2: 13 data sets).

    A line: `query`, `positive`, and where they are known `negative` or `negatives`, `task`, `kind`.
    """

    path: Content
    weight: Positive = 1.0
    """How often a record is seen an epoch: 0.1 draws a tenth anew for each epoch, 2 takes every record twice."""
    tasks: tuple[str, ...] = ()
    """Instructions for records that state none, taken in turn (E5-mistral gives NLI and Quora two each)."""
    kind: Kind | None = None
    """Kind of records that state none."""
    expected: Annotated[int, Field(ge=1)] | None = None
    """Records that an epoch sees of the right file, about: one that gives less than half is refused. None takes any."""

    def recipe(self) -> Json:
        """Identity: all fields but `expected`, which decides over no result."""
        return {name: value for name, value in fields_of(self).items() if name != "expected"}

    def lines(self) -> int | None:
        """Lines of the file that hold something; None where it is not there."""
        file = self.path.path.expanduser()
        return lines_with_text(file) if file.is_file() else None

    def seen(self) -> int | None:
        """Records that an epoch sees, by lines of the file; None where it is not there."""
        lines = self.lines()
        return None if lines is None else round(lines * self.weight)


class Development(Spec):
    """A cheap score during training: each held-out query searches the documents of all held-out records.

    Held-out records are not trained on, so the default is none: the paper trains on all of them.
    """

    records: Annotated[int, Field(ge=2)] = 256
    every: Annotated[int, Field(ge=1)] = 50
    """Steps between two scores; the last step always has one."""


class ContrastiveSettings(EmbedderTrainer):
    """What is trained, on which records, in which batches, with which loss and arithmetic."""

    base: ModelReference
    """Hub name, folder, or `package:miniature/bases/NAME`."""
    lora: Lora | None = Lora()
    """None trains all weights."""
    learning_rate: Positive = 1e-4
    """E5-mistral, Appendix A."""
    temperature: Positive = 0.02
    """E5-mistral, §3.2."""
    batch_size: Annotated[int, Field(ge=2)] = 1536
    """Records a step, and so the number of in-batch negatives (paper, Appendix B)."""
    epochs: Annotated[int, Field(ge=1)] = 1
    max_steps: Annotated[int, Field(ge=1)] | None = None
    """Exactly so many steps, by as many epochs as that takes (the last may end early); `epochs` then has no effect."""
    max_length: Annotated[int, Field(ge=8)] = 512
    """Tokens, special ones included."""
    warmup_ratio: Share = 0.1
    """Share of the steps; a fixed number would eat most of a small run (E5-mistral: 100 of under 1,000 steps)."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    max_gradient_norm: Positive | None = 1.0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of the arithmetic inside the transformer; the loss is always fp32."""
    pooling: Literal["last", "mean", "cls"] = "last"
    normalize: bool = True
    bos: Literal["as_base", "always", "never"] = "as_base"
    """Whether every text begins with a BOS token."""
    instruction: str = "Instruct: {task}\nQuery: {query}"
    """How a query is written (E5-mistral, §3.2); documents stand alone. `{query}` alone trains without instructions:
    the exported model then has no prompts, and is evaluated without any (`protocol: native`)."""
    batching: Batching = Batching()
    sources: tuple[Source, ...] = ()
    """Files of labelled records to train on as well."""
    masks: Masks = Masks()
    hard_negatives: Annotated[int, Field(ge=0)] = 1
    """Maximum hard negatives of a record, drawn anew each epoch (E5-mistral: 1)."""
    listwise: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the list-wise loss over a record's graded documents (`speed.model.loss.list_wise`), beside InfoNCE; 0
    leaves these documents out (ours)."""
    share_hard_negatives: bool = True
    """Whether a hard negative also counts for the other queries of the batch."""
    chunk_tokens: Annotated[int, Field(ge=1)] = 4096
    """Padded tokens encoded at once; bounds the memory of a step."""
    kept_tokens: Annotated[int, Field(ge=0)] = 32768
    """Padded tokens whose activations are kept between the two passes of a step; the others are computed twice."""
    checkpointing: Literal["off", "kept", "all"] = "off"
    """Gradient checkpointing, by which layers keep their inputs only and compute the rest again: never, for activations
    that are kept between the passes, or always. `all` computes most of them three times; it is for very long texts."""
    development: Development | None = None
    """Held-out records that are scored during the training."""

    @property
    def instructs(self) -> bool:
        return "{task}" in self.instruction

    def recipe(self) -> Json:
        """Identity: the fields; `listwise`, `max_steps` and `epochs` where they have an effect; and where records are
        held out, that others of their queries are not trained on."""
        fields = {
            name: value for name, value in super().recipe().items() if value or name not in ("listwise", "max_steps")
        }
        if self.max_steps is not None:
            del fields["epochs"]
        return fields | ({"held_out": "queries"} if self.development is not None else {})

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if self.instruction != "{query}" and ("{query}" not in self.instruction or "{task}" not in self.instruction):
            raise ValueError("instruction must contain {task} and {query}, or be {query} alone for no instructions")
        if not self.instruction.endswith("{query}"):
            raise ValueError("instruction must end with {query}, so that the rest can be exported as a prompt")
        if self.checkpointing == "kept" and not self.kept_tokens:
            raise ValueError(
                "checkpointing: kept has no effect with kept_tokens: 0, where every chunk is computed twice already; "
                "set kept_tokens, or take checkpointing: off"
            )
        return self

    def check(self, runtime: Runtime) -> None:
        """Refuse a runtime that cannot carry out these settings.

        Raises:
            UserError: with the remedy.
        """
        mistakes = []
        if not self.devices(runtime):
            mistakes.append(
                f"runtime.nodes={runtime.nodes} does not divide embedder.batch_size={self.batch_size}: each process "
                "needs as many records\n  take another number of nodes or another batch"
            )
        if self.precision == "fp16" and runtime.devices == "cpu":
            mistakes.append("embedder.precision=fp16 needs a GPU\n  take embedder.precision=fp32 (or bf16) on a CPU")
        refuse_for(mistakes)

    def labelled_records(self) -> int:
        """Records of the sources that an epoch sees; of files that are not there, what is expected."""
        counts = ((source.seen(), source.expected) for source in self.sources)
        return sum((expected or 0) if seen is None else seen for seen, expected in counts)

    def seen(self, examples: int) -> int:
        """See `speed.ports.EmbedderTrainer`."""
        records = examples + self.labelled_records()
        if self.max_steps is None:
            return self.epochs * records
        return round(self.max_steps * records / max(1, -(-records // self.batch_size)))

    def devices(self, runtime: Runtime) -> tuple[int, ...]:
        most = self.batch_size // runtime.nodes
        return tuple(devices for devices in range(1, most + 1) if self.batch_size % (devices * runtime.nodes) == 0)

    def steps(self, examples: int) -> int:
        """See `speed.ports.EmbedderTrainer`; with homogeneous batches it may be up to four more an epoch."""
        return self.max_steps or self.epochs * -(-(examples + self.labelled_records()) // self.batch_size)
