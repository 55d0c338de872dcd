"""The GPUs that a run may use: those that work, those that its workers have, and those that other commands have.

A command holds a lock on a file for each GPU that it has given to a worker, in a folder of its user's that all commands
on the machine know; the lock goes with the command, however it ends. A file is named by the UUID of its GPU where
`nvidia-smi` tells that, so that commands agree which see it under different names. Where it tells none, or for a part
of a GPU (MIG), the name in `CUDA_VISIBLE_DEVICES` is all there is, and commands that call it differently do not see one
another. So it is on a machine with GPUs of several kinds, where CUDA numbers them in another order than `nvidia-smi`
unless `CUDA_DEVICE_ORDER=PCI_BUS_ID`, and one command gives numbers, another UUIDs.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from speed.core.errors import UserError
from speed.core.locks import locked
from speed.core.machine import gpus

AGAIN = 1.0
"""Seconds after which it is looked again whether other commands have ended."""

Starts = Iterable[tuple[str, tuple[int, ...]]]
"""Keys of builds that begin, each with the devices of one worker."""


class Devices:
    """GPUs by number. Declared ones that are not there, as in a simulation, are nobody else's: they have no lock."""

    def __init__(self, numbers: object) -> None:
        """
        Args:
            numbers: `runtime.devices`; anything but a tuple is none. `auto` leaves what can be seen as it is, and
                with `cpu` no worker sees a GPU, whatever a library would choose by itself.
        """
        self.declared = numbers != "auto"
        self.working: list[int] = list(numbers) if isinstance(numbers, tuple) else []
        """Those that have not been lost."""
        self.taken: tuple[int, ...] = ()
        """Those that other commands had when it was last looked."""
        self._locks: dict[int, int] = {}
        """Descriptors of locked files, by number."""

    @property
    def are_here(self) -> bool:
        """Whether another command could take one of them."""
        return any(number < len(gpus()) for number in self.working)

    def visible(self, numbers: Sequence[int]) -> str | None:
        """How the driver names these devices, and declared ones that are not there by their numbers; None where all
        that there are stay visible."""
        if not self.declared:
            return None
        names = [gpu.name for gpu in gpus()]
        return ",".join(names[number] if number < len(names) else str(number) for number in numbers)

    def grant(
        self, held: Collection[int], next_starts: Callable[[list[int]], Starts]
    ) -> list[tuple[str, tuple[int, ...]]]:
        """What begins now, with devices that no other command takes until they are released.

        All that are free are taken for a moment, and what is not granted is given back: a command that needs several
        never keeps a part of them while it waits for the rest, so two cannot wait for one another.

        Args:
            held: those that workers of this run have.
            next_starts: chooses, given the devices that are free.

        Raises:
            UserError: where no lock can be held.
        """
        wanted = [number for number in self.working if number not in held]
        here = [number for number in wanted if number < len(gpus())]
        if not here:
            self.taken = ()
            return list(next_starts(wanted))
        with _one_command_at_a_time():
            self.taken = tuple(number for number in here if not self._claim(number))
            starts = list(next_starts([number for number in wanted if number not in self.taken]))
            granted = {number for _, devices in starts for number in devices}
            self.release(number for number in here if number not in granted)
        return starts

    def release(self, numbers: Iterable[int]) -> None:
        """Let other commands have these."""
        for number in numbers:
            if number in self._locks:
                os.close(self._locks.pop(number))

    def release_all(self) -> None:
        """Let other commands have whatever this one has."""
        self.release(list(self._locks))

    @contextmanager
    def all_at_once(self, say: Callable[[str], None]) -> Iterator[None]:
        """All of them for the length of a block, for a command that shares nothing out.

        Args:
            say: is told, once, what is waited for.
        """
        told = False
        while not self.grant((), lambda free: [("", tuple(free))] if len(free) == len(self.working) else []):
            if not told:
                say(f"waits for {named(self.taken)}, which another command uses")
            told = True
            time.sleep(AGAIN)
        try:
            yield
        finally:
            self.release_all()

    def _claim(self, number: int) -> bool:
        """Whether no other command has it; now this one has."""
        gpu = gpus()[number]
        descriptor = _opened(quote(gpu.uuid or gpu.name, safe=""))
        try:
            free = locked(descriptor)
        except OSError as error:
            os.close(descriptor)
            raise _no_locks(error) from error
        if not free:
            os.close(descriptor)
            return False
        self._locks[number] = descriptor
        return True


def named(numbers: Sequence[int]) -> str:
    """`GPU 0, 1`."""
    return f"GPU {', '.join(map(str, numbers))}"


@contextmanager
def _one_command_at_a_time() -> Iterator[None]:
    """While one command takes all that is free, another would find GPUs in use that are about to be given back."""
    descriptor = _opened("asking")
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            raise _no_locks(error) from error
        yield
    finally:
        os.close(descriptor)


def _opened(name: str) -> int:
    """Descriptor of a file of the folder, which no process that is started inherits."""
    try:
        folder = Path(tempfile.gettempdir()) / f"speed-gpus-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        return os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _no_locks(error) from error


def _no_locks(error: OSError) -> UserError:
    return UserError(
        f"the locks that keep two commands from one GPU cannot be held ({error}):\n"
        "  set TMPDIR to a folder of this machine, the same for all commands"
    )
