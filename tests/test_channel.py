"""The channel: bodies that stay at the peer, refusals that arrive, parsers that hold."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from repoman.channel import (
    HEADER_DEADLINE,
    IDLE_DEADLINE,
    Channel,
)
from repoman.errors import ClientGone, Invalid, TooLarge
from repoman.lingering import (
    LINGER_BYTES,
    LINGER_RATE,
    LINGER_SECONDS,
    LONGEST_LINGER,
    OUTGROWN_BYTES,
    UNMEASURED_BYTES,
    Allowance,
)
from repoman.request import Request
from repoman.site import RepositorySite

GET = b"GET /thing HTTP/1.1\r\nHost: x\r\n\r\n"
PUT = b"PUT /thing HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"


class Wire(StringTransport):
    """A transport that remembers how it was closed."""

    half_closed = aborted = False

    def loseWriteConnection(self) -> None:
        self.half_closed = True

    def abortConnection(self) -> None:
        self.aborted = True


class Sink:
    """A consumer that keeps what it gets, and can hold its producer."""

    def __init__(self) -> None:
        self.data = b""
        self.producer: Any = None

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def write(self, data: bytes) -> None:
        self.data += data


class Page(Resource):
    """Collects requests, unanswered."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Request] = []

    def render(self, request: Any) -> int:
        self.requests.append(request)
        return NOT_DONE_YET


class Connection:
    """One channel on a wire, with a clock."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.page = Page()
        self.logged: list[Request] = []
        self.site = RepositorySite(
            self.clock, self.page, None, connections=2, min_rate=100, log_request=self.logged.append
        )
        self.wire = Wire()
        self.channel = self.connect(self.wire)

    def connect(self, wire: Wire) -> Channel:
        channel: Channel = self.site.buildProtocol(None)
        channel.makeConnection(wire)
        return channel

    def receive(self, data: bytes) -> None:
        self.channel.dataReceived(data)
        self.clock.advance(0)

    @property
    def request(self) -> Request:
        return self.page.requests[-1]

    @property
    def paused(self) -> bool:
        return self.wire.producerState == "paused"


def answer(request: Request, status: int = 200, body: bytes = b"ok") -> None:
    request.setResponseCode(status)
    request.setHeader("Content-Length", str(len(body)))
    request.write(body)
    request.finish()


@pytest.fixture
def connection() -> Connection:
    return Connection()


def flow(request: Request, sink: Any) -> Deferred[int]:
    return Deferred.fromCoroutine(request.body.deliver_to(sink))


def test_a_request_is_dispatched_before_its_body_and_reading_stops(connection: Connection) -> None:
    connection.receive(PUT % 1000)
    assert connection.request.method == b"PUT"
    assert connection.paused


def test_body_bytes_flow_only_to_who_asks_and_in_order(connection: Connection) -> None:
    connection.receive(PUT % 6 + b"ab")
    sink = Sink()
    result = flow(connection.request, sink)
    assert not connection.paused
    connection.receive(b"cd")
    connection.receive(b"ef")
    assert sink.data == b"abcdef"
    assert result.result == 6
    assert sink.producer is None


def test_a_consumer_that_pauses_stops_the_reading_of_the_peer(connection: Connection) -> None:
    connection.receive(PUT % 6)
    sink = Sink()
    flow(connection.request, sink)
    sink.producer.pauseProducing()
    assert connection.paused
    # An emptied send buffer is no leave to read on.
    connection.channel.resumeProducing()
    assert connection.paused
    sink.producer.resumeProducing()
    assert not connection.paused


def test_nothing_is_spooled_by_twisted(connection: Connection) -> None:
    connection.receive(PUT % 10**12)
    assert connection.request.content is None


def test_100_continue_is_sent_when_the_body_is_wanted_and_not_before(
    connection: Connection,
) -> None:
    connection.receive(
        b"PUT /thing HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    )
    assert connection.wire.value() == b""
    flow(connection.request, Sink())
    assert connection.wire.value() == b"HTTP/1.1 100 Continue\r\n\r\n"


def test_a_refused_body_gets_its_answer_then_a_bounded_lingering_close(
    connection: Connection,
) -> None:
    connection.receive(PUT % 10**10 + b"x" * 100)
    answer(connection.request, 403)
    sent = connection.wire.value()
    assert sent.startswith(b"HTTP/1.1 403")
    assert b"Connection: close" in sent
    assert connection.wire.half_closed
    assert not connection.wire.aborted
    connection.receive(b"GET /other HTTP/1.1\r\nHost: x\r\n\r\n")
    assert len(connection.page.requests) == 1, "bytes of a refused body are no request"
    connection.clock.advance(LINGER_SECONDS + 0.1)
    assert connection.wire.aborted


def test_who_still_reads_the_answer_may_be_silent(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a body that nobody wanted, to a GET, may follow an image that takes its time."""
    untaken = 1000
    monkeypatch.setattr(connection.channel.delivery, "look", lambda: untaken)
    connection.receive(PUT % 3)
    answer(connection.request)
    connection.receive(b"abc")
    for _ in range(5):
        untaken -= 100
        connection.clock.advance(LINGER_SECONDS)
        assert not connection.wire.aborted
    connection.clock.advance(LINGER_SECONDS)
    assert connection.wire.aborted, "it took nothing more"


