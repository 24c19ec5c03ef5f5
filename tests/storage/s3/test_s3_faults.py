"""What goes wrong between us and the object store: 503 or a visible end, never wrong bytes."""

from __future__ import annotations

import os
import signal
from time import monotonic
from typing import Any

import pytest
import pytest_twisted
from directory_store import MIB, Pushing, Sink, keys, until
from twisted.internet.defer import Deferred
from unreliable import Fault, answer
from unreliable_place import PART, Place

from repoman.errors import BlobDamaged, ClientGone, StoreAbsent, StoreUnavailable
from repoman.interfaces import new_key
from repoman.storage.s3.client import PATIENCE, STALL
from tests.s3 import reactor

CONTENT = os.urandom(PART + 3 * MIB)
COMPLETE, ONE_PART = r"POST .*uploadId", "PUT .*partNumber"


async def put(place: Place, data: bytes = CONTENT) -> str:
    key = new_key()
    writer = await place.store.create(key, len(data))
    writer.write(data)
    await writer.commit()
    return key


async def get(place: Place, key: str, sink: Sink | None = None) -> bytes:
    sink = sink or Sink()
    reader = await place.store.open(key, len(CONTENT))
    try:
        await reader.write_to(sink, 0, len(CONTENT))
    finally:
        reader.close()
    return sink.data


def failing(work: Any) -> Deferred[Any]:
    """Let it run; answer what it raised, and after how many seconds."""
    began = monotonic()
    running = Deferred.fromCoroutine(work)
    running.addCallbacks(
        lambda result: pytest.fail(f"it ended well: {result}"),
        lambda failure: (failure.value, monotonic() - began),
    )
    return running


@pytest.mark.parametrize(
    "fault",
    [
        Fault(ONE_PART, times=2, answer=answer(503, "SlowDown")),
        Fault(ONE_PART, answer=answer(500, "InternalError")),
        Fault(ONE_PART, answer=answer(502, "")),
        Fault(ONE_PART, answer=answer(400, "RequestTimeout")),
        Fault(ONE_PART, times=2, lost=True),
        Fault(COMPLETE, answer=answer(200, "InternalError")),
        Fault(COMPLETE, answer=answer(503, "SlowDown")),
        Fault("HEAD /", lost=True),
        Fault("GET .*data/", answer=answer(503, "SlowDown")),
        Fault("GET .*data/", times=3, cut_after=MIB),
        Fault("GET .*data/", cut_after=0),
    ],
    ids=repr,
)
@pytest_twisted.ensureDeferred
async def test_what_passes_is_ridden_out(place: Place, fault: Fault) -> None:
    place.proxy.faults.append(fault)
    key = await put(place)
    assert await get(place, key) == CONTENT
    assert place.proxy.asked(fault.line) > 1


@pytest_twisted.ensureDeferred
async def test_an_answer_that_never_comes_is_settled_by_looking(place: Place) -> None:
    place.proxy.faults.append(Fault(COMPLETE, times=99, lost=True))
    assert await get(place, await put(place)) == CONTENT


@pytest.mark.parametrize(
    "fault",
    [
        Fault(ONE_PART, times=99, answer=answer(403, "AccessDenied")),
        Fault(ONE_PART, times=99, answer=answer(400, "BadDigest")),
        Fault(ONE_PART, times=99, answer=answer(404, "NoSuchBucket")),
        Fault(COMPLETE, times=99, answer=answer(200, "EntityTooSmall")),
        Fault(COMPLETE, times=99, answer=answer(404, "NoSuchUpload")),
        Fault("POST .*uploads", times=99, lost=True),
    ],
    ids=repr,
)
@pytest_twisted.ensureDeferred
async def test_what_does_not_pass_is_not_tried_again(place: Place, fault: Fault) -> None:
    place.proxy.faults.append(fault)
    with pytest.raises(StoreUnavailable) as caught:
        await put(place)
    assert place.proxy.asked(fault.line) == 1
    assert "AccessDenied" not in caught.value.message
    assert not any(one for one in await keys(place.store) if one[1])


@pytest_twisted.ensureDeferred
async def test_a_store_that_wants_to_be_left_alone_is(place: Place) -> None:
    wait = answer(503, "SlowDown", "Retry-After: 2\r\n")
    place.proxy.faults.append(Fault(ONE_PART, answer=wait))
    began = monotonic()
    await put(place)
    assert monotonic() - began > 2
    place.proxy.faults.append(
        Fault(ONE_PART, times=9, answer=answer(503, "SlowDown", "Retry-After: 60\r\n"))
    )
    error, seconds = await failing(put(place))
    assert isinstance(error, StoreAbsent)
    assert seconds < 2


@pytest_twisted.ensureDeferred
async def test_a_commit_whose_object_is_another_is_none(place: Place) -> None:
    key = new_key()
    writer = await place.store.create(key, None)
    writer.write(CONTENT)
    place.ceph.s3cmd("put", "/etc/hostname", f"s3://{place.bucket}/data/{key[:2]}/{key}")
    place.proxy.faults.append(Fault(COMPLETE, times=99, answer=answer(404, "NoSuchUpload")))
    with pytest.raises(StoreUnavailable):
        await writer.commit()


