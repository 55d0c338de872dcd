"""What a part has measured, in a JSON file rewritten with every figure: what is cut short leaves what it had."""

from __future__ import annotations

import gc
import json
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Figures:
    """The figures of one part."""

    def __init__(self, file: Path, release: Callable[[], None] = lambda: None) -> None:
        """Args:
        release: frees the memory that a failed measurement leaves behind.
        """
        self.file = file
        self.values: dict[str, Any] = {}
        self._release = release

    def add(self, **values: Any) -> None:
        """Further figures."""
        self.values |= values
        partial = self.file.with_suffix(".partial")
        partial.write_text(json.dumps(self.values))
        partial.replace(self.file)

    @contextmanager
    def attempt(self, name: str) -> Iterator[None]:
        """One measurement. An error is kept under `failed`, and the next measurement has its turn."""
        print(f"-- {name}", flush=True)
        try:
            yield
        except Exception as error:
            traceback.print_exc(file=sys.stdout)
            failed = self.values.get("failed", {})
            self.add(failed={**failed, name: f"{type(error).__name__}: {error}"[:300]})
        gc.collect()
        self._release()


def rounded(value: Any) -> Any:
    """Floats with four significant digits, for people."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return [rounded(inner) for inner in value] if isinstance(value, list) else value