def test_nor_for_ever(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    untaken = 10**6
    monkeypatch.setattr(connection.channel.delivery, "look", lambda: untaken)
    connection.receive(PUT % 3)
    answer(connection.request)
    for _ in range(int(LONGEST_LINGER / LINGER_SECONDS) + 1):
        untaken -= 1
        connection.clock.advance(LINGER_SECONDS)
    assert connection.wire.aborted


def test_no_more_than_a_bounded_amount_is_dropped(connection: Connection) -> None:
    connection.receive(PUT % 10**12)
    answer(connection.request, 403)
    block = bytes(16 << 20)
    for _ in range(LINGER_BYTES // len(block)):
        connection.receive(block)
        connection.clock.advance(1)
    assert not connection.wire.aborted
    connection.receive(block)
    assert connection.wire.aborted


CHUNKED = b"PUT /thing HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("is_read", [False, True])
def test_less_of_what_need_not_have_an_end(connection: Connection, is_read: bool) -> None:
    """Least of what has been read already until it was too large."""
    connection.receive(CHUNKED)
    if is_read:
        flow(connection.request, Sink())
        connection.receive(b"3\r\nabc\r\n")
    answer(connection.request, 413)
    block = bytes(16 << 20)
    for _ in range((OUTGROWN_BYTES if is_read else UNMEASURED_BYTES) // len(block)):
        connection.receive(block)
        connection.clock.advance(1)
    assert not connection.wire.aborted
    connection.receive(block)
    assert connection.wire.aborted


def test_nor_for_longer_than_a_bounded_time(connection: Connection) -> None:
    connection.receive(PUT % 10**12)
    answer(connection.request, 403)
    for _ in range(int(LONGEST_LINGER)):
        connection.receive(b"x" * 10_000)
        connection.clock.advance(1)
    assert not connection.wire.aborted
    connection.receive(b"x")
    connection.clock.advance(1)
    connection.receive(b"x")
    assert connection.wire.aborted


def test_who_is_refused_waits_for_others_who_are(connection: Connection) -> None:
    connection.receive(PUT % 10**12)
    answer(connection.request, 403)
    connection.site.allowance.take(0.0, 2 * LINGER_RATE)  # others have sent so much
    connection.receive(b"x")
    assert connection.paused
    connection.clock.advance(3)
    assert not connection.paused


def test_an_allowance_is_shared_and_is_not_saved_up() -> None:
    allowance = Allowance(100.0)
    assert [allowance.take(1.0, 50), allowance.take(1.0, 50)] == [0.5, 1.0]
    assert allowance.take(1000.0, 50) == 0.5


def test_a_refusal_after_the_whole_body_keeps_the_connection(connection: Connection) -> None:
    connection.receive(PUT % 3 + b"abc")
    answer(connection.request, 400)
    connection.receive(GET)
    assert len(connection.page.requests) == 2
    assert not connection.wire.disconnecting


def test_pipelined_requests_are_answered_in_order(connection: Connection) -> None:
    connection.receive(GET + PUT % 2 + b"hi" + GET)
    assert len(connection.page.requests) == 1
    answer(connection.request)
    connection.clock.advance(0)
    sink = Sink()
    flow(connection.request, sink)
    assert sink.data == b"hi"
    answer(connection.request)
    assert len(connection.page.requests) == 3


class Prompt(Resource):
    """Answers at once."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Any] = []

    def render(self, request: Any) -> bytes:
        self.asked.append(request.channel)
        return b"ok"


def test_of_requests_in_one_piece_each_waits_for_those_of_others(connection: Connection) -> None:
    connection.site.resource = prompt = Prompt()
    first, second = connection.channel, connection.connect(Wire())
    first.dataReceived(GET * 100)
    second.dataReceived(GET * 100)
    connection.clock.advance(0)
    assert prompt.asked == [first, second] * 100
    assert connection.wire.value().count(b"HTTP/1.1 200 OK") == 100


def test_a_client_that_leaves_fails_the_flow_with_client_gone(connection: Connection) -> None:
    connection.receive(PUT % 6 + b"ab")
    result = flow(connection.request, Sink())
    connection.channel.connectionLost(Failure(OSError()))
    assert isinstance(result.result, Failure)
    assert result.result.check(ClientGone)
    result.addErrback(lambda failure: None)


@pytest.mark.parametrize("touch", ["write", "unregisterProducer", "finish", "abandon"])
def test_a_request_whose_client_has_left_can_still_be_touched(
    connection: Connection, touch: str
) -> None:
    connection.receive(GET)
    request = connection.request
    request.registerProducer(Held(), True)
    request.write(b"x")
    connection.channel.connectionLost(Failure(OSError()))
    getattr(request, touch)(*([b"x"] if touch == "write" else []))
    assert connection.logged == [request]
    assert request.was_cut
    assert not connection.wire.aborted


@pytest.mark.parametrize("touch", ["unregisterProducer", "abandon"])
def test_an_answered_request_that_is_touched_does_not_touch_its_connection(
    connection: Connection, touch: str
) -> None:
    connection.receive(GET)
    first = connection.request
    answer(first)
    connection.receive(GET)
    connection.request.registerProducer(Held(), True)
    getattr(first, touch)()
    assert not connection.wire.aborted
    assert connection.channel._requestProducer is not None


class Held:
    """A producer that has nothing."""

    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...

    def stopProducing(self) -> None: ...


TOUCHED = [
    "resumeProducing", "pauseProducing", "stopProducing", "loseConnection", "make_room", "drain",
    "abort", "_go_on", "timeoutConnection",
]  # fmt: skip


@pytest.mark.parametrize("touch", TOUCHED)
@pytest.mark.parametrize("state", ["new", "asked", "unfetched", "answered", "refused", "closing"])
def test_a_lost_connection_stays_lost_and_leaves_no_timer(
    connection: Connection, state: str, touch: str
) -> None:
    if state != "new":
        connection.receive(PUT % 10 if state == "refused" else GET)
    if state == "unfetched":
        connection.channel.pauseProducing()
    if state in ("unfetched", "answered", "refused"):
        answer(connection.request)
    if state == "closing":
        connection.channel.loseConnection()
    connection.channel.connectionLost(Failure(OSError()))
    connection.wire.disconnecting = False
    getattr(connection.channel, touch)()
    assert not connection.wire.aborted
    assert not connection.wire.disconnecting
    assert connection.clock.getDelayedCalls() == []
    assert len(connection.logged) == (
        state in ("asked", "unfetched", "answered", "refused", "closing")
    )


def test_a_client_that_left_before_anybody_asked_fails_the_flow_at_once(
    connection: Connection,
) -> None:
    connection.receive(PUT % 6)
    connection.channel.connectionLost(Failure(OSError()))
    result = flow(connection.request, Sink())
    assert isinstance(result.result, Failure)
    assert result.result.check(ClientGone)
    result.addErrback(lambda failure: None)


def test_a_consumer_that_refuses_ends_the_flow_with_its_own_error(connection: Connection) -> None:
    class Full(Sink):
        def write(self, data: bytes) -> None:
            raise TooLarge("enough")

    connection.receive(PUT % 6)
    result = flow(connection.request, Full())
    connection.receive(b"ab")
    assert isinstance(result.result, Failure)
    assert result.result.check(TooLarge)
    result.addErrback(lambda failure: None)


def test_a_small_body_is_read_whole_and_a_large_one_refused(connection: Connection) -> None:
    connection.receive(PUT % 3 + b"abc")
    assert Deferred.fromCoroutine(connection.request.body.read(3)).result == b"abc"
    other = Connection()
    other.receive(PUT % 4)
    refused = Deferred.fromCoroutine(other.request.body.read(3))
    assert isinstance(refused.result, Failure)
    assert refused.result.check(TooLarge)
    refused.addErrback(lambda failure: None)


def test_broken_chunks_fail_the_flow_as_the_clients_fault(connection: Connection) -> None:
    connection.receive(b"PUT /thing HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    result = flow(connection.request, Sink())
    connection.receive(b"zz\r\nhello")
    assert isinstance(result.result, Failure)
    assert result.result.check(Invalid)
    result.addErrback(lambda failure: None)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\nA: b\r\n\r\n", b"400"),
        (b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nA: " + b"b" * 20000, b"431"),
        (b"GET / HTTP/1.1\r\n" + b"A: bbbbbbbbbbbbbbbbbbbb\r\n" * 1000, b"4"),
        (PUT.replace(b"%d", b"9" * 5000), b"400"),
        (PUT.replace(b"%d", b"-1"), b"400"),
        (PUT % 5 + b"", b""),
        (PUT.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n") % 5, b"400"),
        (PUT.replace(b"\r\n\r\n", b"\r\nContent-Length: 6\r\n\r\n") % 5, b"400"),
    ],
)
def test_what_is_no_request_gets_one_line_and_no_resource(
    connection: Connection, data: bytes, status: bytes
) -> None:
    connection.receive(data)
    sent = connection.wire.value()
    assert sent.startswith(b"HTTP/1.1 " + status if status else b"")
    if status:
        head, _, body = sent.partition(b"\r\n\r\n")
        assert body.count(b"\n") == 1
        assert b"Connection: close" in head
        assert not connection.page.requests


def test_a_peer_that_never_completes_its_headers_is_cut(connection: Connection) -> None:
    for _ in range(int(HEADER_DEADLINE)):
        connection.channel.dataReceived(b"G")
        connection.clock.advance(1)
    assert connection.wire.disconnecting


def test_an_idle_connection_is_closed_also_after_an_upload(connection: Connection) -> None:
    connection.receive(PUT % 3 + b"abc")
    answer(connection.request)
    connection.clock.advance(IDLE_DEADLINE - 1)
    assert not connection.wire.disconnecting
    connection.clock.advance(2)
    assert connection.wire.disconnecting


def test_a_paused_upload_is_not_timed_out_by_our_own_pause(connection: Connection) -> None:
    connection.receive(PUT % 3)
    connection.clock.advance(3600)
    assert not connection.wire.disconnecting
    assert not connection.wire.aborted


def test_a_connection_over_the_limit_costs_the_oldest_idle_one(connection: Connection) -> None:
    connection.receive(GET)
    second, third = Wire(), Wire()
    connection.connect(second)
    connection.connect(third)
    assert (connection.wire.aborted, second.aborted, third.aborted) == (False, True, False)


def test_or_itself_if_no_other_is_idle(connection: Connection) -> None:
    second, third = Wire(), Wire()
    connection.receive(GET)
    connection.connect(second).dataReceived(GET)
    connection.connect(third)
    assert (connection.wire.aborted, second.aborted, third.aborted) == (False, False, True)


def test_draining_closes_idle_connections_and_lets_requests_end(connection: Connection) -> None:
    idle = Wire()
    connection.connect(idle).dataReceived(GET)
    answer(connection.request)
    connection.receive(GET)
    drained = Deferred.fromCoroutine(connection.site.drain(100))
    assert idle.disconnecting
    assert not connection.wire.disconnecting
    answer(connection.request)
    assert connection.wire.disconnecting
    assert not drained.called
    for channel in list(connection.site._channels):
        channel.connectionLost(Failure(OSError()))
    assert drained.called


@pytest.mark.parametrize("begun", [b"GET /thing", b"GET /thing HTTP/1.1\r\n", GET[:-2]])
def test_draining_does_not_wait_for_headers_that_do_not_end(
    connection: Connection, begun: bytes
) -> None:
    connection.receive(GET)
    answer(connection.request)
    connection.receive(begun)
    Deferred.fromCoroutine(connection.site.drain(100))
    connection.clock.advance(4)
    assert connection.wire.disconnecting


def test_draining_lets_a_newcomer_ask_once_but_not_sit_there(connection: Connection) -> None:
    silent = Wire()
    connection.connect(silent)
    Deferred.fromCoroutine(connection.site.drain(100))
    connection.clock.advance(1)
    connection.receive(GET)
    answer(connection.request)
    assert b"Connection: close" in connection.wire.value()
    assert connection.wire.disconnecting
    assert not silent.disconnecting
    connection.clock.advance(3)
    assert silent.disconnecting


def test_draining_cuts_what_still_runs_at_the_deadline(connection: Connection) -> None:
    connection.receive(GET)
    drained = Deferred.fromCoroutine(connection.site.drain(100))
    connection.clock.advance(101)
    assert connection.wire.aborted
    assert drained.called


def test_an_abandoned_answer_is_cut_never_completed(connection: Connection) -> None:
    connection.receive(GET)
    connection.request.setHeader("Content-Length", "10")
    connection.request.write(b"half")
    connection.request.abandon()
    connection.request.finish()
    assert connection.wire.aborted


def test_every_answer_carries_a_request_id_and_is_logged(connection: Connection) -> None:
    connection.receive(GET)
    answer(connection.request)
    assert b"X-Request-Id: " + connection.request.request_id.encode() in connection.wire.value()
    assert connection.logged == [connection.request]


def test_http_2_can_never_be_negotiated() -> None:
    assert Connection().channel.__class__ is Channel


def watch(connection: Connection, seconds: int) -> None:
    for _ in range(seconds // 5):
        connection.channel.watch(5, 100)


def test_an_upload_slower_than_the_minimum_is_cut(connection: Connection) -> None:
    connection.receive(PUT % 10**6)
    flow(connection.request, Sink()).addErrback(lambda failure: None)
    connection.receive(b"x" * 5999)
    watch(connection, 60)
    assert connection.wire.aborted


def test_an_upload_at_the_minimum_goes_on(connection: Connection) -> None:
    connection.receive(PUT % 10**6)
    flow(connection.request, Sink())
    for _ in range(5):
        connection.receive(b"x" * 6000)
        watch(connection, 60)
    assert not connection.wire.aborted


def test_our_own_pauses_do_not_count_against_an_upload(connection: Connection) -> None:
    connection.receive(PUT % 10**6)
    sink = Sink()
    flow(connection.request, sink)
    sink.producer.pauseProducing()
    watch(connection, 3600)
    assert not connection.wire.aborted


def test_a_download_that_is_not_fetched_is_cut(connection: Connection) -> None:
    connection.receive(GET)
    connection.request.write(b"x" * 100)
    connection.channel.pauseProducing()
    watch(connection, 60)
    assert connection.wire.aborted


def test_a_download_that_waits_for_us_is_not_cut(connection: Connection) -> None:
    connection.receive(GET)
    watch(connection, 3600)
    assert not connection.wire.aborted
