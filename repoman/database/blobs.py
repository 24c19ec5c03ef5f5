"""Blobs: what is known of the bytes in the store, and what they count on quotas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from repoman.database.images import load
from repoman.database.pool import Pool, Transaction
from repoman.errors import Conflict, Missing, QuotaExceeded, TooManyUploads
from repoman.interfaces import Reservation, UploadTerms, new_key
from repoman.model import Digests, Image, User

RESERVE = """
UPDATE account SET reserved = reserved + %(size)s
 WHERE account_id = %(payer)s AND used + reserved + %(size)s <= coalesce(quota, %(quota)s)
RETURNING coalesce(quota, %(quota)s) - used - reserved + %(size)s
"""

FINISH = """
UPDATE blob SET state = 'present', size = %(size)s, sha256 = %(sha256)s, sha512 = %(sha512)s,
                md5 = %(md5)s, adler32 = %(adler32)s, lease = NULL
 WHERE blob = %(blob)s AND state = 'receiving'
RETURNING image_id, hypervisor, payer_id, reserved
"""

POINT = """
WITH old AS (
    SELECT blob FROM image_file WHERE image_id = %(image)s AND hypervisor = %(hypervisor)s),
replaced AS (
    UPDATE blob SET state = 'deleting' WHERE blob IN (SELECT blob FROM old) RETURNING size),
pointed AS (
    INSERT INTO image_file (image_id, hypervisor, blob) VALUES (%(image)s, %(hypervisor)s, %(blob)s)
    ON CONFLICT (image_id, hypervisor) DO UPDATE
    SET blob = excluded.blob, uploaded = now(), version = image_file.version + 1)
SELECT coalesce(sum(size), 0) FROM replaced
"""

RELEASE = """
WITH ended AS (
    UPDATE blob SET state = 'deleting' WHERE blob IN (
        SELECT blob FROM blob WHERE state = 'receiving' AND {condition} FOR UPDATE)
    RETURNING blob, payer_id, reserved),
owed AS (SELECT payer_id, sum(reserved) AS total FROM ended GROUP BY payer_id),
paid AS (
    UPDATE account SET reserved = account.reserved - owed.total
      FROM owed WHERE account_id = owed.payer_id)
