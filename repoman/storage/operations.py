"""What the store's helper process does to files: all that may block on a disk.

Each operation runs in a fork of :mod:`repoman.storage.flush_process`, which
closes what it opened by ending.  It takes the layout, the descriptor of the
blob's incoming file (-1 if it is not open) and its own arguments.  Only the
standard library: the process must start at once.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

_KEY = re.compile(r"[0-9a-f]{32}")
_SHARDS = tuple(f"{n:02x}" for n in range(256))
_PIECE = 1 << 20


class Layout:
    """Where a store's files lie under its root."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.id = os.path.join(root, "REPO_ID")
        self.incoming = os.path.join(root, "incoming")
        self.data = os.path.join(root, "data")
        self.quarantine = os.path.join(root, "quarantine")

    def arriving(self, key: str) -> str:
        """The path of a blob before its commit."""
        return os.path.join(self.incoming, _checked(key))

    def committed(self, key: str) -> str:
        """The path of a blob from its commit on."""
        return os.path.join(self.data, _checked(key)[:2], key)


def _checked(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise OSError(errno.EINVAL, "not a key")
    return key


def prepare(at: Layout, fd: int, repository_id: str, may_create: bool) -> str:
    """Check the root, or lay it out; answer what is wrong with it."""
    if _found_id(at) is None and may_create and not _in_use(at.root):
        _write_id(at, repository_id)
    # Also ours is read again: another daemon may have been first.
    found = _found_id(at)
    if found is None:
        return f"{at.root} is not a blob store (no REPO_ID): mount it, or restore a backup."
    if found != repository_id:
        return (
            f"{at.root} belongs to repository {found}, the database to {repository_id}: "
            "mount the right store, or mend [storage] directory or [database] dsn."
        )
    for name in (at.incoming, at.quarantine, at.data):
        os.makedirs(name, exist_ok=True)
    for shard in _SHARDS:
        os.makedirs(os.path.join(at.data, shard), exist_ok=True)
    _sync_directory(at.data)
    _sync_directory(at.root)
    return ""


def _found_id(at: Layout) -> str | None:
    try:
        with open(at.id, encoding="ascii") as file:
            return file.read().strip()
    except FileNotFoundError:
        return None


def _in_use(root: str) -> bool:
    # What begins so is left by a start that was killed, or another daemon's at this moment.
    names = os.listdir(root) if os.path.isdir(root) else []
    return any(name != "lost+found" and not name.startswith("REPO_ID") for name in names)


def _write_id(at: Layout, repository_id: str) -> None:
    """Say whose store this is, unless another daemon does at the same moment."""
    os.makedirs(at.root, exist_ok=True)
    os.chmod(at.root, 0o700)
    temporary = f"{at.id}@{os.urandom(8).hex()}"  # a crash must not leave an empty REPO_ID
    with open(temporary, "x", encoding="ascii") as file:
        file.write(repository_id + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(temporary, at.id)  # unlike a rename, over nobody's
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        os.rename(temporary, at.id)
    with suppress(FileNotFoundError):
        os.unlink(temporary)
    _sync_directory(at.root)
    _sync_directory(os.path.dirname(os.path.abspath(at.root)))


def create(at: Layout, fd: int, key: str) -> None:
    """Make an incoming file."""
    if os.path.exists(at.committed(key)):
        raise FileExistsError(errno.EEXIST, "the key is taken")
    os.open(at.arriving(key), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)


def reopen(at: Layout, fd: int, key: str, offset: int) -> None:
    """Find the file of an upload that goes on, with ``offset`` bytes at least."""
    path = at.arriving(key)
    if os.path.exists(at.committed(key)) and not os.path.exists(path):
        # Its commit was not followed by a transaction: nobody knows of it.
        os.rename(at.committed(key), path)
        _sync_directory(at.incoming)
        _sync_directory(os.path.dirname(at.committed(key)))
    elif not os.path.isdir(at.incoming):
        raise OSError(errno.ENODEV, "the store is gone")
    _check_size(os.stat(path), offset, errno.ENODATA)


def cut(at: Layout, fd: int, key: str, offset: int) -> None:
    """Drop what lies behind ``offset``: what is left out there as zeros must read as zeros.

    To be asked by who holds the lock; before, another process may be writing there.
    """
    _check_size(os.fstat(fd), offset, errno.ENODATA)
    os.ftruncate(fd, offset)


def flush(at: Layout, fd: int, key: str) -> None:
    """Make the bytes written so far durable."""
    os.fdatasync(fd)


def keep(at: Layout, fd: int, key: str, size: int, reached: int) -> None:
    """Make the bytes written so far durable, and the name; an upload stops for now.

    :param size: how many bytes there are, with zeros at the end that are a hole.
    :param reached: how many without them: so many the file must have.
    """
    _end_at(fd, size, reached)
    os.fdatasync(fd)
    _sync_directory(at.incoming)


def _end_at(fd: int, size: int, reached: int) -> None:
    # Nobody writes any more: what was written meanwhile would be cut off.
    found = os.fstat(fd)
    _check_size(found, reached, errno.EIO)
    if found.st_size != size:
        os.ftruncate(fd, size)


def _check_size(found: os.stat_result, least: int, number: int) -> None:
    if found.st_size < least:
        raise OSError(number, f"{found.st_size} bytes in the file instead of {least}")


def stamp(found: os.stat_result) -> str:
    """What changes whenever somebody writes, replaces or restores a file.

    Nobody can set a ctime, short of setting the clock.
    """
    return f"{found.st_size}:{found.st_mtime_ns}:{found.st_ctime_ns}"


def commit(at: Layout, fd: int, key: str, size: int, reached: int) -> str:
    """Make bytes and name durable: what is not synced is not acknowledged; answer the stamp.

    :param size: as in :func:`keep`; ``reached``, too.
    """
    _end_at(fd, size, reached)
    os.fdatasync(fd)
    os.rename(at.arriving(key), at.committed(key))
    _sync_directory(os.path.dirname(at.committed(key)))
    return stamp(os.fstat(fd))


def delete(at: Layout, fd: int, key: str) -> None:
    """Remove a blob, wherever it is."""
    _wherever_it_is(at, key, os.unlink)


def quarantine(at: Layout, fd: int, key: str) -> None:
    """Move a blob away, wherever it is."""
    aside = os.path.join(at.quarantine, _checked(key))
    _wherever_it_is(at, key, lambda path: os.rename(path, aside))
    _sync_directory(at.quarantine)


def _wherever_it_is(at: Layout, key: str, act: Callable[[str], None]) -> None:
    # In the order of a blob's life: a commit under way cannot slip past.
    for path in (at.arriving(key), at.committed(key)):
        try:
            act(path)
        except FileNotFoundError:
            continue
        _sync_directory(os.path.dirname(path))


def size(at: Layout, fd: int, key: str) -> int:
    """How many bytes a committed blob has."""
    return os.stat(_in_store(at, key)).st_size


def fetch(at: Layout, fd: int, key: str, start: int, length: int) -> None:
    """Read bytes of a committed blob into the page cache."""
    file = os.open(_in_store(at, key), os.O_RDONLY)
    for offset in range(start, start + length, _PIECE):
        os.pread(file, min(_PIECE, start + length - offset), offset)


def arriving(at: Layout, fd: int) -> list[str]:
    """The keys of all incoming files."""
    return _keys_in(at.incoming)


def committed(at: Layout, fd: int, digit: str) -> list[str]:
    """The keys of all committed blobs that begin with ``digit``."""
    shards = [shard for shard in _SHARDS if shard.startswith(digit)]
    return [key for shard in shards for key in _keys_in(os.path.join(at.data, shard))]


def _keys_in(directory: str) -> list[str]:
    return [name for name in os.listdir(directory) if _KEY.fullmatch(name)]


def digest(at: Layout, fd: int, key: str, names: Sequence[str], rate: int | None) -> dict[str, str]:
    """Read a whole committed blob and digest it.

    :param names: as :mod:`hashlib` knows them, or ``adler32``.
    :param rate: at most so many bytes per second.
    """
    import hashlib
    import zlib

    daemon = os.getppid()
    os.nice(10)
    adler = zlib.adler32(b"")
    hashes = {n: hashlib.new(n, usedforsecurity=False) for n in names if n != "adler32"}
    with open(_in_store(at, key), "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        while data := file.read(_PIECE):
            for running in hashes.values():
                running.update(data)
            if "adler32" in names:
                adler = zlib.adler32(data, adler)
            if rate:
                time.sleep(len(data) / rate)
            if os.getppid() != daemon:
                os._exit(1)  # nobody waits for the answer any more
    found = {name: running.hexdigest() for name, running in hashes.items()}
    return found | ({"adler32": f"{adler:08x}"} if "adler32" in names else {})


def _in_store(at: Layout, key: str) -> str:
    path = at.committed(key)
    if not os.path.isdir(os.path.dirname(path)):
        # Every blob is missing when a mount is: that is not the blob's fault.
        raise OSError(errno.ENODEV, "the store is gone")
    return path


def _sync_directory(path: str) -> None:
    os.fsync(os.open(path, os.O_RDONLY | os.O_DIRECTORY))  # closed by the fork's end
