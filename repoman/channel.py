"""HTTP connections that know who is at the other end and let bodies flow.

twisted.web receives a whole body, in a temporary file, before it looks the
resource up.  Here a request is dispatched as soon as its headers are in: not
one byte of the body is read from the peer until somebody asks for it through
:class:`~repoman.body.Body`, so that a refusal costs nothing and an upload runs at the pace
of the disk.

With :mod:`repoman.request` this is the one place that knows private names of
twisted.web; the tests pin what they rely on.
"""

from __future__ import annotations

import secrets
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHandshakeListener, ISSLTransport
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from twisted.web import http
from zope.interface import implementer

from repoman.crowd import Standing, Waiting, standing
from repoman.delivery import Delivery
from repoman.errors import Invalid
from repoman.framing import fault_of
from repoman.lingering import LINGER_SECONDS, OUTGROWN_BYTES, Lingering, most_of
from repoman.patience import Patience
from repoman.request import IPeer, ISite, Request

HEADER_DEADLINE = 20.0
"""Seconds for the handshake and the first request's headers."""

NEWCOMER_SECONDS = 3.0
"""The same, when we are about to stop."""

IDLE_DEADLINE = 60.0
"""Seconds from the end of an answer to the end of the next request's headers."""

CLOSE_SECONDS = 60.0
"""How long a peer may take to fetch the end of an answer and close."""

_CLOSED = Failure(ConnectionDone())

REASONS = {431: b"Request Header Fields Too Large"}
"""Reason phrases that Twisted does not know (RFC 6585 section 5)."""


