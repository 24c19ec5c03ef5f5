"""Bytes in motion: Digesting counts and digests, Flow keeps its consumer's pace."""

from __future__ import annotations

import hashlib
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from repoman.errors import ClientGone, NoRoom, TooLarge
from repoman.streams import ALGORITHMS, CHUNK, RETRY_AFTER, Digesting, Flow, digests

PIECES = st.lists(st.binary(max_size=40), max_size=20)


class Sink:
    """A consumer that remembers."""

    def __init__(self) -> None:
        self.data = b""
        self.producer: Any = None
        self.streaming: bool | None = None

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer, self.streaming = producer, streaming

    def unregisterProducer(self) -> None:
        self.producer = None

    def write(self, data: bytes) -> None:
        self.data += data


@given(PIECES)
def test_bytes_pass_unchanged_counted_and_digested(pieces: list[bytes]) -> None:
    sink = Sink()
    digesting = Digesting(sink, algorithms=ALGORITHMS)
    for piece in pieces:
        digesting.write(piece)
    whole = b"".join(pieces)
    assert sink.data == whole
    assert digesting.count == len(whole)
    assert {name: digesting.hexdigest(name) for name in ALGORITHMS} == {
        "sha256": hashlib.sha256(whole).hexdigest(),
        "sha512": hashlib.sha512(whole).hexdigest(),
        "md5": hashlib.md5(whole).hexdigest(),
        "adler32": f"{zlib.adler32(whole):08x}",
    }
    assert digests(whole, ALGORITHMS) == {n: digesting.hexdigest(n) for n in ALGORITHMS}


@given(PIECES, st.integers(0, 200))
def test_no_byte_beyond_the_limit_passes(pieces: list[bytes], limit: int) -> None:
    sink = Sink()
    digesting = Digesting(sink, limit=limit)
    whole = b"".join(pieces)
    try:
        for piece in pieces:
            digesting.write(piece)
    except TooLarge:
        assert len(whole) > limit
    else:
        assert len(whole) <= limit
    assert len(sink.data) <= limit
    assert digesting.count == len(sink.data)
    assert digesting.hexdigest("sha256") == hashlib.sha256(sink.data).hexdigest()


def test_sha256_is_computed_when_nothing_is_said() -> None:
    assert Digesting(Sink()).hexdigest("sha256") == hashlib.sha256(b"").hexdigest()


def test_the_consumer_behind_paces_the_producer() -> None:
    sink, producer = Sink(), object()
    digesting = Digesting(sink)
    assert verifyObject(IConsumer, digesting)
    digesting.registerProducer(producer, True)
    assert (sink.producer, sink.streaming) == (producer, True)
    digesting.unregisterProducer()
    assert sink.producer is None


class Source:
    """Bytes that can be late."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.late = 0
        self.most = CHUNK

    def read(self, offset: int, count: int) -> bytes:
        if self.late:
            self.late -= 1
            raise BlockingIOError
        return self.data[offset : offset + min(count, self.most)]


def flow(source: Source, start: int, length: int) -> tuple[Clock, Sink, Deferred[None]]:
    clock, sink = Clock(), Sink()
    running = Flow(clock, source.read, sink, start, length)
    assert verifyObject(IPushProducer, running)
    return clock, sink, running.run()


@given(st.binary(max_size=300), st.integers(1, 70), st.data())
def test_a_flow_moves_exactly_what_it_should(data: bytes, most: int, draw: st.DataObject) -> None:
    start = draw.draw(st.integers(0, len(data)))
    length = draw.draw(st.integers(0, len(data) - start))
    source = Source(data)
    source.most = most
    clock, sink, done = flow(source, start, length)
    while not done.called:
        if draw.draw(st.booleans()):
            sink.producer.pauseProducing()
            clock.advance(1)
            sink.producer.resumeProducing()
        clock.advance(0)
    assert sink.data == data[start : start + length]
    assert sink.producer is None
    assert clock.getDelayedCalls() == []


def test_flows_take_turns_of_one_chunk() -> None:
    clock, order = Clock(), []

    class Named(Sink):
        def write(self, data: bytes) -> None:
            order.append((self, len(data)))

    sinks = [Named(), Named()]
    for sink in sinks:
        Flow(clock, Source(b"x" * 2 * CHUNK).read, sink, 0, 2 * CHUNK).run()
    clock.advance(0)
    assert order == 2 * [(sinks[0], CHUNK), (sinks[1], CHUNK)]


def test_late_bytes_are_asked_for_again_and_nothing_waits() -> None:
    source = Source(b"abc")
    source.late = 2
    clock, sink, done = flow(source, 0, 3)
    clock.advance(0)
    clock.advance(0)
    assert source.late == 1
    clock.advance(RETRY_AFTER)
    clock.advance(RETRY_AFTER)
    assert done.called
    assert sink.data == b"abc"


def test_nothing_is_read_while_paused() -> None:
    source = Source(b"abc")
    source.late = 1
    clock, sink, done = flow(source, 0, 3)
    clock.advance(0)
    sink.producer.pauseProducing()
    clock.advance(10)
    assert sink.data == b""
    sink.producer.resumeProducing()
    sink.producer.resumeProducing()
    clock.advance(0)
    assert done.called


def test_what_the_source_raises_ends_the_flow() -> None:
    clock, sink, done = flow(Source(b""), 0, 3)
    sink.producer._read = lambda offset, count: (_ for _ in ()).throw(NoRoom("x"))
    clock.advance(0)
    with pytest.raises(NoRoom):
        raise done.result.value  # type: ignore[union-attr]
    done.addErrback(lambda _: None)
    assert sink.producer is None


def test_a_consumer_that_is_gone_already_stops_the_flow() -> None:
    class Gone(Sink):
        def registerProducer(self, producer: Any, streaming: bool) -> None:
            producer.stopProducing()

    clock, sink = Clock(), Gone()
    done = Flow(clock, Source(b"abc").read, sink, 0, 3).run()
    found: list[BaseException] = []
    done.addErrback(lambda failure: found.append(failure.value))
    assert [type(error) for error in found] == [ClientGone]
    assert clock.getDelayedCalls() == []
