"""TLS for large transfers does what Twisted's own does; each test runs on both."""

from __future__ import annotations

import contextlib
import os
import ssl
from types import FunctionType
from typing import Any

import pytest
import pytest_twisted
from OpenSSL import SSL
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.protocols.tls import (
    BufferingTLSTransport,
    TLSMemoryBIOFactory,
    TLSMemoryBIOProtocol,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from repoman import tls_flow
from repoman.tls_flow import FlowingTLSTransport, tls_factory
from tests.credentials import Grid

reactor: Any = global_reactor
MIB = 1 << 20
CONTENT = os.urandom(3 * MIB + 11)


class Recorder(Protocol):
    """Keeps what comes and how it ends."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.largest = 0
        self.made: Deferred[None] = Deferred()
        self.lost: Deferred[tuple[Failure]] = Deferred()

    def connectionMade(self) -> None:
        self.made.callback(None)

    def dataReceived(self, data: bytes) -> None:
        self.largest = max(self.largest, len(data))
        self.received += data

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        self.lost.callback((reason,))


@implementer(IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator)
class Creator:
    """Plain TLS, in versions of a test's choice."""

    def __init__(self, grid: Grid) -> None:
        certificate, key = grid.host("localhost")
        self._context = SSL.Context(SSL.TLS_METHOD)
        self._context.set_options(SSL.OP_NO_RENEGOTIATION)
        self._context.use_certificate_file(str(certificate))
        self._context.use_privatekey_file(str(key))

    def serverConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        return SSL.Connection(self._context, None)

    clientConnectionForTLS = serverConnectionForTLS


class Line:
    """A server end under test, and a client of the standard library at the other end."""

    def __init__(self, factory: Any, recorder: Recorder) -> None:
        self.server = recorder
        self._port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing)
        self.raw: Any = None
        self.received = bytearray()
        self.over = False
        self.lost: Deferred[tuple[Failure]] = Deferred()

    async def connect(self) -> None:
        line = self

        class Client(Protocol):
            def dataReceived(self, data: bytes) -> None:
                line._incoming.write(data)
                line.pump()

            def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
                line.lost.callback((reason,))

        made: Deferred[None] = Deferred()
        client = Client()
        client.connectionMade = lambda: made.callback(None)  # type: ignore[method-assign]
        reactor.connectTCP("127.0.0.1", self._port.getHost().port, _Once(client))
        await made
        self.raw = client.transport

    def pump(self) -> None:
        """Move bytes between TLS and the socket."""
        try:
            while True:
                data = self.tls.read(MIB)
                if not data:
                    self.over = True
                    break
                self.received += data
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            self.over = True
        if self._outgoing.pending:
            self.raw.write(self._outgoing.read())

    def send(self, data: bytes) -> None:
        self.tls.write(data)
        self.pump()

    async def until(self, condition: Any) -> None:
        for _ in range(1000):
            if condition():
                return
            await deferLater(reactor, 0.01)
        raise AssertionError("it did not happen in 10 s")

    async def handshake(self) -> None:
        await self.connect()
        self.pump()
        await self.until(lambda: self.tls.cipher() and self.server.transport is not None)
        # One byte each way: then both are done with it.
        await self.until(lambda: self.tls.version() is not None)

    async def close(self) -> None:
        if self.raw is not None:
            self.raw.abortConnection()
        await self._port.stopListening()
        await deferLater(reactor, 0)


class _Once(Factory):  # type: ignore[type-arg]
    noisy = False

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: object) -> Protocol:
        return self._protocol

    def startedConnecting(self, connector: object) -> None: ...

    def clientConnectionFailed(self, connector: object, reason: Failure) -> None: ...

    def clientConnectionLost(self, connector: object, reason: Failure) -> None: ...


