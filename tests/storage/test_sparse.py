"""Zeros cost nothing on the disk, and no byte is zero that was not."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import pytest_twisted
from directory_store import MIB, Pushing, Sink, frozen, get, pid, put, reactor, until

from repoman.errors import BlobDamaged, StoreUnavailable
from repoman.interfaces import new_key
from repoman.storage.directory import UNFLUSHED_EACH, DirectoryStore

BLOCK = 4096


def run(*command: object) -> None:
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"needs {command[0]}")
    subprocess.run([str(word) for word in command], check=True, capture_output=True)


def ext4(directory: Path) -> bytes:
    """A raw image of a file system with some files, as of a small guest."""
    (directory / "tree").mkdir()
    for number in range(40):
        (directory / "tree" / f"file{number}").write_bytes(os.urandom(number * 3001))
    run("mkfs.ext4", "-q", "-d", directory / "tree", directory / "disk.raw", "96M")
    return (directory / "disk.raw").read_bytes()


def qcow2(directory: Path) -> bytes:
    """The same as qcow2."""
    ext4(directory)
    convert = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2"]
    run(*convert, directory / "disk.raw", directory / "disk.qcow2")
    return (directory / "disk.qcow2").read_bytes()


def zeros(directory: Path) -> bytes:
    return bytes(64 * MIB + 5)


def three_in_a_hundred(directory: Path) -> bytes:
    return b"".join(os.urandom(MIB) + bytes(33 * MIB) for _ in range(3))


def data_of(content: bytes) -> int:
    """How many bytes the blocks have that are not zero."""
    starts = range(0, len(content), BLOCK)
    return sum(BLOCK for start in starts if any(content[start : start + BLOCK]))


class Gathering(Sink):
    """One that does not copy all at each piece."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.pieces.append(data)


def resident(path: Path) -> int:
    """How much of a file is in the page cache, in bytes."""
    if shutil.which("fincore") is None:
        pytest.skip("needs fincore")
    command = ["fincore", "--bytes", "--noheadings", "--output", "RES", str(path)]
    return int(subprocess.run(command, check=True, capture_output=True).stdout)


def taken(path: Path) -> int:
    """What a file takes on the disk, in bytes."""
    return path.stat().st_blocks * 512


@pytest.mark.parametrize("make", [ext4, qcow2, zeros, three_in_a_hundred])
@pytest_twisted.ensureDeferred
async def test_a_blob_takes_what_its_data_take(
    store: DirectoryStore, root: Path, tmp_path: Path, make: Callable[[Path], bytes]
) -> None:
    content = make(tmp_path)
    for step in (16_384, 16_001, 256 * 1024):
        writer = await store.create(key := new_key(), len(content))
        for start in range(0, len(content), step):
            writer.write(content[start : start + step])
        await writer.commit()
        # Where many extents are, the file system needs some blocks to list them.
        assert taken(root / "data" / key[:2] / key) <= data_of(content) * 1.01 + 4 * BLOCK, step
    reader, sink = await store.open(key, len(content)), Gathering()
    await reader.write_to(sink, 0, len(content))
    reader.close()
    assert b"".join(sink.pieces) == content


@pytest_twisted.ensureDeferred
async def test_dense_data_lie_in_whole_blocks(store: DirectoryStore, root: Path) -> None:
    await put(store, key := new_key(), os.urandom(8 * MIB))
    assert taken(root / "data" / key[:2] / key) >= 8 * MIB


