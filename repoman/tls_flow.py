"""TLS for large transfers: Twisted's own, with fewer copies and fewer calls.

Twisted hands OpenSSL 16 KiB at a time, copies each piece out and queues it for
the socket; what comes in is delivered a record at a time.  Here a large write
is encrypted in one go and its ciphertext goes straight to the socket while
nothing is queued before it, and all records of one read are delivered at once.

Everything else (handshake, buffering while OpenSSL wants to read, shutdown,
producers) stays Twisted's.  This module knows private names of
:mod:`twisted.protocols.tls`, of TCP transports and of pyOpenSSL; where they are
missing, it does nothing, and their own ways remain.  The tests pin both.
"""

from __future__ import annotations

import fcntl
import struct
import termios
from collections.abc import Callable
from contextlib import suppress
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
    "_tlsShutdownFinished", "_lostTLSConnection", "_aborted",
    "_producer",
)  # fmt: skip
"""The names of Twisted's that this module overrides, calls or reads.

One more, ``_aggregator``, only objects have: each of ours looks for its own.
"""


_CLOSED = Failure(ConnectionDone())

_scratch = memoryview(bytearray(2 * READ))
"""One for all connections: what is put here is sent, or copied, before anything else happens."""

_openssl: Any = None
"""pyOpenSSL's own OpenSSL, and where ``_scratch`` is for it."""

with suppress(ImportError, AttributeError):
    from OpenSSL._util import ffi, lib

    _openssl = (lib, ffi.from_buffer(_scratch)) if lib.SSL_read and lib.BIO_read else None


