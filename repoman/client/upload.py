"""Sending an image's file: only what the server has agreed to take.

This one request does not go through treq.  Twisted's HTTP client sends a body
at once, whatever ``Expect`` says, and hands out an answer that comes early
only when the whole body is gone; ten gigabytes may lie between a refusal and
the person who waits for it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from io import BytesIO
from pathlib import Path
from typing import Any, cast

from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import connectProtocol
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from repoman.client.exchange import (
    ACCEPT,
    USER_AGENT,
    Exchange,
)
from repoman.client.problems import in_words, is_passing
from repoman.client.progress import Progress
from repoman.client.receiver import silence
from repoman.client.replies import reply_error
from repoman.errors import BadReply, ClientGone, Invalid, LengthMismatch, RepomanError
from repoman.streams import Digesting, Flow

CONTINUE_SECONDS = 10.0
"""How long we wait for ``100 Continue`` before we send all the same (RFC 9110 section 10.1.1)."""

COMMIT_SECONDS = 600.0
"""How long the server may take to make the last bytes durable."""

REPLY_LIMIT = 2**20
"""The longest answer to an upload that we read, in bytes."""

_CONTINUE = re.compile(rb"HTTP/1\.[01] 1\d\d[^\r\n]*\r?\n(?:[^\r\n]+\r?\n)*\r?\n")


@frozen
class Reply:
    """The server's last word on an upload."""

    status: int
    content_type: str
    location: str
    body: bytes


@frozen
class Upload:
    """One file on its way to the server.

    :ivar path: of the raw URL.
    """

    exchange: Exchange
    path: str
    source: Path
    progress: Progress = field(factory=Progress)

    async def run(self) -> str:
        """Send the file and answer the SHA-256 (hex) of what was sent.

        :raises RepomanError: the server's refusal, or what broke the line.
        :raises OSError: the file cannot be read.
        """
        file = os.open(self.source, os.O_RDONLY | os.O_NONBLOCK)  # not to wait for a FIFO's writer
        try:
            size = _size_of(file, self.source)
            for delay in self.exchange.transfer_delays:
                try:
                    return await self._send(file, size)
                except RepomanError as error:
                    if not is_passing(error):
                        raise
                    self.progress.waiting(error, delay)
                await deferLater(self.exchange.reactor, delay)
            return await self._send(file, size)
        finally:
            os.close(file)
            self.progress.end()

    async def _send(self, file: int, size: int) -> str:
        exchange = self.exchange
        sending = Sending(exchange, self._head(size), size, self._reader(file))
        self.progress.begin(size, 0)
        try:
            with in_words(exchange.server):
                await connectProtocol(exchange.endpoint(), sending)
                reply = await sending.replied
        except RepomanError:
            # The file's fault hides behind the broken line that it caused.
            if sending.fault:
                raise sending.fault from None
            raise
        finally:
            sending.hang_up()
        if reply.status not in (200, 201):
            raise reply_error(reply.status, reply.content_type, reply.body, reply.location)
        return sending.sha256()

    def _head(self, size: int) -> bytes:
        lines = (
            f"PUT {self.path} HTTP/1.1",
            f"Host: {self.exchange.server}",
            f"User-Agent: {USER_AGENT}",
            f"Accept: {ACCEPT}",
            "Content-Type: application/octet-stream",
            f"Content-Length: {size}",
            "Expect: 100-continue",
            "Connection: close",
        )
        return "\r\n".join([*lines, "", ""]).encode("ascii")

    def _reader(self, file: int) -> Callable[[int, int], bytes]:
        def read(offset: int, count: int) -> bytes:
            data = os.pread(file, count, offset)
            if not data:
                raise LengthMismatch(f"{self.source} became shorter while it was being sent.")
            self.progress.advance(len(data))
            return data

        return read


def _size_of(file: int, source: Path) -> int:
    """The length of a file or a block device in bytes."""
    mode = os.fstat(file).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise Invalid(f"{source} is neither a file nor a disk.")
    return os.lseek(file, 0, os.SEEK_END)


