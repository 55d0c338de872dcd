"""A process on another machine, behind what a process of this machine has: a handle, and a pipe.

An actor of Ray stands in for it there: it starts the process as it would be started here, hands messages through, and
takes it with it when it ends, as when its machine is lost. Where that machine does not see the store of the run, what
the process reads is carried there before, and what it makes is carried back before anything is heard of it.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, cast

from speed.core.depot import Depot
from speed.core.elsewhere import Errand, NotCarried
from speed.core.manifest import maker


class Line:
    """This machine's end of a remote process's pipe; `multiprocessing.connection.wait` takes it as it takes a pipe."""

    def __init__(self, actor: Any, pipe: Any) -> None:
        self.actor, self.pipe = actor, pipe

    def fileno(self) -> int:
        """Readable when a message is there, or the process has ended."""
        return int(self.pipe.fileno())

    def recv_bytes(self) -> bytes:
        """The next message.

        Raises:
            EOFError: when the process has ended.
        """
        return bytes(self.pipe.recv_bytes())

    def send_bytes(self, message: bytes) -> None:
        """Send one; to a process that has ended it is lost, which its end will tell."""
        self.actor.send.remote(message)

    def close(self) -> None:
        """Hear no more."""
        self.pipe.close()


class Work(NamedTuple):
    """What a process over there is started for."""

    target: Callable[..., None]
    """Called with `args` and its end of the pipe; a function of a module."""
    args: tuple[Any, ...]
    errand: Errand | None = None


class RemoteProcess:
    """A process on another machine, with the names that `multiprocessing` has for one of this machine."""

    def __init__(self, actor: Any, pipe: Any, machine: str, work: Work) -> None:
        self.actor, self.pipe, self.machine, self.work = actor, pipe, machine, work
        self.exitcode: int | str = ""
        """A number; in words where it ended without one."""
        self.has_depot = False
        """Whether its machine does not see the store, so that something is carried."""
        self.is_carrying = False
        """Whether it waits for what it reads."""
        self.relay = threading.Thread(target=self._hand_through, daemon=True)
        self.relay.start()

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end."""
        self.relay.join(timeout)

    def terminate(self) -> None:
        """End it: what it has not written to the store is lost."""
        import ray

        if ray.is_initialized():  # `kill` would join a cluster again, or start one
            with suppress(Exception):  # of Ray, whose machines may be gone by now
                ray.kill(self.actor)

    kill = terminate

    def _hand_through(self) -> None:
        """Body of a thread: it begins the process, and what that says goes into the pipe, until it ends."""
        import ray

        target, args, errand = self.work
        depot = cast(Depot, _DepotThere(self.actor))
        try:
            if errand is not None and not ray.get(self.actor.sees.remote(errand.mark)):
                self.has_depot = self.is_carrying = True
                args = errand.prepare(depot, self.machine, self.pipe.send_bytes)
                self.is_carrying = False
            carried = errand if self.has_depot else None
            ray.get(self.actor.begin.remote(target, args))
            while isinstance(message := ray.get(self.actor.receive.remote()), bytes):
                self.pipe.send_bytes(carried.pass_on(depot, message) if carried else message)
            if carried:
                carried.finish(depot)
            self.exitcode = message
        except NotCarried as failed:
            self.exitcode = f"what a worker on {self.machine} reads or makes could not be carried"
            with suppress(OSError):
                self.pipe.send_bytes(failed.message)
        except OSError:  # nobody listens any more
            pass
        except SystemExit:  # the cluster has been left
            self.exitcode = "the cluster has been left"
        except Exception as error:  # of Ray: the actor could not start, or its machine is lost
            self.exitcode = f"{self.machine} has no worker any more: {told(error)}"
        finally:
            self.pipe.close()
            self.terminate()


class _DepotThere:
    """The depot of another machine, with the methods of one."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor

    def __getattr__(self, method: str) -> Callable[..., Any]:
        import ray

        def call(*args: Any) -> Any:
            try:
                return ray.get(self.actor.at_depot.remote(method, *args))
            except ray.exceptions.RayTaskError as error:  # what the depot has raised, in Ray's wrapping
                raise error.cause from None

        return call


class Stand:
    """The actor: starts a process beside itself and hands its messages through."""

    def __init__(
        self, folder: str, environment: dict[str, str], code: list[str] | None = None, depot: str = "none"
    ) -> None:
        """Check the code of this machine, and take over the environment of the run; `begin` starts the process.

        Args:
            code: that this machine must run, where nobody has looked.
            depot: name of the folder for what is carried here, which is made when something is.

        Raises:
            RuntimeError: where it runs another.
        """
        if code is not None and code_here() != code:
            raise RuntimeError(f"it runs other code: {', '.join(part for part in code_here() if part not in code)}")
        os.environ.update(environment)
        with suppress(OSError):  # relative paths of the config; not all clusters share all folders
            os.chdir(folder)
        self.depot = Depot(depot)

    def sees(self, mark: str) -> bool:
        """Whether there is this file, by which a run marks its store."""
        return os.path.isfile(mark)  # where a folder above may not be read, a path raises

    def at_depot(self, method: str, *args: Any) -> Any:
        """A call of the depot here."""
        return getattr(self.depot, method)(*args)

    def begin(self, target: Callable[..., None], args: tuple[Any, ...]) -> None:
        """Start the process."""
        context = multiprocessing.get_context("spawn")
        self.pipe, there = context.Pipe()
        self.process = context.Process(target=begin, args=(target, args, there), daemon=True)
        self.process.start()
        there.close()

    def send(self, message: bytes) -> None:
        """A message for the process."""
        with suppress(OSError):  # it has ended, which `receive` tells
            self.pipe.send_bytes(message)

    def receive(self) -> bytes | int:
        """Its next message; when it has ended, its exit code."""
        try:
            return self.pipe.recv_bytes()
        except (EOFError, OSError):
            self.process.join()
            return int(self.process.exitcode or 0)


def code_here() -> list[str]:
    """The code that this machine runs: commit, Python and packages."""
    code = maker()
    packages = [f"{name} {version}" for name, version in code.packages.items()]
    return [f"commit {code.commit}", f"Python {code.python}", *packages]


def begin(target: Callable[..., None], args: tuple[Any, ...], pipe: Any) -> None:
    """Body of a process over there."""
    import speed.core.forked  # noqa: F401  # as every worker begins here

    target(*args, pipe)


def told(error: Exception) -> str:
    """An error of Ray in one line: of a traceback its last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1 if 'Traceback' in str(error) else 0][:200]}" if lines else repr(error)
