"""What is acknowledged is durable; what may not be durable is never acknowledged."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_twisted
from directory_store import MIB, Pushing, Tracing, get, keys, pid, put, reactor, until

from repoman.errors import NoRoom, StoreUnavailable
from repoman.interfaces import new_key
from repoman.storage import flusher
from repoman.storage.directory import UNFLUSHED_EACH, DirectoryStore

SYNCS = "trace=fdatasync,fsync,rename"


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A helper process that does not sync directories."""
    shutil.copytree(Path(flusher.PACKAGES) / "repoman", tmp_path / "repoman")
    operations = tmp_path / "repoman" / "storage" / "operations.py"
    source = operations.read_text()
    sync = "os.fsync(os.open(path, os.O_RDONLY | os.O_DIRECTORY))"
    assert source.count(sync) == 1
    operations.write_text(source.replace(sync, "pass"))
    monkeypatch.setattr(flusher, "PACKAGES", str(tmp_path))


async def commit_calls(store: DirectoryStore, tracing: Tracing) -> list[str]:
    """The system calls of one commit: name and path of each."""
    key = new_key()
    writer = await store.create(key, 3)
    writer.write(b"abc")
    with tracing(pid(store), "-e", SYNCS) as log:
        await writer.commit()
    calls = re.findall(r'(fdatasync|fsync|rename)\((?:\d+<|")(.*?)[>"]', log.read_text())
    return [f"{name} {Path(path).parent.name}/{Path(path).name}" for name, path in calls] + [key]


@pytest_twisted.ensureDeferred
async def test_a_commit_syncs_the_bytes_then_names_them_then_syncs_the_name(
    store: DirectoryStore, tracing: Tracing
) -> None:
    *calls, key = await commit_calls(store, tracing)
    assert calls == [
        f"fdatasync incoming/{key}",
        f"rename incoming/{key}",
        f"fsync data/{key[:2]}",
    ]


@pytest_twisted.ensureDeferred
async def test_a_missing_sync_of_the_directory_would_be_seen(
    forgetful: None, store: DirectoryStore, tracing: Tracing
) -> None:
    *calls, key = await commit_calls(store, tracing)
    assert calls == [f"fdatasync incoming/{key}", f"rename incoming/{key}"]


