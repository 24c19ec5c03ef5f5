"""A reader waits for no disk, and tells damage from an end."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import pytest_twisted
from directory_store import MIB, Sink, Tracing, get, keys, pid, put, reactor

from repoman.errors import BlobDamaged, StoreUnavailable
from repoman.interfaces import new_key
from repoman.storage.directory import DirectoryStore
from repoman.storage.reader import AHEAD
from repoman.streams import CHUNK

DATA = bytes(range(256)) * 4096 * 3  # 3 MiB
READS = "trace=preadv2,preadv,pread64,fadvise64"


def where(root: Path, key: str) -> Path:
    return root / "data" / key[:2] / key


def forget(path: Path) -> None:
    """Drop a file from the page cache."""
    file = os.open(path, os.O_RDONLY)
    os.fsync(file)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)


@pytest_twisted.ensureDeferred
async def test_what_is_cached_is_read_without_further_ado(
    store: DirectoryStore, tracing: Tracing
) -> None:
    await put(store, key := new_key(), DATA)
    with tracing(os.getpid(), "-e", READS) as log:
        assert await get(store, key, len(DATA)) == DATA
    calls = [line.split()[1].partition("(")[0] for line in log.read_text().splitlines()]
    assert calls[:12] == ["preadv2"] * 12  # 256 KiB each
    assert "fadvise64" not in calls


@pytest_twisted.ensureDeferred
async def test_what_is_not_cached_is_asked_for_and_never_waited_for(
    store: DirectoryStore, root: Path, tracing: Tracing
) -> None:
    data = DATA + DATA
    await put(store, key := new_key(), data)
    forget(where(root, key))
    with tracing(os.getpid(), "-e", READS) as log:
        assert await get(store, key, len(data)) == data
    text = log.read_text()
    if "EOPNOTSUPP" in text:
        pytest.skip("the filesystem of the temporary directory always waits")
    assert "EAGAIN" in text
    assert "pread64(" not in text
    advised = [int(n) for n in re.findall(r"fadvise64\(.*>, (\d+), \d+, POSIX_FADV_WILL", text)]
    assert advised == list(range(0, len(data), CHUNK))
    assert text.index("POSIX_FADV_WILL") < text.index(f"= {CHUNK}\n")
    assert text.index(f", {AHEAD}, {CHUNK}, POSIX_FADV") < text.index(f", {CHUNK}, RWF_NOWAIT")


@pytest_twisted.ensureDeferred
async def test_bytes_that_stay_late_are_fetched_by_the_helper_process(
    store: DirectoryStore, tracing: Tracing
) -> None:
    await put(store, key := new_key(), DATA)
    with (
        tracing(pid(store), "-e", READS) as log,
        tracing(os.getpid(), "-e", READS, "-e", "inject=preadv2:error=EAGAIN"),
    ):
        assert await get(store, key, len(DATA)) == DATA
    assert log.read_text().count("pread64(") == 12


@pytest_twisted.ensureDeferred
async def test_bytes_that_the_disk_cannot_read_are_damaged(
    store: DirectoryStore, tracing: Tracing
) -> None:
    """The kernel says EAGAIN for them for ever: only a read that waits says EIO."""
    await put(store, key := new_key(), DATA)
    with (
        tracing(pid(store), "-e", READS, "-e", "inject=pread64:error=EIO"),
        tracing(os.getpid(), "-e", READS, "-e", "inject=preadv2:error=EAGAIN"),
        pytest.raises(BlobDamaged),
    ):
        await get(store, key, len(DATA))
    assert await get(store, key, len(DATA)) == DATA


@pytest_twisted.ensureDeferred
async def test_late_bytes_of_a_deleted_blob_are_still_read(
    store: DirectoryStore, tracing: Tracing
) -> None:
    await put(store, key := new_key(), DATA)
    reader = await store.open(key, len(DATA))
    await store.delete(key)
    with tracing(os.getpid(), "-e", READS, "-e", "inject=preadv2:error=EAGAIN"):
        await reader.write_to(sink := Sink(), 0, len(DATA))
    reader.close()
    assert sink.data == DATA


@pytest_twisted.ensureDeferred
async def test_where_every_read_waits_it_waits(store: DirectoryStore, tracing: Tracing) -> None:
    await put(store, key := new_key(), DATA)
    with tracing(os.getpid(), "-e", READS, "-e", "inject=preadv2:error=EOPNOTSUPP") as log:
        assert await get(store, key, len(DATA)) == DATA
    assert log.read_text().count("preadv2(") == 1


@pytest_twisted.ensureDeferred
async def test_a_read_error_is_damage(store: DirectoryStore, tracing: Tracing) -> None:
    await put(store, key := new_key(), DATA)
    with (
        tracing(os.getpid(), "-e", READS, "-e", "inject=preadv2:error=EIO:when=3"),
        pytest.raises(BlobDamaged) as said,
    ):
        await get(store, key, len(DATA))
    assert key not in said.value.message


@pytest_twisted.ensureDeferred
async def test_a_file_cut_short_under_a_reader_is_damage(store: DirectoryStore, root: Path) -> None:
    await put(store, key := new_key(), DATA)
    reader = await store.open(key, len(DATA))
    os.truncate(where(root, key), MIB)
    with pytest.raises(BlobDamaged):
        await reader.write_to(sink := Sink(), 0, len(DATA))
    reader.close()
    assert sink.data == DATA[:MIB]


@pytest_twisted.ensureDeferred
async def test_a_file_missing_truncated_or_grown_is_never_opened(
    store: DirectoryStore, root: Path
) -> None:
    await put(store, key := new_key(), DATA)
    for harm in (
        lambda path: os.truncate(path, len(DATA) - 1),
        lambda path: os.truncate(path, len(DATA) + 1),
        os.unlink,
    ):
        harm(where(root, key))
        with pytest.raises(BlobDamaged):
            await store.open(key, len(DATA))


@pytest_twisted.ensureDeferred
async def test_a_store_that_is_not_there_is_no_damage(store: DirectoryStore, root: Path) -> None:
    await put(store, key := new_key(), DATA)
    root.rename(root.with_name("unmounted"))
    for reading in (store.open(key, len(DATA)), store.digests(key, "sha256")):
        with pytest.raises(StoreUnavailable):
            await reading


@pytest_twisted.ensureDeferred
async def test_a_disk_that_is_gone_is_no_damage(
    store: DirectoryStore, root: Path, tracing: Tracing
) -> None:
    await put(store, key := new_key(), DATA)
    options = ("-P", str(where(root, key)), "-e", "inject=openat:error=EIO")
    with tracing(os.getpid(), *options), pytest.raises(StoreUnavailable):
        await store.open(key, len(DATA))
    assert await get(store, key, len(DATA)) == DATA


@pytest.mark.parametrize("error", ["EMFILE", "ENFILE", "ENOMEM", "EACCES"])
@pytest_twisted.ensureDeferred
async def test_what_we_lack_is_no_damage(
    store: DirectoryStore, root: Path, tracing: Tracing, error: str
) -> None:
    await put(store, key := new_key(), DATA)
    options = ("-P", str(where(root, key)), "-e", f"inject=openat:error={error}")
    with tracing(os.getpid(), *options), pytest.raises(StoreUnavailable):
        await store.open(key, len(DATA))
    with tracing(pid(store), *options), pytest.raises(StoreUnavailable):
        await store.digests(key, "sha256")
    assert await get(store, key, len(DATA)) == DATA


@pytest_twisted.ensureDeferred
async def test_a_flipped_bit_shows_in_the_digest(store: DirectoryStore, root: Path) -> None:
    await put(store, key := new_key(), DATA)
    before = await store.digests(key, "sha256", "adler32")
    with where(root, key).open("r+b") as file:
        file.seek(MIB)
        file.write(b"\x01")
    after = await store.digests(key, "sha256", "adler32")
    assert before["sha256"] != after["sha256"]
    assert before["adler32"] != after["adler32"]


@pytest_twisted.ensureDeferred
async def test_digests_of_what_cannot_be_read_are_damage(
    store: DirectoryStore, root: Path, tracing: Tracing
) -> None:
    await put(store, key := new_key(), DATA)
    path = str(where(root, key))
    with (
        tracing(pid(store), "-P", path, "-e", "trace=read", "-e", "inject=read:error=EIO:when=2"),
        pytest.raises(BlobDamaged),
    ):
        await store.digests(key, "sha256")


@pytest_twisted.ensureDeferred
async def test_digesting_keeps_to_its_rate(store: DirectoryStore) -> None:
    await put(store, key := new_key(), DATA)
    began = reactor.seconds()
    await store.digests(key, "sha256", rate=10 * MIB)
    assert reactor.seconds() - began > 0.3
    assert await keys(store) == [(key, True)]


@pytest_twisted.ensureDeferred
async def test_readers_leak_no_descriptor(store: DirectoryStore, root: Path) -> None:
    await put(store, key := new_key(), DATA)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        await get(store, key, len(DATA))
        with pytest.raises(BlobDamaged):
            await store.open(key, 1)
    assert len(os.listdir("/proc/self/fd")) == before
