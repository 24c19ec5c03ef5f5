"""Blobs in memory: for tests that need no disk.  Keeps every promise but durability."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from twisted.internet.interfaces import IConsumer, IReactorTime
from zope.interface import implementer

from repoman.errors import BlobDamaged, NoRoom, StoreUnavailable
from repoman.interfaces import IConsuming, Room
from repoman.storage.paced import lost
from repoman.streams import Flow, digests


class MemoryStore:
    """A blob store in memory; see :class:`repoman.interfaces.IBlobStore`.

    :param capacity: in bytes.
    :ivar arriving: the writers of blobs in the making, by key.
    :ivar committed: the bytes of blobs, by key; tests may damage them.
    :ivar put_away: those in quarantine.
    """

    algorithms: Sequence[str] = ("sha256",)
    grace = 0.0

    def __init__(self, reactor: IReactorTime, *, capacity: int = 1 << 40) -> None:
        self.arriving: dict[str, MemoryWriter] = {}
        self.committed: dict[str, bytes] = {}
        self.put_away: dict[str, bytes] = {}
        self._reactor = reactor
        self._capacity = capacity

    async def start(self) -> None:
        """Nothing to do."""

    async def stop(self) -> None:
        """Nothing to do."""

    def link(self, key: str, seconds: int, name: str) -> str | None:
        """There is none: the bytes come through us."""
        return None

    def room(self) -> Room:
        """The room left."""
        used = sum(map(len, self.committed.values())) + sum(map(len, self.put_away.values()))
        used += sum(len(writer.blob) for writer in self.arriving.values())
        return Room(max(0, self._capacity - used), self._capacity)

    async def create(self, key: str, size: int | None) -> MemoryWriter:
        """Begin a blob; see :class:`~repoman.interfaces.IBlobStore`."""
        if key in self.arriving or key in self.committed:
            raise StoreUnavailable("The key is taken.")
        self.check_room(1 if size is None else size)
        writer = self.arriving[key] = MemoryWriter(self, key)
        return writer

    async def reopen(self, key: str, offset: int, size: int | None) -> MemoryWriter:
        """Go on with a blob; see :class:`~repoman.interfaces.IBlobStore`."""
        old = self.arriving.pop(key, None)
        blob = old.blob if old else bytearray(self.committed.pop(key, b""))
        if len(blob) < offset:
            raise _damaged()
        writer = self.arriving[key] = MemoryWriter(self, key)
        writer.blob += blob[:offset]
        self.check_room(0 if size is None else size - offset)
        return writer

    async def open(self, key: str, size: int) -> MemoryReader:
        """Open a committed blob; see :class:`~repoman.interfaces.IBlobStore`."""
        blob = self.committed.get(key)
        if blob is None or len(blob) != size:
            raise _damaged()
        return MemoryReader(self._reactor, blob)

    async def delete(self, key: str) -> None:
        """Remove a blob, committed or not."""
        self.arriving.pop(key, None)
        self.committed.pop(key, None)

    async def quarantine(self, key: str) -> None:
        """Put a blob away."""
        if key in self.arriving:
            self.put_away[key] = bytes(self.arriving.pop(key).blob)
        elif key in self.committed:
            self.put_away[key] = self.committed.pop(key)

    async def keys(self) -> AsyncIterator[tuple[str, bool]]:
        """Every key, and whether it is committed."""
        for key in list(self.arriving):
            yield key, False
        for key in list(self.committed):
            yield key, True

    async def digests(self, key: str, *names: str, rate: int | None = None) -> Mapping[str, str]:
        """The digests of a committed blob; see :class:`~repoman.interfaces.IBlobStore`."""
        if key not in self.committed:
            raise _damaged()
        return digests(self.committed[key], names)

    def check_room(self, wanted: int) -> None:
        """Raise NoRoom if there is not so much room, in bytes."""
        free = self.room().free
        if wanted > free:
            raise NoRoom(f"The store is full: {wanted} bytes asked for, {free} left.")


@implementer(IConsumer)
class MemoryWriter:
    """See :class:`repoman.interfaces.IBlobWriter`.

    :ivar key: of the blob.
    :ivar blob: what was written.
    """

    def __init__(self, store: MemoryStore, key: str) -> None:
        self.key = key
        self.blob = bytearray()
        self._store = store
        self._kept = False

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Take a push producer; memory never pauses it."""
        if not streaming:
            raise ValueError("a blob is written by push producers only")

    def unregisterProducer(self) -> None:
        """Nothing to do."""

    def write(self, data: bytes) -> None:
        """Take some bytes; see :class:`~repoman.interfaces.IBlobWriter`."""
        self._check()
        self._store.check_room(len(data))
        self.blob += data

    @property
    def durable(self) -> int:
        """How many bytes there are: memory is as durable as it gets."""
        return len(self.blob)

    async def keep(self) -> int:
        """Stop for now; answer how many bytes there are."""
        self._check()
        self._kept = True
        return len(self.blob)

    async def commit(self) -> str:
        """Make the blob visible; answer its stamp."""
        self._check()
        del self._store.arriving[self.key]
        blob = self._store.committed[self.key] = bytes(self.blob)
        return _stamp(blob)

    async def discard(self) -> None:
        """Forget the bytes; without effect on a committed blob."""
        self._store.arriving.pop(self.key, None)

    def _check(self) -> None:
        if self._kept or self._store.arriving.get(self.key) is not self:
            raise lost()


class MemoryReader:
    """See :class:`repoman.interfaces.IBlobReader`.

    :ivar size: in bytes.
    :ivar stamp: see :class:`repoman.interfaces.IBlobReader`.
    """

    def __init__(self, reactor: IReactorTime, blob: bytes) -> None:
        self.size = len(blob)
        self.stamp, self.room = _stamp(blob), self.size
        self._reactor = reactor
        self._blob = blob

    async def write_to(self, consumer: IConsuming, start: int, length: int) -> None:
        """Let bytes flow out; see :class:`~repoman.interfaces.IBlobReader`."""
        await Flow(self._reactor, self._read, consumer, start, length).run()

    def close(self) -> None:
        """Nothing to do."""

    def _read(self, offset: int, count: int) -> bytes:
        data = self._blob[offset : offset + count]
        if not data:
            raise _damaged()
        return data


def _stamp(blob: bytes) -> str:
    return str(id(blob))


def _damaged() -> BlobDamaged:
    return BlobDamaged("The stored file is damaged; the administrator of the repository must look.")
