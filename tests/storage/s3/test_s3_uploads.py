"""Uploads into an object store: parts, offsets, and whoever goes on with them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import pytest_twisted
from directory_store import Pushing, Sink, keys, until
from hypothesis import given
from hypothesis import strategies as st
from unreliable import Fault
from unreliable_place import PART, Place

from repoman.errors import BlobDamaged, NoRoom, StoreUnavailable
from repoman.interfaces import IBlobStore, new_key
from repoman.storage.s3 import parts
from repoman.storage.s3.content import Content
from repoman.storage.s3.parts import LARGEST, MOST_PARTS, last_number, part_size
from tests.s3 import s3_store

MIB = 1 << 20
CONTENT = os.urandom(2 * PART + 3 * MIB + 77)


async def get(store: IBlobStore, key: str, size: int) -> bytes:
    reader = await store.open(key, size)
    sink = Sink()
    await reader.write_to(sink, 0, size)
    reader.close()
    return sink.data


async def put(store: IBlobStore, data: bytes) -> str:
    key = new_key()
    writer = await store.create(key, len(data))
    for start in range(0, len(data), MIB):
        writer.write(data[start : start + MIB])
    await writer.commit()
    return key


@given(
    st.integers(5 * MIB, 1 << 30), st.integers(0, LARGEST), st.integers(0, MOST_PARTS // 2)
)  # fmt: skip
def test_any_size_fits_into_ten_thousand_parts(usual: int, size: int, begun: int) -> None:
    offset = min(size, begun * usual)
    assert last_number(usual, begun + 1, offset, size) <= MOST_PARTS


def test_parts_of_an_unknown_size_grow_to_a_terabyte() -> None:
    offset = 0
    for number in range(1, MOST_PARTS + 1):
        offset += part_size(16 * MIB, number, offset, None)
    assert offset > 1 << 40
    with pytest.raises(NoRoom):
        part_size(16 * MIB, MOST_PARTS + 1, offset, None)


@pytest.mark.parametrize("size", [None, 2 * PART])
@pytest_twisted.ensureDeferred
async def test_a_file_that_fills_the_last_part_is_taken_and_none_that_is_larger(
    place: Place, size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "MOST_PARTS", 2)
    writer = await place.store.create(key := new_key(), size)
    writer.write(CONTENT[: 2 * PART])
    assert await writer.keep() == 2 * PART
    writer = await place.store.reopen(key, 2 * PART, size)
    await writer.commit()
    assert await get(place.store, key, 2 * PART) == CONTENT[: 2 * PART]
    writer = await place.store.create(new_key(), size)
    writer.write(CONTENT[: 2 * PART + 1])
    with pytest.raises(NoRoom):
        await writer.commit()


@pytest_twisted.ensureDeferred
async def test_s3cmd_finds_the_same_bytes(place: Place, tmp_path: Path) -> None:
    key = await put(place.store, CONTENT)
    listing = place.ceph.s3cmd("ls", "--recursive", f"s3://{place.bucket}")
    assert f"s3://{place.bucket}/data/{key[:2]}/{key}" in listing
    fetched = tmp_path / "fetched"
    place.ceph.s3cmd("get", f"s3://{place.bucket}/data/{key[:2]}/{key}", str(fetched))
    whole = hashlib.sha256(fetched.read_bytes()).hexdigest()
    assert whole == hashlib.sha256(CONTENT).hexdigest()
    assert (await place.store.digests(key, "sha256"))["sha256"] == whole


@pytest_twisted.ensureDeferred
async def test_a_producer_waits_when_two_parts_are_full(place: Place) -> None:
    place.proxy.faults.append(Fault("PUT .*partNumber", times=9, silent=True))
    writer = await place.store.create(new_key(), 60 * MIB)
    producer = Pushing(writer, bytes(MIB // 4), 240)
    await until(lambda: producer.paused)
    assert (240 - producer.left) * MIB // 4 == 2 * PART
    assert writer.durable == 0
    await writer.discard()


@pytest.mark.parametrize("offset", [3, PART, PART + 3, 2 * PART + MIB, len(CONTENT)])
@pytest_twisted.ensureDeferred
async def test_another_daemon_goes_on_at_any_offset_that_was_kept(
    place: Place, offset: int
) -> None:
    key = new_key()
    writer = await place.store.create(key, len(CONTENT))
    writer.write(CONTENT[: offset // 2])
    assert await writer.keep() == offset // 2
    writer = await place.store.reopen(key, offset // 2, len(CONTENT))
    writer.write(CONTENT[offset // 2 : offset])
    assert await writer.keep() == offset
    other = await place.other()
    again = await other.reopen(key, offset, len(CONTENT))
    again.write(CONTENT[offset:])
    await again.commit()
    assert await get(other, key, len(CONTENT)) == CONTENT
    assert "partial/" not in place.ceph.s3cmd("ls", "--recursive", f"s3://{place.bucket}")
    await other.stop()


@pytest.mark.parametrize("size", [None, len(CONTENT)])
@pytest.mark.parametrize("offset", [0, 3, PART, PART + MIB, PART + 7 * MIB // 2])
@pytest_twisted.ensureDeferred
async def test_what_a_killed_daemon_sent_behind_the_offset_does_no_harm(
    place: Place, offset: int, size: int | None
) -> None:
    key = new_key()
    writer = await place.store.create(key, size)
    writer.write(CONTENT[: offset + PART] if offset % PART else CONTENT[:offset])
    for _ in range(2):
        writer.write(os.urandom(PART))
    writer._waiting.clear()
    await until(lambda: writer.durable >= 2 * PART and writer._sending is None)  # and killed
    other = await place.other()
    again = await other.reopen(key, offset, size)
    rest = CONTENT[offset : offset + 2 * MIB] if size is None else CONTENT[offset:]
    again.write(rest)
    await again.commit()
    whole = await get(other, key, offset + len(rest))
    assert whole == CONTENT[: offset + len(rest)]
    await other.stop()


@pytest.mark.parametrize("offset", [0, 3, PART, 2 * PART + MIB, len(CONTENT)])
@pytest_twisted.ensureDeferred
async def test_a_file_that_nobody_knows_of_is_cut_at_the_offset(place: Place, offset: int) -> None:
    key = await put(place.store, CONTENT)
    again = await place.store.reopen(key, offset, None)
    assert again.durable == offset
    assert (key, False) in await keys(place.store)
    again.write(b"the end")
    await again.commit()
    assert await keys(place.store) == [(key, True)]
    assert await get(place.store, key, offset + 7) == CONTENT[:offset] + b"the end"


@pytest.mark.parametrize("offset", [3, PART])
@pytest_twisted.ensureDeferred
async def test_a_daemon_that_is_killed_over_a_cut_file_costs_no_bytes(
    place: Place, offset: int
) -> None:
    key = await put(place.store, CONTENT)
    await place.store.reopen(key, offset, None)  # and killed
    other = await place.other()
    again = await other.reopen(key, offset, None)
    again.write(b"the end")
    await again.commit()
    assert await get(other, key, offset + 7) == CONTENT[:offset] + b"the end"
    assert "partial/" not in place.ceph.s3cmd("ls", "--recursive", f"s3://{place.bucket}")
    await other.stop()


@pytest_twisted.ensureDeferred
async def test_who_froze_while_cutting_a_file_cannot_complete_it_any_more(place: Place) -> None:
    key = await put(place.store, CONTENT)
    before = await place.records.multipart(key)
    frozen = await place.store._arrivals.begin(key, before)
    other = await place.other()
    again = await other.reopen(key, PART, None)
    with pytest.raises(StoreUnavailable):
        await frozen.send(Content.of(b"late"))
    again.write(b"the end")
    await again.commit()
    assert await get(other, key, PART + 7) == CONTENT[:PART] + b"the end"
    await other.stop()


@pytest_twisted.ensureDeferred
async def test_bytes_that_were_taken_back_are_never_preferred(place: Place) -> None:
    key = new_key()
    writer = await place.store.create(key, None)
    writer.write(b"012345678")
    await writer.keep()
    wrong = f"{place.store._at.partial(key)}0-10"  # sorts before 0-9
    await place.store._bucket.put(wrong, Content.of(b"?" * 10))
    again = await place.store.reopen(key, 9, None)
    again.write(b"9")
    await again.commit()
    assert await get(place.store, key, 10) == b"0123456789"
    assert "partial/" not in place.ceph.s3cmd("ls", "--recursive", f"s3://{place.bucket}")


@pytest_twisted.ensureDeferred
async def test_more_than_there_is_cannot_be_gone_on_with(place: Place) -> None:
    key = await put(place.store, b"0123456789")
    with pytest.raises(BlobDamaged):
        await place.store.reopen(key, 11, None)
    key = new_key()
    writer = await place.store.create(key, None)
    writer.write(b"0123456789")
    await writer.keep()
    with pytest.raises(BlobDamaged):
        await place.store.reopen(key, 11, None)


@pytest_twisted.ensureDeferred
async def test_parts_of_a_late_writer_are_never_mixed_in(place: Place) -> None:
    key = new_key()
    first = await place.store.create(key, None)
    first.write(CONTENT[: PART + 9])
    await until(lambda: first.durable == PART)
    late = await (await place.other()).reopen(key, 0, None)
    late.write(bytes(PART))
    await until(lambda: late.durable == PART)
    with pytest.raises(StoreUnavailable):
        await first.commit()
    await late.commit()
    assert await get(place.store, key, PART) == bytes(PART)


@pytest_twisted.ensureDeferred
async def test_uploads_without_a_record_are_found_and_put_away(place: Place) -> None:
    key = new_key()
    writer = await place.store.create(key, None)
    writer.write(CONTENT[: PART + 9])
    await writer.keep()
    assert await keys(place.store) == [(key, False)]
    await place.store.quarantine(key)
    assert await keys(place.store) == []
    listing = place.ceph.s3cmd("ls", "--recursive", f"s3://{place.bucket}/quarantine/")
    sizes = sorted(int(line.split()[2]) for line in listing.splitlines())
    assert sizes == [9, PART]


@pytest_twisted.ensureDeferred
async def test_a_deleted_upload_leaves_nothing(place: Place) -> None:
    key = new_key()
    writer = await place.store.create(key, None)
    writer.write(CONTENT[: PART + 9])
    await writer.keep()
    await place.store.delete(key)
    assert await keys(place.store) == []
    listing = place.ceph.s3cmd("ls", "--recursive", f"s3://{place.bucket}")
    assert [line.split("/")[-1] for line in listing.splitlines()] == ["REPO_ID"]


@pytest_twisted.ensureDeferred
async def test_bytes_that_are_being_read_are_not_said_to_be_gone(place: Place) -> None:
    key = await put(place.store, b"abc")
    readers = [await place.store.open(key, 3) for _ in range(2)]
    for reader in readers:
        with pytest.raises(StoreUnavailable):
            await place.store.delete(key)
        reader.close()
    await place.store.delete(key)
    assert await keys(place.store) == []


@pytest_twisted.ensureDeferred
async def test_also_much_of_a_large_part_is_gone_on_with(place: Place) -> None:
    store = s3_store(place.ceph, place.bucket, part_size=40 * MIB)
    await store.start()
    writer = await store.create(key := new_key(), None)
    writer.write(large := os.urandom(20 * MIB))
    assert await writer.keep() == len(large)
    again = await store.reopen(key, len(large), None)
    again.write(b"the end")
    await again.commit()
    assert await get(store, key, len(large) + 7) == large + b"the end"
    await store.stop()
