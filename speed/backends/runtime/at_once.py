"""How much is computed at once where more did not fit into memory: halved, remembered, and told at the end.

What did not fit is written to a small file under `cache/at_once` of the root, so that the rest of the stage, its other
workers, and the same stage after a kill begin with what is left of it.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from contextlib import suppress

from speed.core.cache import write_aside
from speed.core.errors import UserError
from speed.core.spec import Json, digest
from speed.runtime import Context


class DoesNotFit(UserError):
    """Something did not fit into memory, less of it at once is remembered, and the same work can be begun again."""


class AtOnce:
    """Rows or tokens that one computation takes at once."""

    def __init__(self, ctx: Context, what: Json, most: int, unit: str, option: str | Callable[[int], str] = "") -> None:
        """Begin with the most, or with what fitted before.

        Args:
            what: names the computation: everything that decides over its memory but the amount at once.
            most: what was asked for.
            unit: of the amount, in the plural.
            option: the setting that asks for it, where there is one; or what gives all settings that ask for a value.
        """
        self.ctx, self.most, self.unit = ctx, most, unit
        self.settings = option if callable(option) else lambda value: f"{option}={value}" if option else ""
        name = digest([what, most, unit, _device()])
        self.file = ctx.store.home / "cache" / "at_once" / f"{name}.json"
        self.value = most
        with suppress(OSError, ValueError, TypeError, KeyError):
            self.value = max(1, min(most, int(json.loads(self.file.read_text())["at_once"])))

    def lower(self, value: int) -> str:
        """Remember that only so much fits; returns what to say."""
        told = f"{self.value:,} {self.unit} at once do not fit into memory: {value:,} from now on"
        self.value = value
        with write_aside(self.file) as aside:
            aside.write_text(json.dumps({"at_once": value, "of": self.most, "unit": self.unit}))
        return told

    def tell(self) -> None:
        """Say at the end, to the reader and in the manifest, what was computed at once in the place of what."""
        if self.value < self.most:
            told = f"{self.value:,} {self.unit} were computed at once, since {self.most:,} did not fit into memory"
            settings = self.settings(self.value)
            told += f"; {settings} begins with them" if settings else ""
            self.ctx.say(told)
            self.ctx.tally.metrics["at_once"] = told


def until_it_fits(work: Callable[[], None], ctx: Context) -> None:
    """Do the work, and begin it again from its last checkpoint each time that it has lowered what it takes at once."""
    while True:
        try:
            work()
        except DoesNotFit as error:
            ctx.say(str(error))
        else:
            return
        free_memory()


def free_memory() -> None:
    """Give back what a computation that failed has left."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _device() -> str:
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    found = torch.cuda.get_device_properties(0)
    return f"{found.name}, {found.total_memory}"
