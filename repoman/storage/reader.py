"""A committed blob in a directory, on its way out."""

from __future__ import annotations

import errno
import os

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from repoman.errors import BlobDamaged, RepomanError, StoreUnavailable
from repoman.interfaces import IConsuming
from repoman.storage.flusher import Flusher
from repoman.storage.operations import stamp
from repoman.streams import CHUNK, Flow

AHEAD = 4 << 20
"""Bytes that the kernel is asked to have ready before they are read."""

PATIENCE = 25
"""How often in a row bytes may be late before the helper process looks why."""

_DAMAGE = (errno.ENOENT, errno.EIO, errno.EBADMSG, errno.EUCLEAN)
_buffer = memoryview(bytearray(CHUNK))  # one for all: each read is copied at once
_log = Logger()


def cannot_read(key: str, error: OSError) -> RepomanError:
    """What the filesystem's error means to who reads.

    Damage is said only of the blob itself: whoever hears of it writes the
    blob off.
    """
    if error.errno in _DAMAGE:
        return damaged(key, error.strerror)
    return cannot_open(key, error)


def cannot_open(key: str, error: OSError) -> RepomanError:
    """The same, where not even the name could be looked up.

    EIO then means that the disk is gone, for a moment perhaps, and every blob with it.
    """
    if error.errno in _DAMAGE and error.errno != errno.EIO:
        return damaged(key, error.strerror)
    _log.error("blob store: {error}", error=error)
    return StoreUnavailable("The blob store cannot read; try again later.")


def damaged(key: str, why: str | None) -> BlobDamaged:
    """A blob that cannot be served: the log gets the details."""
    _log.error("blob {key} is damaged: {why}", key=key, why=why)
    return BlobDamaged("The stored file is damaged; the administrator of the repository must look.")


class DirectoryReader:
    """See :class:`repoman.interfaces.IBlobReader`.

    Reads only what is in the page cache.  For the rest it asks the kernel to
    read ahead and comes back some milliseconds later, so a slow disk holds up
    nobody else.

    :ivar size: in bytes.
    :ivar room: and ``stamp``, see :class:`repoman.interfaces.IBlobReader`.
    """

    def __init__(
        self, reactor: IReactorTime, flusher: Flusher, key: str, file: int, size: int
    ) -> None:
        self.size = size
        found = os.fstat(file)
        self.stamp, self.room = stamp(found), found.st_blocks * 512
        self._reactor = reactor
        self._flusher = flusher
        self._key = key
        self._file = file
        self._nowait = True
        self._advised = -1
        self._late = 0
        self._ready = False
        self._hole = range(0)
        self._error: RepomanError | None = None

    async def write_to(self, consumer: IConsuming, start: int, length: int) -> None:
        """Let bytes flow out; see :class:`repoman.interfaces.IBlobReader`."""
        await Flow(self._reactor, self._read, consumer, start, length).run()

    def close(self) -> None:
        """Let go of the file."""
        file, self._file = self._file, -1
        if file < 0:
            return
        if os.fstat(file).st_nlink:
            os.close(file)
        else:
            self._flusher.bury(file)

    def _read(self, offset: int, count: int) -> bytes:
        if self._error is not None:
            raise self._error
        if offset in self._hole:
            return bytes(min(count, self._hole.stop - offset))
        try:
            data = self._read_cached(offset, count)
        except BlockingIOError:
            self._wait(offset, count)
            raise
        except OSError as error:
            raise cannot_read(self._key, error) from None
        if not data:
            raise damaged(self._key, f"ends at {offset} of {self.size}")
        self._late, self._ready = 0, False
        if not data[0] and data == bytes(len(data)):
            # Zeros for the page cache cost more than all else, and throw others' bytes out of it.
            self._hole = self._hole_at(offset + len(data))
        elif self._advised >= 0:
            self._advise(offset + len(data))
        return data

    def _read_cached(self, offset: int, count: int) -> bytes:
        if self._nowait and not self._ready:
            try:
                got = os.preadv(self._file, [_buffer[:count]], offset, os.RWF_NOWAIT)
                return bytes(_buffer[:got])
            except OSError as error:
                if error.errno != errno.EOPNOTSUPP:
                    raise
                self._nowait = False  # tmpfs and some others
        return os.pread(self._file, count, offset)

    def _hole_at(self, offset: int) -> range:
        """The hole that begins at an offset, or has it; none where there are data."""
        try:
            return range(offset, os.lseek(self._file, offset, os.SEEK_DATA))
        except OSError as error:
            # No data any more: a hole to the end, unless the file has become shorter.
            whole = os.fstat(self._file).st_size == self.size
            return range(offset, self.size) if error.errno == errno.ENXIO and whole else range(0)

    def _wait(self, offset: int, count: int) -> None:
        self._late += 1
        if self._late == 1:
            self._advised = offset
            self._advise(offset)
        elif self._late == PATIENCE:
            asked = self._flusher.ask("fetch", self._key, offset, count)
            asked.addCallbacks(self._fetched, self._not_fetched)

    def _advise(self, offset: int) -> None:
        # Piece by piece: of a long range the kernel takes only the beginning.
        self._advised = max(self._advised, offset)
        while self._advised < min(offset + AHEAD, self.size):
            os.posix_fadvise(self._file, self._advised, CHUNK, os.POSIX_FADV_WILLNEED)
            self._advised += CHUNK

    def _fetched(self, _: None) -> None:
        self._ready = True  # in the cache, whatever RWF_NOWAIT says

    def _not_fetched(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, FileNotFoundError):
            self._ready = True  # deleted meanwhile, so only we can read it
        elif isinstance(error, OSError):
            self._error = cannot_read(self._key, error)
        else:
            self._late = 0  # the helper process died: ask the next one
