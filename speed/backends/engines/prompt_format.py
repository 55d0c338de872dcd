"""How a prompt is laid out for a small model, and how its tokens are made: one place for training and inference.

A model that was trained under one layout and prompted under another writes worse text and says nothing about it, so the
layout is stored with the weights (`weights.json`) and compared by hash before anything is generated. Prompt and
completion are tokenised separately: then no token spans both, and a completion is generated after exactly the ids that
it was trained after.
"""

from __future__ import annotations

from typing import Any

from speed.core.errors import UserError
from speed.core.spec import Spec, digest
from speed.ports import FormatName

LAYOUTS: dict[str, str] = {
    "plain": "{prompt}\n",
    "inst": "[INST] {prompt} [/INST]",
    "released": "{prompt} [/INST]",
}
"""`plain`: the prompt and a line end. `inst`: Llama-2's and Mistral's brackets. `released`: what the authors' published
weights were trained with, `{prompt} [/INST]` without an opening bracket (so in the code of their repository).
`chat`: the chat template of the tokenizer, one user turn."""

PROBE = "\u2042 probe \u2042"
"""Text whose rendering stands for a chat template in the hash."""


class PromptFormat(Spec):
    """A layout and what it meant when weights were trained: a hash of a laid-out probe text and the special tokens."""

    name: FormatName
    sha256: str


def prompt_format(name: FormatName, tokenizer: Any) -> PromptFormat:
    """The layout `name` as this tokenizer applies it.

    Raises:
        UserError: for `chat` with a tokenizer that has no chat template.
    """
    around = {"bos": _begins_with_bos(tokenizer), "eos": tokenizer.eos_token}
    return PromptFormat(name=name, sha256=digest({"layout": rendered(PROBE, name, tokenizer), **around}))


def rendered(prompt: str, name: FormatName, tokenizer: Any) -> str:
    """The text that the model sees before its own."""
    if name != "chat":
        return LAYOUTS[name].replace("{prompt}", prompt)
    if not tokenizer.chat_template:
        raise UserError(
            "trainer.prompt_format=chat: this base model's tokenizer has no chat template\n  take plain or inst instead"
        )
    turn = [{"role": "user", "content": prompt}]
    return str(tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))


def prompt_ids(prompt: str, name: FormatName, tokenizer: Any, begun: str = "") -> list[int]:
    """Token ids of a laid-out prompt: one BOS where the tokenizer has one, never an EOS.

    `begun` is the first part of the answer, where the rest is to be written (or learned) in its context.
    """
    ids: list[int] = tokenizer(rendered(prompt, name, tokenizer), add_special_tokens=False)["input_ids"]
    bos = tokenizer.bos_token_id
    if name != "chat" and _begins_with_bos(tokenizer) and ids[:1] != [bos]:
        ids = [bos, *ids]
    return ids + (tokenizer(begun, add_special_tokens=False)["input_ids"] if begun else [])


def completion_ids(completion: str, tokenizer: Any) -> list[int]:
    """Token ids of a completion, ending in its only EOS; a list without EOS at its end says that one stands inside."""
    eos = tokenizer.eos_token_id
    ids: list[int] = tokenizer(completion.removesuffix(tokenizer.eos_token), add_special_tokens=False)["input_ids"]
    return ids if eos in ids else [*ids, eos]


def _begins_with_bos(tokenizer: Any) -> bool:
    bos = tokenizer.bos_token_id
    return bos is not None and tokenizer("a")["input_ids"][:1] == [bos]
