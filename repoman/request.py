"""A request that is rendered at the end of its headers, its body still at the peer.

With :mod:`repoman.channel` the one place that knows private names of
twisted.web; the tests pin what they rely on.
"""

from __future__ import annotations

import secrets
from typing import Any, AnyStr, Protocol
from urllib.parse import parse_qs, unquote_to_bytes

from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.http import datetimeToString

from repoman.body import Body
from repoman.errors import ClientGone
from repoman.lingering import Allowance
from repoman.model import Identity
from repoman.transfers import Pace, Transfer
from repoman.wire import KEPT_BY_NOBODY


class IPeer(Protocol):
    """What the trust layer found out about the other end."""

    @property
    def identity(self) -> Identity | None:
        """Who it is; ``None`` for nobody in particular."""

    @property
    def refusal(self) -> str:
        """Why it is nobody; empty for somebody."""


class ITrust(Protocol):
    """Who is at the other end of a TLS connection."""

    def peer(self, connection: Any) -> Any:
        """Judge an OpenSSL connection whose handshake is complete.  Never raises."""

    def current(self, peer: Any) -> IPeer:
        """Judge again at a request: expiry, revocation.  Never raises."""


class ISite(Protocol):
    """What a channel asks of the endpoint that it belongs to."""

    reactor: Any
    trust: ITrust | None
    draining: bool
    allowance: Allowance

    def opened(self, channel: Any) -> None:
        """A connection was made."""

    def closed(self, channel: Any) -> None:
        """A connection has ended."""

    def note(self, request: Any) -> None:
        """A request's answer has arrived, or was cut."""

    def cut_slow(self, channel: Any) -> None:
        """A connection's peer is too slow."""

    def timed_out(self, channel: Any) -> None:
        """A connection is closed whose peer was silent for too long."""


