"""Files that one process has at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def open_locked(path: Path, mode: int) -> int:
    """Open or create a file, and lock it until it is closed.

    :param mode: the permissions of a new one.
    :raises BlockingIOError: another process has it.
    :raises OSError: there is no way to write there.
    """
    while True:
        # O_NOFOLLOW: in /tmp, somebody else may have put a link of this name there.
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, mode)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _has_name(file, path):
                return file
        except OSError:
            os.close(file)
            raise
        # Between our two calls, who had it renamed or removed it, and let go.
        os.close(file)


def _has_name(file: int, path: Path) -> bool:
    try:
        named = path.lstat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(file), named)
