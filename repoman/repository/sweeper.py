"""Removes the bytes that no record needs any more, in the order that loses nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from attrs import evolve, frozen

from repoman.errors import RepomanError
from repoman.interfaces import IBlobRecords, IBlobStore
from repoman.records import IImageRecords

BATCH = 100
"""Blobs looked at in one go."""

ORPHAN_LIMIT = 100
"""So many files without a record look like the wrong database, not like accidents."""


@frozen
class Inventory:
    """What a comparison of store and records found.

    :ivar quarantined: files without a record, put away.
    :ivar damaged: records whose bytes are not there.
    :ivar suspicious: there were so many orphans that nothing was touched.
    """

    quarantined: int = 0
    damaged: int = 0
    suspicious: int = 0


class Sweeper:
    """Bytes go only after a committed record says that nobody may get them.

    :param renew: tells the records which uploads live; where the database was away for long, only
        this keeps them from being given up.
    :ivar expired_kept: how long an expired image keeps its bytes, in seconds.
    :ivar removed: how many files so far.
    :ivar found: by the last comparison.
    """

    def __init__(
        self,
        images: IImageRecords,
        records: IBlobRecords,
        store: IBlobStore,
        expired_kept: float,
        renew: Callable[[], Awaitable[None]],
    ) -> None:
        self._images = images
        self._records = records
        self._store = store
        self._renew = renew
        self.expired_kept = expired_kept
        self.removed = 0
        self.found = Inventory()
        self._sweeping = False
        self._again = False

    async def sweep(self) -> int:
        """Give up dead uploads and expired files, remove what is marked; answer how many went.

        Two calls at once become one that looks twice.
        """
        self._again = True
        if self._sweeping:
            return 0
        self._sweeping = True
        removed = 0
        try:
            while self._again:
                self._again = False
                removed += await self._sweep_once()
        finally:
            self._sweeping = False
        self.removed += removed
        return removed

    async def _sweep_once(self) -> int:
        await self._renew()
        await self._records.expire_leases()
        while await self._images.expire_images(self.expired_kept) > 0:
            continue
        removed = 0
        while True:
            marked = await self._records.to_delete(BATCH, self._store.grace)
            gone = [key for key in marked if await self._remove(key)]
            removed += len(gone)
            if len(marked) < BATCH or not gone:
                return removed

    async def _remove(self, key: str) -> bool:
        try:
            await self._store.delete(key)
        except RepomanError:
            return False  # the record stays, so the next sweep tries again
        await self._records.forget(key)
        return True

    async def take_stock(self) -> Inventory:
        """Compare the store with the records.

        Files that no record knows are put into quarantine, never deleted:
        after a restored backup of the database the newest images look like
        that.  When they are many, nothing is touched at all.
        """
        # The order matters: a file comes after its record, and goes before it.
        present = await self._records.present()
        stored = await self._stored()
        orphans = await self._records.unknown(list(stored))
        if orphans:
            # What the sweeper has just removed was there a moment ago, and is no orphan.
            still = await self._stored()
            orphans = [key for key in orphans if key in still]
        found = Inventory(damaged=await self._records.mark_damaged(sorted(present - stored)))
        if len(orphans) > ORPHAN_LIMIT:
            self.found = evolve(found, suspicious=len(orphans))
            return self.found
        for key in orphans:
            await self._store.quarantine(key)
        self.found = evolve(found, quarantined=len(orphans))
        return self.found

    async def _stored(self) -> set[str]:
        return {key async for key, _ in self._store.keys()}  # noqa: SIM118 a store is no dict
