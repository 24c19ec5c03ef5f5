"""Where the bytes of an upload come from, and what they hash to."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Protocol

from repoman.errors import BadReply, Invalid, LengthMismatch

SLICE = 2**20
"""How many bytes are hashed in one turn of the reactor, when they are not sent as well."""

PART = 32 * 2**20
"""How many bytes of a stream are held in memory until the server has them for certain."""


class ISource(Protocol):
    """Bytes that may be read more than once, if it is not too late.

    :ivar name: for messages.
    :ivar size: in bytes; ``None`` while nobody knows.
    :ivar identity: differs when the content may differ; empty if there is no telling.
    """

    name: str
    size: int | None
    identity: str

    def ends(self) -> AsyncIterator[int]:
        """Up to where the bytes can be sent now: again and again, until all can be."""

    def read(self, offset: int, count: int) -> bytes:
        """Some bytes, at most ``count``, at least one.

        :raises RepomanError: they are not there any more.
        """

    def hash_up_to(self, offset: int) -> Iterator[None]:
        """Take all bytes before ``offset`` into the digest, a slice per step."""

    def sha256(self) -> str:
        """The digest (hex) of all bytes that have been read or hashed."""

    def close(self) -> None:
        """Let go of it."""


class Running:
    """A SHA-256 that takes each byte once, in order, however often some are read."""

    def __init__(self) -> None:
        self.count = 0
        self._hash = hashlib.sha256()

    def take(self, offset: int, data: bytes) -> None:
        """Some bytes were read; those that are new and next are hashed."""
        new = offset + len(data) - self.count
        if 0 < new <= len(data):
            self._hash.update(data if new == len(data) else memoryview(data)[-new:])
            self.count += new

    def hexdigest(self) -> str:
        """Of the first ``count`` bytes."""
        return self._hash.hexdigest()


class FileSource:
    """A file or a disk."""

    def __init__(self, path: Path) -> None:
        """Open it.

        :raises Invalid: it is something else.
        :raises OSError: it cannot be opened.
        """
        self.name = str(path)
        # O_NONBLOCK: not to wait for a FIFO's writer.
        self._file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._state = os.fstat(self._file)
        if not (stat.S_ISREG(self._state.st_mode) or stat.S_ISBLK(self._state.st_mode)):
            self.close()
            raise Invalid(f"{path} is neither a file nor a disk.")
        self.size: int | None = os.lseek(self._file, 0, os.SEEK_END)
        s = self._state
        # Nobody can tell whether a disk was written to.
        self.identity = (
            f"{s.st_dev}:{s.st_ino}:{s.st_size}:{s.st_mtime_ns}" if stat.S_ISREG(s.st_mode) else ""
        )
        self._running = Running()

    async def ends(self) -> AsyncIterator[int]:
        """All of it, at once."""
        yield self.size or 0

    def read(self, offset: int, count: int) -> bytes:
        """Read, and hash what is new."""
        data = os.pread(self._file, count, offset)
        if not data:
            raise LengthMismatch(f"{self.name} became shorter while it was being sent.")
        self._running.take(offset, data)
        return data

    def hash_up_to(self, offset: int) -> Iterator[None]:
        """Read what was sent by an earlier run."""
        while self._running.count < offset:
            self.read(self._running.count, min(SLICE, offset - self._running.count))
            yield

    def sha256(self) -> str:
        """The digest (hex).

        :raises LengthMismatch: the file was written to, so it is that of no version.
        """
        now = os.fstat(self._file)
        if (now.st_size, now.st_mtime_ns) != (self._state.st_size, self._state.st_mtime_ns):
            raise LengthMismatch(f"{self.name} changed while it was being sent; send it again.")
        return self._running.hexdigest()

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)


class StreamSource:
    """A stream that is read once, a part in memory at a time.

    :param pull: answers some more bytes, at most as many as it is asked for; none at the end.
    """

    identity = ""

    def __init__(self, pull: Callable[[int], Awaitable[bytes]], name: str) -> None:
        self.name = name
        self.size: int | None = None
        self._pull = pull
        self._part = bytearray()
        self._start = 0
        self._running = Running()

    async def ends(self) -> AsyncIterator[int]:
        """As much as one part, each time."""
        while self.size is None:
            self._start += len(self._part)
            self._part = bytearray()
            while len(self._part) < PART and self.size is None:
                data = await self._pull(PART - len(self._part))
                self._part += data
                if not data:
                    self.size = self._start + len(self._part)
            yield self._start + len(self._part)

    def read(self, offset: int, count: int) -> bytes:
        """Read from the part that is in memory."""
        if offset < self._start:
            raise BadReply(
                f"The server lost bytes of {self.name} that it had confirmed; they cannot be read"
                " twice, so begin again."
            )
        begin = offset - self._start
        data = bytes(self._part[begin : begin + count])
        self._running.take(offset, data)
        return data

    def hash_up_to(self, offset: int) -> Iterator[None]:
        """Hash what was sent and not read again."""
        while self._running.count < offset:
            self.read(self._running.count, min(SLICE, offset - self._running.count))
            yield

    def sha256(self) -> str:
        """The digest (hex)."""
        return self._running.hexdigest()

    def close(self) -> None:
        """Let go of the bytes."""
        self._part = bytearray()