SELECT count(*) FROM ended
"""


class BlobRecords:
    """The :class:`~repoman.interfaces.IBlobRecords` of PostgreSQL."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def repository_id(self) -> str:
        """The random name of this repository."""
        return str((await self._pool.query("SELECT repository_id FROM repository"))[0][0])

    async def any_present(self) -> bool:
        """The repository has bytes in its store."""
        return bool(await self._pool.query("SELECT 1 FROM blob WHERE state = 'present' LIMIT 1"))

    async def begin(
        self, image: Image, hypervisor: str, uploader: User, terms: UploadTerms
    ) -> Reservation:
        """Reserve quota and record an upload, so that a crash leaves a name to sweep.

        :raises QuotaExceeded: no room for the announced size.
        :raises TooManyUploads: the uploader runs as many as they may.
        :raises Missing: the image is gone.
        """
        key = new_key()

        async def work(transaction: Transaction) -> Reservation:
            room = await self._reserve(transaction, image, terms)
            # Their account's row is the lock under which uploads are counted.
            await transaction.run(
                "SELECT 1 FROM account WHERE account_id = %s FOR UPDATE", (uploader.id,)
            )
            running = await transaction.run_one(
                "SELECT count(*) FROM blob WHERE uploader_id = %s AND state = 'receiving'",
                (uploader.id,),
            )
            if running is not None and running[0] >= terms.uploads:
                raise TooManyUploads(
                    f"User {uploader.user_name} already runs {running[0]} uploads at once; "
                    "wait until one has ended."
                )
            row = await transaction.run_one(
                """
                INSERT INTO blob (blob, payer_id, uploader_id, image_id, hypervisor, reserved,
                                  lease)
                SELECT %s, owner_id, %s, image_id, hypervisor, %s, now() + %s * interval '1 s'
                  FROM image JOIN image_hypervisor USING (image_id)
                 WHERE image_id = %s AND hypervisor = %s AND owner_id = %s
                RETURNING blob
                """,
                (
                    key, uploader.id, terms.size or 0, terms.lease,
                    image.id, hypervisor, image.owner_id,
                ),
            )  # fmt: skip
            if row is None:
                raise Missing("The image was deleted or changed meanwhile.")
            return Reservation(key, room)

        return await self._pool.interact(work)

    async def _reserve(self, transaction: Transaction, image: Image, terms: UploadTerms) -> int:
        params = {"payer": image.owner_id, "size": terms.size or 0, "quota": terms.quota}
        row = await transaction.run_one(RESERVE, params)
        if row is not None:
            return int(row[0])
        left = await transaction.run_one(
            "SELECT greatest(coalesce(quota, %s) - used - reserved, 0) FROM account"
            " WHERE account_id = %s",
            (terms.quota, image.owner_id),
        )
        raise QuotaExceeded(
            f"The quota of user {image.owner} has room for {left[0] if left else 0} more bytes, "
            f"and the file has {terms.size or 0}; delete something or ask for more."
        )

    async def renew(self, blobs: Sequence[str], lease: float) -> None:
        """The uploads still live, for ``lease`` more seconds."""
        await self._run(
            "UPDATE blob SET lease = now() + %s * interval '1 s'"
            " WHERE blob = ANY(%s) AND state = 'receiving'",
            (lease, list(blobs)),
        )

    async def finish(self, blob: str, size: int, digests: Digests, quota: int) -> Image:
        """The bytes are durable: let the image point to them.

        :raises Conflict: the upload was given up, or the image deleted, meanwhile.
        :raises QuotaExceeded: it grew larger than there was room for.
        """
        params = {
            "blob": blob, "size": size, "sha256": digests.sha256, "sha512": digests.sha512,
            "md5": digests.md5, "adler32": digests.adler32,
        }  # fmt: skip

        async def work(transaction: Transaction) -> Image:
            row = await transaction.run_one(FINISH, params)
            if row is None or row[0] is None:
                raise Conflict("The image or its hypervisor was removed during the upload.")
            image_id, hypervisor, payer, reserved = row
            # Locks the image against a change of owner and of the list of files.
            owner = await transaction.run_one(
                "UPDATE image SET uploaded = now(), modified = now(), version = version + 1"
                " WHERE image_id = %s RETURNING owner_id",
                (image_id,),
            )
            place = {"image": image_id, "hypervisor": hypervisor, "blob": blob}
            replaced = await transaction.run_one(POINT, place)
            await transaction.run(
                "UPDATE account SET reserved = reserved - %s WHERE account_id = %s",
                (reserved, payer),
            )
            grown = size - int(replaced[0]) if replaced else size
            charged = await transaction.run_one(
                """
                UPDATE account SET used = used + %(grown)s WHERE account_id = %(owner)s
                   AND (%(promised)s OR used + reserved + %(grown)s <= coalesce(quota, %(quota)s))
                RETURNING account_id
                """,
                {
                    "owner": owner[0] if owner else None,
                    "grown": grown,
                    "promised": size <= reserved,
                    "quota": quota,
                },
            )
            if charged is None:
                raise QuotaExceeded("The owner's quota has no room for the file.")
            await transaction.run(
                "UPDATE blob SET payer_id = %s, reserved = 0 WHERE blob = %s",
                (owner[0] if owner else None, blob),
            )
            return await load(transaction, image_id)

        return await self._pool.interact(work)

    async def state(self, blob: str) -> str | None:
        """The blob's state, waiting for a transaction that is about to change it."""

        async def work(transaction: Transaction) -> str | None:
            row = await transaction.run_one(
                "SELECT state FROM blob WHERE blob = %s FOR UPDATE", (blob,)
            )
            return None if row is None else str(row[0])

        return await self._pool.interact(work)

    async def image_of(self, blob: str) -> Image | None:
        """The image that points to a blob."""

        async def work(transaction: Transaction) -> Image | None:
            row = await transaction.run_one(
                "SELECT image_id FROM image_file WHERE blob = %s", (blob,)
            )
            return None if row is None else await load(transaction, row[0])

        return await self._pool.interact(work)

    async def release(self, blob: str) -> None:
        """Give up an upload: its reservation ends and the sweeper may have its bytes."""
        await self._run(RELEASE.format(condition="blob = %s"), (blob,))

    async def expire_leases(self, *, all_of_them: bool = False) -> int:
        """Give up the uploads that nobody renews; answer how many."""
        condition = "true" if all_of_them else "lease < now()"
        rows = await self._run(RELEASE.format(condition=condition))
        return int(rows[0][0])

    async def present(self) -> set[str]:
        """The blobs whose bytes must be in the store."""
        rows = await self._pool.query("SELECT blob FROM blob WHERE state = 'present'")
        return {row[0] for row in rows}

    async def unknown(self, blobs: Sequence[str]) -> list[str]:
        """Those of ``blobs`` that there is no record of."""
        rows = await self._pool.query(
            "SELECT key FROM unnest(%s::text[]) AS key"
            " WHERE NOT EXISTS (SELECT FROM blob WHERE blob.blob = key)",
            (list(blobs),),
        )
        return [row[0] for row in rows]

    async def mark_damaged(self, blobs: Sequence[str]) -> int:
        """Note those of ``blobs`` that are still present as lost; answer how many."""
        if not blobs:
            return 0
        rows = await self._run(
            "UPDATE blob SET state = 'damaged' WHERE blob = ANY(%s) AND state = 'present'"
            " RETURNING blob",
            (list(blobs),),
        )
        return len(rows)

    async def to_delete(self, limit: int) -> list[str]:
        """Blobs that nobody may get any more."""
        rows = await self._pool.query(
            "SELECT blob FROM blob WHERE state = 'deleting' ORDER BY created LIMIT %s", (limit,)
        )
        return [row[0] for row in rows]

    async def forget(self, blob: str) -> None:
        """Their bytes are gone."""
        await self._run("DELETE FROM blob WHERE blob = %s AND state = 'deleting'", (blob,))

    async def _run(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return await self._pool.interact(lambda transaction: transaction.run(sql, params))