@pytest.fixture(params=["flowing", "public", "twisted"])
def make(request: pytest.FixtureRequest, grid: Grid, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Ours; ours where pyOpenSSL has changed inside; and Twisted's own, which sets the pattern."""
    if request.param == "public":
        monkeypatch.setattr(tls_flow, "_openssl", None)

    def build(recorder: Recorder) -> Line:
        wrapped = Factory.forProtocol(lambda: recorder)  # type: ignore[arg-type]
        wrapped.noisy = False
        creator = Creator(grid)
        if request.param != "twisted":
            factory: Any = tls_factory(creator, wrapped, reactor)
        else:
            factory = TLSMemoryBIOFactory(creator, False, wrapped, reactor)
        factory.noisy = False
        return Line(factory, recorder)

    return build


@pytest_twisted.ensureDeferred
async def test_large_writes_arrive_whole_and_in_order_with_small_ones(make: Any) -> None:
    line = make(Recorder())
    await line.handshake()
    line.server.transport.write(b"small ")
    line.server.transport.write(CONTENT)
    line.server.transport.write(b" small")
    line.server.transport.writeSequence([b" and", b" a", b" sequence"])
    expected = b"small " + CONTENT + b" small and a sequence"
    await line.until(lambda: len(line.received) >= len(expected))
    assert bytes(line.received) == expected
    await line.close()


@pytest_twisted.ensureDeferred
async def test_what_a_peer_sends_arrives_whole_and_in_order(make: Any) -> None:
    line = make(Recorder())
    await line.handshake()
    for start in range(0, len(CONTENT), 100_000):
        line.send(CONTENT[start : start + 100_000])
    await line.until(lambda: len(line.server.received) >= len(CONTENT))
    assert bytes(line.server.received) == CONTENT
    await line.close()


@pytest_twisted.ensureDeferred
async def test_a_write_during_the_handshake_is_sent_after_it(make: Any) -> None:
    class Eager(Recorder):
        def connectionMade(self) -> None:
            super().connectionMade()
            self.transport.write(CONTENT)  # type: ignore[union-attr]

    line = make(Eager())
    await line.handshake()
    await line.until(lambda: len(line.received) >= len(CONTENT))
    assert bytes(line.received) == CONTENT
    await line.close()


@pytest_twisted.ensureDeferred
async def test_a_close_after_a_large_write_loses_nothing_and_says_goodbye(make: Any) -> None:
    line = make(Recorder())
    await line.handshake()
    line.server.transport.write(CONTENT)
    line.server.transport.loseConnection()
    line.server.transport.write(b"not sent: the connection is closed")
    await line.until(lambda: line.over)
    assert bytes(line.received) == CONTENT
    await line.close()


@pytest_twisted.ensureDeferred
async def test_a_peer_that_does_not_read_pauses_the_producer(make: Any) -> None:
    class Source:
        paused = False
        stopped = False

        def pauseProducing(self) -> None:
            self.paused = True

        def resumeProducing(self) -> None:
            self.paused = False

        def stopProducing(self) -> None:
            self.stopped = True

    line = make(Recorder())
    await line.handshake()
    source = Source()
    line.server.transport.registerProducer(source, True)
    line.raw.pauseProducing()
    written = 0
    while not source.paused and written < 64 * MIB:
        line.server.transport.write(CONTENT[:MIB])
        written += MIB
        await deferLater(reactor, 0)
    assert source.paused
    line.raw.resumeProducing()
    await line.until(lambda: not source.paused)
    await line.until(lambda: len(line.received) == written)
    line.server.transport.unregisterProducer()
    await line.close()


@pytest_twisted.ensureDeferred
async def test_a_peer_that_leaves_without_goodbye_is_a_lost_connection(make: Any) -> None:
    line = make(Recorder())
    await line.handshake()
    line.send(b"half")
    await line.until(lambda: bytes(line.server.received) == b"half")
    line.raw.loseConnection()
    (reason,) = await line.server.lost
    assert reason.check(ConnectionLost)
    await line.close()


@pytest_twisted.ensureDeferred
async def test_a_peer_that_says_goodbye_is_done(make: Any) -> None:
    line = make(Recorder())
    await line.handshake()
    line.send(CONTENT[:MIB])
    try:
        line.tls.unwrap()
    except ssl.SSLWantReadError:
        line.pump()
    (reason,) = await line.server.lost
    assert reason.check(ConnectionDone)
    assert bytes(line.server.received) == CONTENT[:MIB]
    await line.close()


@pytest_twisted.ensureDeferred
async def test_garbage_for_a_record_ends_the_connection_after_what_was_good(make: Any) -> None:
    line = make(Recorder())
    await line.handshake()
    line.send(b"good")
    line.raw.write(b"\x17\x03\x03\x00\x20" + bytes(32))
    (reason,) = await line.server.lost
    assert not reason.check(ConnectionDone)
    assert bytes(line.server.received) == b"good"
    await line.close()


@pytest_twisted.ensureDeferred
async def test_an_abort_delivers_nothing_more(make: Any) -> None:
    line = make(Recorder())
    await line.handshake()
    line.server.transport.abortConnection()
    line.server.transport.write(CONTENT)
    await line.server.lost
    await line.lost
    assert len(line.received) < len(CONTENT)
    await line.close()


@pytest_twisted.ensureDeferred
async def test_a_renegotiation_is_refused_and_what_came_before_it_is_kept(make: Any) -> None:
    line = make(Recorder())
    await line.connect()
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    client = SSL.Connection(context, None)
    client.set_connect_state()

    async def exchange(step: Any) -> None:
        with contextlib.suppress(SSL.WantReadError):
            step()
        with contextlib.suppress(SSL.WantReadError):
            line.raw.write(client.bio_read(MIB))
        await deferLater(reactor, 0.05)
        if line.arrived:
            client.bio_write(bytes(line.arrived))
            line.arrived.clear()

    line.arrived, line.raw.protocol.dataReceived = (
        bytearray(),
        lambda data: line.arrived.extend(data),
    )
    for _ in range(3):
        await exchange(client.do_handshake)
    await exchange(lambda: client.send(b"before"))
    assert bytes(line.server.received) == b"before"
    assert client.renegotiate()
    await exchange(client.do_handshake)
    with pytest.raises(SSL.Error, match="no renegotiation"):
        client.recv(1)
    await line.close()


@pytest_twisted.ensureDeferred
async def test_records_of_one_read_are_delivered_at_once(grid: Grid) -> None:
    recorder = Recorder()
    wrapped = Factory.forProtocol(lambda: recorder)  # type: ignore[arg-type]
    line = Line(tls_factory(Creator(grid), wrapped, reactor), recorder)
    await line.handshake()
    line.send(CONTENT)
    await line.until(lambda: len(recorder.received) == len(CONTENT))
    assert recorder.largest > 4 * tls_flow.RECORD
    await line.close()


@pytest_twisted.ensureDeferred
async def test_both_ends_of_a_connection_may_be_ours(grid: Grid) -> None:
    ends = Recorder(), Recorder()
    factories = [
        tls_factory(Creator(grid), _Once(end), reactor, is_client=is_client)
        for end, is_client in zip(ends, (False, True), strict=True)
    ]
    for factory in factories:
        factory.noisy = False
    listening = reactor.listenTCP(0, factories[0], interface="127.0.0.1")
    connecting = reactor.connectTCP("127.0.0.1", listening.getHost().port, factories[1])
    for end in ends:
        await end.made
        assert isinstance(end.transport, FlowingTLSTransport)
        end.transport.write(b"small ")
        end.transport.write(CONTENT)
        end.transport.loseConnection()
    for end in ends:
        (reason,) = await end.lost
        assert reason.check(ConnectionDone)
        assert bytes(end.received) == b"small " + CONTENT
    connecting.disconnect()
    await listening.stopListening()


@pytest.mark.parametrize("is_client", [False, True])
@pytest.mark.parametrize("name", [*tls_flow.PRIVATE])
def test_an_unknown_twisted_is_left_alone(
    grid: Grid, monkeypatch: pytest.MonkeyPatch, name: str, is_client: bool
) -> None:
    wrapped = Factory.forProtocol(Recorder)  # type: ignore[arg-type]
    known = tls_factory(Creator(grid), wrapped, reactor, is_client=is_client)
    assert known.protocol is FlowingTLSTransport
    monkeypatch.delattr(TLSMemoryBIOProtocol, name)
    unknown = tls_factory(Creator(grid), wrapped, reactor, is_client=is_client)
    assert unknown.protocol is BufferingTLSTransport


@pytest_twisted.ensureDeferred
async def test_a_twisted_that_gathers_small_writes_in_another_way_is_let_do_it(
    grid: Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("__init__", "writeSequence", "loseConnection", "connectionLost"):
        monkeypatch.delattr(BufferingTLSTransport, name)
    recorder = Recorder()
    wrapped = Factory.forProtocol(lambda: recorder)  # type: ignore[arg-type]
    line = Line(tls_factory(Creator(grid), wrapped, reactor), recorder)
    await line.handshake()
    recorder.transport.write(b"small ")  # type: ignore[union-attr]
    recorder.transport.write(CONTENT)  # type: ignore[union-attr]
    await line.until(lambda: len(line.received) == len(CONTENT) + 6)
    assert bytes(line.received) == b"small " + CONTENT
    await line.close()


def test_all_private_names_of_twisted_are_known() -> None:
    """Those that only objects have are looked for there."""
    code = (
        function.__code__
        for function in vars(FlowingTLSTransport).values()
        if isinstance(function, FunctionType)
    )
    used = {name for c in code for name in c.co_names if name.startswith("_")}
    ours = set(vars(FlowingTLSTransport)) | set(vars(tls_flow)) | {"_gather", "__init__"}
    assert used - ours - set(tls_flow.PRIVATE) == {"_aggregator"}
