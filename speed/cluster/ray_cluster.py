"""The other machines of a Ray cluster, and the processes that a run starts on them.

The run stands on one machine of the cluster, which it shares out itself; here are the others. All of them run the same
code. What they read and write lies in the store of the run where they see it by the same path; to and from the others
it is carried.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from math import inf
from typing import Any

from speed.cluster.remote_process import Line, RemoteProcess, Stand, Work, code_here, told
from speed.core.depot import clear
from speed.core.elsewhere import LOOK, Errand, Machine, Need
from speed.core.errors import UserError
from speed.core.machine import GIGABYTE, VISIBLE

SECONDS = 10
"""For a connection to the head of the cluster."""
LOST = 30.0
"""Without an answer of the head of the cluster, after which it counts as lost. Ray ends a process that has lost it
after 60 s, which then says nothing."""
PATIENCE, AGAIN = 60.0, 600.0
"""Until a run says that no other machine works for a stage, and until it says so again."""
READY = 120
"""Seconds in which a machine of the cluster must have started Python."""
CLEARED = 20
"""Seconds for which a run that ends waits until what it has carried to other machines is removed there."""
PASSED_ON = ("HF_", "TRANSFORMERS_", "TOKENIZERS_", "OMP_", "MKL_", "PYTORCH_", "VLLM_", "CUBLAS_", "NCCL_")
"""Beginnings of the variables that a process over there finds as they are here; never a key or token."""
SECRET = ("_TOKEN", "KEY", "SECRET", "PASSWORD")


def passed_on(variables: Mapping[str, str]) -> dict[str, str]:
    """Those that a process on another machine is given."""
    return {
        name: value
        for name, value in variables.items()
        if name.startswith(PASSED_ON) and not any(part in name for part in SECRET)
    }


class Cluster:
    """The other machines, connected to. Their processes end with this one."""

    def __init__(self, address: str, looked_at: bool = True) -> None:
        """Connect.

        Args:
            address: HOST:PORT of its head (`runtime.address`); auto: of the one that was started here.
            looked_at: whether `check` has looked, or will, at the machines that there are now; otherwise the first
                worker on each does.

        Raises:
            UserError: where Ray is not installed, or nothing answers at `runtime.address`.
        """
        check_ray(address)
        import ray

        self.ray, self.address = ray, address
        if not ray.is_initialized():
            with _own_signals():
                try:
                    ray.init(address=address, configure_logging=False, log_to_driver=False)
                except Exception as error:  # of several classes, none of them documented
                    raise unreachable(address, error) from error
        self.here = ray.get_runtime_context().get_node_id()
        self.left_out: set[str] = set()
        """Ids of machines that are not used any more."""
        self._started: list[tuple[str, Need, RemoteProcess]] = []
        self._sent: list[tuple[str, RemoteProcess, Errand]] = []
        """On which machine each process with an errand was started."""
        self._idle: dict[str, tuple[float, float]] = {}
        """Stages for which no other machine works: since when, and when that was last said."""
        self._look()
        self._closed = threading.Event()
        self.first = {machine.id for machine in self.machines()} if looked_at else set()
        """Ids of the machines of the beginning, which `check` has looked at."""

    def watch(self) -> Cluster:
        """Keep looking at the machines, in a thread: a lost head may not answer at all, which must hold up nothing."""
        threading.Thread(target=self._keep_looking, daemon=True).start()
        return self

    def machines(self) -> list[Machine]:
        """Those that live and have a core, without this one; as the head said last."""
        return self._machines[1]

    def answers(self) -> bool:
        """Whether its head does, as far as is known."""
        return time.monotonic() - self._machines[0] <= LOST

    def check_head(self) -> None:
        """Refuse to go on without the head of the cluster, while there is time to say so.

        Raises:
            UserError: with the remedy.
        """
        if not self.answers():
            silent = time.monotonic() - self._machines[0]
            raise UserError(
                f"runtime.cluster=ray: the head of the Ray cluster at runtime.address={self.address} has not "
                f"answered for {silent:.0f} seconds\n  start the cluster again (ray start --head, then the other "
                "machines) and type the same command, or take runtime.cluster=none; all blocks that were written are "
                "kept"
            )

    def _keep_looking(self) -> None:
        """Body of a thread."""
        while not self._closed.wait(LOOK):
            with suppress(Exception):  # of Ray; what lasts is told by `check_head`
                self._look()

    def _look(self) -> None:
        found = []
        for node in self.ray.nodes():
            has = node["Resources"]
            if node["Alive"] and node["NodeID"] != self.here and has.get("CPU"):
                name = f"{node['NodeManagerHostname']} ({node['NodeID'][:6]})"
                sizes = (has.get("CPU", 0.0), has.get("GPU", 0.0), has.get("memory", 0.0) / GIGABYTE)
                found.append(Machine(node["NodeID"], name, *sizes))
        self._machines: tuple[float, list[Machine]] = (time.monotonic(), sorted(found))
        """When the head last answered, and what it said."""

    def free(self, need: Need) -> Machine | None:
        """A machine with room for one more process; of several that with the fewest."""
        if time.monotonic() - self._machines[0] > 3 * LOOK:  # a head that is silent starts nothing
            return None
        self._started = [each for each in self._started if each[2].relay.is_alive()]
        held = {machine: [each[1] for each in self._started if each[0] == machine.id] for machine in self.machines()}
        roomy = [
            machine
            for machine, needs in held.items()
            if machine.id not in self.left_out and machine.has_room([*needs, need])
        ]
        return min(roomy, key=lambda machine: len(held[machine]), default=None)

    def why_idle(self, stage: str, need: Need, waits: Sequence[bool]) -> str:
        """Why no other machine works for a stage of which blocks are left, where that is to be said: once, and then
        seldom; else empty.

        Args:
            waits: of each worker of the stage over there, whether it has yet to begin.
        """
        if not all(waits):
            self._idle.pop(stage, None)
            return ""
        now = time.monotonic()
        since, said = self._idle.setdefault(stage, (now, -inf))
        if now - since < PATIENCE or now - said < AGAIN:
            return ""
        self._idle[stage] = (since, now)
        what = f"{need.cores} core{'s' * (need.cores > 1)}"
        what += f", {need.gpus} GPU{'s' * (need.gpus > 1)}" if need.gpus else ""
        what += f", {need.gigabytes:.0f} GB" if need.gigabytes >= 1 else ""
        states = "; ".join(f"{machine.name} {self._state(machine, need)}" for machine in self.machines())
        return f"waits for another machine with {what}: {states or 'none is in the cluster now'}"

    def _state(self, machine: Machine, need: Need) -> str:
        if machine.id in self.left_out:
            return "is not used any more in this run"
        if not machine.has_room([need]):
            return "has less than that"
        mine = [each[2] for each in self._started if each[0] == machine.id and each[2].relay.is_alive()]
        if any(process.is_carrying for process in mine):
            return "is being brought what it reads"
        return f"has no room now ({len(mine)} of this run's workers there, begun or waiting)"

    def check(self) -> None:
        """Look at every machine before anything is built.

        Raises:
            UserError: where one runs other code, or none is there.
        """
        if not self.machines():
            raise UserError(
                f"runtime.cluster=ray, and no machine but this one is in the cluster at {self.address}\n"
                "  on each of the others: ray start --address=HOST:PORT; or take runtime.cluster=none"
            )
        mine = code_here()
        looking = {machine: self._on(machine.id, code_here) for machine in self.machines()}
        for machine, answer in looking.items():
            self._refuse(machine, answer, mine)

    def _refuse(self, machine: Machine, answer: Any, mine: list[str]) -> None:
        try:
            code = self.ray.get(answer, timeout=READY)
        except Exception as error:  # speed cannot be imported there, or the machine does not answer
            raise UserError(
                f"the machine {machine.name} of runtime.cluster=ray cannot start a worker: {told(error)}\n"
                "  install speed there as here (the same Python and commit), or take the machine out: ray stop"
            ) from error
        if code != mine:
            there = ", ".join(part for part in code if part not in mine)
            here = ", ".join(part for part in mine if part not in code)
            raise UserError(
                f"the machine {machine.name} of runtime.cluster=ray runs other code: {there}, and this one {here}\n"
                "  install the same there, or take the machine out: ray stop"
            )

    def start(
        self,
        target: Callable[..., None],
        args: tuple[Any, ...],
        machine: Machine,
        need: Need,
        errand: Errand | None = None,
    ) -> tuple[RemoteProcess, Line]:
        """(process, this end of its pipe) of a process over there, once Ray has room for it.

        Args:
            target: called with `args` and the other end of the pipe; a function of a module.
            errand: for a process that needs the store, and takes other `args` where its machine does not see it.
        """
        environment = passed_on(os.environ)
        if not need.gpus:
            environment[VISIBLE] = ""
        options = {
            "num_cpus": need.cores,
            "num_gpus": need.gpus,
            "memory": int(need.gigabytes * GIGABYTE) or None,
            "max_concurrency": 2,  # it hears while it says
            "scheduling_strategy": self._strategy(machine.id),
        }
        code = None if machine.id in self.first else code_here()
        depot = errand.depot if errand is not None else "none"
        actor = self.ray.remote(Stand).options(**options).remote(os.getcwd(), environment, code, depot)
        here, there = multiprocessing.Pipe(duplex=False)
        process = RemoteProcess(actor, there, machine.name, Work(target, args, errand))
        self._started.append((machine.id, need, process))
        if errand is not None:
            self._sent.append((machine.id, process, errand))
        return process, Line(actor, here)

    def close(self) -> None:
        """Leave the cluster, and remove what was carried to its machines as far as they answer, but not what could not
        be carried back."""
        self._closed.set()
        self._clear()
        self.ray.shutdown()

    def _clear(self) -> None:
        there = {machine.id for machine in self.machines()}
        depots = {
            (machine, errand.depot)
            for machine, process, errand in self._sent
            if machine in there and process.has_depot and not errand.keeps
        }
        self._sent = []
        if depots and self.answers():
            with suppress(Exception):  # of Ray; a later run of the same store finds what is left, and removes it
                asked = [self._on(machine, clear, name) for machine, name in depots]
                self.ray.wait(asked, num_returns=len(asked), timeout=CLEARED)

    def _on(self, machine: str, function: Callable[..., Any], *args: Any) -> Any:
        options = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": self._strategy(machine)}
        return self.ray.remote(function).options(**options).remote(*args)

    def _strategy(self, machine: str) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return NodeAffinitySchedulingStrategy(machine, soft=False)


def check_ray(address: str) -> None:
    """Refuse a cluster that cannot be had.

    Raises:
        UserError: with the remedy.
    """
    if find_spec("ray") is None:
        raise UserError(
            'runtime.cluster=ray needs Ray, which is not installed\n  pip install -e ".[ray]" on all machines, or take '
            "runtime.cluster=none"
        )
    host, _, port = address.rpartition(":")
    if address == "auto":
        return
    if not host or not port.isdecimal():
        raise UserError(
            f"runtime.address={address} is not the address of a Ray cluster\n"
            "  take HOST:PORT as `ray start --head` printed it, or auto for the one that this machine is in"
        )
    try:
        socket.create_connection((host, int(port)), SECONDS).close()
    except OSError as error:
        raise unreachable(address, error) from error


def unreachable(address: str, error: Exception) -> UserError:
    """The refusal of a cluster that does not answer, or that this machine is not in."""
    return UserError(
        f"runtime.cluster=ray: no Ray cluster answers at runtime.address={address} ({told(error)})\n"
        "  start one (ray start --head) and join it on this machine too (ray start --address=HOST:PORT), or take "
        "runtime.cluster=none"
    )


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray takes SIGTERM for itself when it connects; the run answers it."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)
