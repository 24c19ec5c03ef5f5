"""The PROXY protocol: a proxy in front says whom it speaks for, before anything else.

The header is of version 1 or 2 (haproxy's ``proxy-protocol.txt``); what follows it is the
client's own, TLS as a rule.  Not Twisted's wrapper: that stays between the socket and TLS for
good, which costs a copy of every byte, and closes on a header that comes in two pieces.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from attrs import frozen
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
"""How version 2 begins (section 2.2)."""

LONGEST_LINE = 107
"""Bytes of the longest header of version 1, its CRLF included (section 2.1)."""

LONGEST_REST = 4096
"""Bytes that version 2 may have beyond its first 16: addresses, and what we do not read."""

_FAMILIES = {0x11: (socket.AF_INET, 4), 0x21: (socket.AF_INET6, 16)}

_CLOSED = Failure(ConnectionDone())

Address = IPv4Address | IPv6Address


@frozen
class Header:
    """What the proxy said.

    :ivar peer: whom it speaks for; ``None``: itself, or nobody it knows.
    :ivar length: bytes that the header has.
    """

    peer: Address | None
    length: int


def read_header(data: bytes) -> Header | None:
    """Read the header at the beginning of ``data``; ``None``: there is more to come.

    :raises ValueError: it is none.
    """
    if data[: len(SIGNATURE)] == SIGNATURE[: len(data)]:
        return _read_binary(data)
    return _read_line(data)


def _read_line(data: bytes) -> Header | None:
    line, end, _ = data[:LONGEST_LINE].partition(b"\r\n")
    begin = b"PROXY "
    if line[: len(begin)] != begin[: len(line)] or (not end and len(data) >= LONGEST_LINE):
        raise ValueError("no PROXY header")
    if not end:
        return None
    kind, *words = line.decode("ascii").split(" ")[1:]
    if kind == "UNKNOWN":
        return Header(None, len(line) + 2)
    if kind not in ("TCP4", "TCP6") or len(words) != 4 or not words[2].isdecimal():
        raise ValueError("no PROXY header")
    return Header(_address(words[0], int(words[2]), 4 if kind == "TCP4" else 6), len(line) + 2)


def _read_binary(data: bytes) -> Header | None:
    if len(data) < 16:
        return None
    command, family, rest = struct.unpack("!BBH", data[12:16])
    if command not in (0x20, 0x21) or rest > LONGEST_REST:
        raise ValueError("no PROXY header")
    if len(data) < 16 + rest:
        return None
    peer = _peer(family, data[16 : 16 + rest]) if command == 0x21 else None
    return Header(peer, 16 + rest)


def _peer(family: int, addresses: bytes) -> Address | None:
    if family not in _FAMILIES:
        return None
    kind, size = _FAMILIES[family]
    if len(addresses) < 2 * size + 4:
        raise ValueError("no PROXY header")
    host = socket.inet_ntop(kind, addresses[:size])
    [port] = struct.unpack_from("!H", addresses, 2 * size)
    return _address(host, port, 4 if size == 4 else 6)


def _address(host: str, port: int, version: int) -> Address:
    found = ip_address(host)
    # The zone of an address may be any text.
    if found.version != version or "%" in host or port > 65535:
        raise ValueError("no PROXY header")
    return (IPv4Address if version == 4 else IPv6Address)("TCP", str(found), port)


class _Announced(Protocol):
    """A connection until its header is complete.

    What will speak on it is made at once, so that its deadlines and limits hold before, too.
    """

    def __init__(
        self,
        wrapped: Any,
        refuse: Callable[[Any], object],
        announced: Callable[[Any], object],
    ) -> None:
        self._wrapped = wrapped
        self._refuse = refuse
        self._announced = announced
        self._header = b""

    def connectionMade(self) -> None:
        """Let the other begin, to wait."""
        self._wrapped.makeConnection(self.transport)

    def dataReceived(self, data: bytes) -> None:
        """Collect the header, then step aside."""
        self._header += data
        try:
            header = read_header(self._header)
        except ValueError:
            self._refuse(self.transport)
            return
        if header is not None:
            self._step_aside(header)

    def _step_aside(self, header: Header) -> None:
        transport: Any = self.transport
        if header.peer is not None:
            transport.getPeer = lambda: header.peer
        transport.protocol = self._wrapped
        self._announced(self._wrapped)
        if rest := self._header[header.length :]:
            self._wrapped.dataReceived(rest)

    def connectionLost(self, reason: Failure = _CLOSED) -> None:
        """It ended before its header did."""
        self._wrapped.connectionLost(reason)


class AnnouncedFactory(Factory):
    """Takes connections from proxies that speak the PROXY protocol, and from nobody else.

    :param wrapped: the factory of what speaks after the header.
    :param refuse: ends a transport whose peer began otherwise.
    :param announced: told of what speaks on a connection, when its header has come.
    """

    noisy = False

    def __init__(
        self,
        wrapped: Any,
        refuse: Callable[[Any], object],
        announced: Callable[[Any], object],
    ) -> None:
        self._wrapped = wrapped
        self._refuse = refuse
        self._announced = announced

    def buildProtocol(self, addr: Any) -> Protocol | None:
        """Make both ends of it."""
        wrapped = self._wrapped.buildProtocol(addr)
        return None if wrapped is None else _Announced(wrapped, self._refuse, self._announced)

    def doStart(self) -> None:
        """Start the other as well."""
        super().doStart()
        self._wrapped.doStart()

    def doStop(self) -> None:
        """Stop the other as well."""
        self._wrapped.doStop()
        super().doStop()
