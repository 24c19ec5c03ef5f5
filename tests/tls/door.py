"""The endpoint as the daemon has it, and a client that shows anything.

TLS, its transport, the channel and the request are the real ones; in the repository's
place stands a page that answers who is there, or refuses with the reason.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
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
)
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Protocol
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from repoman.bounded_log import LINES_A_MINUTE
from repoman.errors import NotIdentified
from repoman.model import Identity
from repoman.resources.replies import Reply, refuse, send
from repoman.site import RepositorySite
from repoman.tls import NO_CERTIFICATE, Peer, ServerTLS
from repoman.tls_flow import tls_factory
from repoman.wire import credential_json
from tests.credentials import Credential

VERSIONS = {"TLS 1.2": SSL.TLS1_2_VERSION, "TLS 1.3": SSL.TLS1_3_VERSION}

HOSTILE = pytest.mark.parametrize(
    ("version", "legacy"),
    [(SSL.TLS1_2_VERSION, False), (SSL.TLS1_3_VERSION, False), (SSL.TLS1_3_VERSION, True)],
    ids=["TLS 1.2", "TLS 1.3", "legacy"],
)
"""What is refused is refused in both versions of TLS, and with the option for old proxies too."""


class _WhoIsThere(Resource):
    """Every address: who asks, or why that is nobody."""

    isLeaf = True

    def __init__(self, door: Door) -> None:
        super().__init__()
        self.door = door

    def render(self, request: Any) -> int:
        peer = self.door.peers[request.getClientAddress().port] = request.peer
        if peer.identity is None:
            refuse(request, NotIdentified(peer.refusal))
        else:
            send(request, Reply(credential_json(peer.identity)))
        request.finish()
        return NOT_DONE_YET


@define
class Door:
    """A listening server.

    :ivar version: of TLS, that visitors use.
    :ivar said: what the trust layer logged so far, if somebody listens.
    """

    tls: ServerTLS
    version: int = SSL.TLS1_3_VERSION
    said: Callable[[], list[str]] = list
    port: Any = None
    peers: dict[int, Peer] = field(factory=dict)
    site: Any = None

    async def open(self) -> None:
        endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        self.site = RepositorySite(
            reactor, _WhoIsThere(self), self.tls,
            connections=1000, min_rate=0, log_request=lambda request: None,
        )  # fmt: skip
        self.port = await endpoint.listen(tls_factory(self.tls, self.site, reactor))

    async def close(self) -> None:
        await self.port.stopListening()

    @property
    def number(self) -> int:
        return int(self.port.getHost().port)

    async def visit(self, credential: Credential | None, **how: Any) -> Visit:
        """Connect and wait for the server's verdict.

        :param how: see :func:`client_context`; or a ``context``, and a ``session`` to
            resume; ``smuggle`` two byte strings, to send the second instead of the first;
            a ``server_name`` to ask for.
        """
        session, smuggle = how.pop("session", None), how.pop("smuggle", None)
        server_name = how.pop("server_name", None)
        context = how.pop("context", None) or client_context(
            credential, **({"version": self.version} | how)
        )
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.number)
        visitor = await connectProtocol(
            wrapClientTLS(_Creator(context, session, smuggle, server_name), endpoint), _Visitor()
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
        assert visit.status == 200
        return visit.peer.identity

    async def refuses(self, credential: Credential, **how: Any) -> str:
        """The server must take this for nobody; answer the 403's reason, or the alert.

        And it must have said so in its log, once.
        """
        before = len(self.said())
        visit = await self.visit(credential, **how)
        visit.leave()
        said = [line for line in self.said()[before:] if "left out" not in line]
        assert not any("verification error" in line for line in said), said
        assert len(said) == 1 or self.said is list or before >= LINES_A_MINUTE, said
        if visit.peer is None:
            # Who is still sending when we refuse may be cut before reading the alert.
            assert "alert" in visit.alert or "lost" in visit.alert
            return visit.alert
        assert visit.peer.identity is None, visit.peer.identity
        assert visit.status == 403
        assert visit.text == visit.peer.refusal + "\n"
        assert visit.peer.refusal not in ("", NO_CERTIFICATE)
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
    server_name: bytes | None = None

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        connection = _Smuggler(self.context, None)
        connection.smuggle = self.smuggle
        if self.session is not None:
            connection.set_session(self.session)
        if self.server_name is not None:
            connection.set_tlsext_host_name(self.server_name)
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


QUESTION = b"GET /api/whoami HTTP/1.1\r\nHost: door\r\n\r\n"


class _Visitor(Protocol):
    def __init__(self) -> None:
        self.waiting: Deferred[bytes] | None = None
        self.data = b""
        self.lost: Failure | None = None

    def connectionMade(self) -> None:
        self.transport.write(QUESTION)

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

    async def answer(self) -> bytes:
        """What the server says; nothing, if the connection was lost before."""
        while self.lost is None and not self._complete:
            self.waiting = Deferred()
            await self.waiting
        heard, self.data = self.data, b""
        return heard

    @property
    def _complete(self) -> bool:
        head, end, body = self.data.partition(b"\r\n\r\n")
        length = re.search(rb"Content-Length: (\d+)", head)
        return bool(end and length and len(body) >= int(length[1]))


@define
class Visit:
    """One connection.

    :ivar peer: what the server made of us; ``None`` if the handshake failed.
    :ivar alert: why it failed, as the client saw it.
    :ivar status: of the answer.
    :ivar text: of the answer.
    :ivar closing: the server said that it closes the connection.
    """

    door: Door
    visitor: _Visitor
    peer: Peer | None = None
    alert: str = ""
    status: int = 0
    text: str = ""
    closing: bool = False

    async def listen(self) -> None:
        heard = await self.visitor.answer()
        if heard:
            head, _, body = heard.partition(b"\r\n\r\n")
            self.status, self.text = int(head.split()[1]), body.decode()
            self.closing = b"Connection: close" in head
            self.peer = self.door.peers[self.visitor.transport.getHost().port]
        elif self.visitor.lost is not None:
            self.alert = str(self.visitor.lost.value)

    async def again(self) -> Peer:
        """Ask once more on the same connection, as keep-alive does."""
        self.visitor.transport.write(QUESTION)
        await self.listen()
        assert self.peer is not None, self.alert
        assert self.status == (403 if self.peer.identity is None else 200)
        return self.peer

    @property
    def handle(self) -> SSL.Connection:
        return self.visitor.transport.getHandle()

    def leave(self) -> None:
        if self.visitor.lost is None:
            self.visitor.transport.abortConnection()