class FlowingTLSTransport(BufferingTLSTransport):
    """A TLS connection for large transfers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not hasattr(self, "_aggregator"):
            return
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

    def _tlsShutdownFinished(self, reason: Failure | None) -> None:
        # Of a goodbye in mid handshake, whose error has no arguments, Twisted reads the first.
        if reason is not None and isinstance(reason.value, ZeroReturnError):
            reason = None
        super()._tlsShutdownFinished(reason)

    def _write(self, data: bytes) -> None:
        if self._lostTLSConnection:
            return
        connection, view, sent = self.getHandle(), memoryview(data), 0
        try:
            while sent < len(view):
                sent += connection.send(view[sent:])
        except WantReadError:
            self._flush_ciphertext()
            self._bufferedWrite(bytes(view[sent:]))
        except Error:
            self._tlsShutdownFinished(Failure())
        else:
            self._flush_ciphertext()

    def _flush_ciphertext(self) -> None:
        connection = self.getHandle()
        while count := take_ciphertext(connection):
            self._send(_scratch[:count])
            if count < len(_scratch):
                return

    def _send(self, ciphertext: memoryview) -> None:
        tcp: Any = self.transport
        count = 0
        if _is_idle(tcp):
            # Full, or broken: the ordinary way finds out which.
            with suppress(OSError):
                count = tcp.socket.send(ciphertext)
        if count < len(ciphertext):
            tcp.write(bytes(ciphertext[count:]))

    def _flushReceiveBIO(self) -> None:
        count = 0
        try:
            while not self._lostTLSConnection:
                if count > len(_scratch) - RECORD:
                    self._deliver(count)
                    count = 0
                else:
                    count += take_plaintext(self.getHandle(), count)
        except WantReadError:
            self._deliver(count)
        except ZeroReturnError:
            self._deliver(count)
            self._stop_producer()
            self._shutdownTLS()
            self._tlsShutdownFinished(None)
        except Error:
            broken = Failure()
            self._deliver(count)
            self._tlsShutdownFinished(broken)
        self._flushSendBIO()

    def _stop_producer(self) -> None:
        """Nothing more will be written: the producer would write its whole answer into the void.

        TCP also waits for its producer before it closes.  This comes before our own close_notify,
        which is none of the bytes that the producer may look for.
        """
        producer = self._producer
        if producer is not None:
            self.unregisterProducer()
            producer.stopProducing()

    def _deliver(self, count: int) -> None:
        if count and not self._aborted:
            self.wrappedProtocol.dataReceived(bytes(_scratch[:count]))


def take_ciphertext(connection: Any) -> int:
    """Move what is to be sent to the beginning of ``_scratch``; answer how many bytes."""
    if _openssl and hasattr(connection, "_from_ssl"):
        lib, pointer = _openssl
        # Not bio_read: it makes a new object of each piece, and the kernel new pages for it.
        bio = connection._from_ssl  # noqa: SLF001 # pyOpenSSL has no way without a copy
        return max(int(lib.BIO_read(bio, pointer, len(_scratch))), 0)
    try:
        ciphertext = connection.bio_read(len(_scratch))
    except WantReadError:
        return 0
    _scratch[: len(ciphertext)] = ciphertext
    return len(ciphertext)


def take_plaintext(connection: Any, place: int) -> int:
    """Decrypt one record into ``_scratch``; answer how many bytes.

    :raises OpenSSL.SSL.Error: as ``Connection.recv`` does.
    """
    if _openssl and hasattr(connection, "_ssl") and hasattr(connection, "_raise_ssl_error"):
        lib, pointer = _openssl
        tls = connection._ssl  # noqa: SLF001 # the same
        count = int(lib.SSL_read(tls, pointer + place, len(_scratch) - place))
        if count <= 0:
            connection._raise_ssl_error(tls, count)  # noqa: SLF001 # as its own recv does
        return count
    return int(connection.recv_into(_scratch[place : place + RECORD]))


def _is_idle(tcp: Any) -> bool:
    """Nothing waits in ``tcp`` to be sent, and it may be written to."""
    return (
        isinstance(tcp, Connection)
        and bool(tcp.connected)
        and not (tcp.disconnecting or tcp.disconnected)
        and not _is_sending(tcp)
    )


def _is_sending(tcp: Connection) -> bool:
    return bool(getattr(tcp, "_tempDataBuffer", "unknown")) or len(tcp.dataBuffer) != tcp.offset


def _tcp_below(transport: Any) -> Connection | None:
    found = transport if isinstance(transport, Connection) else getattr(transport, "transport", 0)
    return found if isinstance(found, Connection) else None


def _tcp_of(transport: Any) -> Connection | None:
    found = _tcp_below(transport)
    return found if found is not None and found.connected else None


def is_sending(transport: Any) -> bool:
    """Bytes for the peer wait in this process, because the kernel takes no more."""
    tcp = _tcp_of(transport)
    return tcp is not None and _is_sending(tcp)


def unsent(transport: Any) -> int:
    """How many bytes for the peer this process holds, also after the connection was lost."""
    tcp = _tcp_below(transport)
    if tcp is None:
        return 0
    return len(tcp.dataBuffer) - tcp.offset + int(getattr(tcp, "_tempDataLen", 0))


def unfetched(transport: Any) -> int:
    """How many bytes the kernel holds that the peer has not acknowledged."""
    tcp = _tcp_below(transport)  # one that is being lost has its socket for a moment more
    if tcp is None or not hasattr(tcp, "socket"):
        return 0
    try:
        [count] = struct.unpack("i", fcntl.ioctl(tcp.fileno(), termios.TIOCOUTQ, bytes(4)))
    except (OSError, ValueError):  # it is being closed
        return 0
    return int(count)


class FlowingTLSFactory(TLSMemoryBIOFactory):
    """Puts TLS for large transfers on connections, where this Twisted allows it."""

    protocol = FlowingTLSTransport


def tls_factory(
    creator: Any, wrapped: Any, clock: Any, *, is_client: bool = False
) -> TLSMemoryBIOFactory:
    """A factory that puts TLS on what ``wrapped`` builds.

    Twisted's own, if this is not the Twisted that this module knows.

    :param is_client: the connection's end that begins the handshake.
    """
    known = all(hasattr(TLSMemoryBIOProtocol, name) for name in PRIVATE)
    kind = FlowingTLSFactory if known else TLSMemoryBIOFactory
    return kind(creator, is_client, wrapped, clock)
