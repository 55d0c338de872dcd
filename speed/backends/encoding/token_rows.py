"""Texts to token rows for an embedder: special tokens are added by id, after truncation.

An EOS that is appended as text is cut off by truncation, and an EOS that is left to the tokenizer's flags is not added
since transformers 5 (Mistral's: a cosine of 0.3 with the intended embeddings).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from speed.core.errors import UserError
from speed.model.batching import Ids
from speed.model.pooling import Pooling

CHARACTERS_A_TOKEN = 64
"""A text is cut to so many characters for each allowed token before it is tokenised, which bounds its cost."""
_SURROGATES = re.compile("[\ud800-\udfff]")


class Frame(NamedTuple):
    """Token ids before and after every text."""

    before: tuple[int, ...]
    after: tuple[int, ...]


def frame_of(tokenizer: Any) -> Frame:
    """The special tokens that a tokenizer adds by itself.

    Raises:
        UserError: for a tokenizer without a Rust backend.
    """
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise UserError(
            f"the tokenizer {tokenizer.name_or_path} has no fast version (tokenizer.json); take a model that has"
        )
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()  # some tokenizer.json pad every text to a fixed width
    bare = backend.encode("a", add_special_tokens=False).ids
    whole = backend.encode("a", add_special_tokens=True).ids
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return Frame(tuple(whole[:start]), tuple(whole[start + len(bare) :]))
    raise UserError(f"the tokenizer {tokenizer.name_or_path} changes a text when it adds special tokens; take another")


def training_frame(tokenizer: Any, pooling: Pooling, bos: Literal["as_base", "always", "never"]) -> Frame:
    """The frame of an embedder: with `last` pooling exactly one EOS stands at the end, whatever the base's habit.

    Args:
        bos: whether a BOS stands in front: as the base model's tokenizer does, always, or never.

    Raises:
        UserError: when the tokenizer lacks a token that is needed, or does not add the BOS that its config states.
    """
    base = frame_of(tokenizer)
    before = base.before
    if bos == "as_base" and "BOS" in not_added(tokenizer):
        raise UserError(
            f"the tokenizer {tokenizer.name_or_path} says add_bos_token: true, and adds none\n"
            "  say which is meant: embedder.bos=always or embedder.bos=never"
        )
    if bos == "never":
        before = ()
    elif bos == "always":
        if tokenizer.bos_token_id is None:
            raise UserError(
                f"bos: always, but the tokenizer {tokenizer.name_or_path} has no BOS token; take as_base or never"
            )
        before = (int(tokenizer.bos_token_id),)
    if pooling != "last":
        return Frame(before, base.after)
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"pooling: last needs an EOS token, and the tokenizer {tokenizer.name_or_path} has none; take pooling: mean"
        )
    return Frame(before, (int(tokenizer.eos_token_id),))


def finished_frame(tokenizer: Any) -> Frame:
    """The frame of a finished model: what its tokenizer adds, and what it should add (`not_added`)."""
    before, after = frame_of(tokenizer)
    missing = not_added(tokenizer)
    if "BOS" in missing:
        before = (int(tokenizer.bos_token_id), *before)
    if "EOS" in missing:
        after = (*after, int(tokenizer.eos_token_id))
    return Frame(before, after)


def not_added(tokenizer: Any) -> list[Literal["BOS", "EOS"]]:
    """Special tokens that tokenizer_config.json states and the tokenizer does not add.

    transformers 4 obeyed those flags; 5 obeys tokenizer.json alone, without a warning (e5-mistral: mteb #5230).
    """
    from transformers.utils import cached_file

    file = cached_file(
        tokenizer.name_or_path or ".",
        "tokenizer_config.json",
        local_files_only=True,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )
    described = json.loads(Path(file).read_text(encoding="utf-8")) if file else {}
    frame = frame_of(tokenizer)
    missing: list[Literal["BOS", "EOS"]] = []
    if described.get("add_bos_token") and tokenizer.bos_token_id not in (None, *frame.before):
        missing.append("BOS")
    if described.get("add_eos_token") and tokenizer.eos_token_id not in (None, *frame.after):
        missing.append("EOS")
    return missing


def token_rows(tokenizer: Any, texts: Sequence[str], frame: Frame, max_length: int) -> list[Ids]:
    """Token ids of each text between the frame's tokens, at most `max_length` altogether.

    Every row ends in the frame's last token (asserted), also a truncated or empty text's.
    """
    room = max_length - len(frame.before) - len(frame.after)
    if room < 1:
        raise UserError(f"max_length {max_length} leaves no room for text beside the special tokens; give at least 8")
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    cut = CHARACTERS_A_TOKEN * room
    out: list[Ids] = []
    for start in range(0, len(texts), 4096):
        batch = [_SURROGATES.sub("\ufffd", text[:cut]) for text in texts[start : start + 4096]]
        for text, encoding in zip(
            texts[start : start + 4096], backend.encode_batch_fast(batch, add_special_tokens=False), strict=True
        ):
            ids = encoding.ids
            if len(ids) < room and len(text) > cut:  # a long run that is one token, such as spaces
                ids = backend.encode(_SURROGATES.sub("\ufffd", text), add_special_tokens=False).ids
            row = np.array([*frame.before, *ids[:room], *frame.after], dtype=np.int32)
            assert len(row) <= max_length
            assert not frame.after or row[-1] == frame.after[-1]
            out.append(row)
    return out
