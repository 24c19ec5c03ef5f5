"""Files that one process has at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path


def open_locked(path: Path, mode: int) -> int:
    """Open or create a file, and lock it until it is closed.

    :param mode: the permissions of a new one.
    :raises BlockingIOError: another process has it.
    :raises PermissionError: it is there, and not ours alone.
    :raises OSError: there is no way to write there.
    """
    while True:
        file, is_new = _open(path, mode)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _has_name(file, path):
                if not is_new:
                    _check_owner(file, path)
                return file
        except OSError:
            os.close(file)
            raise
        # Between our two calls, who had it renamed or removed it, and let go.
        os.close(file)


def _open(path: Path, mode: int) -> tuple[int, bool]:
    """The file, and whether it is new."""
    # O_NOFOLLOW: in /tmp, somebody else may have put a link of this name there.
    how = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK
    while True:
        with suppress(FileExistsError):
            return os.open(path, how | os.O_CREAT | os.O_EXCL, mode), True
        with suppress(FileNotFoundError):  # gone again
            return os.open(path, how), False


def _check_owner(file: int, path: Path) -> None:
    """Take up no file that somebody else has laid there, under this name or another."""
    found = os.fstat(file)
    if not (stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and found.st_nlink == 1):
        raise PermissionError(
            errno.EPERM, "Not a file that is yours alone: remove it, or choose another place",
            str(path),
        )  # fmt: skip


def _has_name(file: int, path: Path) -> bool:
    try:
        named = path.lstat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(file), named)
