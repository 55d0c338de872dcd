"""How the weights that a training starts from are loaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from speed.backends.alignment import start, zero3
from speed.backends.alignment.options import TrlOptions
from speed.backends.engines.prompt_format import PromptFormat
from speed.backends.engines.weights import WeightsCard, write_card
from speed.runtime import Runtime


class Asked(Exception):
    """How weights were to be loaded, and how they are divided meanwhile."""


@pytest.mark.parametrize(
    ("method", "strategy", "adapter", "asked"),
    [
        ("full", "ddp", True, ("fp32", "cuda", None)),
        # merged in fp32, as without zero3; DeepSpeed takes it to the GPUs
        ("full", "zero3", True, ("fp32", "cpu", None)),
        # divided as it is read; DeepSpeed moves no buffer afterwards
        ("full", "zero3", False, ("bf16", "cuda", ("bf16", "cuda"))),
        ("lora", "zero3", True, ("bf16", "cuda", ("bf16", "cuda"))),
    ],
)
def test_type_and_place_of_what_is_loaded(
    method: Any, strategy: Any, adapter: bool, asked: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    divided: list[tuple[str, str] | None] = [None]

    @contextmanager
    def divide_on_load(precision: str, device: str) -> Iterator[None]:
        divided.append((precision, device))
        yield

    def load(source: Any, precision: str, device: str, for_training: bool) -> None:
        raise Asked(precision, device, divided[-1])

    monkeypatch.setattr(start, "load", load)
    monkeypatch.setattr(zero3, "divide_on_load", divide_on_load)
    layout = PromptFormat(name="plain", sha256="")
    write_card(tmp_path, WeightsCard(base="org/base", base_sha256="", adapter=adapter, prompt_format=layout))
    options = TrlOptions(method=method, precision="bf16", prompt_format="plain")
    with pytest.raises(Asked) as found:
        start.load_start(options, tmp_path, "cuda", Runtime(strategy=strategy))
    assert found.value.args == asked
