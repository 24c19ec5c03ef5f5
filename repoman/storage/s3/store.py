"""Blobs as objects in a bucket; see :class:`repoman.storage.s3.layout.Layout` for where."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from repoman.config import Storage
from repoman.errors import NoRoom, StoreUnavailable
from repoman.interfaces import Room
from repoman.storage.s3.access import Access
from repoman.storage.s3.arriving import Arrivals, IMultipartRecords
from repoman.storage.s3.bucket import Bucket
from repoman.storage.s3.client import Client
from repoman.storage.s3.content import Content
from repoman.storage.s3.digesting import Measured
from repoman.storage.s3.layout import Layout
from repoman.storage.s3.parts import LARGEST
from repoman.storage.s3.reader import S3Reader, damaged
from repoman.storage.s3.replies import Rejected
from repoman.storage.s3.signing import Signer
from repoman.storage.s3.writer import S3Writer

GRACE = 3600.0
"""Seconds for which deleted bytes stay: other daemons, and whoever has a link, may be reading."""


class S3Store:
    """A blob store in a bucket; see :class:`repoman.interfaces.IBlobStore`.

    Many daemons may share it: what is known of an upload is in the records and in the store.

    :param repository_id: what ``REPO_ID`` must say.
    :param may_create: a bucket without one becomes a new store.  Say no when the database knows
        of blobs: then it is another bucket.
    """

    algorithms: Sequence[str] = ("sha256", "sha512", "md5", "adler32")
    grace = GRACE

    def __init__(
        self,
        reactor: Any,
        settings: Storage,
        access: Access,
        records: IMultipartRecords,
        *,
        repository_id: str,
        may_create: bool = True,
    ) -> None:
        endpoint, name = settings.endpoint or "", settings.bucket or ""
        signer = Signer(access.credentials, settings.region)
        self._reactor = reactor
        self._place = f"the bucket {name} at {endpoint}"
        self._client = Client(reactor, endpoint, name, signer, access.tls)
        self._bucket = Bucket(self._client, name)
        self._at = Layout(settings.prefix)
        self._part_size = settings.part_size
        self._arrivals = Arrivals(self._bucket, self._at, records, settings.part_size)
        self._repository_id = repository_id
        self._may_create = may_create
        self._readers: Counter[str] = Counter()

    async def start(self) -> None:
        """Make ready; lay out an empty place.

        :raises StoreAbsent: nobody answers there; it may be tried again.
        :raises StoreUnavailable: the place is another repository's, or unusable.
        """
        try:
            await self._prepare()
        except BaseException as error:
            await self._client.close()
            if isinstance(error, Rejected):
                raise StoreUnavailable(
                    f"The object store does not let us use {self._place} ({error.status} "
                    f"{error.code}): mend [storage] credentials, region or bucket."
                ) from None
            raise

    async def _prepare(self) -> None:
        found = await self._bucket.get(self._at.id)
        if found is None:
            if not self._may_create or [key async for key in self._bucket.keys(self._at.data)]:
                raise StoreUnavailable(
                    f"There is no blob store in {self._place} (no {self._at.id}): name the right "
                    "one, or restore it."
                )
            await self._bucket.put(self._at.id, Content.of(f"{self._repository_id}\n".encode()))
        elif found.decode("ascii", "replace").strip() != self._repository_id:
            raise StoreUnavailable(
                f"The blobs in {self._place} belong to another repository than the database: "
                "mend [storage] bucket or prefix, or [database] dsn."
            )

    async def hold(self) -> None:
        """Nothing to do: many daemons may share the store."""

    async def stop(self) -> None:
        """Let go of all connections."""
        await self._client.close()

    def room(self) -> Room:
        """What the largest object may have: an object store does not say how much room it has."""
        return Room(LARGEST, LARGEST)

    def link(self, key: str, seconds: int, name: str) -> str | None:
        """A URL that the store itself answers; see :class:`IBlobStore`."""
        query = {
            "response-content-disposition": f'attachment; filename="{name}"',
            "response-content-type": "application/octet-stream",
        }
        return self._client.link(self._at.blob(key), query, seconds)

    async def create(self, key: str, size: int | None) -> S3Writer:
        """Begin a blob; see :class:`IBlobStore`."""
        if size is not None and size > LARGEST:
            raise NoRoom(f"The store takes no file of {size} bytes, {LARGEST} are left for each.")
        return S3Writer(await self._arrivals.begin(key), self._part_size, size, self.delete)

    async def reopen(self, key: str, offset: int, size: int | None) -> S3Writer:
        """Go on with a blob; see :class:`IBlobStore`."""
        arriving = await self._arrivals.resume(key, offset, size)
        return S3Writer(arriving, self._part_size, size, self.delete)

    async def open(self, key: str, size: int) -> S3Reader:
        """Open a committed blob; see :class:`IBlobStore`."""
        place = self._at.blob(key)
        found = await self._bucket.head(place)
        if found is None:
            await self._make_sure_of_the_store()
            raise damaged(key, "is not there")
        if found.size != size:
            raise damaged(key, f"{found.size} bytes instead of {size}")
        self._readers[key] += 1
        return S3Reader(self._bucket, key, place, found, self._closed)

    async def _make_sure_of_the_store(self) -> None:
        # Every blob is missing when the bucket is: that is not the blob's fault.
        if await self._bucket.get(self._at.id) is None:
            raise StoreUnavailable("The blob store is gone; try again later.")

    def _closed(self, key: str) -> None:
        self._readers[key] -= 1
        if not self._readers[key]:
            del self._readers[key]

    async def delete(self, key: str) -> None:
        """Remove a blob, committed or not.

        :raises StoreUnavailable: it is being read here; done later, nobody would know of a failure.
        """
        if key in self._readers:
            raise StoreUnavailable("The file is being read; try again later.")
        place = self._at.blob(key)
        # Whatever uploads there are: of one that was begun when we were killed, nobody knows.
        async for found, upload in self._bucket.uploads(place):
            await self._bucket.abort(found, upload)
        async for partial in self._bucket.keys(self._at.partial(key)):
            await self._bucket.delete(partial)
        await self._bucket.delete(place)

    async def quarantine(self, key: str) -> None:
        """Move a blob into ``quarantine``; of an unfinished one, the parts that there are."""
        place, aside = self._at.blob(key), self._at.quarantine(key)
        await self._put_aside(place, aside)  # first: a completion below would take its place
        async for found, upload in self._bucket.uploads(place):
            parts = await self._bucket.parts(found, upload)
            if parts:
                await self._bucket.complete(found, upload, parts)
                await self._put_aside(found, f"{aside}-{upload}")
            else:
                await self._bucket.abort(found, upload)
        async for partial in self._bucket.keys(self._at.partial(key)):
            await self._put_aside(partial, f"{aside}-{partial.rpartition('/')[2]}")

    async def _put_aside(self, source: str, target: str) -> None:
        found = await self._bucket.head(source)
        if found is not None:
            await self._bucket.copy(source, target, found.size)
            await self._bucket.delete(source)

    async def keys(self) -> AsyncIterator[tuple[str, bool]]:
        """Every key, and whether it is committed."""
        async for place, _ in self._bucket.uploads(self._at.data):
            if blob := self._at.blob_of(place):
                yield blob, False
        async for place in self._bucket.keys(self._at.data):
            if blob := self._at.blob_of(place):
                yield blob, True

    async def digests(self, key: str, *names: str, rate: int | None = None) -> Mapping[str, str]:
        """Read a committed blob from end to end; see :class:`IBlobStore`."""
        found = await self._bucket.head(self._at.blob(key))
        if found is None:
            await self._make_sure_of_the_store()
            raise damaged(key, "is not there")
        reader = await self.open(key, found.size)
        measured = Measured(self._reactor, names, rate)
        try:
            await reader.write_to(measured, 0, found.size)
        finally:
            reader.close()
        return measured.found()
