"""Two processes on one repository: an upload goes on through either, and only one has it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timezone
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import deferLater

from repoman.assembly import Assembly, assemble
from repoman.config import parse
from repoman.database.blobs import BlobRecords
from repoman.errors import ClientGone, Conflict, Missing, RepomanError, Unavailable, WrongOffset
from repoman.holders import UploadTerms
from repoman.interfaces import Committed
from repoman.model import Caller, Digests, Image, Upload
from repoman.repository.images import FileRef
from repoman.repository.uploads import Part
from repoman.storage.memory import MemoryStore
from tests.records import QUOTA, Records
from tests.repository.test_digests_so_far import arrived, arriving

reactor: Any = global_reactor


def two(records: Records) -> tuple[Assembly, Assembly]:
    """Two processes, over one store and one database."""
    store: Any = MemoryStore(reactor)
    now = lambda: datetime.now(timezone.utc)  # noqa: E731
    conf = parse("", "none")
    one, other = (assemble(conf, records.pool, store, now, lambda: None, list) for _ in range(2))
    return one, other


def part(offset: int, *, last: bool = False) -> Part:
    return Part(offset, last=last, length=None, expected={})


async def begun(records: Records, assembly: Assembly) -> tuple[Caller, Upload]:
    caller = Caller(await records.user("alice"))
    await records.image("alice", "one")
    return caller, await assembly.repository.uploads.create(caller, FileRef("one"), None)


async def reserved(records: Records) -> int:
    return int((await records.run("SELECT reserved FROM account"))[0][0])


async def soon(seconds: float = 0.05) -> None:
    await deferLater(reactor, seconds)


async def held(records: Records) -> None:
    """Wait until somebody has the upload."""
    while await records.run("SELECT 1 FROM blob WHERE held_until > now()") != [(1,)]:
        await soon()


@asynccontextmanager
async def telling(*assemblies: Assembly) -> AsyncIterator[None]:
    """Let processes do what their chores do, faster."""
    running = True

    async def tell() -> None:
        while running:
            for assembly in assemblies:
                await assembly.repository.uploads.record_progress()
            await soon()

    told = ensureDeferred(tell())
    try:
        yield
    finally:
        running = False
        await told


async def outcome(work: Any) -> Any:
    """What it answers or raises."""
    try:
        return await work
    except RepomanError as error:
        return error


@pytest_twisted.ensureDeferred
async def test_a_part_through_each_ends_with_the_digest_of_the_bytes(records: Records) -> None:
    one, other = two(records)
    caller, upload = await begun(records, one)
    content = b""
    # The third part finds in the first process the digest of as many bytes, but not of these.
    for assembly, data in ((one, b"first "), (other, b"second "), (one, b"third")):
        is_last = data == b"third"
        where = part(len(content), last=is_last)
        result = await assembly.repository.uploads.append(caller, upload.id, where, arrived(data))
        content += data
    assert isinstance(result, Image)
    assert result.files["xen"].digests.sha256 == hashlib.sha256(content).hexdigest()


@pytest_twisted.ensureDeferred
async def test_a_digest_of_as_many_other_bytes_is_not_used(records: Records) -> None:
    one, other = two(records)
    caller, upload = await begun(records, one)
    uploads, elsewhere = one.repository.uploads, other.repository.uploads
    await uploads.append(caller, upload.id, part(0), arrived(b"other"))
    # As after a power cut that left the first process alive and the store without its bytes.
    await records.run("UPDATE blob SET durable = 0 WHERE blob = %s", upload.id)
    assert await elsewhere.append(caller, upload.id, part(0), arrived(b"bytes")) == 5
    image = await uploads.append(caller, upload.id, part(5, last=True), arrived(b"!"))
    assert isinstance(image, Image)
    assert image.files["xen"].digests.sha256 == hashlib.sha256(b"bytes!").hexdigest()


@pytest_twisted.ensureDeferred
async def test_who_comes_back_through_another_daemon_gets_on(records: Records) -> None:
    one, other = two(records)
    caller, upload = await begun(records, one)
    hanging = arriving(100)
    first = ensureDeferred(
        outcome(one.repository.uploads.append(caller, upload.id, part(0), hanging))
    )
    await held(records)
    hanging.received(b"twelve bytes")
    elsewhere = other.repository.uploads
    async with telling(one):
        found = await elsewhere.find(caller, upload.id, settle=True)
    assert isinstance(await first, ClientGone)
    assert found.offset == 12
    assert isinstance(
        await elsewhere.append(caller, upload.id, part(12, last=True), arrived(b"!")), Image
    )


@pytest_twisted.ensureDeferred
async def test_who_does_not_let_go_is_waited_for_and_then_refused(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("repoman.database.uploads.PATIENCE", 0.5)
    one, other = two(records)
    caller, upload = await begun(records, one)
    hanging = arriving(6)
    first = ensureDeferred(
        outcome(one.repository.uploads.append(caller, upload.id, part(0, last=True), hanging))
    )
    await held(records)
    elsewhere = other.repository.uploads
    for work in (
        elsewhere.append(caller, upload.id, part(0), arrived(b"rival")),
        elsewhere.find(caller, upload.id, settle=True),
        elsewhere.delete(caller, upload.id),
    ):
        assert isinstance(await outcome(work), Unavailable)
    hanging.received(b"bytes!")
    hanging.finished()
    assert isinstance(await first, Image)


@pytest_twisted.ensureDeferred
async def test_who_was_silent_for_too_long_has_lost_the_upload(records: Records) -> None:
    one, other = two(records)
    caller, upload = await begun(records, one)
    hanging = arriving(6)
    first = ensureDeferred(
        outcome(one.repository.uploads.append(caller, upload.id, part(0, last=True), hanging))
    )
    await held(records)
    await records.run("UPDATE blob SET held_until = now() - interval '1 s'")
    elsewhere = other.repository.uploads
    assert await elsewhere.append(caller, upload.id, part(0), arrived(b"rival")) == 5
    before = await records.run("SELECT * FROM blob")
    # It wakes up, and is told; whatever it says before that touches nothing.
    hanging.received(b"bytes!")
    await one.repository.renew_leases()
    hanging.finished()
    assert isinstance(await first, Conflict | Unavailable)
    assert await records.run("SELECT * FROM blob") == before
    image = await elsewhere.append(caller, upload.id, part(5, last=True), arrived(b"!"))
    assert isinstance(image, Image)
    assert image.files["xen"].digests.sha256 == hashlib.sha256(b"rival!").hexdigest()


@pytest_twisted.ensureDeferred
async def test_a_running_part_ends_when_another_process_has_taken_the_upload(
    records: Records,
) -> None:
    one, other = two(records)
    caller, upload = await begun(records, one)
    first = ensureDeferred(
        outcome(one.repository.uploads.append(caller, upload.id, part(0), arriving(6)))
    )
    await held(records)
    await records.run("UPDATE blob SET held_until = now() - interval '1 s'")
    await other.repository.uploads.append(caller, upload.id, part(0), arrived(b"rival"))
    await one.repository.uploads.record_progress()
    assert isinstance(await first, RepomanError)


@pytest_twisted.ensureDeferred
async def test_who_cannot_tell_of_its_progress_stops_before_another_may_begin(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = two(records)
    caller, upload = await begun(records, one)
    first = ensureDeferred(
        outcome(one.repository.uploads.append(caller, upload.id, part(0), arriving(6)))
    )
    await held(records)
    one.repository.uploads.let_go()
    await soon()
    assert not first.called
    monkeypatch.setattr("repoman.database.holding.LET_GO_AFTER", 0.0)
    one.repository.uploads.let_go()
    assert isinstance(await first, ClientGone)


@pytest_twisted.ensureDeferred
async def test_of_two_who_resume_at_once_one_is_refused(records: Records) -> None:
    one, other = two(records)
    caller, upload = await begun(records, one)
    hanging = [arriving(5), arriving(5)]
    both = [
        ensureDeferred(outcome(a.repository.uploads.append(caller, upload.id, part(0), body)))
        for a, body in zip((one, other), hanging, strict=True)
    ]
    await held(records)
    for body in hanging:
        body.received(b"bytes")
        body.finished()
    results = [await each for each in both]
    assert 5 in results
    results.remove(5)
    assert isinstance(results[0], Unavailable | WrongOffset)


@pytest_twisted.ensureDeferred
async def test_what_a_dead_process_had_is_free_as_soon_as_its_death_is_told(
    records: Records,
) -> None:
    one, other = two(records)
    caller, upload = await begun(records, one)
    assert caller.user is not None
    await records.image("alice", "two")
    hanging, whole = arriving(6), arriving(6)
    files, uploads = one.repository.files, one.repository.uploads
    ensureDeferred(outcome(uploads.append(caller, upload.id, part(0), hanging)))
    plain = ensureDeferred(outcome(files.store(caller, FileRef("two"), whole, True, {})))
    while await records.run("SELECT 1 FROM blob WHERE held_until > now()") != [(1,)] * 2:
        await soon()
    [(holder,)] = await records.run("SELECT DISTINCT holder FROM blob")
    assert await reserved(records) == 6
    assert await records.blobs.expire_leases_of("somebody else") == 0
    assert await records.blobs.expire_leases_of(holder) == 1
    assert await reserved(records) == 0
    assert await other.repository.uploads.append(caller, upload.id, part(0), arrived(b"on")) == 2
    whole.received(b"bytes!")
    whole.finished()
    assert isinstance(await plain, Conflict)
    hanging.interrupt()


@pytest_twisted.ensureDeferred
async def test_a_deletion_through_another_daemon_ends_the_upload(records: Records) -> None:
    one, other = two(records)
    caller, upload = await begun(records, one)
    first = ensureDeferred(
        outcome(one.repository.uploads.append(caller, upload.id, part(0), arriving(6)))
    )
    await held(records)
    async with telling(one):
        await other.repository.uploads.delete(caller, upload.id)
    assert isinstance(await first, ClientGone)
    assert isinstance(await outcome(one.repository.uploads.find(caller, upload.id)), Missing)


@pytest_twisted.ensureDeferred
async def test_what_a_former_holder_says_touches_nothing(records: Records) -> None:
    one, other = BlobRecords(records.pool, "one"), BlobRecords(records.pool, "other")
    user, image = await records.user("alice"), await records.image("alice", "one")
    terms = UploadTerms(9, QUOTA, 4, 300.0, 60.0)
    blob = (await one.begin(image, "xen", user, terms)).blob
    await one.pause(blob, 0, terms)
    assert (await one.resume(blob, user, terms, 0)).was_mine
    for impossible in (other.resume(blob, user, terms, 0), other.release(blob)):
        with pytest.raises(Unavailable):
            await impossible
    assert await one.progress({blob: 3}, 60.0) == {blob: False}
    await records.run("UPDATE blob SET held_until = now() - interval '1 s'")
    with pytest.raises(WrongOffset):
        await other.resume(blob, user, terms, 0)
    assert not (await other.resume(blob, user, terms, 3)).was_mine
    before = await records.run("SELECT * FROM blob")
    assert await one.progress({blob: 9}, 60.0) == {}
    await one.renew([blob], 1000.0)
    with pytest.raises(Conflict):
        await one.pause(blob, 9, terms)
    with pytest.raises(Unavailable):
        await one.release(blob, paused_elsewhere=True)
    with pytest.raises(Conflict):
        await one.finish(blob, Committed(9, Digests("0" * 64), ""), QUOTA)
    assert await records.run("SELECT * FROM blob") == before
    await other.pause(blob, 3, terms)
    with pytest.raises(Unavailable):
        await one.release(blob)  # its own failure; the client's offset stays
    await other.resume(blob, user, terms, 3)
    await other.finish(blob, Committed(9, Digests("0" * 64), ""), QUOTA)
