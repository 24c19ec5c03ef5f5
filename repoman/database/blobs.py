"""Blobs: what is known of the bytes in the store, and what they count on quotas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import evolve

from repoman.database.images import load
from repoman.database.pool import Pool, Transaction
from repoman.errors import Conflict, Missing, QuotaExceeded, TooManyUploads
from repoman.interfaces import Reservation, UploadTerms, new_key
from repoman.model import Digests, Image, Upload, User

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


INSERT = """
INSERT INTO blob (blob, payer_id, uploader_id, image_id, hypervisor, reserved, announced,
                  resumable, lease, keep_until)
SELECT %(blob)s, owner_id, %(uploader)s, image_id, hypervisor, coalesce(%(size)s, 0), %(size)s,
       %(keep)s::float IS NOT NULL,
       CASE WHEN %(keep)s::float IS NULL THEN now() + %(lease)s * interval '1 s' END,
       now() + %(keep)s::float * interval '1 s'
  FROM image JOIN image_hypervisor USING (image_id)
 WHERE image_id = %(image)s AND hypervisor = %(hypervisor)s AND owner_id = %(owner)s
RETURNING blob
"""

UPLOADS = """
SELECT blob, user_name, i.name, hypervisor, announced, durable, keep_until
  FROM blob b JOIN image i USING (image_id) JOIN account o ON o.account_id = i.owner_id
 WHERE b.state = 'receiving' AND b.resumable AND b.uploader_id = %s
"""

OVER = """
CASE WHEN resumable THEN keep_until < now() AND coalesce(lease < now(), true)
     ELSE %(all)s OR lease < now() END
