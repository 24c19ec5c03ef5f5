"""A directory as a blob store: its layout, its identity, its room."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import pytest_twisted
from directory_store import MIB, Pushing, Tracing, get, keys, pid, put, reactor, until
from twisted.internet.defer import Deferred, DeferredList

from repoman.errors import NoRoom, StoreUnavailable
from repoman.interfaces import new_key
from repoman.settings import Amount, Share
from repoman.storage.directory import DirectoryStore


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def start(root: Path, repository_id: str = "this", *, may_create: bool = True) -> None:
    store = DirectoryStore(reactor, root, repository_id=repository_id, may_create=may_create)
    await store.start()
    await store.stop()


@pytest_twisted.ensureDeferred
async def test_everything_is_closed_to_others(store: DirectoryStore, root: Path) -> None:
    await put(store, key := new_key(), b"abc")
    await store.create(new_key(), 10)
    found = [root, *root.rglob("*")]
    assert root / "data" / key[:2] / key in found
    assert {mode(path) for path in found if path.is_dir()} == {0o700}
    assert {mode(path) for path in found if path.is_file()} == {0o600}


@pytest_twisted.ensureDeferred
async def test_an_empty_root_becomes_a_store(root: Path) -> None:
    root.mkdir(mode=0o755)
    (root / "lost+found").mkdir()
    await start(root)
    assert (root / "REPO_ID").read_text() == "this\n"
    assert len(list((root / "data").iterdir())) == 256
    assert mode(root) == 0o700
    await start(root, may_create=False)


@pytest_twisted.ensureDeferred
async def test_a_first_start_that_was_cut_short_is_taken_up(root: Path) -> None:
    root.mkdir()
    (root / "REPO_ID.new").touch()
    await start(root)
    (root / "data" / "00").rmdir()
    (root / "quarantine").rmdir()
    await start(root)
    assert (root / "data" / "00").is_dir()
    assert (root / "quarantine").is_dir()


@pytest.mark.parametrize("ids", [("this",) * 4, ("this", "that") * 2])
@pytest_twisted.ensureDeferred
async def test_of_daemons_that_start_at_once_one_says_whose_store_it_is(
    root: Path, ids: tuple[str, ...]
) -> None:
    for turn in range(3):
        place = root / str(turn)
        ended = await DeferredList(
            [Deferred.fromCoroutine(start(place, one)) for one in ids], consumeErrors=True
        )
        owner = (place / "REPO_ID").read_text().strip()
        for (fine, result), one in zip(ended, ids, strict=True):
            assert fine == (one == owner), result
            assert fine or f"belongs to repository {owner}" in str(result.value)
        assert [path.name for path in place.glob("REPO_ID*")] == ["REPO_ID"]


@pytest_twisted.ensureDeferred
async def test_another_repositorys_store_is_refused(root: Path) -> None:
    await start(root, "that")
    with pytest.raises(StoreUnavailable, match=r"belongs to repository that, .* to this") as said:
        await start(root, "this")
    assert "\n" not in said.value.message


@pytest_twisted.ensureDeferred
async def test_a_directory_of_something_else_is_refused_and_left_alone(root: Path) -> None:
    root.mkdir()
    (root / "thesis.tex").touch()
    with pytest.raises(StoreUnavailable, match="REPO_ID"):
        await start(root)
    assert [path.name for path in root.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("exists", [True, False])
@pytest_twisted.ensureDeferred
async def test_a_root_that_is_not_mounted_is_refused(root: Path, exists: bool) -> None:
    if exists:
        root.mkdir()
    with pytest.raises(StoreUnavailable, match="mount it"):
        await start(root, may_create=False)
    assert not root.exists() or not list(root.iterdir())


@pytest_twisted.ensureDeferred
async def test_an_unusable_root_is_refused(root: Path) -> None:
    root.write_text("a file")
    with pytest.raises(StoreUnavailable, match="Not a directory"):
        await start(root)


@pytest_twisted.ensureDeferred
async def test_a_key_is_never_a_path(store: DirectoryStore, root: Path) -> None:
    for key in ("../REPO_ID", "", "A" * 32, "0" * 31, "0" * 32 + "\n"):
        with pytest.raises(StoreUnavailable):
            await store.create(key, 1)
        with pytest.raises(StoreUnavailable):
            await store.delete(key)
    assert (root / "REPO_ID").exists()


@pytest_twisted.ensureDeferred
async def test_files_that_are_no_blobs_are_not_listed(store: DirectoryStore, root: Path) -> None:
    (root / "incoming" / "notes.txt").touch()
    (root / "data" / "00" / ".nfs0001").touch()
    assert await keys(store) == []


@pytest_twisted.ensureDeferred
async def test_the_bytes_in_quarantine_are_kept(store: DirectoryStore, root: Path) -> None:
    await put(store, key := new_key(), b"abc")
    await store.quarantine(key)
    assert (root / "quarantine" / key).read_bytes() == b"abc"


@pytest_twisted.ensureDeferred
async def test_an_announcement_takes_no_room_on_the_disk(store: DirectoryStore, root: Path) -> None:
    writer = await store.create(key := new_key(), 50 * MIB)
    assert (root / "incoming" / key).stat().st_blocks == 0
    writer.write(b"x" * MIB)
    await writer.keep()
    assert (root / "incoming" / key).stat().st_blocks * 512 < 2 * MIB
    again = await store.reopen(key, MIB, 50 * MIB)
    assert (root / "incoming" / key).stat().st_blocks * 512 < 2 * MIB
    await again.discard()


@pytest_twisted.ensureDeferred
async def test_without_descriptors_an_upload_is_refused(
    store: DirectoryStore, root: Path, tracing: Tracing
) -> None:
    for process in (os.getpid(), pid(store)):
        path = str(root / "incoming" / (key := new_key()))
        with (
            tracing(process, "-P", path, "-e", "inject=openat:error=EMFILE"),
            pytest.raises(StoreUnavailable),
        ):
            await store.create(key, 3)
        await store.delete(key)
    assert await keys(store) == []


@pytest.mark.parametrize(
    ("reserve", "kept"), [(Amount(0), 0), (Share(25), 4 * MIB), (Amount(5 * MIB), 5 * MIB)]
)
@pytest_twisted.ensureDeferred
async def test_the_reserve_is_never_used(
    small_disk: Path, reserve: Share | Amount, kept: int
) -> None:
    store = DirectoryStore(reactor, small_disk, repository_id="this", reserve=reserve.of)
    await store.start()
    room, found = store.room(), os.statvfs(small_disk)
    assert room.total == 16 * MIB
    assert room.free == found.f_bavail * found.f_frsize - kept
    with pytest.raises(NoRoom, match=f"{room.free + 1} bytes asked for, {room.free} left"):
        await store.create(new_key(), room.free + 1)
    writer = await store.create(new_key(), room.free)
    assert store.room() == room
    writer.write(b"x" * room.free)
    assert store.room().free == 0
    for size in (None, 1):
        with pytest.raises(NoRoom):
            await store.create(new_key(), size)
    await writer.keep()
    with pytest.raises(NoRoom):
        await store.reopen(writer.key, room.free, room.free + 1)
    await (await store.reopen(writer.key, room.free, room.free)).discard()
    assert store.room() == room
    await store.stop()


@pytest_twisted.ensureDeferred
async def test_a_write_cut_short_is_continued(store: DirectoryStore, tracing: Tracing) -> None:
    data = bytes(1000) + b"x" * MIB
    writer = await store.create(key := new_key(), len(data))
    # The kernel claims 1000 bytes, which are zero anyhow.
    with tracing(os.getpid(), "-e", "inject=pwritev,pwritev2:retval=1000:when=1"):
        writer.write(data)
    await writer.commit()
    assert await get(store, key, len(data)) == data


@pytest_twisted.ensureDeferred
async def test_an_upload_of_unknown_size_ends_when_the_disk_is_full(small_disk: Path) -> None:
    store = DirectoryStore(reactor, small_disk, repository_id="this")
    await store.start()
    await put(store, before := new_key(), b"before")
    writer = await store.create(new_key(), None)
    producer = Pushing(writer, b"x" * MIB, 20)
    await until(lambda: producer.error)
    assert isinstance(producer.error, NoRoom)
    with pytest.raises(NoRoom):
        await writer.commit()
    await writer.discard()
    assert await keys(store) == [(before, True)]
    assert await get(store, before, 6) == b"before"
    assert store.room().free > 15 * MIB
    await store.stop()


@pytest_twisted.ensureDeferred
async def test_an_upload_of_unknown_size_ends_at_the_reserve(
    root: Path,
) -> None:
    store = DirectoryStore(reactor, root, repository_id="this")
    await store.start()
    writer = await store.create(new_key(), None)
    store.reserve = lambda total: total
    producer = Pushing(writer, b"x" * MIB, 300)
    await until(lambda: producer.error)
    assert isinstance(producer.error, NoRoom)
    await writer.discard()
    await store.stop()
