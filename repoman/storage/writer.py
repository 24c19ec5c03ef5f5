"""A blob on its way into a directory."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from repoman.errors import NoRoom, RepomanError, StoreUnavailable
from repoman.holes import dense
from repoman.storage.flusher import Flusher
from repoman.storage.paced import Paced, lost

GATHERED = 256 * 1024
"""Bytes gathered for one write: TLS brings them 16 KiB at a time."""

_PIECES = 512  # writev takes at most IOV_MAX of them, 1024
_log = Logger()


def cannot_write(error: OSError) -> RepomanError:
    """What the filesystem's error means to who uploads."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return NoRoom("The store is full.")
    _log.error("blob store: {error}", error=error)
    return StoreUnavailable("The blob store cannot write; try again later.")


class Unflushed:
    """How many bytes may be written but not yet durable, shared among the writers.

    Beyond what the kernel lets be dirty, a write would block.

    :param together: of all writers, in bytes.
    :param each: of one, in bytes, however few there are.
    :ivar writers: how many there are.
    """

    def __init__(self, together: int, each: int) -> None:
        self.writers = 0
        self._together = together
        self._each = each

    @property
    def share(self) -> int:
        """What one writer may have now, in bytes."""
        return min(self._each, self._together // max(1, self.writers))


@implementer(IConsumer)
class DirectoryWriter(Paced):
    """See :class:`repoman.interfaces.IBlobWriter`.

    Has its bytes flushed at each quarter of its share of :class:`Unflushed`,
    and pauses its producer at the whole.  Zeros become holes, which are never
    unflushed; those at the end are durable from :meth:`keep` or :meth:`commit`
    on, or from the flush of what follows them.

    :param file: a descriptor of the incoming file; the writer closes it.
    :param check: raises NoRoom; called now and then.
    :param offset: where to begin, and where the file ends; the bytes before are durable.
    :ivar key: of the blob.
    """

    def __init__(
        self,
        flusher: Flusher,
        key: str,
        file: int,
        unflushed: Unflushed,
        check: Callable[[], None],
        offset: int = 0,
    ) -> None:
        super().__init__()
        self.key = key
        self._flusher = flusher
        self._file = file
        self._shared = unflushed
        self._check_room = check
        self._gathered: list[bytes] = []
        self._gathering = 0
        # What came; what the file has of it, but for zeros at the end; what survives a power cut.
        self._written = self._reached = self._durable = offset
        self._put = self._clean = 0  # bytes that are no hole: all, and those that were flushed
        self._flushing: Deferred[None] | None = None
        self._committed = False
        unflushed.writers += 1

    def write(self, data: bytes) -> None:
        """Take some bytes; see :class:`repoman.interfaces.IBlobWriter`."""
        self._check()
        self._gathered.append(data)
        self._gathering += len(data)
        if self._gathering >= GATHERED or len(self._gathered) >= _PIECES:
            self._spill()
            self._pace()

    @property
    def durable(self) -> int:
        """How many bytes survive a power cut by now."""
        return self._durable

    async def keep(self) -> int:
        """Stop for now; see :class:`repoman.interfaces.IBlobWriter`."""
        await self._end_with("keep")
        self._durable = self._written
        return self._durable

    async def commit(self) -> str:
        """Make bytes and name durable; see :class:`repoman.interfaces.IBlobWriter`."""
        stamp = await self._end_with("commit")
        self._committed = True
        return str(stamp)

    async def _end_with(self, operation: str) -> Any:
        try:
            if self._broken is None:
                self._spill()
            # After the flush, never beside it: an error is reported once, and
            # must not go to the one while the other succeeds.
            while self._flushing is not None:
                await self._flushing
            self._check()
            return await self._flusher.ask(operation, self.key, self._written, self._reached)
        except OSError as error:
            raise self._break(cannot_write(error)) from None
        finally:
            self._end()

    async def discard(self) -> None:
        """Forget the bytes; without effect on a committed blob."""
        self._end()
        if not self._committed:
            try:
                await self._flusher.ask("delete", self.key)
            except (OSError, StoreUnavailable) as error:
                _log.warn("blob {key} left to the sweeper: {error}", key=self.key, error=error)

    def _spill(self) -> None:
        pieces, came = self._gathered, self._gathering
        self._gathered, self._gathering = [], 0
        try:
            for offset, run in dense(pieces, self._written):
                self._reached = offset
                while run:
                    count = os.pwritev(self._file, run, self._reached)
                    self._reached += count
                    self._put += count
                    run = _rest(run, count)
        except OSError as error:
            raise self._break(cannot_write(error)) from None
        self._written += came

    def _pace(self) -> None:
        unflushed, share = self._put - self._clean, self._shared.share
        if unflushed >= share // 4 and self._flushing is None and self._broken is None:
            self._flush()
        if unflushed >= share and self._broken is None:
            self._pause()
        else:
            self._resume()

    def _flush(self) -> None:
        try:
            self._check_room()
        except RepomanError as error:
            self._break(error)
            return
        asked = self._flusher.ask("flush", self.key)
        self._flushing = asked
        # Not beyond what is reached: to lengthen the file beside our own writes could cut them off.
        now = self._reached, self._put
        asked.addCallbacks(self._flushed, self._not_flushed, callbackArgs=now)

    def _flushed(self, _: None, durable: int, clean: int) -> None:
        self._flushing = None
        self._durable, self._clean = durable, clean
        self._pace()

    def _not_flushed(self, failure: Failure) -> None:
        self._flushing = None
        error = failure.value
        self._break(cannot_write(error) if isinstance(error, OSError) else lost())

    def _end(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            self._shared.writers -= 1
            self._gathered.clear()
            self._break(lost())


def _rest(pieces: list[bytes | memoryview[int]], count: int) -> list[bytes | memoryview[int]]:
    if count == sum(map(len, pieces)):
        return []
    return [b"".join(pieces)[count:]]
