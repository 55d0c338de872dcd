"""What transformers 4 needs stands in the folders that transformers 5 wrote, and 5 reads them as before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BertConfig,
    Gemma3TextConfig,
    Gemma4TextConfig,
    LlamaConfig,
    ModernBertConfig,
    PreTrainedConfig,
    Qwen3Config,
)

from speed.backends.runtime.older_readers import for_older_readers

LLAMA = ROOT / "speed" / "miniature" / "bases" / "llama"
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 1024,
}
LAYERS = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
}


@pytest.mark.parametrize(
    ("config", "added"),
    [
        (Qwen3Config(rope_parameters={"rope_type": "default", "rope_theta": 1e6}), {"rope_theta": 1e6}),
        (LlamaConfig(rope_parameters=LLAMA3 | {"rope_theta": 5e5}), {"rope_theta": 5e5, "rope_scaling": LLAMA3}),
        (
            Gemma3TextConfig(rope_parameters=LAYERS),
            {"rope_theta": 1e6, "rope_local_base_freq": 2e4, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
        ),
        (Gemma4TextConfig(), {"rope_scaling": None}),
        (ModernBertConfig(rope_parameters=LAYERS), {"global_rope_theta": 1e6, "rope_scaling": None}),
        (ModernBertConfig(), {"global_rope_theta": 160000.0, "local_rope_theta": 10000.0}),
        (BertConfig(), {}),
    ],
    ids=["one base", "scaled", "by layers", "another family", "a scaled encoder", "an encoder", "no rope"],
)
def test_the_rope_is_named_for_both(config: PreTrainedConfig, added: dict[str, Any], tmp_path: Path) -> None:
    config.save_pretrained(str(tmp_path))
    before = AutoConfig.from_pretrained(str(tmp_path))
    for_older_readers(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert {name: written.get(name) for name in added} == added
    after = AutoConfig.from_pretrained(str(tmp_path))
    assert getattr(after, "rope_parameters", None) == getattr(before, "rope_parameters", None)
    text = (tmp_path / "config.json").read_text()
    for_older_readers(tmp_path)
    assert (tmp_path / "config.json").read_text() == text


def test_a_tokenizer_of_no_family_has_the_name_that_both_know(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(LLAMA))
    tokenizer.save_pretrained(str(tmp_path))
    for_older_readers(tmp_path)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["tokenizer_class"] != "TokenizersBackend"
    again = AutoTokenizer.from_pretrained(str(tmp_path))
    assert again("A text of some words.")["input_ids"] == tokenizer("A text of some words.")["input_ids"]


def test_what_is_not_there_is_left_out(tmp_path: Path) -> None:
    for_older_readers(tmp_path)
    assert list(tmp_path.iterdir()) == []
