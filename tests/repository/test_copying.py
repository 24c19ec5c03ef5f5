"""What a copy of the store promises: every file, each right, and nothing read twice."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as global_reactor

from repoman.assembly import digesting
from repoman.database.copies import CopyRecords
from repoman.errors import NoRoom
from repoman.interfaces import Committed, IBlobStore, IBlobWriter, ScrubDue
from repoman.model import Digests, Image
from repoman.repository.copying import Copied, Copier, Unresumed
from repoman.repository.scrubber import Verifier
from repoman.storage.directory import DirectoryStore
from repoman.storage.memory import MemoryStore
from repoman.streams import digests
from tests.ceph import Ceph
from tests.records import QUOTA, Records
from tests.s3 import s3_store

reactor: Any = global_reactor
PLACE = "the other store"
CONTENT = bytes(range(256)) * 5000


@pytest.fixture(
    params=["memory to directory", "directory to memory", "directory to ceph", "ceph to directory"]
)
def kinds(request: pytest.FixtureRequest) -> list[str]:
    """What is copied from, and to."""
    kinds: list[str] = request.param.split(" to ")
    return kinds


@pytest_twisted.async_yield_fixture
async def source(
    request: pytest.FixtureRequest, kinds: list[str], tmp_path: Path
) -> AsyncIterator[IBlobStore]:
    store = _store(request, kinds[0], tmp_path / "source")
    await store.start()
    yield store
    await store.stop()


@pytest_twisted.async_yield_fixture
async def target(
    request: pytest.FixtureRequest, kinds: list[str], tmp_path: Path
) -> AsyncIterator[IBlobStore]:
    store = _store(request, kinds[1], tmp_path / "target")
    await store.start()
    yield store
    await store.stop()


def _store(request: pytest.FixtureRequest, kind: str, place: Path) -> IBlobStore:
    if kind == "ceph":
        ceph: Ceph = request.getfixturevalue("ceph")
        return s3_store(ceph, ceph.bucket(), records=Unresumed())
    if kind == "directory":
        return DirectoryStore(reactor, place, repository_id="this")
    return MemoryStore(reactor)


async def written(store: IBlobStore, key: str, content: bytes) -> str:
    """Let a store have a blob; answer its stamp."""
    writer = await store.create(key, len(content))
    writer.write(content)
    return await writer.commit()


async def stored(records: Records, store: IBlobStore, *contents: bytes) -> list[str]:
    """A user's images with these bytes, one after the other."""
    alice, blobs = await records.users.find("alice") or await records.user("alice"), []
    for content in contents:
        number = len(await records.run("SELECT 1 FROM image"))
        image = await records.image("alice", f"image{number}")
        blobs.append(blob := await records.begin(image, alice, len(content)))
        await finished(records, blob, content, await written(store, blob, content))
    return blobs


async def finished(records: Records, blob: str, content: bytes, stamp: str) -> Image:
    known = Digests(**digests(content, ["sha256"]))
    return await records.blobs.finish(blob, Committed(len(content), known, stamp), QUOTA)


async def copied(
    records: Records, source: IBlobStore, target: IBlobStore, **options: Any
) -> Copied:
    kept = CopyRecords(records.pool)
    return await Copier(kept, source, target, PLACE, digesting, reactor, **options).run()


async def contents(store: IBlobStore) -> dict[str, str]:
    """What is committed in a store, by key, as SHA-256."""
    keys = [key async for key, whole in store.keys() if whole]  # noqa: SIM118 no dict
    return {key: (await store.digests(key, "sha256"))["sha256"] for key in keys}


def sha256(content: bytes) -> str:
    return digests(content, ["sha256"])["sha256"]


@pytest_twisted.ensureDeferred
async def test_every_file_comes_over_and_the_next_run_finds_nothing_to_do(
    records: Records, source: IBlobStore, target: IBlobStore
) -> None:
    one, two, three = await stored(records, source, CONTENT, b"", b"small")
    moved: list[int] = []
    begun: list[int] = []
    done = await copied(records, source, target, begin=begun.append, moved=moved.append)
    assert done == Copied(3, len(CONTENT) + 5, 0, (), 0, 0)
    assert (begun, sum(moved)) == ([len(CONTENT) + 5], len(CONTENT) + 5)
    held = {one: sha256(CONTENT), two: sha256(b""), three: sha256(b"small")}
    assert await contents(target) == await contents(source) == held
    assert await copied(records, source, target) == Copied(0, 0, 3, (), 0, 0)