class Sending(Protocol):
    """An HTTP/1.1 connection for one request with a body (RFC 9112).

    :ivar replied: fires with the server's :class:`Reply`, early or not.
    :ivar fault: why the body could not be read.
    """

    fault: BaseException | None = None

    def __init__(
        self, exchange: Exchange, head: bytes, size: int, read: Callable[[int, int], bytes]
    ) -> None:
        self.replied: Deferred[Reply] = Deferred()
        self._exchange, self._head, self._size, self._read = exchange, head, size, read
        self._clock: IReactorTime = exchange.reactor
        self._received = b""
        self._flow: Deferred[Any] | None = None
        self._body: Digesting | None = None
        self._watch: Any = None

    def sha256(self) -> str:
        """The digest of what has been sent, as hex."""
        return self._body.hexdigest("sha256") if self._body else ""

    def connectionMade(self) -> None:
        """Send the head, and wait for leave to send the body."""
        self._transport.write(self._head)
        self._wait(CONTINUE_SECONDS, self._send_body)

    def dataReceived(self, data: bytes) -> None:
        """Leave to send, or the answer."""
        self._received += data
        while found := _CONTINUE.match(self._received):
            self._received = self._received[found.end() :]
            self._send_body()
        if self._received:
            self._answer_begins()

    def connectionLost(self, reason: Failure = Failure(ClientGone(""))) -> None:  # noqa: B008
        """Whatever has come by now is the answer."""
        self._settle(self._parsed(whole=True) or reason)

    def hang_up(self) -> None:
        """Close the connection; harmless twice."""
        self._stop()
        if self.transport is not None:
            # Not loseConnection: it would go on to send what is buffered.
            self._transport.abortConnection()

    @property
    def _transport(self) -> Any:
        return self.transport

    def _send_body(self) -> None:
        if self._flow is None:
            self._body = Digesting(self._transport)
            self._wait(self._exchange.stall_seconds, self._silent)
            self._flow = Flow(self._clock, self._read_on, self._body, 0, self._size).run()
            self._flow.addCallbacks(self._sent, self._broken)

    def _read_on(self, offset: int, count: int) -> bytes:
        self._wait(self._exchange.stall_seconds, self._silent)
        return self._read(offset, count)

    def _sent(self, _: Any) -> None:
        if not self.replied.called:
            self._wait(COMMIT_SECONDS, self._silent)

    def _broken(self, failure: Failure) -> None:
        # ClientGone: the line broke or an early answer stopped us; both are told elsewhere.
        if not failure.check(ClientGone):
            self.fault = failure.value
            self._settle(failure)

    def _answer_begins(self) -> None:
        """Stop sending: an answer before the body's end is a refusal."""
        self._stop()
        self._wait(self._exchange.stall_seconds, self._silent)
        if len(self._received) > REPLY_LIMIT:
            self._settle(Failure(BadReply("The server's answer to the upload has no end.")))
        elif reply := self._parsed(whole=False):
            self._settle(reply)

    def _parsed(self, *, whole: bool) -> Reply | Failure | None:
        """The answer, if all of it has come.

        :param whole: no more will come.
        """
        if b"\r\n\r\n" not in self._received:
            return None
        parser = HTTPResponse(cast(Any, _Received(self._received)))
        try:
            parser.begin()
            if parser.length is None and not parser.chunked and not whole:
                return None
            body = parser.read()
        except (HTTPException, ValueError):
            return None
        if parser.status < 300 and not self._complete():
            return Failure(BadReply("The server took the upload before all of it was sent."))
        return Reply(
            parser.status,
            parser.getheader("Content-Type", ""),
            parser.getheader("Location", ""),
            body,
        )

    def _complete(self) -> bool:
        return self._body is not None and self._body.count == self._size

    def _silent(self) -> None:
        self._settle(Failure(silence(self._exchange.server, self._exchange.stall_seconds)))

    def _wait(self, seconds: float, then: Callable[[], None]) -> None:
        if self._watch is not None and self._watch.active():
            self._watch.cancel()
        self._watch = self._clock.callLater(seconds, then)

    def _stop(self) -> None:
        if self._watch is not None and self._watch.active():
            self._watch.cancel()
        if self._flow is not None:
            self._flow.cancel()

    def _settle(self, outcome: Reply | Failure) -> None:
        self._stop()
        if not self.replied.called:
            self.replied.callback(outcome)


class _Received:
    """Bytes that have come, in the shape of the socket that ``http.client`` reads."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> BytesIO:
        return BytesIO(self._data)