@pytest_twisted.ensureDeferred
async def test_zeros_are_never_unflushed(store: DirectoryStore) -> None:
    writer = await store.create(key := new_key(), None)
    size = 3 * UNFLUSHED_EACH + MIB
    with frozen(pid(store)):
        producer = Pushing(writer, bytes(MIB), size // MIB)
        await until(lambda: not producer.left, 30)
        assert producer.pauses == 0
    await writer.commit()
    assert (await store.open(key, size)).size == size


@pytest_twisted.ensureDeferred
async def test_only_what_the_file_reaches_counts_as_durable_while_bytes_come(
    store: DirectoryStore, root: Path
) -> None:
    """Else the file would have to be lengthened beside writes, which would be cut off."""
    writer = await store.create(key := new_key(), None)
    writer.write(b"x" * (UNFLUSHED_EACH // 4))
    writer.write(bytes(50 * MIB))
    await until(lambda: writer.durable)
    assert writer.durable == UNFLUSHED_EACH // 4
    assert (root / "incoming" / key).stat().st_size >= writer.durable
    assert await writer.keep() == UNFLUSHED_EACH // 4 + 50 * MIB
    assert (root / "incoming" / key).stat().st_size == writer.durable


@pytest_twisted.ensureDeferred
async def test_a_blob_killed_in_its_zeros_goes_on_where_it_is_durable(
    store: DirectoryStore, root: Path
) -> None:
    content = b"x" * (UNFLUSHED_EACH // 4) + bytes(5 * MIB) + b"y" * MIB
    first = await store.create(key := new_key(), None)
    first.write(content[: -MIB // 2])
    await until(lambda: first.durable)
    # What a killed daemon leaves: bytes behind those that are durable, of whatever kind.
    os.close(first._file)
    first._file = -1
    with (root / "incoming" / key).open("r+b") as file:
        file.seek(first.durable)
        file.write(b"z" * 9 * MIB)
    again = await store.reopen(key, first.durable, len(content))
    again.write(content[first.durable :])
    await again.commit()
    assert await get(store, key, len(content)) == content


@pytest.mark.parametrize("end", ["keep", "commit"])
@pytest_twisted.ensureDeferred
async def test_bytes_missing_before_a_hole_are_not_acknowledged(
    store: DirectoryStore, root: Path, end: str
) -> None:
    writer = await store.create(key := new_key(), None)
    writer.write(b"x" * MIB)
    writer.write(bytes(MIB))
    os.truncate(root / "incoming" / key, MIB - 1)
    with pytest.raises(StoreUnavailable):
        await getattr(writer, end)()
    await writer.discard()


@pytest_twisted.ensureDeferred
async def test_who_is_refused_a_blob_cuts_nothing_off_from_the_one_who_writes_it(
    store: DirectoryStore, root: Path
) -> None:
    other = DirectoryStore(reactor, root, repository_id="this")
    await other.start()
    content = os.urandom(MIB)
    writer = await store.create(key := new_key(), None)
    writer.write(content)
    with pytest.raises(StoreUnavailable, match="another process"):
        await other.reopen(key, 0, None)
    await writer.commit()
    assert await get(store, key, MIB) == content
    await other.stop()


@pytest_twisted.ensureDeferred
async def test_what_was_written_before_the_lock_was_had_is_cut_off(
    store: DirectoryStore, root: Path
) -> None:
    """The last writes of a process that loses the blob fall between two looks at the file."""
    writer = await store.create(key := new_key(), None)
    assert await writer.keep() == 0
    path, take = root / "incoming" / key, store._locked

    def late(key: str) -> int:
        path.write_bytes(b"z" * MIB)
        return take(key)

    store._locked = late  # type: ignore[method-assign]
    again = await store.reopen(key, 0, None)
    again.write(bytes(MIB) + b"end")
    await again.commit()
    assert await get(store, key, MIB + 3) == bytes(MIB) + b"end"


@pytest_twisted.ensureDeferred
async def test_a_hole_is_read_without_filling_the_page_cache(
    store: DirectoryStore, root: Path
) -> None:
    content = bytes(MIB + 1) + os.urandom(MIB) + bytes(60 * MIB) + b"x" * 5000 + bytes(9 * MIB)
    await put(store, key := new_key(), content)
    reader = await store.open(key, len(content))
    os.posix_fadvise(reader._file, 0, 0, os.POSIX_FADV_DONTNEED)
    for start in (0, 1, MIB + 5000, 2 * MIB + 1, 5 * MIB, 62 * MIB, 70 * MIB):
        sink = Gathering()
        await reader.write_to(sink, start, len(content) - start)
        assert b"".join(sink.pieces) == content[start:]
        if start == 0:
            # Of the data some MiB are fetched ahead, whatever is there.
            assert resident(root / "data" / key[:2] / key) < 24 * MIB
    reader.close()


@pytest_twisted.ensureDeferred
async def test_a_file_cut_off_in_its_last_hole_is_damaged(
    store: DirectoryStore, root: Path
) -> None:
    await put(store, key := new_key(), b"x" * MIB + bytes(9 * MIB))
    reader = await store.open(key, 10 * MIB)
    os.truncate(root / "data" / key[:2] / key, 5 * MIB)
    os.posix_fadvise(reader._file, 0, 0, os.POSIX_FADV_DONTNEED)
    with pytest.raises(BlobDamaged):
        await reader.write_to(Sink(), 4 * MIB, 6 * MIB)
    reader.close()


@pytest.mark.parametrize("number", [None, errno.EINVAL, errno.EOPNOTSUPP])
@pytest_twisted.ensureDeferred
async def test_a_file_system_that_knows_no_holes_is_read_all_the_same(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, number: int | None
) -> None:
    def seek(file: int, offset: int, whence: int) -> int:
        if number is not None:
            raise OSError(number, os.strerror(number))
        return offset  # all is data

    content = b"x" * MIB + bytes(9 * MIB) + b"y" * 5000 + bytes(MIB)
    await put(store, key := new_key(), content)
    monkeypatch.setattr(os, "lseek", seek)
    reader, sink = await store.open(key, len(content)), Gathering()
    await reader.write_to(sink, 5, len(content) - 5)
    reader.close()
    assert b"".join(sink.pieces) == content[5:]