@pytest_twisted.ensureDeferred
async def test_the_daemon_on_the_new_store_reads_no_file_again(
    records: Records, source: IBlobStore, target: IBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    [blob] = await stored(records, source, CONTENT)
    await copied(records, source, target)
    image = await records.blobs.image_of(blob)
    assert image is not None

    async def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("the bytes were read again")

    monkeypatch.setattr(source, "digests", never)
    monkeypatch.setattr(target, "digests", never)
    reader = await target.open(blob, len(CONTENT))
    reader.close()
    await Verifier(records.blobs, target).verify(image.files["xen"], reader.stamp)
    assert await records.blobs.stamp(blob) == reader.stamp
    with pytest.raises(AssertionError):  # but one that somebody touched is
        await Verifier(records.blobs, target).verify(image.files["xen"], "another stamp")


@pytest_twisted.ensureDeferred
async def test_what_came_and_went_meanwhile_is_seen_by_the_next_run(
    records: Records, source: IBlobStore, target: IBlobStore
) -> None:
    old, kept = await stored(records, source, b"old", b"kept")
    await copied(records, source, target)
    image = await records.blobs.image_of(old)
    assert image is not None
    alice = await records.read("alice")
    new = await records.begin(image, alice, 3)
    await finished(records, new, b"new", await written(source, new, b"new"))
    await source.delete(old)
    await records.blobs.forget(old)
    assert await copied(records, source, target) == Copied(1, 3, 1, (), 1, 0)
    assert await contents(target) == {new: sha256(b"new"), kept: sha256(b"kept")}


@pytest_twisted.ensureDeferred
async def test_one_that_goes_while_it_is_copied_is_no_damage(
    records: Records, source: IBlobStore, target: IBlobStore
) -> None:
    blob, other = await stored(records, source, b"gone", b"there")
    await source.delete(blob)
    opened = source.open

    async def late(key: str, size: int) -> Any:
        await records.run("UPDATE blob SET state = 'deleting' WHERE blob = %s", blob)
        return await opened(key, size)

    source.open = late  # type: ignore[method-assign]
    done = await copied(records, source, target)
    assert (done.files, done.damaged) == (1, ())
    assert await contents(target) == {other: sha256(b"there")}


@pytest.mark.parametrize("damage", ["other", "missing", "short"])
@pytest_twisted.ensureDeferred
async def test_damage_is_told_by_name_and_not_copied(
    records: Records, source: IBlobStore, target: IBlobStore, damage: str
) -> None:
    wrong, right = await stored(records, source, CONTENT, CONTENT)
    await source.delete(wrong)
    if damage != "missing":
        await written(source, wrong, CONTENT[::-1] if damage == "other" else CONTENT[:-1])
    done = await copied(records, source, target)
    assert done.damaged == (f"alice/image0 ({wrong})",)
    assert (done.files, done.there) == (1, 0)
    assert await contents(target) == {right: sha256(CONTENT)}
    assert [key async for key, _ in target.keys()] == [right]  # noqa: SIM118 no dict
    assert await records.blobs.state(wrong) == "present"  # the daemon judges that by its store
    await records.blobs.mark_damaged([wrong])  # as it does
    assert (await copied(records, source, target)).damaged == done.damaged


@pytest_twisted.ensureDeferred
async def test_what_a_killed_run_left_is_begun_anew_or_verified(
    records: Records, source: IBlobStore, target: IBlobStore
) -> None:
    half, whole, wrong = await stored(records, source, CONTENT, CONTENT, CONTENT)
    writer = await target.create(half, len(CONTENT))
    writer.write(CONTENT[:1000])
    await writer.keep()
    await written(target, whole, CONTENT)  # nobody noted that
    await written(target, wrong, CONTENT[::-1])
    done = await copied(records, source, target)
    assert (done.files, done.there, done.damaged) == (2, 1, ())
    assert await contents(target) == dict.fromkeys((half, whole, wrong), sha256(CONTENT))
    assert await copied(records, source, target) == Copied(0, 0, 3, (), 0, 0)


@pytest_twisted.ensureDeferred
async def test_a_copy_that_was_lost_is_made_again(
    records: Records, source: IBlobStore, target: IBlobStore
) -> None:
    [blob] = await stored(records, source, CONTENT)
    await copied(records, source, target)
    await target.delete(blob)
    assert (await copied(records, source, target)).files == 1
    assert await contents(target) == {blob: sha256(CONTENT)}


async def begun(records: Records, store: IBlobStore, size: int) -> tuple[str, IBlobWriter]:
    """An upload that has begun."""
    alice = await records.user("alice")
    blob = await records.begin(await records.image("alice", "image"), alice, size)
    return blob, await store.create(blob, size)


@pytest_twisted.ensureDeferred
async def test_unfinished_uploads_stay_where_they_are_and_are_counted(
    records: Records, source: IBlobStore, target: IBlobStore
) -> None:
    blob, writer = await begun(records, source, 100)
    await records.run("UPDATE blob SET resumable = true")
    writer.write(b"half")
    await writer.keep()
    assert await copied(records, source, target) == Copied(0, 0, 0, (), 0, 1)
    assert [entry async for entry in source.keys()] == [(blob, False)]  # noqa: SIM118 no dict


@pytest_twisted.ensureDeferred
async def test_what_a_daemon_on_the_target_has_just_committed_stays(
    records: Records, source: IBlobStore, target: IBlobStore
) -> None:
    blob, writer = await begun(records, target, 5)

    class Late(CopyRecords):
        async def originals(self) -> Sequence[ScrubDue]:
            writer.write(b"bytes")
            await finished(records, blob, b"bytes", await writer.commit())
            return await super().originals()

    late = Late(records.pool)
    done = await Copier(late, source, target, PLACE, digesting, reactor).run()
    assert done == Copied(0, 0, 1, (), 0, 0)
    assert [entry async for entry in target.keys()] == [(blob, True)]  # noqa: SIM118 no dict


@pytest_twisted.ensureDeferred
async def test_a_full_target_ends_the_run_and_keeps_what_is_there(records: Records) -> None:
    source, target = MemoryStore(reactor), MemoryStore(reactor, capacity=7)
    await stored(records, source, b"12345", b"12345")
    with pytest.raises(NoRoom):
        await copied(records, source, target)
    assert list(target.committed.values()) == [b"12345"]
    assert target.arriving == {}


@pytest_twisted.ensureDeferred
async def test_no_more_is_copied_per_second_than_said(
    records: Records, source: IBlobStore, target: IBlobStore
) -> None:
    await stored(records, source, CONTENT[:100_000])
    began, moved = reactor.seconds(), list[float]()
    await copied(
        records, source, target, rate=80_000, moved=lambda _: moved.append(reactor.seconds())
    )
    assert 1.2 < reactor.seconds() - began < 3
    assert moved[1] - moved[0] > 0.9
