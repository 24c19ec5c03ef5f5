"""What is known of files and of their copies in another store."""

from __future__ import annotations

from repoman.database.blobs import DUE, PAGE, BlobRecords
from repoman.interfaces import ScrubDue


class CopyRecords(BlobRecords):
    """The :class:`~repoman.repository.copying.ICopyRecords` of PostgreSQL."""

    async def originals(self) -> list[ScrubDue]:
        """All files whose bytes must be in the store, also if they were found damaged there."""
        found: list[ScrubDue] = []
        last: str | None = ""
        while last is not None:
            rows = await self._pool.query(
                DUE + " WHERE state IN ('present', 'damaged') AND blob > %s ORDER BY blob LIMIT %s",
                (last, PAGE),
            )
            found += (ScrubDue(*row) for row in rows)
            last = rows[-1][0] if rows else None
        return found

    async def copies(self, store: str) -> set[str]:
        """The blobs that were copied to a store."""
        found: set[str] = set()
        last: str | None = ""
        while last is not None:
            rows = await self._pool.query(
                "SELECT blob FROM copied WHERE store = %s AND blob > %s ORDER BY blob LIMIT %s",
                (store, last, PAGE),
            )
            found.update(row[0] for row in rows)
            last = rows[-1][0] if rows else None
        return found

    async def note_copy(self, blob: str, store: str, stamp: str) -> None:
        """A blob's bytes are in a store, and right, under this stamp; nothing, if it is no more."""
        await self._run(
            "INSERT INTO copied (blob, store, stamp)"
            " SELECT blob, %s, %s FROM blob WHERE blob = %s FOR KEY SHARE"
            " ON CONFLICT (blob, store) DO UPDATE SET stamp = excluded.stamp",
            (store, stamp, blob),
        )

    async def unfinished(self) -> int:
        """How many resumable uploads wait for more bytes."""
        rows = await self._pool.query(
            "SELECT count(*) FROM blob WHERE state = 'receiving' AND resumable"
        )
        return int(rows[0][0])
