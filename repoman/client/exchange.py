"""One question to the server and its answer, over treq.

What treq would do by itself and a repository's client must not have: it never
follows a redirect (a redirect would take the client certificate to another
host), never asks for nor unpacks a compressed answer, and never waits without
a limit for a peer that has stopped talking.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NoReturn, cast
from urllib.parse import urlsplit

from attrs import frozen
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.iweb import (
    IAgent,
    IAgentEndpointFactory,
    IBodyProducer,
    IPolicyForHTTPS,
    IResponse,
)
from zope.interface import implementer

from repoman import __version__
from repoman.client.heads import BoundedHeads
from repoman.client.problems import ISeesItself, in_words, is_passing
from repoman.client.receiver import Abandoning, Receiver, silence
from repoman.client.replies import decoded, error_of, next_page
from repoman.errors import RepomanError, TooManyUploads
from repoman.tls_flow import tls_factory

CONNECT_SECONDS = 20.0
"""How long a TCP connection may take."""

NEXT_ADDRESS_SECONDS = 0.1
"""How long a host's first address may take until the next is tried beside it (RFC 8305)."""

IDLE_SECONDS = 30
"""How long an idle connection is kept: less than servers do, or orders would run into its end."""

MOST_CONNECTIONS = 16
"""How many idle connections are kept."""

STALL_SECONDS = 60.0
"""How long the server may be silent when it is its turn."""

JSON_LIMIT = 256 * 2**20
"""The longest JSON answer that we read, in bytes."""

RETRY_DELAYS = (0.3, 0.7, 2.0)
"""Seconds to wait before each new try of a question, when the line or the server fails."""

LONGEST_PAUSE = 10.0
"""Seconds that we wait at most before we ask again, whatever the server's ``Retry-After`` says."""

TRANSFER_DELAYS = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0)
"""The same for a transfer, which is worth more patience."""

ACCEPT = "application/json, application/problem+json"
"""What we ask for, so that refusals come as problems that name their class."""

USER_AGENT = f"repoman/{__version__}"
"""Who we say we are."""


@frozen
@implementer(IStreamClientEndpoint)
class _FlowingEndpoint:
    """Puts TLS for large transfers on the connections of another endpoint."""

    address: IStreamClientEndpoint
    creator: Any
    clock: Any

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect, and begin TLS."""
        connecting: Any = self.address.connect(
            tls_factory(self.creator, factory, self.clock, is_client=True)
        )
        cancelled = []

        def cancel(_: Any) -> None:
            cancelled.append(True)
            connecting.cancel()

        # Cancelled while it resolves the name, Twisted only says that there is no such
        # host; that would be tried again.
        connected: Deferred[IProtocol] = Deferred(cancel)
        connecting.addCallback(lambda transport: transport.wrappedProtocol)
        connecting.addErrback(lambda why: Failure(CancelledError()) if cancelled else why)
        connecting.addBoth(connected.callback)
        return connected


@frozen
@implementer(IAgentEndpointFactory)
class _Endpoints:
    """Connects Twisted's agent as everything else is connected: with TLS, to the one server."""

    exchange: Exchange

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        return _Bounded(self.exchange.endpoint())


@frozen
@implementer(IStreamClientEndpoint)
class _Bounded:
    """Bounds the heads of what comes over the connections of another endpoint."""

    endpoint: IStreamClientEndpoint

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        heads: Any = BoundedHeads
        connecting: Any = self.endpoint.connect(heads(factory))
        return cast(Deferred[IProtocol], connecting.addCallback(lambda head: head.wrappedProtocol))


@implementer(IAgent)
class PlainAgent:
    """Asks for bodies as they are: treq adds ``Accept-Encoding: gzip`` and unpacks."""

    def __init__(self, agent: IAgent) -> None:
        self._agent = agent

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """Pass the request on, without compression."""
        headers = headers.copy() if headers else Headers()
        headers.setRawHeaders(b"Accept-Encoding", [b"identity"])
        return self._agent.request(method, uri, headers, bodyProducer)


