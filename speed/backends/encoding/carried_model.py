"""The model of encoding workers, carried to machines of a cluster that do not see the store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from speed.backends.encoding.workers import REFUSED, SAID, Load
from speed.core.depot import Bundle, Depot
from speed.core.elsewhere import NotCarried
from speed.core.errand import Carrier
from speed.core.errors import CorruptArtifact, UserError
from speed.core.manifest import outputs_of
from speed.core.spec import digest


class ModelErrand:
    """Of a worker that encodes with the model of a folder; vectors come back in its messages."""

    keeps = False

    def __init__(self, carrier: Carrier, folder: Path, load_from: Callable[[Path], Load], device: str) -> None:
        """Name the model that is carried.

        Args:
            load_from: how the model of a folder is loaded on a device.
            device: of the workers over there, as torch names it.
        """
        self.carrier, self.load_from, self.device = carrier, load_from, device
        self.mark, self.depot = carrier.mark(), carrier.depot
        self.source = folder.resolve()
        self._bundle: Bundle | None = None

    def prepare(self, depot: Depot, machine: str, tell: Callable[[bytes], None]) -> tuple[Any, ...]:
        """Carry the folder, under the digest of its files."""

        def say(message: str) -> None:
            tell(SAID + message.encode())

        try:
            if self._bundle is None:
                files = outputs_of(self.source)
                self._bundle = Bundle(
                    f"models/{digest([[file.path, file.sha256] for file in files])[:20]}", files, True
                )
            root = self.carrier.bring([("the embedder", self._bundle, self.source)], depot, machine, say)
        except (CorruptArtifact, UserError, OSError) as error:
            raise NotCarried(REFUSED + str(error).encode()) from error
        return (self.load_from(root / self._bundle.folder), self.device)

    def pass_on(self, depot: Depot, message: bytes) -> bytes:
        """As it is."""
        return message

    def finish(self, depot: Depot) -> None:
        """Nothing is left to carry."""
