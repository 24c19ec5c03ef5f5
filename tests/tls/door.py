"""A real TLS server that reports whom it sees, and a client that shows anything."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import pytest
from attrs import define, field, frozen
from OpenSSL import SSL
from OpenSSL.crypto import FILETYPE_ASN1, X509, load_certificate
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    connectProtocol,
    wrapClientTLS,
    wrapServerTLS,
)
from twisted.internet.interfaces import IHandshakeListener, IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure
from zope.interface import implementer

from repoman.model import Identity
from repoman.tls import NO_CERTIFICATE, Peer, ServerTLS
from tests.credentials import Credential

VERSIONS = {"TLS 1.2": SSL.TLS1_2_VERSION, "TLS 1.3": SSL.TLS1_3_VERSION}

HOSTILE = pytest.mark.parametrize(
    ("version", "legacy"),
    [(SSL.TLS1_2_VERSION, False), (SSL.TLS1_3_VERSION, False), (SSL.TLS1_3_VERSION, True)],
    ids=["TLS 1.2", "TLS 1.3", "legacy"],
)
"""What is refused is refused in both versions of TLS, and with the option for old proxies too."""


@implementer(IHandshakeListener)
class Reporter(Protocol):
    """Judges the peer as the HTTP channel does: once, and again at each request."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self.peer: Peer | None = None

    def connectionMade(self) -> None:
        self.door.connections.append(self)

    def handshakeCompleted(self) -> None:
        handle = self.transport.getHandle()
        self.peer = self.door.tls.peer(handle)
        self.door.peers[self.transport.getPeer().port] = self.peer
        self.transport.write(b"!")

    def dataReceived(self, data: bytes) -> None:
        assert self.peer is not None
        self.peer = self.door.tls.current(self.peer)
        self.door.peers[self.transport.getPeer().port] = self.peer
        self.transport.write(b"!")


@define
class Door:
    """A listening server.

    :ivar version: of TLS, that visitors use.
    """

    tls: ServerTLS
    version: int = SSL.TLS1_3_VERSION
    port: Any = None
    peers: dict[int, Peer] = field(factory=dict)
    connections: list[Reporter] = field(factory=list)

    async def open(self) -> None:
        endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        factory = Factory.forProtocol(lambda: Reporter(self))
        self.port = await wrapServerTLS(self.tls, endpoint).listen(factory)

    async def close(self) -> None:
        await self.port.stopListening()

    @property
    def number(self) -> int:
        return int(self.port.getHost().port)

    async def visit(self, credential: Credential | None, **how: Any) -> Visit:
        """Connect and wait for the server's verdict.

        :param how: see :func:`client_context`; or a ``context``, and a ``session`` to
            resume; ``smuggle`` two byte strings, to send the second instead of the first.
        """
        session, smuggle = how.pop("session", None), how.pop("smuggle", None)
        context = how.pop("context", None) or client_context(
            credential, **({"version": self.version} | how)
        )
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.number)
        visitor = await connectProtocol(
            wrapClientTLS(_Creator(context, session, smuggle), endpoint), _Visitor()
        )
        # Twisted sends 32 KiB of a handshake message and forgets the rest until it hears something.
        flushing = LoopingCall(visitor.transport._flushSendBIO)
        flushing.start(0.01).addErrback(lambda _: None)
        visit = Visit(self, visitor)
        try:
            await Deferred.fromCoroutine(visit.listen()).addTimeout(20, reactor)
        finally:
            if flushing.running:
                flushing.stop()
        return visit

    async def welcomes(self, credential: Credential, **how: Any) -> Identity:
        """The server must know who this is."""
        visit = await self.visit(credential, **how)
        visit.leave()
        assert visit.peer is not None, visit.alert
        assert visit.peer.identity is not None, visit.peer.refusal
        assert visit.peer.refusal == ""
        return visit.peer.identity

    async def refuses(self, credential: Credential, **how: Any) -> str:
        """The server must take this for nobody; answer its reason, or its alert."""
        visit = await self.visit(credential, **how)
        visit.leave()
        if visit.peer is None:
            assert "alert" in visit.alert
            return visit.alert
        assert visit.peer.identity is None, visit.peer.identity
        assert visit.peer.refusal
        assert visit.peer.refusal != NO_CERTIFICATE
        return visit.peer.refusal


def client_context(
    credential: Credential | None,
    *,
    version: int = SSL.TLS1_3_VERSION,
    send: Sequence[Credential] | None = None,
) -> SSL.Context:
    """A client that shows what it is told to, without looking at it.

    :param send: after the certificate itself; the issuers but the root by default.
    """
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_cipher_list(b"ALL:@SECLEVEL=0")
    context.set_min_proto_version(version)
    context.set_max_proto_version(version)
    if credential is not None:
        with warnings.catch_warnings():
            # The library that it wants instead does not take what is broken on purpose.
            warnings.simplefilter("ignore", DeprecationWarning)
            context.use_certificate(_x509(credential))
            for other in credential.sent if send is None else send:
                context.add_extra_chain_cert(_x509(other))
        context.use_privatekey(credential.key)
    return context


def _x509(credential: Credential) -> X509:
    return load_certificate(FILETYPE_ASN1, credential.der)


@implementer(IOpenSSLClientConnectionCreator)
@frozen
class _Creator:
    context: SSL.Context
    session: Any = None
    smuggle: tuple[bytes, bytes] | None = None

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        connection = _Smuggler(self.context, None)
        connection.smuggle = self.smuggle
        if self.session is not None:
            connection.set_session(self.session)
        return connection


class _Smuggler(SSL.Connection):
    """A client whose certificate is not what its own OpenSSL thinks."""

    smuggle: tuple[bytes, bytes] | None = None

    def bio_read(self, size: int) -> bytes:
        data = super().bio_read(size)
        if self.smuggle is None or self.smuggle[0] not in data:
            return data
        assert len(self.smuggle[0]) == len(self.smuggle[1])
        return data.replace(*self.smuggle)


class _Visitor(Protocol):
    def __init__(self) -> None:
        self.waiting: Deferred[bytes] | None = None
        self.data = b""
        self.lost: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        self._answer()

    def connectionLost(self, reason: Failure) -> None:
        self.lost = reason
        self._answer()

    def _answer(self) -> None:
        if self.waiting is not None:
            waiting, self.waiting = self.waiting, None
            waiting.callback(b"")

    async def answer(self) -> bool:
        """The server has said something, or else the connection is lost."""
        if not self.data and self.lost is None:
            self.waiting = Deferred()
            await self.waiting
        heard, self.data = bool(self.data), b""
        return heard


@define
class Visit:
    """One connection.

    :ivar peer: what the server made of us; ``None`` if the handshake failed.
    :ivar alert: why it failed, as the client saw it.
    """

    door: Door
    visitor: _Visitor
    peer: Peer | None = None
    alert: str = ""

    async def listen(self) -> None:
        if await self.visitor.answer():
            self.peer = self.door.peers[self.visitor.transport.getHost().port]
        elif self.visitor.lost is not None:
            self.alert = str(self.visitor.lost.value)

    async def again(self) -> Peer:
        """Ask once more on the same connection, as keep-alive does."""
        self.visitor.transport.write(b"?")
        await self.listen()
        assert self.peer is not None, self.alert
        return self.peer

    @property
    def handle(self) -> SSL.Connection:
        return self.visitor.transport.getHandle()

    def leave(self) -> None:
        self.visitor.transport.abortConnection()
