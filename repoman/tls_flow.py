"""TLS for large transfers: Twisted's own, with fewer copies and fewer calls.

Twisted hands OpenSSL 16 KiB at a time, copies each piece out and queues it for
the socket; what comes in is delivered a record at a time.  Here a large write
is encrypted in one go and its ciphertext goes straight to the socket while
nothing is queued before it, and all records of one read are delivered at once.

Everything else (handshake, buffering while OpenSSL wants to read, shutdown,
producers) stays Twisted's.  This module knows private names of
:mod:`twisted.protocols.tls` and of TCP transports; where they are missing, it
does nothing, and Twisted's own way remains.  The tests pin both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from OpenSSL.SSL import Error, WantReadError, ZeroReturnError
from twisted.internet.error import ConnectionDone
from twisted.internet.tcp import Connection
from twisted.protocols.tls import (
    BufferingTLSTransport,
    TLSMemoryBIOFactory,
    TLSMemoryBIOProtocol,
)
from twisted.python.failure import Failure

BULK = 32 * 1024
"""A write of so many bytes is not worth gathering with others."""

RECORD = 16 * 1024
"""What OpenSSL encrypts at a time, in bytes (RFC 8446 section 5.1)."""

READ = 256 * 1024
"""How many bytes are taken from a socket at a time."""

PRIVATE = (
    "_write", "_flushSendBIO", "_flushReceiveBIO", "_bufferedWrite", "_shutdownTLS",
    "_tlsShutdownFinished",
)  # fmt: skip
"""The names of Twisted's that this module overrides or calls."""


_CLOSED = Failure(ConnectionDone())


class FlowingTLSTransport(BufferingTLSTransport):
    """A TLS connection for large transfers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._gather: Callable[[bytes], None] = self.write
        self.write = self._write_any  # type: ignore[method-assign]  # as the superclass does

    def makeConnection(self, transport: Any) -> None:
        """Begin; take more from the socket at a time."""
        if isinstance(transport, Connection):
            transport.bufferSize = READ
        super().makeConnection(transport)

    def _write_any(self, data: bytes) -> None:
        if len(data) < BULK:
            self._gather(data)
        else:
            self._aggregator.flush()
            TLSMemoryBIOProtocol.write(self, data)

    def connectionLost(self, reason: Failure = _CLOSED) -> None:
        """Forget everything."""
        super().connectionLost(reason)
        self._gather = self.write

    def _write(self, data: bytes) -> None:
        if self._lostTLSConnection:
            return
        view, sent = memoryview(data), 0
        try:
            while sent < len(view):
                sent += self._tlsConnection.send(view[sent : sent + RECORD])
        except WantReadError:
            self._flush_ciphertext(sent)
            self._bufferedWrite(bytes(view[sent:]))
        except Error:
            self._tlsShutdownFinished(Failure())
        else:
            self._flush_ciphertext(sent)

    def _flush_ciphertext(self, encrypted: int) -> None:
        # A record's header and tag take 22 bytes (RFC 8446 section 5.2).
        room = encrypted + 64 * (encrypted // RECORD + 2)
        while True:
            try:
                ciphertext = self._tlsConnection.bio_read(max(room, RECORD))
            except WantReadError:
                return
            self._send(ciphertext)

    def _send(self, ciphertext: bytes) -> None:
        tcp: Any = self.transport
        if _is_idle(tcp):
            try:
                count = tcp.socket.send(ciphertext)
            except OSError:
                count = 0  # full, or broken: the ordinary way finds out which
            if count == len(ciphertext):
                return
            ciphertext = ciphertext[count:]
        tcp.write(ciphertext)

    def _flushReceiveBIO(self) -> None:
        pieces: list[bytes] = []
        try:
            while not self._lostTLSConnection:
                pieces.append(self._tlsConnection.recv(RECORD))
        except WantReadError:
            self._deliver(pieces)
        except ZeroReturnError:
            self._deliver(pieces)
            self._shutdownTLS()
            self._tlsShutdownFinished(None)
        except Error:
            broken = Failure()
            self._deliver(pieces)
            self._tlsShutdownFinished(broken)
        self._flushSendBIO()

    def _deliver(self, pieces: list[bytes]) -> None:
        if pieces and not self._aborted:
            self.wrappedProtocol.dataReceived(pieces[0] if len(pieces) == 1 else b"".join(pieces))


def _is_idle(tcp: Any) -> bool:
    """Nothing waits in ``tcp`` to be sent, and it may be written to."""
    return (
        isinstance(tcp, Connection)
        and bool(tcp.connected)
        and not (tcp.disconnecting or tcp.disconnected)
        and not getattr(tcp, "_tempDataBuffer", "unknown")
        and len(tcp.dataBuffer) == tcp.offset
    )


class FlowingTLSFactory(TLSMemoryBIOFactory):
    """Puts TLS for large transfers on connections, where this Twisted allows it."""

    protocol = FlowingTLSTransport


def tls_factory(creator: Any, wrapped: Any, clock: Any) -> TLSMemoryBIOFactory:
    """A factory that puts TLS on what ``wrapped`` builds.

    Twisted's own, if this is not the Twisted that this module knows.
    """
    known = all(hasattr(TLSMemoryBIOProtocol, name) for name in PRIVATE)
    kind = FlowingTLSFactory if known else TLSMemoryBIOFactory
    return kind(creator, False, wrapped, clock)
