"""A blob in the making: its multipart upload, and what fills no part yet."""

from __future__ import annotations

import re
from typing import Protocol

from attrs import define, field, frozen

from repoman.errors import BlobDamaged, StoreUnavailable
from repoman.storage.s3.bucket import Bucket, Found
from repoman.storage.s3.content import Content
from repoman.storage.s3.layout import Layout
from repoman.storage.s3.parts import MIB, Part, last_number

COPIED = 1024 * MIB
"""How many bytes of an object the store is asked to copy at a time: some have 5 TiB at most."""

SMALLEST = 5 * MIB
"""Fewer bytes are no part that others follow."""

_END = re.compile(r"[0-9]{1,15}")


class IMultipartRecords(Protocol):
    """Which multipart upload of an object store a blob arrives in.

    It is stored before the first part is sent: only by its id can the parts be found again.
    """

    async def multipart(self, blob: str) -> str | None:
        """The id, if there is one."""

    async def note_multipart(self, blob: str, upload: str, before: str | None) -> bool:
        """Store the id, if the one ``before`` is still there: of two who try, one succeeds."""


@define
class Arriving:
    """A multipart upload.

    :ivar parts: those that count, in order.
    :ivar rest: durable bytes behind them that are to be sent again with what follows.
    :ivar partial: the object in which the rest is.
    :ivar resumed: objects of rests may lie about.
    """

    bucket: Bucket
    at: Layout
    blob: str
    upload: str
    parts: list[Part] = field(factory=list)
    rest: bytes = b""
    partial: str | None = None
    resumed: bool = False

    @property
    def size(self) -> int:
        """How many bytes are in the parts."""
        return sum(part.size for part in self.parts)

    async def send(self, content: Content) -> None:
        """Store the next part."""
        number = len(self.parts) + 1
        key = self.at.blob(self.blob)
        self.parts.append(await self.bucket.send_part(key, self.upload, number, content))

    async def keep(self, content: Content) -> None:
        """Store what fills no part: of parts that others follow, none may be so small."""
        before, self.partial = self.partial, None
        if content.size:
            self.partial = await self._put_partial(content)
        if before is not None and before != self.partial:
            await self.bucket.delete(before)

    async def keep_rest(self, rest: bytes) -> None:
        """Take bytes that are to be sent with what follows, and are durable when this returns."""
        if rest:
            self.rest, self.partial = rest, await self._put_partial(Content.of(rest))

    async def _put_partial(self, content: Content) -> str:
        key = f"{self.at.partial(self.blob)}{self.size}-{self.size + content.size}"
        await self.bucket.put(key, content)
        return key

    async def complete(self) -> Found:
        """Let the blob be there."""
        return await self.bucket.complete(self.at.blob(self.blob), self.upload, self.parts)

    async def drop_partial(self) -> None:
        """Remove what was kept of the bytes before, also by a daemon that was killed over it."""
        if self.resumed:
            async for partial in self.bucket.keys(self.at.partial(self.blob)):
                await self.bucket.delete(partial)


@frozen
class Arrivals:
    """Begins multipart uploads, and takes them up again.

    :ivar part_size: the usual one, in bytes.
    """

    bucket: Bucket
    at: Layout
    records: IMultipartRecords
    part_size: int

    async def begin(self, blob: str, before: str | None = None) -> Arriving:
        """Begin an upload; its id is recorded when this returns.

        :param before: the id of the one whose place it takes.
        :raises StoreUnavailable: another has taken the place.
        """
        key = self.at.blob(blob)
        upload = await self.bucket.begin(key)
        if not await self.records.note_multipart(blob, upload, before):
            await self.bucket.abort(key, upload)
            raise StoreUnavailable("The key is taken, or another daemon goes on with the upload.")
        return Arriving(self.bucket, self.at, blob, upload)

    async def resume(self, blob: str, offset: int, size: int | None) -> Arriving:
        """Go on behind ``offset``; what lies there is dropped.

        :raises BlobDamaged: the bytes before it are not all there.
        """
        key, upload = self.at.blob(blob), await self.records.multipart(blob)
        parts = await self.bucket.parts(key, upload) if upload else None
        if upload is None or parts is None:
            return await self._cut(blob, upload, offset)
        kept = _before(parts, offset)
        arriving = Arriving(self.bucket, self.at, blob, upload, kept, resumed=True)
        if self._would_stay(parts, kept, size) or not await self._take_rest(arriving, offset):
            if is_complete := len(parts) > len(kept):
                await self.bucket.complete(key, upload, parts)
            return await self._cut(blob, upload, offset, is_open=not is_complete)
        return arriving

    def _would_stay(self, parts: list[Part], kept: list[Part], size: int | None) -> bool:
        """Parts that are dropped would not all be sent anew: some stores then refuse the whole."""
        if len(parts) == len(kept):
            return False
        begin = sum(part.size for part in kept)
        last = last_number(self.part_size, len(kept) + 1, begin, size or 0)
        return size is None or parts[-1].number > last

    async def _take_rest(self, arriving: Arriving, offset: int) -> bool:
        """Find the bytes between the last part and ``offset``."""
        begin = arriving.size
        if begin == offset:
            return True
        prefix = f"{self.at.partial(arriving.blob)}{begin}-"
        ends = [key.removeprefix(prefix) async for key in self.bucket.keys(prefix)]
        # The nearest one: longer ones may end in bytes that were taken back.
        end = min(
            (int(end) for end in ends if _END.fullmatch(end) and int(end) >= offset), default=None
        )
        if end is None:
            return False
        arriving.partial = f"{prefix}{end}"
        found = await self.bucket.get(arriving.partial, end - begin)
        arriving.rest = (found or b"")[: offset - begin]
        return len(arriving.rest) == offset - begin

    async def _cut(
        self, blob: str, before: str | None, offset: int, *, is_open: bool = False
    ) -> Arriving:
        """Begin anew with the first bytes of an object: nobody knows of it, or not of all of it.

        The object stays until the completion replaces it: a daemon that has lost the upload may
        still be at this, and must not take bytes from the one that goes on.

        :param is_open: whoever has the upload ``before`` could still complete it.
        """
        key = self.at.blob(blob)
        found = await self.bucket.head(key)
        if found is None or found.size < offset:
            raise BlobDamaged("Some bytes of the upload are not in the store any more.")
        arriving = await self.begin(blob, before)
        arriving.resumed = True
        if before is not None and is_open:
            await self.bucket.abort(key, before)
        for start in range(0, offset, COPIED):
            end = min(offset, start + COPIED)
            if end - start < SMALLEST:
                await arriving.keep_rest(await self.bucket.read(key, found.etag, start, end))
            else:
                arriving.parts.append(
                    await self.bucket.copy_part(
                        key, arriving.upload, len(arriving.parts) + 1, key, start, end
                    )
                )
        return arriving


def _before(parts: list[Part], offset: int) -> list[Part]:
    """Those that lie wholly before ``offset``, without a gap."""
    kept: list[Part] = []
    end = 0
    for number, part in enumerate(parts, 1):
        end += part.size
        if part.number != number or end > offset:
            break
        kept.append(part)
    return kept
