"""Servers that the processes of goals are forked from. Each imports heavy packages once, for all goals that share them.

Goals that share no package have servers of their own, so that the first call of a teacher waits for no torch, and a run
that is only asking imports none. A server starts with the first goal that it is for.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Collection, Sequence
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerProcess
from typing import Any


def server_imports(needs: Sequence[Collection[str]]) -> list[tuple[frozenset[str], list[str]]]:
    """For each server, all packages of its goals, and those that it imports itself.

    A package that one process alone needs is imported there: no other goal waits for it.

    Args:
        needs: the packages of each process that will be started.
    """
    groups: list[frozenset[str]] = []
    for packages in filter(None, map(frozenset, needs)):
        joined = [group for group in groups if group & packages]
        groups = [group for group in groups if not group & packages] + [packages.union(*joined)]
    uses = Counter(package for packages in needs for package in packages)
    return [(group, sorted(package for package in group if uses[package] > 1)) for group in groups]


class ForkServers:
    """The servers of a run."""

    def __init__(self, needs: Sequence[Collection[str]], preload: Sequence[str]) -> None:
        """Start nothing yet.

        Args:
            needs: the heavy packages of each process that will be started.
            preload: what all of them need besides.
        """
        unforeseen: tuple[frozenset[str], list[str]] = (frozenset(), [])  # as where a damaged artifact is built again
        self._servers: list[tuple[frozenset[str], Any]] = []  # `Any`: only private names tell of a server's process
        for group, imports in [*server_imports(needs), unforeseen]:
            server = forkserver.ForkServer()
            server.set_forkserver_preload(["speed.core.forked", *preload, *imports])
            self._servers.append((group, server))

    def start(self, process: ForkServerProcess, packages: Collection[str]) -> None:
        """Start a process that needs some of the packages. While its server imports, Ctrl-C is not for it to answer."""
        method = multiprocessing.get_start_method(allow_none=True)
        if method not in (None, *multiprocessing.get_all_start_methods()):
            # under joblib's launcher it is loky's, which the process that starts knows nothing of
            multiprocessing.set_start_method("spawn", force=True)
        server = next(server for group, server in self._servers if not group or not group.isdisjoint(packages))
        resource_tracker.ensure_running()  # it lets Ctrl-C through again when it has started
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            server.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        forkserver.connect_to_new_process = server.connect_to_new_process  # which `start` calls by this name
        process.start()

    def close(self) -> None:
        """End the servers, whose processes have ended. Left alone they would outlive the run by the seconds that Python
        takes to unload such packages, with files of the run open."""
        for _, server in self._servers:
            if server._forkserver_pid is not None:
                os.kill(server._forkserver_pid, signal.SIGKILL)
                server._stop()