@pytest_twisted.ensureDeferred
async def test_a_read_that_breaks_off_again_and_again_ends_visibly(place: Place) -> None:
    key = await put(place)
    place.proxy.faults.append(Fault("GET .*data/", times=99, cut_after=400))
    sink = Sink()
    with pytest.raises(StoreUnavailable):
        await get(place, key, sink)
    assert CONTENT.startswith(sink.data)


@pytest_twisted.ensureDeferred
async def test_a_file_that_is_replaced_under_a_reader_is_not_mixed_with_it(place: Place) -> None:
    key = await put(place)
    place.proxy.faults.append(Fault("GET .*data/", cut_after=MIB))

    class Replacing(Sink):
        def write(self, data: bytes) -> None:
            super().write(data)
            if len(self.data) == len(data):
                where = f"s3://{place.bucket}/data/{key[:2]}/{key}"
                place.ceph.s3cmd("put", "/etc/hostname", where)

    sink = Replacing()
    with pytest.raises(BlobDamaged):
        await get(place, key, sink)
    assert CONTENT.startswith(sink.data)


@pytest_twisted.ensureDeferred
async def test_who_reads_slowly_keeps_the_rest_in_the_store(place: Place) -> None:
    data = os.urandom(64 * MIB)
    key = await put(place, data)
    store = await place.other()  # the proxy would read on
    reader, sink, before = await store.open(key, len(data)), Slow(), resident()
    flowing = Deferred.fromCoroutine(reader.write_to(sink, 0, len(data)))
    await until(lambda: sink.producer and len(sink.data) >= MIB)
    came = len(sink.data)
    await until(lambda: reactor.seconds() > sink.paused_at + 0.5)
    assert len(sink.data) == came
    assert resident() - before < 16 * MIB
    sink.slow = False
    sink.producer.resumeProducing()
    await flowing
    assert sink.data == data
    reader.close()
    await store.stop()


class Slow(Sink):
    """Pauses its producer after a MiB."""

    producer: Any = None
    slow = True
    paused_at = float("inf")

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer

    def __init__(self) -> None:
        self.data: Any = bytearray()

    def write(self, data: bytes) -> None:
        super().write(data)
        if self.slow and len(self.data) >= MIB:
            self.producer.pauseProducing()
            self.paused_at = reactor.seconds()


def resident() -> int:
    """The memory of this process, in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest_twisted.ensureDeferred
async def test_for_whom_has_left_already_nothing_is_fetched(place: Place) -> None:
    key = await put(place)
    with pytest.raises(ClientGone):
        await get(place, key, Left())
    await place.store.digests(key, "md5")  # so much time has gone by
    assert place.proxy.asked("GET .*data/") == 1


class Left(Sink):
    """Stops its producer at once, as a request whose client hung up."""

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        producer.stopProducing()


@pytest.mark.parametrize("how", ["frozen", "killed", "stopped"])
@pytest_twisted.ensureDeferred
async def test_without_a_gateway_everything_ends_soon_and_heals_soon(
    place: Place, how: str
) -> None:
    """Parts, the last step and reads, all under way when the gateway goes."""
    place.store = store = await place.other()  # without the proxy
    data = os.urandom(64 * MIB)
    key = await put(place, data)
    reader, sink = await place.store.open(key, len(data)), Slow()
    reading = failing(reader.write_to(sink, 0, len(data)))
    await until(lambda: sink.data)
    whole = await place.store.create(new_key(), None)
    whole.write(CONTENT)
    await until(lambda: whole.durable)
    partly = await place.store.create(partial := new_key(), 400 * MIB)
    before = resident()
    frozen = place.ceph.frozen()
    if how == "frozen":
        frozen.__enter__()
    else:
        place.ceph.stop_gateway(signal.SIGKILL if how == "killed" else signal.SIGTERM)
    try:
        producer = Pushing(partly, bytes(MIB // 4), 1600)
        completing, opening = failing(whole.commit()), failing(place.store.open(key, len(data)))
        sink.slow = False
        sink.producer.resumeProducing()
        await until(lambda: producer.error, 2 * STALL)
        assert isinstance(producer.error, StoreUnavailable)
        for under_way in (reading, opening, completing):
            error, seconds = await under_way
            assert isinstance(error, StoreUnavailable)
            assert seconds < STALL + PATIENCE + 2 or under_way is completing
        assert data.startswith(sink.data)
        assert resident() - before < 2 * PART + 16 * MIB
    finally:
        if how == "frozen":
            frozen.__exit__(None, None, None)
        else:
            place.ceph.start_gateway()
    began = monotonic()
    again = await put(place)
    assert await get(place, again) == CONTENT
    assert monotonic() - began < 5
    assert (await place.store.reopen(partial, partly.durable, None)).durable == partly.durable
    reader.close()
    await store.stop()