class Request(server.Request):
    """A request that is rendered at the end of its headers.

    :ivar body: its body, still at the peer.
    :ivar request_id: names this request in the reply and in the logs.
    :ivar stored_digest: of what it has stored, for the log, as a Repr-Digest; if it did.
    :ivar was_cut: the connection broke before the end of the answer.
    :ivar begun: when its headers were complete, in the reactor's seconds.
    """

    channel: Any
    body: Body
    defaultContentType = None

    def __init__(self, channel: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(channel, *args, **kwargs)
        self.request_id = secrets.token_hex(8)
        self.dispatched = False
        self._abandoned = False
        self.stored_digest: str | None = None
        self.was_cut = False
        # Until its headers are complete a request has no body, and none to wait for.
        self.body = Body(channel, 0, False)
        self.body.complete = True
        self.peer: IPeer | None = None

    @property
    def status(self) -> int | None:
        """Of its answer; ``None``: the connection broke before there was one."""
        return None if self.was_cut and not self.startedWriting else int(self.code)

    def begin(self, command: bytes, target: bytes, version: bytes, length: int | None) -> None:
        """The headers are complete; the body, if any, is not."""
        self.begun = self.channel.site.reactor.seconds()
        self.pace = Pace(self.begun)
        self.method, self.uri, self.clientproto = command, target, version
        self.path, _, query = origin_form(target).partition(b"?")
        self.args = parse_qs(query.decode("latin-1"), keep_blank_values=True)
        announced = self.requestHeaders.hasHeader("content-length") or length is None
        self.body = Body(self.channel, length, announced)
        # RFC 9110 section 10.1.1: an expectation in an HTTP/1.0 request is ignored.
        self.body.expects_continue = (
            version == b"HTTP/1.1" and (self.getHeader("expect") or "").lower() == "100-continue"
        )

    def handleContentChunk(self, data: bytes) -> None:
        """Some of the body is here."""
        self.channel.moved(len(data))
        self.body.received(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """The whole body is in; a request without one begins only now."""
        self.body.finished()
        self.dispatch()

    def dispatch(self) -> None:
        """Render the resource, once."""
        if self.dispatched or self._disconnected:
            return
        self.dispatched = True
        self.site = self.channel.site
        self.peer = self.channel.current_peer()
        self.setHeader("Server", "Repoman")
        self.setHeader("Date", datetimeToString())
        self.setHeader("X-Request-Id", self.request_id)
        # A route that knows better says so; of one that forgets nothing is kept.
        self.setHeader("Cache-Control", KEPT_BY_NOBODY)
        self.prepath = []
        self.postpath = [unquote_to_bytes(part) for part in self.path[1:].split(b"/")]
        try:
            self.render(self.site.resource)
        except Exception:  # a broken resource costs one request, never the connection's state
            self.processingFailed(Failure())

    def getHeader(self, key: AnyStr) -> AnyStr | None:
        """All lines of a field as one (RFC 9110 section 5.3), not the last one only."""
        lines = self.requestHeaders.getRawHeaders(key)
        if lines is None:
            return None
        return ", ".join(lines) if isinstance(key, str) else b", ".join(lines)

    def transfer(self) -> Transfer | None:
        """The bytes that this request moves; ``None`` if it is about something else."""
        reads = self.method == b"GET"
        if self.finished or not self.dispatched:
            return None
        if not self.path.startswith((b"/api/images/raw/", b"/api/uploads/")):
            return None
        if reads and not self.startedWriting:
            return None
        moved = self.sentLength if reads else self.body.count
        announced = (self.responseHeaders.getRawHeaders("content-length") or [""])[0]
        going_out = int(announced) if announced else None
        identity, now = self.peer and self.peer.identity, self.channel.site.reactor.seconds()
        user = getattr(getattr(self, "caller", None), "user", None)
        return Transfer(
            request_id=self.request_id,
            user=user.user_name if user else "",
            dn=identity.subject if identity else "",
            address=str(getattr(self.client, "host", "")),
            direction="download" if reads else "upload",
            path=unquote_to_bytes(self.path).decode("utf-8", "replace"),
            moved=moved,
            total=going_out if reads else self.body.length,
            seconds=now - self.begun,
            rate=self.pace.rate(now, moved),
        )

    def getRequestHostname(self) -> bytes:
        """Always the same: no route depends on what a client calls us, nor fails by it."""
        return b"localhost"

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Let ``producer`` write the answer; stop it at once if nobody is there to read it."""
        if self._disconnected:
            producer.stopProducing()
        else:
            super().registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """Forget the producer; the channel too, if there still is one."""
        # An answered request keeps none, and one whose peer has left has lost it.
        if getattr(self, "channel", None) is None:
            self.producer = None
        else:
            super().unregisterProducer()

    def write(self, data: bytes) -> None:
        """Send some of the answer; an answer before the body's end closes the connection."""
        if self._abandoned or self._disconnected:
            return
        if not self.finished:
            if not self.startedWriting:
                self.channel.about_to_answer(self)
            self.channel.moved(len(data))
        super().write(data)

    def finish(self) -> None:
        """End the answer, unless it was abandoned."""
        if not (self._abandoned or self._disconnected):
            super().finish()

    def abandon(self) -> None:
        """Cut the connection: the answer has begun and cannot be completed.

        That is the one way to tell the peer; an orderly end would make a
        whole of a part.
        """
        if not (self._abandoned or self._disconnected or self.finished):
            self._abandoned = True
            if self.producer is not None:
                self.unregisterProducer()
            self.channel.abort()

    def connectionLost(self, reason: Failure) -> None:
        """The peer is gone: so is the rest of the body."""
        if not self.body.complete:
            self.body.fail(ClientGone("The client went away before the end of its body."))
        site, lost = self.channel.site, self.channel.bytes_lost
        super().connectionLost(reason)
        if self.dispatched and not self.finished:
            self.was_cut = True
            self.sentLength = max(0, self.sentLength - lost)
            site.note(self)


def origin_form(target: bytes) -> bytes:
    """The path and query of a request target, also of an absolute one (RFC 9112 section 3.2.2)."""
    if target.startswith(b"/"):
        return target
    scheme, mark, rest = target.partition(b"://")
    if mark and scheme.lower() in (b"http", b"https"):
        return b"/" + rest.partition(b"/")[2]
    return b"/" + target
