"""Systems that a run cannot work on, told before anything is imported that is not there."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from speed.core.errors import UserError


def check_platform() -> None:
    """Refuse a system without file locks and fork servers, which keep two runs of one root apart and start stages.

    Raises:
        UserError: with the way to run there all the same.
    """
    if sys.platform == "win32" or find_spec("fcntl") is None:
        raise UserError(
            f"this system ({sys.platform}) has no file locks (flock) and no fork servers, which a run needs\n"
            "  on Windows, run it in WSL 2 (wsl --install), where it is Linux"
        )
