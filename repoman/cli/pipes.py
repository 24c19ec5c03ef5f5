"""Standard input and output as the two ends of a transfer."""

from __future__ import annotations

import errno
import hashlib
import os
import select
import stat
from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor, IWriteDescriptor
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from repoman.errors import BadReply, DigestMismatch


def _is_file(file: int) -> bool:
    return stat.S_ISREG(os.fstat(file).st_mode)


@implementer(IReadDescriptor)
class Inlet:
    """Bytes from a pipe, when there are some; it stays in blocking mode for those who share it."""

    def __init__(self, reactor: Any, file: int) -> None:
        self._reactor, self._file = reactor, file
        self._wanted = 0
        self._coming: Deferred[bytes] | None = None

    async def pull(self, count: int) -> bytes:
        """Some bytes, at most ``count``; none at the end."""
        if _is_file(self._file):  # always readable, and no thing to wait for
            return await deferLater(self._reactor, 0, os.read, self._file, min(count, 2**18))
        self._wanted = count
        self._coming = Deferred(lambda _: self._reactor.removeReader(self))
        self._reactor.addReader(self)
        return await self._coming

    def fileno(self) -> int:
        """For the reactor."""
        return self._file

    def logPrefix(self) -> str:
        """For the reactor."""
        return "stdin"

    def doRead(self) -> None:
        """There is something, or the end."""
        self._reactor.removeReader(self)
        coming, self._coming = self._coming, None
        if coming is not None and not coming.called:
            try:
                coming.callback(os.read(self._file, min(self._wanted, 2**18)))
            except OSError:
                coming.errback()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor has lost interest: read what there is, in particular the end."""
        self.doRead()


@implementer(IWriteDescriptor)
class Outlet:
    """Writes a download to a pipe or a device, verified when all of it is through.

    :param name: of where the bytes go, for messages.
    :ivar size: how many bytes have been written.
    """

    def __init__(self, reactor: Any, file: int, name: str = "standard output") -> None:
        self.size = 0
        self._name = name
        self._hash, self._sha256 = hashlib.sha256(), ""
        self._reactor = reactor
        self._buffer = bytearray()
        self._room: Deferred[None] | None = None
        self._file, self._at_once = file, select.PIPE_BUF
        if _is_file(file):
            self._at_once = 2**30
        else:
            try:
                # A description of our own: those who share the old one want it to block.
                self._file = os.open(f"/proc/self/fd/{file}", os.O_WRONLY | os.O_NONBLOCK)
                self._at_once = 2**18
            except OSError:  # a socket; to so few bytes it says no rather than block
                pass
        self._own = self._file != file

    def begin(self, sha256: str, size: int, room: int = 0) -> None:
        """Say which bytes are coming.

        :raises BadReply: bytes of others are through.
        """
        if sha256 != self._sha256:
            self.restart()
        self._sha256 = sha256

    def hash_what_is_there(self) -> Iterator[None]:
        """There is nothing from earlier runs."""
        return iter(())

    def restart(self) -> None:
        """Only before the first byte.

        :raises BadReply: some bytes are through.
        """
        if self.size:
            raise BadReply(f"The image was replaced while it was being written to {self._name}.")

    def write(self, data: bytes) -> Deferred[None] | None:
        """Write what fits; the rest waits for its reader."""
        self._hash.update(data)
        self.size += len(data)
        self._buffer += data
        if self._room is not None or self._push():
            return self._room
        self._room = Deferred(lambda _: self._reactor.removeWriter(self))
        self._reactor.addWriter(self)
        return self._room

    def _push(self) -> bool:
        """Write; answer whether all is written."""
        while self._buffer:
            if self._at_once == select.PIPE_BUF and not select.select([], [self._file], [], 0)[1]:
                return False
            try:
                written = os.write(self._file, memoryview(self._buffer)[: self._at_once])
            except BlockingIOError:
                return False
            del self._buffer[:written]
        return True

    def doWrite(self) -> None:
        """There is room."""
        try:
            if not self._push():
                return
        except OSError:
            self._settle(Failure())
        else:
            self._settle(None)

    def _settle(self, failure: Failure | None) -> None:
        self._reactor.removeWriter(self)
        room, self._room = self._room, None
        if room is not None and not room.called:
            room.errback(failure) if failure else room.callback(None)

    def fileno(self) -> int:
        """For the reactor."""
        return self._file

    def logPrefix(self) -> str:
        """For the reactor."""
        return "stdout"

    def connectionLost(self, reason: Failure) -> None:
        """Nobody reads any more."""
        self._settle(Failure(BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))))

    def finish(self) -> None:
        """Compare.

        :raises DigestMismatch: what was written is not the image.
        """
        found = self._hash.hexdigest()
        if found != self._sha256:
            raise DigestMismatch(
                f"The bytes written to {self._name} have the SHA-256 {found}, the image has"
                f" {self._sha256}: do not use them."
            )

    def close(self) -> None:
        """Let go of our own descriptor."""
        if self._own and self._file >= 0:
            self._reactor.removeWriter(self)
            os.close(self._file)
            self._file = -1
