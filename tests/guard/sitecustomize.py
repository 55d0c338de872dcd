"""Put on PYTHONPATH, this keeps a process and all its children away from every network but the loopback.

Each attempt fails, and is written into the file that NETWORK_LOG names.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys


def _near(host: object) -> bool:
    """Whether an address is this machine's own."""
    name = host.decode() if isinstance(host, bytes) else host
    if name in (None, "", "localhost", socket.gethostname()):
        return True
    try:
        return ipaddress.ip_address(str(name)).is_loopback
    except ValueError:
        return False


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None  # others are sockets in the file system
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        host = arguments[0]
    else:
        return
    if not _near(host):
        with open(os.environ["NETWORK_LOG"], "a", encoding="utf-8") as log:
            log.write(f"{event} {host!r} by {sys.argv}\n")
        raise ConnectionRefusedError(f"the network is out of bounds: {event} {host!r}")


if "NETWORK_LOG" in os.environ:
    sys.addaudithook(_hook)
