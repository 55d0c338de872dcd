"""Parity: whatever program loads an exported embedder gives the vectors that its training meant.

Wrong pooling, an EOS that is not added and an instruction that is not in the folder change vectors without any error.
So the folder is loaded by each program that is here, and 64 texts must come out alike; where they do not, the same
faults are made on purpose until one gives the vectors that were found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import torch

from speed.backends.encoding.encoder import Encoder
from speed.backends.encoding.endpoint import EndpointEncoder, EndpointModel
from speed.backends.encoding.instructions import instruction_table
from speed.backends.encoding.probe_texts import PROBES, Probe
from speed.backends.encoding.sentence_transformer import SentenceTransformerEncoder
from speed.backends.encoding.text_encoder import TextEncoder, Vectors, encoded
from speed.backends.encoding.token_rows import Frame, token_rows
from speed.backends.runtime.device import quietly
from speed.core.errors import UserError
from speed.core.spec import Json
from speed.model.pooling import Pooling, pooled
from speed.runtime import Context
from speed.teaching.errors import Patience, public_url

LEAST = 0.999
"""Lowest cosine. On cores all programs compute in fp32: in 16 bits SmolLM2-135M's vectors come to 0.9993 of one another
by the make-up of their batches alone. On a GPU they compute as their weights are, since twice the memory may not be
there."""
UNKNOWN = "none of wrong pooling, lost EOS, missing prompt: other weights, another tokenizer or another precision"
QUICK = Patience(attempts=3)
"""A server that is not there is told at once; one that fails later is asked for longer."""
SHORT = 16
"""Tokens that no program cuts a text to."""
NAMES: dict[Pooling, str] = {"last": "the last token", "mean": "the mean over tokens", "cls": "the first token"}
RECIPE = """```python
import torch
from transformers import AutoModel, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("path/of/this/folder")
model = AutoModel.from_pretrained("path/of/this/folder").eval()


def embed(texts):
    batch = tokenizer(texts, padding=True, truncation=True, max_length={max_length}, return_tensors="pt")
    with torch.inference_mode():
        states = model(**batch).last_hidden_state
    mask = batch["attention_mask"]
    vectors = {pooling}
    return {result}
```"""
POOLED: dict[Pooling, str] = {
    "last": "states[torch.arange(len(texts)), mask.cumsum(1).argmax(1)]  # the EOS that the tokenizer adds",
    "mean": "(states * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)",
    "cls": "states[torch.arange(len(texts)), mask.argmax(1)]",
}


class Agreement(NamedTuple):
    """How near the vectors of one program are to those of the training."""

    program: str
    lowest: float
    mean: float
    texts: int


class Fault(NamedTuple):
    """What is wrong with the vectors of a program, in words."""

    told: str
    likely: str
    named: bool
    """Whether one of the common faults gives these very vectors."""


Found = tuple[list[int], Vectors]
"""Places of texts, and their vectors."""


def meant(folder: Path, training: Json, device: str) -> Encoder:
    """The embedder of a training's payload, read as the training's recipe says and not as the folder's files do.

    Args:
        folder: `model/` of the payload.
        training: fields of the trainer in the manifest's recipe; empty where there is none.
    """
    encoder = Encoder.load(folder, device)
    _in_fp32(encoder.model, device)
    encoder.how, encoder.normalize = training.get("pooling", encoder.how), training.get("normalize", encoder.normalize)
    encoder.max_length = training.get("max_length", encoder.max_length)
    if encoder.how == "last" and "pooling" in training and encoder.tokenizer.eos_token_id is not None:
        once = tuple(dict.fromkeys(encoder.frame.before))
        encoder.frame = Frame(once, (int(encoder.tokenizer.eos_token_id),))
    written = training.get("instruction", "")
    if "{task}" in written:
        encoder.prompts = instruction_table().prompts(written)
    return encoder


def usage(encoder: Encoder) -> str:
    """How transformers alone embeds with the folder, as Markdown."""
    result = "torch.nn.functional.normalize(vectors, dim=-1)" if encoder.normalize else "vectors"
    return RECIPE.format(max_length=encoder.max_length, pooling=POOLED[encoder.how], result=result)


def agreements(
    folder: Path, expected: Encoder, device: str, served: EndpointModel | None, ctx: Context
) -> list[Agreement]:
    """Embed the probes by every program that is installed, and by the server.

    Raises:
        UserError: for the first program whose vectors are others, with the text and what is likely.
    """
    name = next(iter(expected.prompts), "")
    prefix = expected.prompts.get(name, "")
    probes = [Probe(probe.text, probe.instructed and bool(prefix)) for probe in PROBES]
    right = expected.encode(_sent(probes, prefix))
    out = []
    for program, found in _vectors(folder, expected, name, probes, device, served, ctx):
        agreement, fault = _compared(program, expected, probes, prefix, right, found)
        if fault is not None:
            raise UserError(
                f"{program} embeds otherwise than the training meant: {fault.told}\n  likely: {fault.likely}"
            )
        out.append(agreement)
    return out


def served_agreement(expected: TextEncoder, served: EndpointModel, ctx: Context) -> tuple[Agreement, Fault | None]:
    """How near a server's vectors of the probes are to those of the checkpoint that it should hold.

    Raises:
        UserError: for a server that does not answer, or refuses the model's name or every text.
    """
    prefix = next(iter(expected.prompts.values()), "")
    probes = [Probe(probe.text, probe.instructed and bool(prefix)) for probe in PROBES]
    texts = _sent(probes, prefix)
    found = _by_server(served, texts, ctx, QUICK)
    return _compared(_at(served), expected, probes, prefix, encoded(expected, texts), found)


def _compared(
    program: str, expected: TextEncoder, probes: Sequence[Probe], prefix: str, right: Vectors, embedded: Found
) -> tuple[Agreement, Fault | None]:
    places, found = embedded
    cosines = _cosines(right[places], found)
    agreement = Agreement(program, min(cosines), float(np.mean(cosines)), len(places))
    wrong = [row for row, cosine in enumerate(cosines) if cosine < LEAST]
    if not wrong:
        return agreement, None
    worst = int(np.argmin(cosines))
    probe = probes[places[worst]]
    fine = [probes[place] for row, place in enumerate(places) if row not in wrong]
    named = _named_fault(expected, [probes[places[row]] for row in wrong], found[wrong], fine, prefix)
    told = (
        f"a cosine of {cosines[worst]:.3f} for the text {probe.text[:40]!r}"
        f"{' with its instruction' if probe.instructed else ''}, and below {LEAST:g} for {len(wrong)} of {len(places)} "
        "texts"
    )
    return agreement, Fault(told, named or UNKNOWN, bool(named))


def _vectors(
    folder: Path,
    expected: Encoder,
    name: str,
    probes: Sequence[Probe],
    device: str,
    served: EndpointModel | None,
    ctx: Context,
) -> Iterator[tuple[str, Found]]:
    """Each program with the probes that it embeds; one model at a time is in memory, beside the expected one.

    Args:
        name: of the prompt that programs look up in the folder.
    """
    texts = _sent(probes, expected.prompts.get(name, ""))
    everywhere = list(range(len(probes)))
    own = Encoder.load(folder, device)
    _in_fp32(own.model, device)
    yield "speed", (everywhere, encoded(own, _sent(probes, own.prompts.get(name, ""))))
    del own
    if find_spec("sentence_transformers"):
        with quietly():
            theirs = SentenceTransformerEncoder(folder, device, None)
            _in_fp32(theirs.model, device)
            found = encoded(theirs, _sent(probes, theirs.prompts.get(name, "")))
        yield f"sentence-transformers {version('sentence-transformers')}", (everywhere, found)
        del theirs
    found = _by_transformers(folder, expected, texts, device)
    yield f"transformers {version('transformers')}, as below", (everywhere, found)
    if served is not None:
        yield _at(served), _by_server(served, texts, ctx)


def _at(served: EndpointModel) -> str:
    return f"{served.name} at {public_url(served.url)}"


def _by_transformers(folder: Path, expected: Encoder, texts: Sequence[str], device: str) -> Vectors:
    """What `usage` tells people to do."""
    from transformers import AutoModel, AutoTokenizer

    with quietly():
        tokenizer: Any = AutoTokenizer.from_pretrained(str(folder))
        model: Any = AutoModel.from_pretrained(str(folder)).to(device).eval()
        _in_fp32(model, device)
    rows = []
    for start in range(0, len(texts), 8):
        part = list(texts[start : start + 8])
        batch = tokenizer(part, padding=True, truncation=True, max_length=expected.max_length, return_tensors="pt").to(
            device
        )
        with torch.inference_mode():
            states = model(**batch).last_hidden_state
            rows.append(pooled(states, batch["attention_mask"], expected.how, expected.normalize).float().cpu().numpy())
    return np.concatenate(rows)


def _by_server(model: EndpointModel, texts: Sequence[str], ctx: Context, patience: Patience | None = None) -> Found:
    """Without the texts that the server refuses as too long, whose vectors are not comparable."""
    encoder = EndpointEncoder(model, ctx, patience)
    found = encoded(encoder, texts)
    if not encoder.cut:
        return list(range(len(texts))), found
    whole = []
    for place, text in enumerate(texts):
        before = encoder.cut
        found[place] = encoded(encoder, [text])[0]
        if encoder.cut == before:
            whole.append(place)
    return whole, found[whole]


def _in_fp32(model: Any, device: str) -> None:
    """Arithmetic in fp32 on cores, whatever the weights are kept in (`LEAST`)."""
    if device == "cpu":
        model.float()


def _sent(probes: Sequence[Probe], prefix: str) -> list[str]:
    return [prefix + probe.text if probe.instructed else probe.text for probe in probes]


def _cosines(right: Vectors, found: Vectors) -> list[float]:
    """Of each row; -1 where there is none, as for vectors of another width."""
    if right.shape != found.shape:
        return [-1.0] * len(right)
    lengths = np.linalg.norm(right, axis=1) * np.linalg.norm(found, axis=1)
    cosines = (right * found).sum(axis=1) / np.where(lengths > 0, lengths, 1)
    return [float(value) if np.isfinite(value) else -1.0 for value in cosines]


def _named_fault(
    expected: TextEncoder, probes: Sequence[Probe], found: Vectors, fine: Sequence[Probe], prefix: str
) -> str:
    """The fault that gives these vectors, of those that are common; empty where none of them does.

    Args:
        probes: those whose vectors are others.
        fine: those whose vectors are as they should be.
    """
    if found.shape[1] != expected.dimension:
        return (
            f"another model: its vectors have {found.shape[1]} numbers, and those of the training {expected.dimension}"
        )
    if not isinstance(expected, Encoder):  # sentence-transformers' own, whose parts are unknown here
        return ""
    how, frame = expected.how, expected.frame

    def gives(texts: Sequence[str]) -> bool:
        return min(_cosines(expected.encode(texts), found)) >= LEAST

    texts = _sent(probes, prefix)
    try:
        for other in get_args(Pooling):
            expected.how = other
            if other != how and gives(texts):
                return (
                    f"wrong pooling: {NAMES[other]} in the place of {NAMES[how]}; "
                    "1_Pooling/config.json says it, and a server has an option for it"
                )
        expected.how = how
        for words, changed in _other_frames(frame):
            expected.frame = changed
            if gives(texts):
                return f"{words}; tokenizer.json (post_processor) adds special tokens"
        expected.frame = frame
        if prefix and gives(_sent(probes, "")):
            return (
                f"missing prompt: {prefix[:40]!r} does not stand in front of queries; "
                "config_sentence_transformers.json names the prompts"
            )
        lengths = _lengths(expected, _sent(fine, prefix))
        if lengths and min(_lengths(expected, texts)) > max(SHORT, *lengths):
            return f"long texts are cut elsewhere: the training reads {expected.max_length} tokens (max_seq_length)"
    finally:
        expected.how, expected.frame = how, frame
    return ""


def _lengths(expected: Encoder, texts: Sequence[str]) -> list[int]:
    return [len(row) for row in token_rows(expected.tokenizer, texts, expected.frame, 10**6)]


def _other_frames(frame: Frame) -> Iterator[tuple[str, Frame]]:
    if frame.after:
        yield "lost EOS: nothing stands at the end of a text", Frame(frame.before, ())
        yield "EOS twice at the end of a text", Frame(frame.before, frame.after * 2)
    if frame.before:
        yield "lost BOS: nothing stands in front of a text", Frame((), frame.after)
        yield "BOS twice in front of a text", Frame(frame.before * 2, frame.after)
    if frame.before and frame.after:
        yield "lost special tokens: none stands around a text", Frame((), ())
