"""A store in a bucket of a real Ceph, and one that is reached on an unreliable way."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_twisted
from attrs import define
from unreliable import Proxy

from repoman.storage.s3.store import S3Store
from tests.ceph import Ceph
from tests.s3 import Multiparts, reactor, s3_store

PART = 5 << 20


@define
class Place:
    """A bucket, who uses it, and the way there.

    :ivar proxy: stands before the gateway of Ceph.
    """

    ceph: Ceph
    bucket: str
    records: Multiparts
    proxy: Proxy
    store: S3Store

    async def other(self) -> S3Store:
        """Another daemon's store, straight at Ceph; to be stopped."""
        made = s3_store(self.ceph, self.bucket, records=self.records, part_size=PART)
        await made.start()
        return made


@pytest_twisted.async_yield_fixture
async def place(ceph: Ceph) -> AsyncIterator[Place]:
    proxy = Proxy(reactor, ceph.port)
    proxy.listen()
    bucket, records = ceph.bucket(), Multiparts()
    store = s3_store(ceph, bucket, records=records, part_size=PART, endpoint=proxy.endpoint)
    await store.start()
    yield Place(ceph, bucket, records, proxy, store)
    await store.stop()
    await proxy.close()
