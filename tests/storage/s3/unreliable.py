"""A way to the object store on which things go wrong when a test wants them to."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@define
class Fault:
    """What befalls the next requests whose first line matches.

    :ivar times: how many of them.
    :ivar answer: what they are answered, without asking the store.
    :ivar lost: the store does as asked, but its answer is lost.
    :ivar cut_after: of the store's answer only so many bytes arrive.
    :ivar silent: nothing is ever answered.
    """

    line: str
    times: int = 1
    answer: bytes = b""
    lost: bool = False
    cut_after: int = -1
    silent: bool = False


class _Near(Protocol):
    """The end towards the daemon: knows where requests begin."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._head = b""
        self._left = 0
        self._fault: Fault | None = None
        self.far: _Far | None = None
        self._waiting: list[bytes] = []

    def dataReceived(self, data: bytes) -> None:
        while data:
            if self._left == 0 and self._fault is not None and self._fault.answer:
                self._fault = None
            if self._left == 0:
                data = self._begin(data)
            else:
                piece, data = data[: self._left], data[self._left :]
                self._left -= len(piece)
                self._pass(piece)

    def _begin(self, data: bytes) -> bytes:
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end:
            return b""
        self._head = b""
        line = head.split(b"\r\n")[0].decode()
        found = LENGTH.search(head)
        self._left = int(found[1]) if found else 0
        self._fault = self._proxy.judge(line)
        self._pass(head + end)
        return rest

    def _pass(self, data: bytes) -> None:
        fault = self._fault
        if fault is not None and fault.silent:
            return
        if fault is not None and fault.answer:
            if self._left == 0:
                self.transport.write(fault.answer)
            return
        if self.far is None:
            self._waiting.append(data)
            if len(self._waiting) == 1:
                self._connect()
        else:
            self.far.expect(fault)
            self.far.transport.write(data)

    def _connect(self) -> None:
        end = TCP4ClientEndpoint(self._proxy.reactor, "127.0.0.1", self._proxy.port)
        connectProtocol(end, _Far(self)).addCallbacks(
            self._connected, lambda _: self.transport.abortConnection()
        )

    def _connected(self, far: _Far) -> None:
        self.far = far
        far.expect(self._fault)
        for data in self._waiting:
            far.transport.write(data)

    def connectionLost(self, reason: Any) -> None:
        if self.far is not None:
            self.far.transport.abortConnection()


class _Far(Protocol):
    """The end towards the store."""

    def __init__(self, near: _Near) -> None:
        self._near = near
        self._fault: Fault | None = None
        self._came = 0

    def expect(self, fault: Fault | None) -> None:
        self._fault, self._came = fault, 0

    def dataReceived(self, data: bytes) -> None:
        fault = self._fault
        if fault is None:
            self._near.transport.write(data)
        elif fault.lost:
            self._near.transport.abortConnection()
        else:
            left = max(0, fault.cut_after - self._came)
            self._came += len(data)
            self._near.transport.write(data[:left])
            if self._came >= fault.cut_after:
                self._near.transport.loseConnection()

    def connectionLost(self, reason: Any) -> None:
        self._near.transport.loseConnection()


@define
class Proxy:
    """Stands before the store's gateway.

    :ivar lines: the first line of each request that came.
    """

    reactor: Any
    port: int
    faults: list[Fault] = field(factory=list)
    lines: list[str] = field(factory=list)
    endpoint: str = ""
    _listening: Any = None
    wrap: Callable[[Factory], Any] = lambda factory: factory

    def listen(self) -> None:
        factory = self.wrap(Factory.forProtocol(lambda: _Near(self)))
        self._listening = self.reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.endpoint = f"http://127.0.0.1:{self._listening.getHost().port}"

    async def close(self) -> None:
        await self._listening.stopListening()

    def judge(self, line: str) -> Fault | None:
        self.lines.append(line)
        for fault in self.faults:
            if fault.times and re.search(fault.line, line):
                fault.times -= 1
                return fault
        return None

    def asked(self, line: str) -> int:
        """How many requests matched."""
        return sum(bool(re.search(line, one)) for one in self.lines)


def answer(status: int, code: str, headers: str = "") -> bytes:
    """An answer with an error in it, as S3 gives it."""
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>no</Message></Error>'
    head = f"HTTP/1.1 {status} x\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return (head + body).encode()
