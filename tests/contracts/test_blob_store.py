"""What every blob store promises: IBlobStore, IBlobWriter and IBlobReader."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.task import deferLater

from repoman.errors import BlobDamaged, ClientGone, NoRoom, StoreUnavailable
from repoman.interfaces import IBlobStore, new_key
from repoman.storage.directory import DirectoryStore
from repoman.storage.memory import MemoryStore
from repoman.storage.s3.store import S3Store
from repoman.streams import CHUNK
from tests.ceph import Ceph
from tests.s3 import s3_store

reactor: Any = global_reactor
PATTERN = bytes(range(256)) * 4099  # about 1 MiB, in no step with any chunk


class Sink:
    """A consumer that remembers all that happens to it."""

    def __init__(self, pause_after: int | None = None) -> None:
        self.pieces: list[bytes] = []
        self.producer: Any = None
        self.registered = 0
        self.unregistered = 0
        self._pause_after = pause_after

    @property
    def data(self) -> bytes:
        return b"".join(self.pieces)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming
        self.registered += 1
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.unregistered += 1

    def write(self, data: bytes) -> None:
        assert type(data) is bytes
        self.pieces.append(data)
        if self._pause_after is not None and len(self.pieces) >= self._pause_after:
            self.producer.pauseProducing()


class Full(Sink):
    """A consumer that cannot write."""

    def write(self, data: bytes) -> None:
        raise NoRoom("full")


class Gone(Sink):
    """A consumer that stops its producer at once, as a request does whose client has left."""

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        producer.stopProducing()


@pytest_twisted.async_yield_fixture(params=["memory", "directory", "ceph"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[IBlobStore]:
    made: IBlobStore
    if request.param == "memory":
        made = MemoryStore(reactor)
    elif request.param == "directory":
        made = DirectoryStore(reactor, tmp_path / "blobs", repository_id="this")
    else:
        ceph: Ceph = request.getfixturevalue("ceph")
        made = s3_store(ceph, ceph.bucket())
    await made.start()
    yield made
    await made.stop()


async def put(store: IBlobStore, data: bytes, *, size: int | None = None) -> str:
    key = new_key()
    writer = await store.create(key, len(data) if size is None else size)
    writer.write(data)
    await writer.commit()
    return key


async def get(store: IBlobStore, key: str, size: int, start: int = 0) -> bytes:
    reader = await store.open(key, size)
    sink = Sink()
    await reader.write_to(sink, start, size - start)
    reader.close()
    return sink.data


async def keys(store: IBlobStore) -> list[tuple[str, bool]]:
    listing = store.keys()
    return sorted([entry async for entry in listing])


def later(seconds: float = 0.05) -> Deferred[None]:
    return deferLater(reactor, seconds)


@pytest_twisted.ensureDeferred
async def test_committed_bytes_come_back_exactly(store: IBlobStore) -> None:
    key = await put(store, PATTERN)
    assert await get(store, key, len(PATTERN)) == PATTERN


@pytest_twisted.ensureDeferred
async def test_the_stamp_of_a_commit_is_that_of_every_opening(store: IBlobStore) -> None:
    key = new_key()
    writer = await store.create(key, 5)
    writer.write(b"bytes")
    stamp = await writer.commit()
    for _ in range(2):
        reader = await store.open(key, 5)
        reader.close()
        assert reader.stamp == stamp


@pytest_twisted.ensureDeferred
async def test_many_small_writes_come_back_exactly(store: IBlobStore) -> None:
    key = new_key()
    writer = await store.create(key, None)
    for n in range(3000):
        writer.write(PATTERN[n * 100 : n * 100 + 100])
    await writer.commit()
    assert await get(store, key, 300_000) == PATTERN[:300_000]


@pytest_twisted.ensureDeferred
async def test_an_empty_blob_is_a_blob(store: IBlobStore) -> None:
    key = new_key()
    writer = await store.create(key, 0)
    await writer.commit()
    assert await get(store, key, 0) == b""
    assert await keys(store) == [(key, True)]


@pytest_twisted.ensureDeferred
async def test_bytes_that_were_announced_and_never_came_are_no_part_of_the_blob(
    store: IBlobStore,
) -> None:
    key = await put(store, b"short", size=100_000)
    assert await get(store, key, 5) == b"short"


@pytest_twisted.ensureDeferred
async def test_more_than_was_announced_may_be_written(store: IBlobStore) -> None:
    key = await put(store, PATTERN, size=5)
    assert await get(store, key, len(PATTERN)) == PATTERN


@pytest_twisted.ensureDeferred
async def test_a_blob_is_invisible_before_its_commit(store: IBlobStore) -> None:
    key = new_key()
    writer = await store.create(key, 3)
    writer.write(b"abc")
    assert writer.key == key
    assert await keys(store) == [(key, False)]
    with pytest.raises(BlobDamaged):
        await store.open(key, 3)
    await writer.commit()
    assert await keys(store) == [(key, True)]


@pytest_twisted.ensureDeferred
async def test_a_discarded_blob_is_forgotten_and_may_be_discarded_twice(store: IBlobStore) -> None:
    writer = await store.create(new_key(), 3)
    writer.write(b"abc")
    await writer.discard()
    await writer.discard()
    assert await keys(store) == []


@pytest_twisted.ensureDeferred
async def test_discard_does_nothing_to_a_committed_blob(store: IBlobStore) -> None:
    key = new_key()
    writer = await store.create(key, 3)
    writer.write(b"abc")
    await writer.commit()
    await writer.discard()
    assert await get(store, key, 3) == b"abc"


@pytest.mark.parametrize("end", ["commit", "discard"])
@pytest_twisted.ensureDeferred
async def test_a_finished_writer_takes_nothing_more(store: IBlobStore, end: str) -> None:
    writer = await store.create(new_key(), 3)
    await getattr(writer, end)()
    with pytest.raises(StoreUnavailable):
        writer.write(b"x" * CHUNK)
    with pytest.raises(StoreUnavailable):
        await writer.commit()


@pytest_twisted.ensureDeferred
async def test_a_blob_deleted_while_it_arrives_cannot_be_committed(store: IBlobStore) -> None:
    key = new_key()
    writer = await store.create(key, 3)
    writer.write(b"abc")
    await store.delete(key)
    with pytest.raises(StoreUnavailable):
        await writer.commit()
    await writer.discard()
    assert await keys(store) == []


@pytest_twisted.ensureDeferred
async def test_deleted_blobs_are_gone_and_deletion_may_be_repeated(store: IBlobStore) -> None:
    key = await put(store, b"abc")
    await store.delete(key)
    await store.delete(key)
    await store.delete(new_key())
    assert await keys(store) == []
    with pytest.raises(BlobDamaged):
        await store.open(key, 3)


@pytest.mark.parametrize("committed", [True, False])
@pytest_twisted.ensureDeferred
async def test_a_key_is_used_once(store: IBlobStore, committed: bool) -> None:
    key = new_key()
    writer = await store.create(key, 3)
    writer.write(b"abc")
    if committed:
        await writer.commit()
    with pytest.raises(StoreUnavailable):
        await store.create(key, 3)
    if not committed:
        await writer.commit()
    assert await get(store, key, 3) == b"abc"


@pytest_twisted.ensureDeferred
async def test_a_size_without_room_is_refused_at_once(store: IBlobStore) -> None:
    room = store.room()
    assert 0 < room.free <= room.total
    with pytest.raises(NoRoom, match="left"):
        await store.create(new_key(), room.total + 1)
    assert await keys(store) == []


@pytest_twisted.ensureDeferred
async def test_announcements_take_no_room_from_others(store: IBlobStore) -> None:
    most = store.room().free * 3 // 5
    writers = [await store.create(new_key(), most) for _ in range(3)]
    writers[0].write(b"abc")
    assert await writers[0].keep() == 3
    writers.append(await store.reopen(writers[0].key, 3, most))
    key = await put(store, b"abc")
    assert await get(store, key, 3) == b"abc"
    for writer in writers:
        await writer.discard()


@pytest_twisted.ensureDeferred
async def test_a_blob_of_another_size_is_damaged(store: IBlobStore) -> None:
    key = await put(store, b"abc")
    for wrong in (0, 2, 4):
        with pytest.raises(BlobDamaged):
            await store.open(key, wrong)


@pytest_twisted.ensureDeferred
async def test_a_missing_blob_is_damaged(store: IBlobStore) -> None:
    with pytest.raises(BlobDamaged):
        await store.open(new_key(), 0)
    with pytest.raises(BlobDamaged):
        await store.digests(new_key(), "sha256")


@pytest_twisted.ensureDeferred
async def test_any_range_can_be_read(store: IBlobStore) -> None:
    key = await put(store, PATTERN)
    reader = await store.open(key, len(PATTERN))
    assert reader.size == len(PATTERN)
    edges = (0, 1, CHUNK - 1, CHUNK, CHUNK + 1, len(PATTERN) - 1, len(PATTERN))
    for start in edges:
        for end in edges:
            if start <= end:
                sink = Sink()
                await reader.write_to(sink, start, end - start)
                assert sink.data == PATTERN[start:end]
                assert (sink.registered, sink.unregistered) == (1, 1)
    reader.close()


@pytest_twisted.ensureDeferred
async def test_an_open_blob_stays_readable_when_it_is_deleted(store: IBlobStore) -> None:
    key = await put(store, PATTERN)
    reader = await store.open(key, len(PATTERN))
    with suppress(StoreUnavailable):
        await store.delete(key)
    sink = Sink()
    await reader.write_to(sink, 0, len(PATTERN))
    assert sink.data == PATTERN
    reader.close()
    reader.close()
    await store.delete(key)
    with pytest.raises(BlobDamaged):
        await store.open(key, len(PATTERN))


@pytest_twisted.ensureDeferred
async def test_a_paused_flow_waits_until_it_is_resumed(store: IBlobStore) -> None:
    key = await put(store, PATTERN)
    reader = await store.open(key, len(PATTERN))
    sink = Sink(pause_after=1)
    flowing = ensureDeferred(reader.write_to(sink, 0, len(PATTERN)))
    for pieces in (1, 2, 3):
        await later()
        assert len(sink.pieces) == pieces
        sink.producer.resumeProducing()
    sink._pause_after = None
    sink.producer.resumeProducing()
    await flowing
    assert sink.data == PATTERN
    reader.close()


@pytest_twisted.ensureDeferred
async def test_flows_take_turns(store: IBlobStore) -> None:
    order: list[int] = []

    class Named(Sink):
        def __init__(self, name: int) -> None:
            super().__init__()
            self.name = name

        def registerProducer(self, producer: Any, streaming: bool) -> None:
            super().registerProducer(producer, streaming)
            producer.pauseProducing()

        def write(self, data: bytes) -> None:
            order.append(self.name)

    key = await put(store, PATTERN)
    readers = [await store.open(key, len(PATTERN)) for _ in range(3)]
    sinks = [Named(n) for n in range(3)]
    flowing = [
        ensureDeferred(reader.write_to(sink, 0, len(PATTERN)))
        for reader, sink in zip(readers, sinks, strict=True)
    ]
    await later(0.3)
    for sink in sinks:
        sink.producer.resumeProducing()
    await gatherResults(flowing)
    assert set(order[: len(order) // 3]) == {0, 1, 2}
    if not isinstance(store, S3Store):  # whose network says what comes when
        assert [sorted(order[n : n + 3]) for n in (0, 3, 6)] == [[0, 1, 2]] * 3
    for reader in readers:
        reader.close()


@pytest.mark.parametrize("how", ["stopProducing", "cancel"])
@pytest_twisted.ensureDeferred
async def test_a_consumer_that_goes_ends_the_flow(store: IBlobStore, how: str) -> None:
    key = await put(store, PATTERN)
    reader = await store.open(key, len(PATTERN))
    sink = Sink(pause_after=2)
    flowing = ensureDeferred(reader.write_to(sink, 0, len(PATTERN)))
    await later()
    if how == "cancel":
        flowing.cancel()
    else:
        sink.producer.stopProducing()
    with pytest.raises(ClientGone):
        await flowing
    sink.producer.resumeProducing()
    await later(0.02)
    assert len(sink.pieces) == 2
    reader.close()


@pytest_twisted.ensureDeferred
async def test_a_consumer_that_has_gone_already_gets_nothing(store: IBlobStore) -> None:
    key = await put(store, PATTERN)
    reader = await store.open(key, len(PATTERN))
    sink = Gone()
    with pytest.raises(ClientGone):
        await reader.write_to(sink, 0, len(PATTERN))
    await later(0.02)
    assert (sink.pieces, sink.unregistered) == ([], 0)
    reader.close()


@pytest_twisted.ensureDeferred
async def test_an_error_of_the_consumer_ends_the_flow(store: IBlobStore) -> None:
    key = await put(store, PATTERN)
    reader = await store.open(key, len(PATTERN))
    sink = Full()
    with pytest.raises(NoRoom):
        await reader.write_to(sink, 0, len(PATTERN))
    assert sink.unregistered == 1
    reader.close()


@pytest_twisted.ensureDeferred
async def test_a_blob_shorter_than_promised_is_an_error_not_an_end(store: IBlobStore) -> None:
    key = await put(store, b"abc")
    reader = await store.open(key, 3)
    sink = Sink()
    with pytest.raises(BlobDamaged):
        await reader.write_to(sink, 1, 3)
    assert sink.unregistered == 1
    reader.close()


@pytest.mark.parametrize("committed", [True, False])
@pytest_twisted.ensureDeferred
async def test_what_is_in_quarantine_is_neither_served_nor_listed(
    store: IBlobStore, committed: bool
) -> None:
    key = new_key()
    writer = await store.create(key, 3)
    writer.write(b"abc")
    if committed:
        await writer.commit()
    await store.quarantine(key)
    await store.quarantine(new_key())
    assert await keys(store) == []
    with pytest.raises(BlobDamaged):
        await store.open(key, 3)
    await writer.discard()


@pytest_twisted.ensureDeferred
async def test_digests_are_those_of_the_stored_bytes(store: IBlobStore) -> None:
    key = await put(store, PATTERN)
    assert await store.digests(key, "sha256", "md5", "sha512", "adler32") == {
        "sha256": hashlib.sha256(PATTERN).hexdigest(),
        "sha512": hashlib.sha512(PATTERN).hexdigest(),
        "md5": hashlib.md5(PATTERN).hexdigest(),
        "adler32": f"{zlib.adler32(PATTERN):08x}",
    }


@pytest_twisted.ensureDeferred
async def test_what_was_committed_outlives_a_restart(store: IBlobStore) -> None:
    key = await put(store, b"abc")
    await store.stop()
    await store.start()
    assert await get(store, key, 3) == b"abc"


@pytest_twisted.ensureDeferred
async def test_only_push_producers_write_blobs(store: IBlobStore) -> None:
    writer = await store.create(new_key(), 3)
    with pytest.raises(ValueError, match="push"):
        writer.registerProducer(object(), False)
    await writer.discard()


@pytest_twisted.ensureDeferred
async def test_a_kept_blob_goes_on_at_its_offset_and_is_invisible_meanwhile(
    store: IBlobStore,
) -> None:
    key = new_key()
    writer = await store.create(key, len(PATTERN))
    writer.write(PATTERN[:1000])
    assert await writer.keep() == 1000
    with pytest.raises(BlobDamaged):
        await store.open(key, 1000)
    assert await keys(store) == [(key, False)]
    again = await store.reopen(key, 1000, len(PATTERN))
    assert again.durable == 1000
    again.write(PATTERN[1000:])
    await again.commit()
    assert await get(store, key, len(PATTERN)) == PATTERN


@pytest_twisted.ensureDeferred
async def test_bytes_behind_the_offset_are_dropped(store: IBlobStore) -> None:
    key = new_key()
    writer = await store.create(key, None)
    writer.write(b"0123456789")
    await writer.keep()
    again = await store.reopen(key, 4, None)
    again.write(b"x")
    await again.commit()
    assert await get(store, key, 5) == b"0123x"


@pytest_twisted.ensureDeferred
async def test_a_kept_writer_takes_no_more(store: IBlobStore) -> None:
    writer = await store.create(new_key(), None)
    await writer.keep()
    with pytest.raises(StoreUnavailable):
        await writer.commit()


@pytest_twisted.ensureDeferred
async def test_a_committed_blob_that_nobody_knows_of_can_be_reopened(store: IBlobStore) -> None:
    key = await put(store, PATTERN)
    again = await store.reopen(key, len(PATTERN), len(PATTERN))
    assert (key, False) in await keys(store)
    await again.commit()
    assert await get(store, key, len(PATTERN)) == PATTERN


@pytest_twisted.ensureDeferred
async def test_an_upload_that_is_not_there_cannot_be_reopened(store: IBlobStore) -> None:
    with pytest.raises(BlobDamaged):
        await store.reopen(new_key(), 1, None)
    key = new_key()
    await (await store.create(key, None)).keep()
    with pytest.raises(BlobDamaged):
        await store.reopen(key, 1, None)


ZEROS = {
    "none": PATTERN,
    "one": b"\0",
    "all": bytes(1 << 20),
    "all, of an odd size": bytes((1 << 20) + 1),
    "less than a block": bytes(4095),
    "at the beginning": bytes(300_001) + PATTERN[1:],
    "in the middle": PATTERN + bytes(1 << 20) + PATTERN,
    "at the end": PATTERN + bytes(700_000),
    "every other block": (bytes(4096) + PATTERN[:4096]) * 128,
    "every other block, out of step": b"x" + (bytes(4096) + b"y" * 4096) * 128 + b"z",
    "a single byte between": bytes(1 << 19) + b"x" + bytes(1 << 19),
    "a last byte": bytes((1 << 20) - 1) + b"x",
}
"""Blobs with runs of zeros, by where these are."""


@pytest_twisted.ensureDeferred
async def test_zeros_come_back_as_zeros_however_they_are_divided(store: IBlobStore) -> None:
    for where, data in ZEROS.items():
        for step in (1000, 16_384, 16_001, CHUNK):
            writer = await store.create(key := new_key(), len(data))
            for start in range(0, len(data), step):
                writer.write(data[start : start + step])
            await writer.commit()
            assert await get(store, key, len(data)) == data, (where, step)
        found = await store.digests(key, "sha256")
        assert found["sha256"] == hashlib.sha256(data).hexdigest(), where


@pytest_twisted.ensureDeferred
async def test_a_blob_kept_in_its_zeros_goes_on_there(store: IBlobStore) -> None:
    for where, data in ZEROS.items():
        for stop in {min(stop, len(data)) for stop in (0, 1, 4096, 300_000, (1 << 20) - 1)}:
            writer = await store.create(key := new_key(), len(data))
            writer.write(data[:stop])
            assert await writer.keep() == writer.durable == stop
            again = await store.reopen(key, stop, len(data))
            assert again.durable == stop
            again.write(data[stop:])
            await again.commit()
            assert await get(store, key, len(data)) == data, (where, stop)


@pytest_twisted.ensureDeferred
async def test_zeros_show_nothing_of_what_was_taken_back(store: IBlobStore) -> None:
    size = len(PATTERN)
    for offset in (0, 1, 4096, 300_000):
        for end in (b"", b"end"):
            writer = await store.create(key := new_key(), None)
            writer.write(b"x" * 2 * size)
            await writer.keep()
            again = await store.reopen(key, offset, None)
            again.write(bytes(size) + end)
            await again.commit()
            expected = b"x" * offset + bytes(size) + end
            assert await get(store, key, len(expected)) == expected, (offset, end)
