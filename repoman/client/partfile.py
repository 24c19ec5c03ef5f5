"""A file on its way in: ``NAME.part`` until every byte is there and verified."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from twisted.internet.defer import Deferred

from repoman.client.locked import open_locked
from repoman.client.shared import followed
from repoman.errors import Conflict, DigestMismatch, Invalid, NoRoom
from repoman.holes import dense

SLICE = 2**20
"""How many bytes are hashed in one go when a partial file is taken up again."""


class ISink(Protocol):
    """Where a download goes.

    :ivar size: how many bytes are there.
    """

    size: int

    def modified(self) -> float:
        """When the last byte was written, in seconds since 1970."""

    def hash_what_is_there(self) -> Iterator[None]:
        """Take the bytes of an earlier run into the digest, a slice per step."""

    def restart(self) -> None:
        """Forget all bytes.

        :raises BadReply: they are gone where nobody can take them back.
        """

    def write(self, data: bytes) -> Deferred[None] | None:
        """Append some bytes; what it answers fires when it takes more."""

    def finish(self, sha256: str) -> None:
        """All bytes are there.

        :param sha256: that they must have (hex).
        :raises DigestMismatch: they have another.
        """

    def close(self) -> None:
        """Let go, finished or not."""


class PartFile:
    """The bytes that have come, with their running SHA-256.

    Runs of zeros become holes.  Whatever happens, :meth:`close` leaves a file
    from which the next run can go on.

    :ivar size: how many bytes are there.
    """

    def __init__(self, target: Path) -> None:
        """Open or create ``target`` with ``.part`` behind its name.

        :param target: of a link, what it leads to is meant, and the link stays.
        :raises Invalid: there is a device, a pipe or a directory.
        :raises Conflict: another process is writing it.
        :raises PermissionError: it, or a link to it, is of somebody else who can leave things
            there; see :mod:`repoman.client.shared`.
        :raises OSError: there is no way to write there.
        """
        self.target = _followed(target)
        self.path = self.target.with_name(self.target.name + ".part")
        try:
            self._file = open_locked(self.path, 0o666)
        except BlockingIOError as error:
            raise Conflict(f"Another download to {self.path} is running.") from error
        self.size = os.fstat(self._file).st_size
        self._hash = hashlib.sha256()
        self._hashed = 0
        self._named = False

    def modified(self) -> float:
        """When the last byte was written, in seconds since 1970."""
        return os.fstat(self._file).st_mtime

    def hash_what_is_there(self) -> Iterator[None]:
        """Take the bytes of an earlier run into the digest, a slice per step."""
        while self._hashed < self.size:
            data = os.pread(self._file, min(SLICE, self.size - self._hashed), self._hashed)
            if not data:
                self.size = self._hashed
                return
            self._hash.update(data)
            self._hashed += len(data)
            yield

    def restart(self) -> None:
        """Forget all bytes."""
        os.ftruncate(self._file, 0)
        self.size = self._hashed = 0
        self._hash = hashlib.sha256()

    def write(self, data: bytes) -> None:
        """Append some bytes.

        :raises NoRoom: the disk is full, or the quota.
        """
        try:
            for offset, parts in dense([data], self.size):
                self._put(parts[0], offset)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise OSError(error.errno, error.strerror, str(self.path)) from error
            raise NoRoom(
                f"There is no more room for {self.path}: make some, and the same command"
                " goes on from there."
            ) from error
        self._hash.update(data)
        self.size += len(data)
        self._hashed = self.size

    def _put(self, data: bytes | memoryview[int], at: int) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._file, view, at)
            view, at = view[written:], at + written

    def finish(self, sha256: str) -> None:
        """Give the file its name, if its digest is ``sha256`` (hex).

        It survives a power cut once this returns.

        :raises DigestMismatch: it is not; the bytes are thrown away.
        """
        found = self._hash.hexdigest()
        if found != sha256:
            self.restart()
            raise DigestMismatch(
                f"The bytes that came have the SHA-256 {found}, the image has {sha256}; "
                "they are thrown away."
            )
        os.ftruncate(self._file, self.size)
        os.fsync(self._file)
        os.replace(self.path, self.target)
        self._named = True
        directory = os.open(self.target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def close(self) -> None:
        """Let go of the file; what came, if anything, stays for the next run."""
        if self._file < 0:
            return
        # A hole at the end has not made the file longer yet.
        os.ftruncate(self._file, self.size)
        if self.size == 0 and not self._named:
            self.path.unlink(missing_ok=True)
        os.close(self._file)
        self._file = -1


def _followed(target: Path) -> Path:
    """The file, there or not yet, to which a target's links lead."""
    place = followed(target)
    if place.is_symlink():  # as /dev/stdout: one of /proc, whose text is the name of an open file
        place = followed(Path(os.readlink(place)))
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(target.stat().st_mode):
            raise Invalid(
                f"{target} is a device, a pipe or a directory, which no file replaces:"
                " name a file, or open it and fetch into that."
            )
    return place if target.is_symlink() else target
