"""What can be evaluated: a folder, a model of the hub, an endpoint. Each states what its vectors depend on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

from speed.backends.encoding.encoder import PADDING_SHARE, Encoder, UnknownLayout
from speed.backends.encoding.instructions import instruction_table
from speed.backends.encoding.sentence_transformer import SentenceTransformerEncoder
from speed.backends.encoding.shared_encoder import is_shared, of_folder, shared
from speed.backends.encoding.text_encoder import TextEncoder
from speed.backends.encoding.token_rows import not_added
from speed.backends.runtime.at_once import AtOnce
from speed.backends.runtime.device import device_of, devices_of
from speed.backends.runtime.precision import dtype_of
from speed.core.content import sha256_of
from speed.core.errors import UserError
from speed.core.spec import Json
from speed.data.costs.memory import CHUNK_TOKENS
from speed.runtime import Context

WEIGHTS = ("*.safetensors", "*.json", "*.txt", "*.model", "*.md")
"""Files that are downloaded of a model on the hub: no pickles, no code."""
OTHER_FORMATS = ("onnx/*", "openvino/*", "consolidated*", "original/*")


class EvaluatedModel(Protocol):
    """One model, before it is loaded."""

    @property
    def name(self) -> str:
        """`organisation/name`, as in mteb's result files."""

    @property
    def batch(self) -> str:
        """How texts are batched, for the record of the evaluation."""

    def precision(self, asked: str) -> str:
        """The precision of its arithmetic, when the config asks for this one."""

    def identity(self) -> Json:
        """What its vectors depend on beside precision and length."""

    def load(self, max_length: int | None, at_most: int | None, precision: str, ctx: Context) -> TextEncoder:
        """The encoder.

        Args:
            max_length: tokens of a text; None for the model's own limit, but not more than `at_most`.
        """


class LocalModel:
    """A folder: its identity is its files (weights, tokenizer, pooling, prompts), never its name."""

    batch = f"up to {CHUNK_TOKENS} tokens of like length, one in {PADDING_SHARE} padding"

    def __init__(self, folder: Path, name: str = "speed/embedder") -> None:
        """Name a model of this machine.

        Args:
            folder: a model, or the payload of a training with the model in `model/`.
        """
        inner = folder / "model"
        whole = any((inner / file).is_file() for file in ("config.json", "modules.json"))
        self.folder, self.name = (inner if whole else folder), name

    def precision(self, asked: str) -> str:
        """The one asked for."""
        return asked

    def identity(self) -> Json:
        """The content of the folder."""
        return {"files": sha256_of(self.folder)}

    def load(self, max_length: int | None, at_most: int | None, precision: str, ctx: Context) -> TextEncoder:
        """Our encoder, or sentence-transformers' own where the model has parts that ours does not.

        Raises:
            UserError: for a folder without a model.
        """
        from huggingface_hub.errors import StrictDataclassError
        from safetensors import SafetensorError

        dtype = dtype_of(precision)
        device, devices = device_of(ctx), devices_of(ctx)
        # all machines see the store, or are brought what they need of it
        everywhere = self.folder.resolve().is_relative_to(ctx.store.home.resolve())
        encoder: Encoder | SentenceTransformerEncoder
        if any(self.folder.glob("*.bin")) and not any(self.folder.rglob("*.safetensors")):
            raise UserError(
                f"{self.folder} holds pickled weights (.bin), which can run code: save the model as safetensors"
            )
        try:
            try:
                encoder = Encoder.load(self.folder, "cpu", max_length)
            except UnknownLayout as reason:
                ctx.say(f"{reason}; sentence-transformers encodes instead")
                encoder = SentenceTransformerEncoder(self.folder, device, max_length)
        except (ValueError, TypeError, LookupError, AttributeError, SafetensorError, StrictDataclassError) as error:
            if isinstance(error, UserError):
                raise
            told = str(error).splitlines() or [repr(error)]
            raise UserError(
                f"the files of the model {self.folder} are damaged or of an unknown form: {' '.join(told)[:300]}\n"
                "  fetch or export it again"
            ) from error
        if missing := not_added(encoder.tokenizer) if isinstance(encoder, Encoder) else []:
            ctx.say(
                f"{self.name}: its tokenizer_config.json asks for {' and '.join(missing)} and its tokenizer adds none; "
                "it is added here"
            )
        if max_length is None and at_most is not None and (encoder.max_length or 0) > at_most:
            encoder.max_length = at_most
        encoder.model.to(dtype)
        if isinstance(encoder, Encoder):
            self._remember_chunks(encoder, precision, ctx)
            if is_shared(devices, ctx, everywhere):
                load = partial(of_folder, self.folder)
                return shared(encoder, load, precision, devices, ctx, everywhere, self.folder)
        encoder.model.to(device)  # in the precision that it is asked for, which may be half of the files'
        return encoder

    def _remember_chunks(self, encoder: Encoder, precision: str, ctx: Context) -> None:
        """Begin with the chunks that fitted into memory before, and remember smaller ones."""
        what = ["encoding", self.identity(), precision, encoder.max_length]
        at_once = AtOnce(ctx, what, CHUNK_TOKENS, "tokens")
        encoder.chunk_tokens, encoder.at_once = at_once.value, at_once


def model_at(reference: str, name: str | None = None) -> LocalModel:
    """The embedder of a run, a model's folder, or a model of the hub.

    Raises:
        UserError: when it is neither.
    """
    folder = Path(reference).expanduser()
    if folder.is_dir():
        inner = folder / "stages" / "embedder"
        name = name or f"local/{folder.resolve().name}"
        return LocalModel(inner.resolve() if inner.is_dir() else folder, name)
    model = hub_model(reference)
    return model if name is None else LocalModel(model.folder, name)


def hub_model(reference: str) -> LocalModel:
    """A model of the hub (`organisation/name` or `organisation/name@revision`), or of its local cache when offline.

    Raises:
        UserError: when it is in neither.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name, _, revision = reference.partition("@")
    try:
        folder = snapshot_download(
            name, revision=revision or None, allow_patterns=list(WEIGHTS), ignore_patterns=list(OTHER_FORMATS)
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        raise UserError(
            f"{reference} is not a folder, and it cannot be had from the hub: {str(error).splitlines()[0]}\n"
            "  give the path of an existing folder, or check the name, the connection and HF_TOKEN"
        ) from error
    return LocalModel(Path(folder), name)


def asks_for_instructions(folder: Path) -> bool:
    """Whether a model's prompts are E5's instructions: then its protocol is `e5`, otherwise `native`."""
    file = folder / "config_sentence_transformers.json"
    try:
        prompts = json.loads(file.read_text(encoding="utf-8")).get("prompts") if file.is_file() else None
    except (ValueError, AttributeError):  # loading the model refuses such a file, with its name
        return False
    return any(str(text).startswith("Instruct: ") for text in (prompts or {}).values())


def template_of(prompts: Mapping[str, str], default: str) -> str:
    """How a model writes an instruction, with {task} in its place; read from its prompt for a task of the table."""
    table = instruction_table()
    for kind, tasks in table.named.items():
        for name, text in tasks.items():
            prompt = prompts.get(name if kind in table.both_sides else f"{name}-query", "")
            if text in prompt:
                return prompt.replace(text, "{task}")
    return default
