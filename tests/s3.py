"""Stores in a bucket of a real Ceph, for tests that need no daemon."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as global_reactor

from repoman.config import Storage
from repoman.storage.s3.access import read_access
from repoman.storage.s3.arriving import IMultipartRecords
from repoman.storage.s3.store import S3Store
from tests.ceph import Ceph

reactor: Any = global_reactor


class Multiparts:
    """An IMultipartRecords in memory."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}

    async def multipart(self, blob: str) -> str | None:
        return self.known.get(blob)

    async def note_multipart(self, blob: str, upload: str, before: str | None) -> bool:
        if self.known.get(blob) != before:
            return False
        self.known[blob] = upload
        return True


def s3_store(
    ceph: Ceph,
    bucket: str,
    *,
    records: IMultipartRecords | None = None,
    repository_id: str = "this",
    may_create: bool = True,
    **more: Any,
) -> S3Store:
    """A store that is not started yet.

    :param more: settings of ``[storage]``.
    """
    settings = Storage(**ceph.storage(bucket, **more))
    return S3Store(
        reactor, settings, read_access(settings, {}), records or Multiparts(),
        repository_id=repository_id, may_create=may_create,
    )  # fmt: skip