@implementer(IHandshakeListener)
class Channel(http.HTTPChannel):
    """One connection.  HTTP/1.1 only: HTTP/2 has none of the hooks that bodies need.

    :ivar source: where it comes from, see :func:`repoman.crowd.source_of`; the site says.
    :ivar delivery: of what was answered on it.
    :ivar bytes_lost: how many bytes of answers were lost with it.
    """

    site: ISite
    transport: Any
    requestFactory = Request

    def __init__(self) -> None:
        super().__init__()
        self.peer: Any = None
        self.source = ""
        self._waiting_since: float | None = 0.0
        self._body_paused = False
        self._lingering: Lingering | None = None
        self._closing: Any = None
        self._patience = Patience(None)
        self._unfetched: Request | None = None
        self._secure = False
        self._is_new = True
        self._is_closing = self._is_lost = False
        self.bytes_lost = 0
        self._host: Any = None

    def connectionMade(self) -> None:
        """Begin to read, against the clock."""
        super().connectionMade()
        self._secure = ISSLTransport(self.transport, None) is not None
        self.setTimeout(HEADER_DEADLINE)
        self._patience = Patience(self.transport)
        self.delivery = Delivery(self.site.reactor, self.transport, self.site.note)
        self._wait()
        self.site.opened(self)

    def handshakeCompleted(self) -> None:
        """Find out, once, who is at the other end."""
        if self.site.trust is not None:
            self.peer = self.site.trust.peer(self.transport.getHandle())

    def current_peer(self) -> IPeer | None:
        """Who is at the other end now; ``None`` without TLS."""
        if self.site.trust is None or self.peer is None:
            return None
        peer = self.site.trust.current(self.peer)
        if peer.refusal and getattr(self.peer, "identity", None) is not None:
            # It was somebody when it connected: let it begin anew.
            self.persistent = False
        return peer

    def dataReceived(self, data: bytes) -> None:
        """Parse, or drop what a refused peer still sends."""
        # Not the inherited method: it lets one byte a minute hold a connection for ever.
        if self._lingering is not None:
            self.moved(len(data))
            self._lingering.drop(len(data))
        else:
            LineReceiver.dataReceived(self, data)

    def lineReceived(self, line: bytes) -> None:
        """Parse a line of the headers."""
        if self._lingering is not None:
            return
        if self._receivedHeaderSize + len(line) > self.totalHeadersSize:
            self.refuse(431, "The request's headers are too large.")
            return
        super().lineReceived(line)

    def lineLengthExceeded(self, line: bytes) -> None:
        """No header of ours is that long."""
        self.refuse(431, "A line of the request's headers is too long.")

    def headerReceived(self, line: bytes) -> bool:
        """Parse a header; refuse those of :mod:`repoman.framing`."""
        has_encoding = self.requests[-1].requestHeaders.hasHeader("transfer-encoding")
        if (fault := fault_of(line, has_encoding=has_encoding)) is not None:
            self.refuse(*fault)
            return False
        return bool(super().headerReceived(line))

    def rawDataReceived(self, data: bytes) -> None:
        """Decode the body, or keep a pipelined request for later."""
        if self._lingering is None:
            super().rawDataReceived(data)

    def allHeadersReceived(self) -> None:
        """Dispatch the request: at once without a body, else before its first byte."""
        if self._lingering is not None:
            return
        self._is_new = False
        self._waiting_since = None
        self.delivery.look()  # who asks again has most likely taken what it asked for before
        request: Request = self.requests[-1]
        self.persistent = self.checkPersistence(request, self._version)
        request.begin(self._command, self._path, self._version, self.length)
        hosts = request.requestHeaders.getRawHeaders("host") or []
        if len(hosts) > 1 or (not hosts and self._version == b"HTTP/1.1"):
            # RFC 9112 section 3.2.
            self.refuse(400, "The request needs one Host header.")
        elif self.length != 0:
            self.setTimeout(None)
            self.pause_body()
            # Not at once: an answer from within the parser would be lost.
            self.site.reactor.callLater(0, request.dispatch)

    def allContentReceived(self) -> None:
        """The body has ended; the timer comes back with the next request."""
        if self._lingering is not None:
            return
        super().allContentReceived()
        self._savedTimeOut = IDLE_DEADLINE

    def checkPersistence(self, request: http.Request, version: bytes) -> bool:
        """Keep the connection, unless the daemon is about to stop."""
        return bool(super().checkPersistence(request, version)) and not self.site.draining

    def pause_body(self) -> None:
        """Read no more of the body."""
        if not self._body_paused and self._lingering is None:
            self._body_paused = True
            self._networkProducer.pauseProducing()

    def resume_body(self, send_continue: bool) -> None:
        """Read on; first tell a peer that waits for leave (RFC 9110 section 10.1.1)."""
        if send_continue:
            self._send100Continue()
        if self._body_paused:
            self._body_paused = False
            self._networkProducer.resumeProducing()

    def resumeProducing(self) -> None:
        """The peer took what we had for it; that is no leave to read a paused body."""
        if self._is_lost:
            return
        self._waitingForTransport = False
        if self._requestProducer is not None:
            self._requestProducer.resumeProducing()
        self._go_on()
        if not self._handlingRequest and not self._body_paused:
            self._networkProducer.resumeProducing()

    def stopProducing(self) -> None:
        """The peer is about to be gone: the last moment in which the kernel says what it took."""
        self.delivery.look()
        super().stopProducing()

    def _has_more(self) -> bool:
        return self._busyReceiving and (bool(self._buffer) or any(self._dataBuffer))

    def _go_on(self) -> None:
        if self._unfetched is not None and not self._waitingForTransport:
            self.requestDone(self._unfetched)

    def moved(self, count: int) -> None:
        """Bytes of a body or an answer have passed."""
        self._patience.moved(count)

    def watch(self, seconds: float, min_rate: int) -> None:
        """Cut a transfer that the peer lets starve.

        Only time in which we wait for the peer counts, not our own pauses.

        :param seconds: since the last look.
        :param min_rate: bytes per second, over :data:`repoman.patience.RATE_WINDOW`.
        """
        waits = self._waits_for_peer()
        self._patience.look(waits or self._patience.is_sending)
        if waits and self._patience.is_too_slow(seconds, min_rate):
            self.site.cut_slow(self)

    def _waits_for_peer(self) -> bool:
        if self._lingering is not None:
            return not self._lingering.is_held_up
        if not self.requests:
            return False
        uploading = not self.requests[-1].body.complete and not self._body_paused
        return uploading or self._waitingForTransport

    def waiting(self) -> Waiting[Channel] | None:
        """Why this connection may go to make room; ``None``: something is under way on it."""
        since = self._waiting_since
        if self.requests and self.requests[-1].body.is_small:
            since = self.requests[-1].begun
        if since is not None and not self._patience.is_sending:
            seconds = self.site.reactor.seconds() - since
            is_known = getattr(self.peer, "identity", None) is not None
            has_begun = self._is_new or bool(self.requests)
            why = standing(is_known, has_begun, seconds)
            if self._lingering is not None:
                why = Standing.REFUSED
            return Waiting(self, self.source, why, since)
        if self._patience.is_stalled:
            return Waiting(self, self.source, Standing.STALLED, since or 0.0)
        return None

    def _wait(self) -> None:
        self._waiting_since = self.site.reactor.seconds()

    def make_room(self) -> None:
        """Close for somebody else's sake; the end of an answer still reaches who fetches it."""
        is_idle = not self._is_new and self._waiting_since is not None
        if self._lingering is not None or not is_idle or self._patience.is_sending:
            self.abort()
        else:
            self._close_within(LINGER_SECONDS)
            self.loseConnection()

    def about_to_answer(self, request: Request) -> None:
        """Announce the end of the connection where the answer leaves it unusable."""
        if not request.body.complete:
            self.persistent = False
        if not self.persistent:
            request.setHeader("Connection", "close")

    def requestDone(self, request: Request) -> None:
        """Go on to the next request, or drop the rest of a body that nobody wanted."""
        if not request.body.complete:
            self.requests.remove(request)
            self._linger(most_of(request.body.length, request.body.count))
        elif self._waitingForTransport and self.persistent:
            # The peer has not taken what it asked for: no more answers until it does.
            self._unfetched = request
        elif self._unfetched is None and self.persistent and self._has_more():
            # Answered from within the parser: if more was asked, others come first, or one peer
            # would have the whole turn.
            self._unfetched = request
            self.site.reactor.callLater(0, self._go_on)
        else:
            self._unfetched = None
            self._body_paused = False
            self._wait()
            super().requestDone(request)

    def refuse(self, status: int, message: str) -> None:
        """Answer what cannot be parsed with one line, and close."""
        if self._lingering is not None:
            return
        if self.requests and self.requests[-1].dispatched:
            # Its own answer will say so.
            self.requests[-1].body.fail(Invalid(message))
            return
        text = message.encode() + b"\n"
        reason = REASONS.get(status) or http.RESPONSES[status]
        self.transport.write(
            b"HTTP/1.1 %d %s\r\nContent-Type: text/plain; charset=utf-8\r\n"
            b"Cache-Control: no-store\r\nContent-Length: %d\r\nConnection: close\r\n"
            b"X-Request-Id: %s\r\n\r\n%s"
            % (status, reason, len(text), secrets.token_hex(8).encode(), text)
        )
        for request in self.requests:
            request.dispatched = True
        self.requests.clear()
        self._linger(OUTGROWN_BYTES)

    def _respondToBadRequestAndDisconnect(self) -> None:
        self.refuse(400, "That is not an HTTP request we can read.")

    def _linger(self, most: int) -> None:
        """Close, but let the peer send on for a while: see :mod:`repoman.lingering`."""
        self._lingering = Lingering(
            self.site.reactor, self._networkProducer, self.site.allowance, self.abort,
            self.delivery.look, most,
        )  # fmt: skip
        self._wait()
        self.persistent = False
        self.setTimeout(None)
        self._networkProducer.resumeProducing()
        self.transport.unregisterProducer()
        if self.isSecure():
            self.transport.loseConnection()
        else:
            self.transport.loseWriteConnection()

    def timeoutConnection(self) -> None:
        """Close.  Not the inherited method: it logs as many lines as strangers connect."""
        self.site.timed_out(self)
        self._close_within(LINGER_SECONDS)
        self.loseConnection()

    def loseConnection(self) -> None:
        """Close when the peer has fetched everything; not later than CLOSE_SECONDS."""
        if self._is_lost:
            return
        self._is_closing = True
        super().loseConnection()
        if self.isSecure():
            # Our close_notify is out.  Waiting for the peer's, as Twisted does, would let an
            # idle client hold the connection (RFC 8446 section 6.1 asks for no such wait).
            self.transport.transport.loseConnection()
        self._close_within(CLOSE_SECONDS)

    def _close_within(self, seconds: float) -> None:
        if self._closing is None and not self._is_lost:
            self._closing = self.site.reactor.callLater(seconds, self.abort)

    def abort(self) -> None:
        """Cut the connection, if it is not gone already: TLS that is gone cannot be closed."""
        if not self._is_lost:
            self.transport.abortConnection()

    def drain(self) -> None:
        """Close now if idle, else at the end of the running request, or of a newcomer's first."""
        if self._is_lost:
            return
        if self._waiting_since is None:
            self.persistent = False
        elif self._is_new or self.requests:
            # Its request is on the way: closed now, it would be reset, and nobody answers it.
            self.setTimeout(NEWCOMER_SECONDS)
        else:
            self.persistent = False
            self.loseConnection()

    def connectionLost(self, reason: Failure = _CLOSED) -> None:
        """Tell everyone who waits for this connection."""
        self._is_lost = True
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        if self._lingering is not None:
            self._lingering.stop()
        if self._unfetched is not None:
            # It has ended already, and has no channel any more.
            self.requests.remove(self._unfetched)
            self._unfetched = None
        is_ours = self._is_closing and reason.check(ConnectionDone) is not None
        self.bytes_lost = self.delivery.lost(is_ours=is_ours)
        try:
            super().connectionLost(reason)
        finally:
            self.requests.clear()
            self.site.closed(self)

    def isSecure(self) -> bool:
        """The connection runs over TLS."""
        return self._secure

    def getHost(self) -> Any:
        """Our end of the connection: each request asks, the kernel is asked once."""
        if self._host is None:
            self._host = self.transport.getHost()
        return self._host
