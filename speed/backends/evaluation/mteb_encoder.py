"""Any encoder as a model of mteb, under the E5 protocol or under the model's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ScoringFunction
from mteb.types import PromptType
from numpy.typing import NDArray

from speed.backends.encoding.instructions import InstructionTable
from speed.backends.encoding.text_encoder import TextEncoder, encoded
from speed.backends.encoding.vector_cache import VectorCache
from speed.backends.evaluation.evaluated_model import template_of

Protocol = Literal["e5", "native"]
TEMPLATE = "Instruct: {task}\nQuery: "
"""The prefix of a text (E5-mistral, §3.2), unless the model's own prompts are written in another way."""


class MtebEncoder(AbsEncoder):  # type: ignore[misc]
    """One model under one protocol.

    `e5`: an instruction per task, on both sides except for retrieval's documents; classification's vectors are not
    normalised (E5-mistral's evaluation). `native`: the prompts and the normalisation of the model itself.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        protocol: Protocol,
        table: InstructionTable,
        instructions: Mapping[str, str],
        revision: str,
        add_texts: Callable[[int], None],
        cache: VectorCache | None = None,
        name: str = "speed/embedder",
    ) -> None:
        """Wrap an encoder for mteb.

        Args:
            instructions: by task name, from the folder of tasks; they take precedence over the table.
            revision: identity of weights, tokenizer and protocol.
            add_texts: called with the number of texts encoded since the last call.
            cache: of vectors, shared by all tasks.
            name: `organisation/name`, as in mteb's result files.
        """
        self.encoder, self.protocol, self.table, self.instructions = encoder, protocol, table, instructions
        self.add_texts, self.cache = add_texts, cache
        self.template = template_of(encoder.prompts, TEMPLATE)
        self.model = None
        self.mteb_model_meta = ModelMeta.create_empty(
            overwrites={
                "name": name,
                "revision": revision,
                "embed_dim": encoder.dimension,
                "max_tokens": None if encoder.max_length is None else float(encoder.max_length),
                "use_instructions": protocol == "e5",
                "similarity_fn_name": ScoringFunction.COSINE,
            }
        )

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **kwargs: Any,
    ) -> NDArray[np.float32]:
        """`[texts dim]` fp32 vectors of the texts that a data loader yields."""
        texts = [text for batch in inputs for text in batch["text"]]
        before = 0

        def progress(done: int) -> None:
            nonlocal before
            self.add_texts(done - before)
            before = done

        prefix = self.prefix(task_metadata, prompt_type)
        normalize = None
        if self.protocol == "e5":
            normalize = self.encoder.normalize and task_metadata.type not in self.table.not_normalized
        return encoded(self.encoder, texts, prefix, normalize, self.cache, progress)

    def prefix(self, metadata: Any, prompt_type: PromptType | None) -> str:
        """The prefix of every text of one side of a task."""
        side = prompt_type.value if prompt_type is not None else None
        if self.protocol == "native":
            names = [f"{metadata.name}-{side}", metadata.name, f"{metadata.type}-{side}", metadata.type, side]
            return next((self.encoder.prompts[name] for name in names if name in self.encoder.prompts), "")
        if side == "document" and metadata.type not in self.table.both_sides:
            return ""
        return self.template.replace("{task}", self.instruction(metadata))

    def instruction(self, metadata: Any) -> str:
        """The task's instruction: the folder's own, the table's, mteb's, or the one for its type."""
        own = metadata.prompt.get("query") if isinstance(metadata.prompt, dict) else metadata.prompt
        return (
            self.instructions.get(metadata.name)
            or self.table.of(metadata.name, metadata.type)
            or own
            or self.table.types.get(metadata.type, "Retrieve semantically similar text.")
        )
