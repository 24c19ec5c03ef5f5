"""Local files that get their names when they are whole: atomic replacement, and locks.

One process has each file that is written, and what takes the final name is that very file.

The name of an unfinished file is no other file's: it holds an ``@``, which
no name in a repository has.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from repoman.errors import Conflict


@contextmanager
def atomic_file(target: Path, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A new file, which takes the name ``target`` when all is written and nothing was raised.

    :param mode: its permissions, less those that the umask takes away.
    :raises Conflict: somebody moved or removed it meanwhile.
    :raises OSError: it cannot be written.
    """
    path = target.with_name(f"{target.name[:100]}@{secrets.token_hex(8)}")
    # Through no link, and over nobody's file.
    with open(path, "xb", opener=lambda path, flags: os.open(path, flags, mode)) as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            take_name(file.fileno(), path, target)
            sync_directory(target.parent)
        except BaseException:
            if has_name(file.fileno(), path):
                path.unlink()
            raise


@contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """Wait for whoever else is in this block with the same directory.

    Where the file system has no locks, nobody waits.

    :raises OSError: there is no such directory, or it cannot be read.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def locked_anew(path: Path) -> Iterator[int]:
    """An empty file for its owner alone, locked; what a killed process left under its name goes.

    It is removed if something is raised, unless it has got another name.

    :raises Conflict: another process has it.
    :raises PermissionError: something else is there.
    """
    try:
        file = open_locked(path, 0o600)
    except BlockingIOError as error:
        raise Conflict(f"Another process writes {path}: wait for its end.") from error
    try:
        os.fchmod(file, 0o600)
        os.truncate(file, 0)
        yield file
    except BaseException:
        if has_name(file, path):
            path.unlink()
        raise
    finally:
        os.close(file)


def open_locked(path: Path, mode: int) -> int:
    """Open or create a file, and lock it until it is closed.

    :param mode: the permissions of a new one.
    :raises BlockingIOError: another process has it.
    :raises PermissionError: it is there, and not ours alone.
    :raises OSError: there is no way to write there.
    """
    # O_NOFOLLOW: in /tmp, somebody else may have put a link of this name there.
    how = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK
    while True:
        with suppress(FileExistsError):
            file = os.open(path, how | os.O_CREAT | os.O_EXCL, mode)
            if _is_locked(file, path, is_new=True):
                return file
        with suppress(FileNotFoundError):  # gone again
            return lock_existing(path)


def lock_existing(path: Path) -> int:
    """Open a file that is there, and lock it until it is closed; it is never created.

    :raises BlockingIOError: another process has it.
    :raises FileNotFoundError: it is not there.
    :raises PermissionError: it is not ours alone.
    :raises OSError: it cannot be written, or nobody can tell whether another process has it.
    """
    while True:
        file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            _check_owner(file, path)
        except OSError:
            os.close(file)
            raise
        if _is_locked(file, path):
            return file


def _is_locked(file: int, path: Path, *, is_new: bool = False) -> bool:
    """Lock it; closed, and false, if its name was taken away between our opening and our lock.

    :param is_new: we have made it: where a file system has no locks (Lustre's default), the
        others find it, and do not take it up.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        raise
    except OSError as error:
        if not is_new:
            os.close(file)
            raise OSError(
                error.errno, f"It cannot be locked ({error.strerror}), which would tell whether"
                " another process is writing it: remove it if none is", str(path),
            ) from error  # fmt: skip
    found = has_name(file, path)
    if not found:
        os.close(file)
    return found


def take_name(file: int, path: Path, target: Path) -> None:
    """Give a file its final name.

    :param file: open, and its bytes are on the disk.
    :param path: the name that it has.
    :raises Conflict: another file has one of the names.
    :raises OSError: what is at ``target`` cannot be replaced.
    """
    if not has_name(file, path):
        raise Conflict(
            f"{path} was moved, removed or replaced while it was being written: do it again."
        )
    try:
        os.replace(path, target)
    except OSError as error:
        # As a mount point, or another account's file in a directory like /tmp.
        raise OSError(
            error.errno, f"{error.strerror}: {path.name} cannot take its place", str(target)
        ) from error
    if not has_name(file, target):
        raise Conflict(f"Somebody else put another file at {target} at the same moment.")


def sync_directory(directory: Path) -> None:
    """Let the names in a directory survive a power cut once this returns."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def has_name(file: int, path: Path) -> bool:
    """Whether an open file is what is found at ``path``."""
    try:
        named = path.lstat()
    except OSError:
        return False
    return os.path.samestat(os.fstat(file), named)


def _check_owner(file: int, path: Path) -> None:
    """Take up no file that somebody else has laid there, under this name or another."""
    found = os.fstat(file)
    if not (stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and found.st_nlink == 1):
        raise PermissionError(
            errno.EPERM, "Not a file that is yours alone: remove it, or choose another place",
            str(path),
        )  # fmt: skip
