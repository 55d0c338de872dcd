"""How a command ends: with one message for a mistake or a full disk, and with none where its reader is gone."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from speed.core.errors import UserError, explained
from speed.core.escape import escape
from speed.runtime import message_of


@contextmanager
def one_message(doing: str) -> Iterator[None]:
    """End the process with status 1 and one message on stderr where its body meets a mistake or a disk that fails.

    Args:
        doing: what the command does, for errors of the disk ("the disk is full while ...").
    """
    try:
        yield
        sys.stdout.flush()
    except UserError as error:
        _stop(error)
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        known = explained(error, doing)
        if known is None:
            raise
        _stop(known)


def _stop(error: UserError) -> NoReturn:
    print(escape(message_of(error)), file=sys.stderr)
    sys.exit(1)
