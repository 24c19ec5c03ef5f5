"""Blobs as files under a directory of a POSIX filesystem.

::

    <root>/REPO_ID              whose store this is
    <root>/incoming/<key>       blobs in the making
    <root>/data/xx/<key>        committed blobs; xx is how the key begins
    <root>/quarantine/<key>     blobs that no record knew

All that may block is done by the process of
:mod:`repoman.storage.flush_process`; here remain writes into the page cache
and reads from it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from fcntl import LOCK_EX, LOCK_NB, flock
from functools import partial
from pathlib import Path
from string import hexdigits
from typing import Any

from twisted.internet.task import deferLater

from repoman.errors import NoRoom, StoreUnavailable
from repoman.interfaces import Room
from repoman.storage.flusher import Flusher, IReactor
from repoman.storage.operations import Layout
from repoman.storage.reader import DirectoryReader, cannot_open, cannot_read, damaged
from repoman.storage.writer import DirectoryWriter, Unflushed, cannot_write

UNFLUSHED = 512 << 20
"""How many bytes of all uploads together may be written but not yet durable."""

UNFLUSHED_EACH = 128 << 20
"""How many of them one upload may have."""

HOLD_ATTEMPTS, HOLD_PAUSE = 40, 0.05
"""How often, and how many seconds apart, a store is tried that another daemon may be leaving."""


class DirectoryStore:
    """A blob store in a directory; see :class:`repoman.interfaces.IBlobStore`.

    :param repository_id: what ``REPO_ID`` must say.
    :ivar reserve: given the filesystem's size in bytes, answers how many of
        them are never used.
    :param may_create: an empty root becomes a new store.  Say no when the
        database knows of blobs: then an empty root is a missing mount.
    """

    algorithms: Sequence[str] = ("sha256",)
    grace = 0.0  # who reads keeps the file

    def __init__(
        self,
        reactor: IReactor,
        root: Path,
        *,
        repository_id: str,
        reserve: Callable[[int], int] = lambda total: 0,
        may_create: bool = True,
    ) -> None:
        self._reactor = reactor
        self._at = Layout(os.fspath(root))
        self._repository_id = repository_id
        self.reserve = reserve
        self._may_create = may_create
        self._flusher = Flusher(reactor, self._at.root)
        self._unflushed = Unflushed(UNFLUSHED, UNFLUSHED_EACH)
        self._lock = -1

    async def start(self) -> None:
        """Make ready; lay out an empty root.

        :raises StoreUnavailable: the root is another repository's, not
            mounted, or unusable.
        """
        self._flusher.start()
        try:
            wrong = await self._flusher.ask("prepare", self._repository_id, self._may_create)
        except OSError as error:
            wrong = (
                f"The blob store {self._at.root} cannot be used: {error.strerror}: mend that, "
                "or name another place in [storage] directory."
            )
        except StoreUnavailable as error:
            wrong = error.message
        if wrong:
            await self._flusher.stop()
            raise StoreUnavailable(wrong)

    async def hold(self) -> None:
        """Keep other daemons off this store: two could write into one unfinished upload.

        :raises StoreUnavailable: another daemon has it.
        """
        # Not in the helper process: that outlives a killed daemon by a moment, and may be replaced.
        self._lock = os.open(self._at.id, os.O_RDWR | os.O_CLOEXEC)
        for _ in range(HOLD_ATTEMPTS):
            try:
                flock(self._lock, LOCK_EX | LOCK_NB)
            except BlockingIOError:
                await deferLater(self._reactor, HOLD_PAUSE)
            except OSError as error:
                raise StoreUnavailable(
                    f"The blob store {self._at.root} cannot be locked: {error.strerror}."
                ) from None
            else:
                return
        raise StoreUnavailable(
            f"The blob store {self._at.root} is in use by another daemon: stop that one first."
        )

    async def stop(self) -> None:
        """End the helper process."""
        await self._flusher.stop()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def link(self, key: str, seconds: int, name: str) -> str | None:
        """There is none: the bytes come through us."""
        return None

    def room(self) -> Room:
        """The room left above the reserve."""
        found = os.statvfs(self._at.root)
        total = found.f_blocks * found.f_frsize
        left = found.f_bavail * found.f_frsize - self.reserve(total)
        return Room(max(0, left), total)

    async def create(self, key: str, size: int | None) -> DirectoryWriter:
        """Begin a blob; see :class:`IBlobStore`."""
        self._check_room(1 if size is None else size)
        try:
            await self._flusher.ask("create", key)
            return self._writer(key, self._locked(key), 0)
        except OSError as error:
            raise cannot_write(error) from None

    async def reopen(self, key: str, offset: int, size: int | None) -> DirectoryWriter:
        """Go on with a blob; see :class:`IBlobStore`."""
        self._check_room(1 if size is None else size - offset)
        try:
            await self._flusher.ask("reopen", key, offset)
            file = self._locked(key)
            try:
                await self._flusher.ask("cut", key, offset)
            except BaseException:
                os.close(file)
                raise
            return self._writer(key, file, offset)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENODATA):
                raise damaged(key, error.strerror) from None
            raise cannot_write(error) from None

    def _locked(self, key: str) -> int:
        file = os.open(self._at.arriving(key), os.O_WRONLY)
        try:
            # Another process of this machine that has lost the upload, and does not know it yet.
            flock(file, LOCK_EX | LOCK_NB)
        except OSError:
            os.close(file)
            raise StoreUnavailable(
                "The upload still goes on through another process; try again in a moment."
            ) from None
        return file

    def _writer(self, key: str, file: int, offset: int) -> DirectoryWriter:
        check = partial(self._check_room, 1)
        return DirectoryWriter(self._flusher, key, file, self._unflushed, check, offset)

    async def open(self, key: str, size: int) -> DirectoryReader:
        """Open a committed blob; see :class:`IBlobStore`."""
        try:
            # The helper process looks first: it brings the name into the
            # cache, where open() then does not wait for a disk.
            found = await self._flusher.ask("size", key)
            file = os.open(self._at.committed(key), os.O_RDONLY)
        except OSError as error:
            raise cannot_open(key, error) from None
        if found != size:
            os.close(file)
            raise damaged(key, f"{found} bytes instead of {size}")
        return DirectoryReader(self._reactor, self._flusher, key, file, size)

    async def delete(self, key: str) -> None:
        """Remove a blob, committed or not."""
        await self._have_done("delete", key)

    async def quarantine(self, key: str) -> None:
        """Move a blob into ``quarantine``."""
        await self._have_done("quarantine", key)

    async def keys(self) -> AsyncIterator[tuple[str, bool]]:
        """Every key, and whether it is committed."""
        for key in await self._have_done("arriving"):
            yield key, False
        for digit in hexdigits[:16]:
            for key in await self._have_done("committed", digit):
                yield key, True

    async def digests(self, key: str, *names: str, rate: int | None = None) -> Mapping[str, str]:
        """Read a committed blob from end to end; answer its digests in hex.

        :param names: ``sha256``, ``sha512``, ``md5``, ``adler32``.
        :param rate: at most so many bytes per second.
        :raises BlobDamaged: it cannot be read.
        """
        try:
            found: Mapping[str, str] = await self._flusher.ask("digest", key, names, rate)
        except OSError as error:
            raise cannot_read(key, error) from None
        return found

    async def _have_done(self, operation: str, *arguments: Any) -> Any:
        try:
            return await self._flusher.ask(operation, *arguments)
        except OSError as error:
            raise cannot_write(error) from None

    def _check_room(self, wanted: int) -> None:
        free = self.room().free
        if wanted > free:
            raise NoRoom(f"The store is full: {wanted} bytes asked for, {free} left.")
