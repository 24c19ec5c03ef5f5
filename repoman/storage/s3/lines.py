"""Connections to the object store.

Not Twisted's HostnameEndpoint: it asks the name service in a thread, even about addresses.
"""

from __future__ import annotations

from typing import Any, cast
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.web.client import URI
from twisted.web.iweb import IAgentEndpointFactory, IPolicyForHTTPS
from zope.interface import implementer

from repoman.storage.s3.addresses import Addresses
from repoman.tls_flow import tls_factory

CONNECT_SECONDS = 4.0
"""How long a TCP connection to one address may take."""


class _Abrupt(ProtocolWrapper):
    """Ends at once: the HTTP client hangs up when it is done, and a frozen peer never would."""

    def loseConnection(self) -> None:
        """Hang up, without waiting for TLS to say goodbye."""
        below: Any = self.transport
        below.abortConnection()


class _AbruptLines(WrappingFactory):
    protocol = _Abrupt


@implementer(IStreamClientEndpoint, IAgentEndpointFactory)
class Lines:
    """Connects Twisted's agent with the one object store.

    :param tls: ``None``: without.
    """

    def __init__(self, reactor: Any, endpoint: str, tls: IPolicyForHTTPS | None) -> None:
        parts = urlsplit(endpoint)
        self._reactor = reactor
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if tls else 80)
        self._tls = tls
        self._addresses = Addresses(reactor, self._host)

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """There is one only."""
        return cast(IStreamClientEndpoint, self)

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect to the first address that lets us."""
        return Deferred.fromCoroutine(self._connect(factory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        addresses = await self._addresses.get()
        for address in addresses:
            try:
                return await self._connect_to(address, factory)
            except ConnectError:
                if address == addresses[-1]:
                    raise
        raise DNSLookupError(f"no address for {self._host}")

    async def _connect_to(self, address: str, factory: IProtocolFactory) -> IProtocol:
        kind: Any = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
        endpoint = kind(self._reactor, address, self._port, timeout=CONNECT_SECONDS)
        lines: Any = _AbruptLines
        abrupt = lines(factory)
        if self._tls is None:
            return cast(IProtocol, (await endpoint.connect(abrupt)).wrappedProtocol)
        creator = self._tls.creatorForNetloc(self._host.encode("idna"), self._port)
        below = await endpoint.connect(tls_factory(creator, abrupt, self._reactor, is_client=True))
        return cast(IProtocol, below.wrappedProtocol.wrappedProtocol)
