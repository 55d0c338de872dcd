"""The two kinds of trouble that are not bugs: a user's mistake, and damage on the disk."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path


class UserError(Exception):
    """A mistake that the reader can mend; shown without a traceback.

    The message names the key or file, the value, and what to do.
    """


class Later(UserError):
    """What a stage needs is under way elsewhere, and the same command takes it when it is there. Whatever does not
    stand on this stage goes on."""


class SeveralMistakes(UserError):
    """What several checks have found, to be told one by one."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = tuple(mistakes)


class StoreError(UserError):
    """The store, or the disk under it, cannot be used."""


class CorruptArtifact(Exception):
    """A file of the store no longer has the sha256 that was recorded when it was built."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path
        self.why = why


def mistakes_of(checks: Iterable[Callable[[], object]]) -> list[str]:
    """Make all checks; what they refuse, each once."""
    found: list[str] = []
    for check in checks:
        try:
            check()
        except SeveralMistakes as several:
            found += several.mistakes
        except UserError as mistake:
            found.append(str(mistake))
    return list(dict.fromkeys(found))


def refuse_for(mistakes: Sequence[str]) -> None:
    """Refuse for all of some mistakes, if there are any.

    Raises:
        UserError: with the one, or all.
    """
    if len(mistakes) == 1:
        raise UserError(mistakes[0])
    if mistakes:
        raise SeveralMistakes(mistakes)


def explained(error: OSError, doing: str, where: Path | None = None) -> StoreError | None:
    """The reader's version of an operating-system error, or None when it is not about disk or permission.

    Args:
        where: what is being written to, as far as is known; for errors that name no file.
    """
    name = f": {named}" if (named := error.filename or where) else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = "free some space (or take another disk) and run the same command again; nothing built is lost"
        return StoreError(f"the disk is full while {doing}{name}\n  {remedy}")
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return StoreError(
            f"no permission to write while {doing}{name}\n  make the folder writable, or take one that is"
        )
    return None