class Exchange:
    """A line to one server, kept open between requests.

    :ivar server: ``host:port``, for messages.
    """

    def __init__(
        self,
        reactor: Any,
        base_url: str,
        tls: IPolicyForHTTPS,
        *,
        retry_delays: Sequence[float] = RETRY_DELAYS,
        transfer_delays: Sequence[float] = TRANSFER_DELAYS,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        """Nothing is connected yet.

        :param base_url: ``https://host:port`` without a path.
        :param tls: usually a :class:`repoman.tls.ClientTLS`.
        """
        self.reactor = reactor
        self.base_url = base_url.rstrip("/")
        self.server = urlsplit(base_url).netloc
        self.tls = tls
        self._look = tls.look if ISeesItself.providedBy(tls) else None
        self.transfer_delays = tuple(transfer_delays)
        self._host = self.server if self.server.isascii() else self.server.encode("idna").decode()
        self._retry_delays = tuple(retry_delays)
        self.stall_seconds = stall_seconds
        self._pool = HTTPConnectionPool(reactor)
        self._pool.cachedConnectionTimeout = IDLE_SECONDS
        self._pool.maxPersistentPerHost = MOST_CONNECTIONS
        agent = Agent.usingEndpointFactory(reactor, _Endpoints(self), self._pool)
        self._treq = HTTPClient(PlainAgent(agent))

    def endpoint(self) -> IStreamClientEndpoint:
        """Where the server is, with TLS on top."""
        parts = urlsplit(self.base_url)
        host, port = parts.hostname or "", parts.port or 443
        name = host.encode("ascii" if host.isascii() else "idna")
        address = HostnameEndpoint(
            self.reactor, host, port, timeout=CONNECT_SECONDS, attemptDelay=NEXT_ADDRESS_SECONDS
        )
        return _FlowingEndpoint(address, self.tls.creatorForNetloc(name, port), self.reactor)

    async def close(self) -> None:
        """Say goodbye to the server, but do not wait long for its answer."""
        closed = self._pool.closeCachedConnections()
        closed.addTimeout(1.0, self.reactor, onTimeoutCancel=lambda result, seconds: None)
        await closed

    async def request(
        self, method: str, path: str, *, headers: Mapping[str, str] = {}, **options: Any
    ) -> IResponse:
        """Send a request and answer its reply, whatever the status; the body is still to come.

        :param options: ``params`` and ``json`` as treq has them.
        :raises RepomanError: there was no reply.
        """
        stated = {"Host": self._host, "Accept": ACCEPT, "User-Agent": USER_AGENT, **headers}
        asked = self._treq.request(
            method,
            # Not base_url: treq raises for an IPv6 address, and where to connect is ours to say.
            "https://server" + path,
            headers=Headers({k: [v] for k, v in stated.items()}),
            allow_redirects=False,
            unbuffered=True,
            reactor=self.reactor,
            **options,
        )
        asked.addTimeout(self.stall_seconds, self.reactor, onTimeoutCancel=self._silent)
        with in_words(self.server, self._look):
            return await asked

    async def json(self, method: str, path: str, **options: Any) -> Any:
        """Do a whole exchange of JSON; safe requests are tried again when the line fails.

        :raises RepomanError: the error that the server reports, or ours.
        """
        return (await self.json_and_next(method, path, **options))[0]

    async def json_and_next(self, method: str, path: str, **options: Any) -> tuple[Any, str]:
        """The same, with the path of a listing's next page, or an empty string."""

        async def once() -> tuple[Any, str]:
            reply = await self.request(method, path, **options)
            body = await self.body(reply)
            return decoded(reply, body), next_page(reply)

        return await self._retrying(once, is_safe=method == "GET")

    async def _retrying(
        self, attempt: Callable[[], Awaitable[tuple[Any, str]]], *, is_safe: bool
    ) -> tuple[Any, str]:
        for delay in self._retry_delays:
            try:
                return await attempt()
            except RepomanError as error:
                # What a 429 refuses was not done (RFC 6585 section 4), whatever it was.
                if not (isinstance(error, TooManyUploads) or (is_safe and is_passing(error))):
                    raise
                pause = max(delay, min(error.retry_after or 0.0, LONGEST_PAUSE))
            await deferLater(self.reactor, pause)
        return await attempt()

    async def body(self, reply: IResponse, limit: int = JSON_LIMIT) -> bytes:
        """A reply's whole body, if it is not larger than ``limit`` bytes."""
        chunks: list[bytes] = []
        await self.receive(reply, chunks.append, limit)
        return b"".join(chunks)

    async def receive(
        self, reply: IResponse, take: Callable[[bytes], Deferred[None] | None], limit: int
    ) -> None:
        """Hand a reply's body to ``take``, piece by piece.

        :param take: may answer a Deferred: no more comes before it fires.
        :raises ConnectionProblem: it stopped before its end.
        :raises BadReply: there is more than ``limit`` bytes.
        :raises Exception: what ``take`` raised.
        """
        receiver = Receiver(self.reactor, take, limit, self.stall_seconds, self.server)
        reply.deliverBody(receiver)
        with in_words(self.server, self._look):
            await receiver.done
            if receiver.busy is not None and not receiver.fault:
                await receiver.busy
        if receiver.fault:
            raise receiver.fault

    def abandon(self, reply: IResponse) -> None:
        """Let go of a reply whose body nobody wants."""
        reply.deliverBody(Abandoning())

    async def refuse(self, reply: IResponse) -> NoReturn:
        """Raise the error that a reply stands for."""
        raise error_of(reply, await self.body(reply, 2**20))

    def _silent(self, result: Any, seconds: float) -> Failure:
        return Failure(silence(self.server, seconds))
