"""What embedders must have in common to be merged: all that decides over vectors, but for the weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from speed.backends.encoding.encoder import pooling_and_norm
from speed.backends.runtime.older_readers import OLDER, with_rope
from speed.core.content import sha256_of
from speed.core.errors import UserError
from speed.core.spec import Json

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.txt", "vocab.json")
"""Files that say how a text becomes tokens, the first that is there counts."""
UNLIKE = (
    *("transformers_version", "_name_or_path", "dtype", "torch_dtype", "architectures", "use_cache"),
    *("do_sample", "early_stopping", "num_beams", "num_beam_groups", "num_return_sequences", "diversity_penalty"),
    *("temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty", "task_specific_params"),
    *("max_length", "min_length", "max_new_tokens", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size"),
    *("bad_words_ids", "suppress_tokens", "begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_id"),
    *("remove_invalid_values", "exponential_decay_length_penalty", "output_scores", "return_dict_in_generate"),
)
"""Keys of config.json that may differ, since they change no vector: who wrote it and in which type, and how the model
would generate."""
ROPE = "rope_parameters"
PROMPTS, READING = "config_sentence_transformers.json", "sentence_bert_config.json"
DEFAULTS: dict[str, dict[str, Json]] = {
    PROMPTS: {"model_type": "SentenceTransformer", "similarity_fn_name": "cosine"},
    READING: {"do_lower_case": False},
}
"""What older versions of sentence-transformers leave out of these files."""


class Part(NamedTuple):
    """One of the embedders that are merged."""

    name: str
    """For people: of a run, a folder or on the hub."""
    folder: Path
    weight: float
    """Share, of all parts' together 1."""


def refuse_unlike(parts: Sequence[Part]) -> None:
    """Refuse parts that differ in anything but their weights.

    Raises:
        UserError: naming the first difference.
    """
    by_layers = all(isinstance(read_json(part.folder / "config.json").get(ROPE), dict) for part in parts)
    first, known = parts[0], _beside_weights(parts[0].folder, by_layers)
    for part in parts[1:]:
        for what, value in _beside_weights(part.folder, by_layers).items():
            if value != known[what]:
                raise UserError(
                    f"{part.name} cannot be merged with {first.name}: they differ in {what}"
                    f"{_difference(known[what], value)}\n"
                    "  give embedders that were trained from one base, with the same settings of the text"
                )


def _beside_weights(folder: Path, by_layers: bool) -> dict[str, Json]:
    """All that decides over vectors beside weights, by its name for people.

    Args:
        by_layers: whether all parts name their rotary embedding as transformers 5 does, which says more; else it is
            compared in the words of 4.
    """
    left_out = {*UNLIKE, *(OLDER if by_layers else (ROPE,))}
    config = with_rope(read_json(folder / "config.json"))
    config = {name: value for name, value in config.items() if name not in left_out}
    written, read = (DEFAULTS[name] | _stated(read_json(folder / name)) for name in (PROMPTS, READING))
    prompts = written.get("prompts")
    texts = {name: text for name, text in prompts.items() if text} if isinstance(prompts, dict) else {}
    special = read_json(folder / "tokenizer_config.json")
    return {
        "architecture": _stated(config),
        "pooling": _pooling(folder),
        "instructions": {name: value for name, value in written.items() if name != "__version__"} | {"prompts": texts},
        "reading of a text": read,
        "tokenizer": _stated(_tokenizer(folder)),
        "special tokens": {name: special.get(name) for name in ("add_bos_token", "add_eos_token")},
    }


def _stated(value: Any) -> Any:
    """A value without the keys that are null, which say as much as those that are left out."""
    if isinstance(value, dict):
        return {name: _stated(inner) for name, inner in value.items() if inner is not None}
    return [_stated(inner) for inner in value] if isinstance(value, list) else value


def _pooling(folder: Path) -> Json:
    """How a part pools, and whether its vectors have length 1.

    Raises:
        UserError: for a damaged file.
    """
    try:
        return list(pooling_and_norm(folder))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{folder / 'modules.json'}, or the config.json of the pooling that it names, is damaged ({error!r:.80}): "
            "fetch or export the model again"
        ) from error


def _tokenizer(folder: Path) -> Json:
    """What a tokenizer does with a text, but for truncation and padding, which every program sets itself."""
    name = next((name for name in TOKENIZERS if (folder / name).is_file()), None)
    if name == TOKENIZERS[0]:
        return {key: value for key, value in read_json(folder / name).items() if key not in ("truncation", "padding")}
    return None if name is None else sha256_of(folder / name)


def _difference(one: Json, other: Json) -> str:
    """`: 768 and 384`, of dictionaries with the first key that differs; empty where that would be long."""
    if isinstance(one, dict) and isinstance(other, dict):
        key = next((key for key in [*one, *other] if one.get(key) != other.get(key)), None)
        if key is None:
            return ""
        values = _difference(one.get(key), other.get(key))
        return f" ({key}){values}"
    values = f": {json.dumps(one, ensure_ascii=False)} and {json.dumps(other, ensure_ascii=False)}"
    return values if len(values) < 200 else ""


def read_json(file: Path) -> dict[str, Json]:
    """The object of a file; none where it is not there.

    Raises:
        UserError: for a file that holds no object.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError as error:
        raise UserError(f"{file} is damaged ({error}): fetch or export the model again") from error
    return found if isinstance(found, dict) else {}