"""

KEPT = 100
"""How many unfinished uploads one user may have."""


async def _admit(transaction: Transaction, uploader: User, terms: UploadTerms) -> None:
    """Count the user's uploads, under the lock on their account's row."""
    await transaction.run("SELECT 1 FROM account WHERE account_id = %s FOR UPDATE", (uploader.id,))
    row = await transaction.run_one(
        """
        SELECT count(*) FILTER (WHERE lease > now()), count(*) FILTER (WHERE resumable)
          FROM blob WHERE uploader_id = %s AND state = 'receiving'
        """,
        (uploader.id,),
    )
    running, kept = row or (0, 0)
    if running >= terms.uploads:
        raise TooManyUploads(
            f"User {uploader.user_name} already runs {running} uploads at once; "
            "wait until one has ended."
        )
    if terms.keep is not None and kept >= KEPT:
        raise TooManyUploads(
            f"User {uploader.user_name} has {kept} unfinished uploads; "
            "finish or delete one of those that GET /api/uploads lists."
        )


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
            room = await self._reserve(transaction, image.owner_id, image.owner, terms)
            await _admit(transaction, uploader, terms)
            row = await transaction.run_one(
                INSERT,
                {
                    "blob": key,
                    "uploader": uploader.id,
                    "image": image.id,
                    "hypervisor": hypervisor,
                    "owner": image.owner_id,
                    "size": terms.size,
                    "lease": terms.lease,
                    "keep": terms.keep,
                },
            )
            if row is None:
                raise Missing("The image was deleted or changed meanwhile.")
            return Reservation(key, room)

        return await self._pool.interact(work)

    async def _reserve(
        self, transaction: Transaction, payer: int, name: str, terms: UploadTerms
    ) -> int:
        params = {"payer": payer, "size": terms.size or 0, "quota": terms.quota}
        row = await transaction.run_one(RESERVE, params)
        if row is not None:
            return int(row[0])
        left = await transaction.run_one(
            "SELECT greatest(coalesce(quota, %s) - used - reserved, 0) FROM account"
            " WHERE account_id = %s",
            (terms.quota, payer),
        )
        raise QuotaExceeded(
            f"The quota of user {name} has room for {left[0] if left else 0} more bytes, "
            f"and the file has {terms.size or 0}; delete something or ask for more."
        )

    async def upload(self, blob: str, uploader: User) -> Upload:
        """A resumable upload of this user's.

        :raises Missing: there is none.
        """
        rows = await self._pool.query(UPLOADS + " AND blob = %s", (uploader.id, blob))
        if not rows:
            raise Missing("You have no such upload; it is complete, given up, or never was.")
        return Upload(*rows[0])

    async def uploads(self, uploader: User) -> list[Upload]:
        """All resumable uploads of a user's, the oldest first."""
        rows = await self._pool.query(UPLOADS + " ORDER BY b.created, blob", (uploader.id,))
        return [Upload(*row) for row in rows]

    async def resume(self, blob: str, uploader: User, terms: UploadTerms) -> int:
        """Let an upload run again; answer how many more bytes there is room for.

        :param terms: their size is that of the whole, if it is known only now.
        :raises Missing: it is no more.
        :raises QuotaExceeded: no room for the size that was not announced before.
        :raises TooManyUploads: the uploader runs as many as they may.
        """

        async def work(transaction: Transaction) -> int:
            await _admit(transaction, uploader, terms)
            row = await transaction.run_one(
                """
                UPDATE blob SET lease = now() + %s * interval '1 s',
                                announced = coalesce(announced, %s)
                 WHERE blob = %s AND state = 'receiving' AND resumable
                RETURNING payer_id, announced, durable, reserved
                """,
                (terms.lease, terms.size, blob),
            )
            if row is None:
                raise Missing("The upload was given up meanwhile.")
            payer, announced, durable, reserved = row
            more = evolve(terms, size=max((announced or 0) - reserved, 0))
            room = await self._reserve(transaction, payer, uploader.user_name, more)
            await transaction.run(
                "UPDATE blob SET reserved = reserved + %s WHERE blob = %s", (more.size, blob)
            )
            return int(announced if announced is not None else room) - int(durable)

        return await self._pool.interact(work)

    async def progress(self, durable: Mapping[str, int]) -> None:
        """How many bytes of running uploads are durable by now."""
        await self._run(
            """
            UPDATE blob SET durable = known.durable
              FROM unnest(%s::text[], %s::bigint[]) AS known (key, durable)
             WHERE blob = key AND state = 'receiving' AND blob.durable < known.durable
            """,
            (list(durable), list(durable.values())),
        )

    async def pause(self, blob: str, durable: int, keep: float) -> None:
        """An upload has stopped for now; it is kept for ``keep`` seconds."""
        await self._run(
            """
            UPDATE blob SET durable = %s, lease = NULL, keep_until = now() + %s * interval '1 s'
             WHERE blob = %s AND state = 'receiving'
            """,
            (durable, keep, blob),
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
        if all_of_them:
            await self._run("UPDATE blob SET lease = NULL WHERE state = 'receiving' AND resumable")
        rows = await self._run(RELEASE.format(condition=OVER), {"all": all_of_them})
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

    async def due_for_scrub(self, again_after: float) -> tuple[str, str, bool] | None:
        """The next blob to read again: its key, its sha256, and whether it is the first time.

        :param again_after: seconds since the last time.
        """
        rows = await self._pool.query(
            "SELECT blob, sha256, scrubbed IS NULL FROM blob WHERE state = 'present'"
            " AND (scrubbed IS NULL OR scrubbed < now() - %s * interval '1 s')"
            " ORDER BY scrubbed NULLS FIRST LIMIT 1",
            (again_after,),
        )
        return (rows[0][0], rows[0][1], rows[0][2]) if rows else None

    async def scrubbed(self, blob: str, digests: Digests) -> None:
        """A blob was read and is what was stored."""
        await self._run(
            "UPDATE blob SET scrubbed = now(), sha512 = %s, md5 = %s, adler32 = %s"
            " WHERE blob = %s AND state = 'present'",
            (digests.sha512, digests.md5, digests.adler32, blob),
        )

    async def to_delete(self, limit: int) -> list[str]:
        """Blobs that nobody may get any more."""
        rows = await self._pool.query(
            "SELECT blob FROM blob WHERE state = 'deleting' ORDER BY created LIMIT %s", (limit,)
        )
        return [row[0] for row in rows]

    async def forget(self, blob: str) -> None:
        """Their bytes are gone."""
        await self._run("DELETE FROM blob WHERE blob = %s AND state = 'deleting'", (blob,))

    async def _run(
        self, sql: str, params: Sequence[Any] | Mapping[str, Any] = ()
    ) -> list[tuple[Any, ...]]:
        return await self._pool.interact(lambda transaction: transaction.run(sql, params))
