"""Brings every file to another store, while the daemon serves and stores on.

Whole files are copied, each held against its digest on the way, and noted with
the stamp that the copy has: so the next run goes on where this one ended, and
the daemon that is started on the other store reads nothing again.  The store
that is copied from is only read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from repoman.errors import BlobDamaged
from repoman.interfaces import IBlobStore, ScrubDue
from repoman.model import Image
from repoman.repository.files import Digester, discard

PIECE = 16 * 2**20
"""Bytes that are asked of a store at a time."""


class ICopyRecords(Protocol):
    """What is known of files and of their copies."""

    async def originals(self) -> Sequence[ScrubDue]:
        """All files whose bytes must be in the store, also if they were found damaged there."""

    async def copies(self, store: str) -> set[str]:
        """The blobs that were copied to a store."""

    async def note_copy(self, blob: str, store: str, stamp: str) -> None:
        """A blob's bytes are in a store, and right, under this stamp."""

    async def unfinished(self) -> int:
        """How many resumable uploads wait for more bytes."""

    async def unknown(self, blobs: Sequence[str]) -> list[str]:
        """Those of ``blobs`` that there is no record of."""

    async def state(self, blob: str) -> str | None:
        """The blob's state."""

    async def image_of(self, blob: str) -> Image | None:
        """The image that points to a blob."""


class Unresumed:
    """What a bucket notes its multipart uploads in: those of copies nobody goes on with."""

    async def multipart(self, blob: str) -> None:
        """There is none: what a run has left is removed by the next one."""

    async def note_multipart(self, blob: str, upload: str, before: str | None) -> bool:
        """Nobody else copies."""
        return True


@frozen
class Copied:
    """What a run did.

    :ivar files: copied by it.
    :ivar size: of them, in bytes.
    :ivar there: files that were there, and right, before.
    :ivar damaged: those that are missing or not what was stored: of which image, and the blob.
    :ivar put_away: copies of what was removed since, now in quarantine.
    :ivar unfinished: uploads that wait for more bytes, and are not copied.
    """

    files: int
    size: int
    there: int
    damaged: tuple[str, ...]
    put_away: int
    unfinished: int


@define
class Copier:
    """Copies from ``source`` to ``target``.

    :ivar store: what the records call the target.
    :ivar rate: at most so many bytes per second; ``None``: as fast as it goes.
    :ivar begin: told how many bytes there are to copy.
    :ivar moved: told of each so many bytes more.
    """

    records: ICopyRecords
    source: IBlobStore
    target: IBlobStore
    store: str
    digester: Digester
    clock: IReactorTime
    rate: int | None = None
    begin: Callable[[int], object] = lambda total: None
    moved: Callable[[int], object] = lambda count: None
    _damaged: list[str] = field(factory=list, init=False)
    _verified: int = field(default=0, init=False)

    async def run(self) -> Copied:
        """Bring over what is missing.

        :raises StoreUnavailable: one of the stores does not work; the next run goes on.
        :raises NoRoom: the target has no more.
        """
        found = {key: whole async for key, whole in self.target.keys()}  # noqa: SIM118 no dict
        stale = await self.records.unknown(sorted(key for key, whole in found.items() if whole))
        for key in stale:
            await self.target.quarantine(key)
        noted = await self.records.copies(self.store)
        originals = await self.records.originals()
        missing = [one for one in originals if not found.get(one.blob) or one.blob not in noted]
        self.begin(sum(one.size for one in missing))
        copied = [one.size for one in missing if await self._bring(one, found.get(one.blob))]
        return Copied(
            files=len(copied),
            size=sum(copied),
            there=len(originals) - len(missing) + self._verified,
            damaged=tuple(self._damaged),
            put_away=len(stale),
            unfinished=await self.records.unfinished(),
        )

    async def _bring(self, one: ScrubDue, whole: bool | None) -> bool:
        """Copy one; answer whether that was necessary and possible.

        :param whole: it is there, whole; it is there in part; ``None``: it is not.
        """
        # Also what was not there a while ago: a daemon on the other store may have committed it.
        if await self._is_right(one):
            self._verified += 1
            self.moved(one.size)
            return False
        if whole:
            await self.target.quarantine(one.blob)
        elif whole is False:
            await self.target.delete(one.blob)  # what an earlier run left
        try:
            stamp = await self._copy(one)
        except BlobDamaged:
            if await self.records.state(one.blob) in (
                "present",
                "damaged",
            ):  # else it was just removed
                self._damaged.append(await self._name(one.blob))
            return False
        await self.records.note_copy(one.blob, self.store, stamp)
        return True

    async def _is_right(self, one: ScrubDue) -> bool:
        """Read a copy that nobody vouches for: an earlier run was killed, or somebody made it."""
        try:
            reader = await self.target.open(one.blob, one.size)
            reader.close()
            found = await self.target.digests(one.blob, "sha256", rate=self.rate)
        except BlobDamaged:
            return False
        if found["sha256"] == one.sha256:
            await self.records.note_copy(one.blob, self.store, reader.stamp)
        return found["sha256"] == one.sha256

    async def _copy(self, one: ScrubDue) -> str:
        """Copy a file; answer the copy's stamp.

        :raises BlobDamaged: it is not what was stored.
        """
        reader = await self.source.open(one.blob, one.size)
        try:
            writer = await self.target.create(one.blob, one.size)
            try:
                digesting = self.digester(writer, one.size, ("sha256",), 0, None)
                piece = min(PIECE, self.rate or PIECE)
                for start in range(0, one.size, piece):
                    count, began = min(piece, one.size - start), self.clock.seconds()
                    await reader.write_to(digesting, start, count)
                    self.moved(count)
                    await self._wait(count, began)
                if digesting.hexdigest("sha256") != one.sha256:
                    raise BlobDamaged("The stored file is not what was stored.")
                return await writer.commit()
            except BaseException:
                await discard(writer)
                raise
        finally:
            reader.close()

    async def _wait(self, count: int, began: float) -> None:
        left = began + count / self.rate - self.clock.seconds() if self.rate else 0.0
        if left > 0:
            await deferLater(self.clock, left)

    async def _name(self, blob: str) -> str:
        image = await self.records.image_of(blob)
        return f"{image.path if image else 'an image that is gone'} ({blob})"