@contextmanager
def mounted(image: Path, at: Path) -> Iterator[Path]:
    """An ext4 image, mounted.  Its journal commits when asked, not by the clock."""
    at.mkdir()
    subprocess.run(["mount", "-o", "loop,commit=300", image, at], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", "--lazy", at], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """The directory of a mounted disk, ``disk.ext4``."""
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        pytest.skip("needs root and mkfs.ext4")
    image = tmp_path / "disk.ext4"
    with image.open("wb") as file:
        file.truncate(64 * MIB)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    with mounted(image, tmp_path / "before") as directory:
        yield directory


RANDOM = os.urandom(3 * MIB)


async def survives_a_power_cut(disk: Path, data: bytes = RANDOM) -> bool:
    """Commit a blob, cut the power at once, look for it."""
    store = DirectoryStore(reactor, disk, repository_id="this")
    await store.start()
    await put(store, first := new_key(), b"first")
    await put(store, key := new_key(), data)
    copy = disk.with_name("copy.ext4")
    shutil.copyfile(disk.with_name("disk.ext4"), copy)
    await store.stop()
    with mounted(copy, disk.with_name("after")) as after:
        store = DirectoryStore(reactor, after, repository_id="this", may_create=False)
        await store.start()
        found = await keys(store)
        if (key, True) in found:
            assert await get(store, first, 5) == b"first"
            assert await get(store, key, len(data)) == data
        await store.stop()
    return (key, True) in found


@pytest.mark.parametrize(
    "data",
    [RANDOM, bytes(9 * MIB), RANDOM + bytes(9 * MIB), bytes(9 * MIB) + RANDOM],
    ids=["dense", "zeros", "zeros at the end", "zeros at the beginning"],
)
@pytest_twisted.ensureDeferred
async def test_a_committed_blob_survives_a_power_cut(disk: Path, data: bytes) -> None:
    assert await survives_a_power_cut(disk, data)


@pytest.mark.parametrize("zeros", [0, 9 * MIB + 1])
@pytest_twisted.ensureDeferred
async def test_a_blob_kept_in_its_zeros_survives_a_power_cut(disk: Path, zeros: int) -> None:
    store = DirectoryStore(reactor, disk, repository_id="this")
    await store.start()
    first = await store.create(key := new_key(), None)
    first.write(RANDOM + bytes(zeros))
    durable = await first.keep()
    copy = disk.with_name("copy.ext4")
    shutil.copyfile(disk.with_name("disk.ext4"), copy)
    await store.stop()
    with mounted(copy, disk.with_name("after")) as after:
        store = DirectoryStore(reactor, after, repository_id="this", may_create=False)
        await store.start()
        again = await store.reopen(key, durable, None)
        again.write(b"end")
        await again.commit()
        assert await get(store, key, durable + 3) == RANDOM + bytes(zeros) + b"end"
        await store.stop()


@pytest_twisted.ensureDeferred
async def test_without_the_sync_of_the_directory_it_would_not(disk: Path, forgetful: None) -> None:
    assert not await survives_a_power_cut(disk)


@pytest_twisted.ensureDeferred
async def test_after_one_failed_sync_a_blob_is_bad_for_ever(
    store: DirectoryStore, tracing: Tracing
) -> None:
    writer = await store.create(key := new_key(), None)
    writer.write(b"x" * MIB)
    with tracing(pid(store), "-e", SYNCS, "-e", "inject=fdatasync:error=EIO:when=1") as log:
        with pytest.raises(StoreUnavailable):
            await writer.commit()
        with pytest.raises(StoreUnavailable):
            await writer.commit()
        with pytest.raises(OSError, match="broken before"):
            await store._flusher.ask("commit", key, MIB, MIB)
    assert log.read_text().count("fdatasync") == 1
    assert "rename" not in log.read_text()
    await writer.discard()
    assert await keys(store) == []


@pytest_twisted.ensureDeferred
async def test_a_failed_flush_ends_the_upload_and_forbids_its_commit(
    store: DirectoryStore, tracing: Tracing
) -> None:
    writer = await store.create(key := new_key(), None)
    with tracing(pid(store), "-e", SYNCS, "-e", "inject=fdatasync:error=EIO:when=1") as log:
        producer = Pushing(writer, b"x" * MIB, 300)
        await until(lambda: producer.error)
        assert isinstance(producer.error, StoreUnavailable)
        assert producer.left == 0
        with pytest.raises(StoreUnavailable):
            await writer.commit()
        with pytest.raises(OSError, match="broken before"):
            await store._flusher.ask("commit", key, MIB, MIB)
    assert log.read_text().count("fdatasync") == 1
    await writer.discard()
    assert await keys(store) == []


@pytest_twisted.ensureDeferred
async def test_a_commit_waits_for_the_flush_under_way_and_heeds_its_failure(
    store: DirectoryStore, tracing: Tracing
) -> None:
    """Side by side, the flush could get the only report of a lost write."""
    writer = await store.create(new_key(), None)
    fault = "inject=fdatasync:error=EIO:delay_exit=200000:when=1"
    with tracing(pid(store), "-e", SYNCS, "-e", fault) as log:
        writer.write(b"x" * UNFLUSHED_EACH)
        with pytest.raises(StoreUnavailable):
            await writer.commit()
    assert log.read_text().count("fdatasync") == 1
    await writer.discard()


@pytest_twisted.ensureDeferred
async def test_the_daemon_itself_does_nothing_that_waits_for_a_disk(
    store: DirectoryStore, tracing: Tracing
) -> None:
    kept, dropped = [await store.create(new_key(), 64 * MIB) for _ in range(2)]
    waits = "trace=fsync,fdatasync,sync_file_range,rename,unlink,fallocate,ftruncate,getdents64"
    with tracing(os.getpid(), "-e", waits) as log:
        for writer in (kept, dropped):
            writer.write(b"x" * 40 * MIB)
        await kept.commit()
        await dropped.discard()
        await get(store, kept.key, 40 * MIB)
        await store.digests(kept.key, "sha256")
        assert await keys(store) == [(kept.key, True)]
        await store.delete(kept.key)
    assert [line for line in log.read_text().splitlines() if "exited" not in line] == []


@pytest_twisted.ensureDeferred
async def test_a_disk_full_at_the_commit_is_said_so(
    store: DirectoryStore, tracing: Tracing
) -> None:
    writer = await store.create(new_key(), None)
    writer.write(b"abc")
    with (
        tracing(pid(store), "-e", SYNCS, "-e", "inject=fdatasync:error=EDQUOT"),
        pytest.raises(NoRoom),
    ):
        await writer.commit()
    await writer.discard()


@pytest_twisted.ensureDeferred
async def test_bytes_missing_from_the_file_are_not_acknowledged(
    store: DirectoryStore, root: Path
) -> None:
    writer = await store.create(key := new_key(), None)
    writer.write(b"x" * MIB)
    os.truncate(root / "incoming" / key, 1000)
    with pytest.raises(StoreUnavailable):
        await writer.commit()
    await writer.discard()
    assert await keys(store) == []
