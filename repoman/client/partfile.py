"""A file on its way in: called otherwise until every byte is there and verified."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from twisted.internet.defer import Deferred

from repoman.atomic_files import has_name, open_locked, sync_directory, take_name
from repoman.client.part_names import forget_old, is_part, is_running, others, part_of
from repoman.client.shared import followed
from repoman.errors import Conflict, DigestMismatch, Invalid, NoRoom
from repoman.holes import dense

SLICE = 2**20
"""How many bytes are hashed in one go when a partial file is taken up again."""


class Touched(Conflict):
    """Somebody else has written to what came, or the file system says so: read it again."""


class ISink(Protocol):
    """Where a download goes.

    :ivar size: how many bytes are there.
    """

    size: int

    def begin(self, sha256: str, size: int, room: int = 0) -> None:
        """Say which bytes are coming: before the first, and before each new attempt.

        :param sha256: that all of them have (hex).
        :param size: how many they are, with those that are there.
        :param room: how many take room on a disk, where zeros are holes; 0 if nobody knows.
        :raises BadReply: others are there, where nobody can take them back.
        :raises RepomanError: they cannot be taken.
        :raises OSError: there is no way to write them.
        """

    def hash_what_is_there(self) -> Iterator[None]:
        """Take the bytes of an earlier run into the digest, a slice per step."""

    def restart(self) -> None:
        """Forget all bytes.

        :raises BadReply: they are gone where nobody can take them back.
        """

    def write(self, data: bytes) -> Deferred[None] | None:
        """Append some bytes; what it answers fires when it takes more."""

    def finish(self) -> None:
        """All bytes are there.

        :raises DigestMismatch: they are not those that were to come.
        :raises Touched: they are to be digested again.
        """

    def close(self) -> None:
        """Let go, finished or not."""


class PartFile:
    """The bytes that have come, with their running SHA-256.

    Runs of zeros become holes.  Whatever happens, :meth:`close` leaves a file
    from which the next run can go on, if it is for the same bytes.

    :ivar size: how many bytes are there.
    """

    def __init__(self, target: Path) -> None:
        """Look whether ``target`` can be written.

        :param target: of a link, what it leads to is meant, and the link stays.
        :raises Invalid: there is a device, a pipe or a directory, or only an
            unfinished download can be called so.
        :raises PermissionError: a link to it is of somebody else who can leave things there,
            see :mod:`repoman.client.shared`; or what is there is not ours to replace.
        :raises OSError: there is no such directory.
        """
        self.target = _followed(target)
        self.target.parent.stat()
        if is_part(self.target.name):
            raise Invalid(f"{target} is a name of unfinished downloads: choose another.")
        _check_replaceable(self.target)
        self.size = self._hashed = 0
        self._hash = hashlib.sha256()
        self._sha256 = ""
        self._file = -1
        self._named = False
        self._stamp = (0, 0, 0)
        self._replaced: tuple[int, ...] | None = None

    def begin(self, sha256: str, size: int, room: int = 0) -> None:
        """Open or create the file of these bytes; see :mod:`repoman.client.part_names`.

        :raises Conflict: another process is fetching to the same target.
        :raises NoRoom: they do not fit.
        :raises PermissionError: it is of somebody else who can leave things there.
        :raises OSError: there is no way to write there.
        """
        if sha256 == self._sha256:
            return
        if self._file >= 0:  # the image was replaced: nobody will ask for these any more
            self.size = 0
            self.close()
        self._open(sha256)
        if self.size > size:
            self.restart()
        if any(is_running(other) for other in others(self.target, self._path)):
            raise self._is_taken()
        if self._replaced is None:
            self._replaced = _seen(self.target)
        _check_room(self._file, self.target, min(size, room or size))

    def _open(self, sha256: str) -> None:
        self._path = part_of(self.target, sha256)
        try:
            self._file = open_locked(self._path, 0o666)
        except BlockingIOError as error:
            raise self._is_taken() from error
        self._sha256 = sha256
        self.size, self._hashed, self._hash = os.fstat(self._file).st_size, 0, hashlib.sha256()
        self._stamp = _stamp(self._file)

    def _is_taken(self) -> Conflict:
        return Conflict(f"Another download to {self.target} is running.")

    def hash_what_is_there(self) -> Iterator[None]:
        """Take the bytes into the digest that are not in it yet, a slice per step."""
        while self._hashed < self.size:
            data = os.pread(self._file, min(SLICE, self.size - self._hashed), self._hashed)
            if not data:
                self.size = self._hashed
                return
            self._hash.update(data)
            self._hashed += len(data)
            yield

    def restart(self) -> None:
        """Forget all bytes.

        :raises Conflict: somebody moved, removed or replaced the file.
        """
        self._look()
        os.ftruncate(self._file, 0)
        self.size = self._hashed = 0
        self._hash = hashlib.sha256()
        self._stamp = _stamp(self._file)

    def write(self, data: bytes) -> None:
        """Append some bytes.

        :raises NoRoom: the disk is full, or the quota.
        :raises Conflict: somebody moved, removed or replaced the file.
        """
        self._look()
        with self._in_words("goes on from there"):
            for offset, parts in dense([data], self.size):
                self._put(memoryview(parts[0]), offset)
        if self._hashed == self.size:
            self._hash.update(data)
            self._hashed += len(data)
        self.size += len(data)
        self._stamp = _stamp(self._file)

    @contextmanager
    def _in_words(self, then: str) -> Iterator[None]:
        """Around what may fill the disk.

        :param then: what the same command does with what came.
        """
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise OSError(error.errno, error.strerror, str(self.target)) from error
            raise NoRoom(
                f"There is no more room for {self.target}: make some, and the same command {then}."
            ) from error

    def _put(self, view: memoryview[int], at: int) -> None:
        while view:
            written = os.pwrite(self._file, view, at)
            view, at = view[written:], at + written

    def _look(self) -> None:
        """Take no bytes for those that came if somebody else may have written them.

        What they are is found out by reading them again.

        :raises Conflict: the file has no longer its name.
        """
        if _stamp(self._file) == self._stamp:
            return
        if not has_name(self._file, self._path):
            raise Conflict(
                f"{self._path} was moved, removed or replaced while it was being written: fetch"
                " it again."
            )
        self._hash, self._hashed = hashlib.sha256(), 0
        os.ftruncate(self._file, self.size)
        self._stamp = _stamp(self._file)

    def finish(self) -> None:
        """Give the file its name, if its bytes are those that were to come.

        It survives a power cut once this returns.

        :raises DigestMismatch: they are not; the bytes are thrown away.
        :raises NoRoom: the disk was full before all of them were on it.
        :raises Touched: somebody has touched it since they were digested.
        :raises Conflict: it has no longer its name, or the target is not what it was.
        """
        self._check_digested()
        digest = self._hash.hexdigest()
        if digest != self._sha256:
            self.restart()
            raise DigestMismatch(
                f"The bytes that came have the SHA-256 {digest}, the image has {self._sha256}; "
                "they are thrown away."
            )
        os.ftruncate(self._file, self.size)
        self._stamp = _stamp(self._file)
        self._sync()
        self._check_digested()
        if (found := _seen(self.target)) and found != self._replaced:
            raise Conflict(
                f"{self.target} was written or replaced while this download ran; what came is"
                " kept, and the same command gives it that name."
            )
        take_name(self._file, self._path, self.target)
        sync_directory(self.target.parent)
        self._named = True
        for other in others(self.target, self._path):
            forget_old(other)

    def _sync(self) -> None:
        """Let all bytes survive a power cut; what is not sure to is thrown away.

        What could not be written counts as written from then on (fsync(2)): the next run
        would read it from memory, find it right, and be told that it is on the disk.
        """
        try:
            with self._in_words("fetches it anew"):
                os.fsync(self._file)
        except (OSError, NoRoom):
            self.restart()
            raise

    def _check_digested(self) -> None:
        self._look()
        if self._hashed != self.size:
            raise Touched(
                f"Somebody else has written to {self._path}: run the same command, which looks"
                " what is in it."
            )

    def close(self) -> None:
        """Let go of the file; what came, if anything, stays for the next run."""
        if self._file < 0:
            return
        # If somebody moved it, it is theirs.
        if not self._named and has_name(self._file, self._path):
            # A hole at the end has not made the file longer yet.
            os.ftruncate(self._file, self.size)
            if self.size == 0:
                self._path.unlink()
        os.close(self._file)
        self._file = -1


def _stamp(file: int) -> tuple[int, int, int]:
    """What changes whenever somebody writes, moves or links a file."""
    found = os.fstat(file)
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _seen(target: Path) -> tuple[int, ...]:
    """What changes whenever somebody writes or replaces what a name leads to; empty: nothing."""
    with suppress(FileNotFoundError):
        found = target.lstat()
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
    return ()


def _check_room(file: int, target: Path, needed: int) -> None:
    """Refuse at once what would fill the disk.

    :raises NoRoom: ``needed`` bytes do not fit, with what is there.
    """
    disk, there = os.fstatvfs(file), os.fstat(file).st_blocks * 512
    if not disk.f_blocks:  # as ramfs, and what FUSE mounts: it does not say
        return
    # Root may use what is kept from others.
    free = (disk.f_bavail if os.geteuid() else disk.f_bfree) * disk.f_frsize
    if needed > free + there:
        raise NoRoom(
            f"{target} takes {needed} bytes, and there is room for {free + there}: make some, or"
            " choose another place with --dest, which is - to pass them on."
        )


def _check_replaceable(target: Path) -> None:
    """Refuse now what would be refused when all bytes have come.

    :raises PermissionError: somebody else's file, in a directory with the sticky bit.
    """
    with suppress(FileNotFoundError):
        around = target.parent.stat()
        may = {0, target.lstat().st_uid, around.st_uid}
        if around.st_mode & stat.S_ISVTX and os.geteuid() not in may:
            raise PermissionError(
                errno.EPERM, "Somebody else's, who alone may replace it there: choose another name",
                str(target),
            )  # fmt: skip


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
        if not place.exists() or not place.samefile(target):
            raise Invalid(f"{target} is a file that was removed: it has no name to replace.")
    return place if target.is_symlink() else target
