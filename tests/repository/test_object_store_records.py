"""What the records know for stores that are object stores."""

from __future__ import annotations

import pytest_twisted

from repoman.interfaces import Committed
from repoman.model import Digests
from tests.records import QUOTA, Records, at_once

ALL = Digests("aa", "bb", "cc", "dd")


@pytest_twisted.ensureDeferred
async def test_of_two_who_note_a_multipart_upload_one_succeeds(records: Records) -> None:
    alice = await records.user("alice")
    key = await records.begin(await records.image("alice", "one"), alice, 100)
    assert await records.blobs.multipart(key) is None
    noting = [records.blobs.note_multipart(key, name, None) for name in ("first", "second")]
    assert sorted(await at_once(*noting)) == [False, True]
    assert await records.blobs.multipart(key) in ("first", "second")
    before = await records.blobs.multipart(key)
    assert await records.blobs.note_multipart(key, "third", before)
    assert not await records.blobs.note_multipart(key, "fourth", before)
    assert await records.blobs.multipart(key) == "third"
    assert not await records.blobs.note_multipart("0" * 32, "fifth", None)
    assert await records.blobs.multipart("0" * 32) is None


@pytest_twisted.ensureDeferred
async def test_bytes_that_somebody_may_still_read_stay_for_the_grace(records: Records) -> None:
    alice = await records.user("alice")
    image = await records.store(await records.image("alice", "one"), alice, 5)
    read = image.files["xen"].blob
    await records.store(image, alice, 7)
    never_read = await records.begin(image, alice, 9)
    await records.blobs.release(never_read)
    assert await records.blobs.to_delete(10, 3600.0) == [never_read]
    assert await records.blobs.to_delete(10, 0.0) == [read, never_read]
    await records.run(
        "UPDATE blob SET gone_since = now() - interval '61 min' WHERE blob = %s", read
    )
    assert await records.blobs.to_delete(10, 3600.0) == [read, never_read]


@pytest_twisted.ensureDeferred
async def test_what_came_with_all_digests_is_not_read_back_soon(records: Records) -> None:
    alice = await records.user("alice")
    for name, digests in (("one", ALL), ("two", Digests("aa"))):
        key = await records.begin(await records.image("alice", name), alice, 5)
        image = await records.blobs.finish(key, Committed(5, digests, ""), QUOTA)
        assert image.files["xen"].digests == digests
    due = await records.blobs.due_for_scrub(3600.0, [])
    assert due is not None
    assert due.blob == key
    assert await records.blobs.due_for_scrub(3600.0, [key]) is None
