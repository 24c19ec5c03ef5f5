"""Reads stored bytes again: for the digests that uploads do not wait for, and for damage."""

from __future__ import annotations

from repoman.errors import BlobDamaged
from repoman.interfaces import IBlobRecords, IBlobStore
from repoman.model import Digests

ALGORITHMS = ("adler32", "md5", "sha256", "sha512")
"""The digests that every file has in the end."""

RATE = 50 * 2**20
"""Bytes per second of a second reading; the first, soon after the upload, is not held back."""

AGAIN_AFTER = 30 * 86400.0
"""Seconds after which a file is read again."""


class Scrubber:
    """Works through the store, one file at a time; the database remembers how far."""

    def __init__(self, records: IBlobRecords, store: IBlobStore) -> None:
        self._records = records
        self._store = store
        self._busy = False

    async def scrub(self) -> int:
        """Read all files whose turn it is; answer how many turned out to be damaged."""
        if self._busy:
            return 0
        self._busy = True
        damaged = 0
        try:
            while (due := await self._records.due_for_scrub(AGAIN_AFTER)) is not None:
                damaged += await self._scrub_one(*due)
        finally:
            self._busy = False
        return damaged

    async def _scrub_one(self, key: str, sha256: str, first_time: bool) -> int:
        try:
            found = await self._store.digests(key, *ALGORITHMS, rate=None if first_time else RATE)
        except BlobDamaged:
            return await self._records.mark_damaged([key])
        if found["sha256"] != sha256:
            return await self._records.mark_damaged([key])
        await self._records.scrubbed(key, Digests(**found))
        return 0
