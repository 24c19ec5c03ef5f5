"""A link to PostgreSQL that breaks on demand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attrs import define, field
from psycopg2.extensions import make_dsn, parse_dsn
from twisted.internet.endpoints import UNIXClientEndpoint, UNIXServerEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol

SOCKET = ".s.PGSQL.5432"


class _Side(Protocol):
    """One end of a proxied connection."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.other: _Side | None = None
        self.waiting = b""

    def connectionMade(self) -> None:
        self.proxy.sides.add(self)
        if self.proxy.frozen:
            self.transport.pauseProducing()

    def dataReceived(self, data: bytes) -> None:
        if self.other is None:
            self.waiting += data
        elif self.proxy.lets_pass(data):
            self.other.transport.write(data)

    def connectionLost(self, reason: Any) -> None:
        self.proxy.sides.discard(self)
        if self.other is not None:
            self.other.transport.loseConnection()

    def join(self, other: _Side) -> None:
        self.other = other
        waiting, self.waiting = self.waiting, b""
        if waiting:
            self.dataReceived(waiting)


@define
class Proxy:
    """Stands between a pool and the server of ``dsn``.

    :ivar connections: how many there have been.
    """

    reactor: Any
    server: str
    directory: Path
    frozen: bool = False
    connections: int = 0
    sides: set[_Side] = field(factory=set)
    _trap: tuple[bytes, bool] | None = None
    _port: Any = None

    @property
    def dsn(self) -> str:
        return make_dsn(self.server, host=str(self.directory))

    async def listen(self) -> None:
        factory = Factory.forProtocol(lambda: self._accept())
        endpoint = UNIXServerEndpoint(self.reactor, str(self.directory / SOCKET))
        self._port = await endpoint.listen(factory)

    async def refuse(self) -> None:
        """No new connections, and an end to the old ones."""
        if self._port is not None:
            port, self._port = self._port, None
            await port.stopListening()
        self.cut()

    def cut(self) -> None:
        for side in list(self.sides):
            side.transport.abortConnection()

    def cut_at(self, text: bytes, *, delivered: bool) -> None:
        """Cut every link when ``text`` comes by, once, before or after it has passed."""
        self._trap = (text, delivered)

    def freeze(self) -> None:
        self.frozen = True
        for side in self.sides:
            side.transport.pauseProducing()

    def thaw(self) -> None:
        self.frozen = False
        for side in self.sides:
            side.transport.resumeProducing()

    def lets_pass(self, data: bytes) -> bool:
        if self._trap is None or self._trap[0] not in data:
            return True
        (_, delivered), self._trap = self._trap, None
        # Time for the server to act upon it, but its answer is lost.
        self.freeze() if delivered else None
        self.reactor.callLater(0.2 if delivered else 0, self._spring)
        return delivered

    def _spring(self) -> None:
        self.frozen = False
        self.cut()

    def _accept(self) -> _Side:
        self.connections += 1
        near = _Side(self)
        parts = parse_dsn(self.server)
        far = UNIXClientEndpoint(self.reactor, f"{parts['host']}/{SOCKET}")

        def join(side: _Side) -> None:
            side.join(near)
            near.join(side)

        connectProtocol(far, _Side(self)).addCallbacks(
            join, lambda failure: near.transport.loseConnection()
        )
        return near
