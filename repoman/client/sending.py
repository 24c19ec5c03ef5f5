"""One request with a long body, over a connection of its own.

It does not go through treq.  Twisted's HTTP client sends a body at once,
whatever ``Expect`` says, and hands out an answer that comes early only when
the whole body is gone; ten gigabytes may lie between a refusal and the person
who waits for it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from http.client import HTTPException, HTTPResponse
from io import BytesIO
from typing import Any, cast

from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import connectProtocol
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from repoman.client.exchange import ACCEPT, USER_AGENT, Exchange
from repoman.client.problems import in_words
from repoman.client.receiver import silence
from repoman.client.replies import reply_error, retry_after
from repoman.errors import BadReply, ClientGone, RepomanError
from repoman.streams import Flow

CONTINUE_SECONDS = 10.0
"""How long we wait for ``100 Continue`` before we send all the same (RFC 9110 section 10.1.1)."""

COMMIT_SECONDS = 600.0
"""How long the server may take to make the last bytes durable."""

REPLY_LIMIT = 2**20
"""The longest answer to an upload that we read, in bytes."""

_CONTINUE = re.compile(rb"HTTP/1\.[01] 1\d\d[^\r\n]*\r?\n(?:[^\r\n]+\r?\n)*\r?\n")

_LEAVE = (b"HTTP/1.0 1", b"HTTP/1.1 1")
"""How ``100 Continue`` and its like begin (RFC 9110 section 15.2)."""


@frozen
class Order:
    """What is to be sent: a range of a source's bytes.

    :ivar read: answers at most so many bytes from an offset on, at least one.
    :ivar offset: where the body begins in the source.
    :ivar length: of the body, in bytes.
    """

    method: str
    path: str
    read: Callable[[int, int], bytes]
    offset: int
    length: int
    headers: Mapping[str, str] = field(factory=dict)

    def head(self, host: str) -> bytes:
        """The request up to its body."""
        lines = [
            f"{self.method} {self.path} HTTP/1.1",
            f"Host: {host}",
            f"User-Agent: {USER_AGENT}",
            f"Accept: {ACCEPT}",
            f"Content-Length: {self.length}",
            *(f"{name}: {value}" for name, value in self.headers.items()),
            *(["Expect: 100-continue"] if self.length else []),
            "Connection: close",
        ]
        return "\r\n".join([*lines, "", ""]).encode("ascii")


@frozen
class Answer:
    """The server's last word on an upload.

    :ivar pause: the seconds after which it wants to be asked again, if it says so.
    """

    status: int
    content_type: str
    location: str
    body: bytes
    pause: float | None = None


async def send(exchange: Exchange, order: Order) -> Answer:
    """Send a request; nothing of its body is sent that the server does not want.

    :raises RepomanError: the server's refusal, or what broke the line.
    :raises Exception: what the order's ``read`` raised.
    """
    sending = Sending(exchange, order)
    try:
        with in_words(exchange.server):
            await connectProtocol(exchange.endpoint(), sending)
            answer = await sending.replied
    except RepomanError:
        # The file's fault hides behind the broken line that it caused.
        if sending.fault:
            raise sending.fault from None
        raise
    finally:
        sending.hang_up()
    if answer.status not in (200, 201, 204):
        raise reply_error(
            answer.status, answer.content_type, answer.body, answer.location, answer.pause
        )
    return answer


class Sending(Protocol):
    """An HTTP/1.1 connection for one request with a body (RFC 9112).

    :ivar replied: fires with the server's :class:`Answer`, early or not.
    :ivar fault: why the body could not be read.
    """

    fault: BaseException | None = None

    def __init__(self, exchange: Exchange, order: Order) -> None:
        self.replied: Deferred[Answer] = Deferred()
        self._exchange, self._order = exchange, order
        self._clock: IReactorTime = exchange.reactor
        self._received = b""
        self._flow: Deferred[Any] | None = None
        self._sent_count = 0
        self._watch: Any = None
        self._patience = 0.0

    def connectionMade(self) -> None:
        """Send the head, and wait for leave to send the body."""
        self._transport.write(self._order.head(self._exchange.server))
        if self._order.length:
            self._wait(CONTINUE_SECONDS, self._send_body)
        else:
            self._sent(None)

    def dataReceived(self, data: bytes) -> None:
        """Leave to send, or the answer."""
        self._received += data
        while found := _CONTINUE.match(self._received):
            self._received = self._received[found.end() :]
            self._send_body()
        if self._received and not self._may_be_leave():
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

    def _may_be_leave(self) -> bool:
        """What has come may be the beginning of a ``1xx``, which stops nothing."""
        begun = any(self._received.startswith(b[: len(self._received)]) for b in _LEAVE)
        whole = b"\r\n\r\n" in self._received or len(self._received) > REPLY_LIMIT
        return begun and not whole

    def _send_body(self) -> None:
        if self._flow is None:
            self._wait(self._exchange.stall_seconds, self._silent)
            order = self._order
            flow = Flow(self._clock, self._read_on, self._transport, order.offset, order.length)
            self._flow = flow.run()
            self._flow.addCallbacks(self._sent, self._broken)

    def _read_on(self, offset: int, count: int) -> bytes:
        self._wait(self._exchange.stall_seconds, self._silent)
        data = self._order.read(offset, count)
        self._sent_count += len(data)
        return data

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

    def _parsed(self, *, whole: bool) -> Answer | Failure | None:
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
        return Answer(
            parser.status,
            parser.getheader("Content-Type", ""),
            parser.getheader("Location", ""),
            body,
            retry_after(
                parser.getheader("Retry-After", ""), parser.getheader("Date", ""), time.time()
            ),
        )

    def _complete(self) -> bool:
        return self._sent_count == self._order.length

    def _silent(self) -> None:
        self._settle(Failure(silence(self._exchange.server, self._patience)))

    def _wait(self, seconds: float, then: Callable[[], None]) -> None:
        self._patience = seconds
        if self._watch is not None and self._watch.active():
            self._watch.cancel()
        self._watch = self._clock.callLater(seconds, then)

    def _stop(self) -> None:
        if self._watch is not None and self._watch.active():
            self._watch.cancel()
        if self._flow is not None:
            self._flow.cancel()

    def _settle(self, outcome: Answer | Failure) -> None:
        self._stop()
        if not self.replied.called:
            self.replied.callback(outcome)


class _Received:
    """Bytes that have come, in the shape of the socket that ``http.client`` reads."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> BytesIO:
        return BytesIO(self._data)
