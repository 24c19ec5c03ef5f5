"""Blobs: what is known of the bytes in the store, and what they count on quotas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from attrs import asdict, evolve

from repoman.audit import DAEMON, OPERATOR, ORIGIN, Change
from repoman.database.holding import FREE, goes_on_elsewhere
from repoman.database.images import load
from repoman.database.locks import PAYERS
from repoman.database.pool import Transaction
from repoman.database.saving import NOBODY_SAVES
from repoman.database.uploads import UploadRecords
from repoman.database.users import COLUMNS, user_from_row
from repoman.errors import Conflict, QuotaExceeded
from repoman.interfaces import Committed, Precondition, ScrubDue
from repoman.model import Digests, Image, User
from repoman.policy import check_still_permitted

LOCK = """
SELECT i.image_id, i.owner_id FROM image i JOIN blob b USING (image_id)
 WHERE b.blob = %s AND b.state = 'receiving' FOR NO KEY UPDATE OF i
"""

FINISH = """
UPDATE blob SET state = 'present', size = %(size)s, sha256 = %(sha256)s, sha512 = %(sha512)s,
                md5 = %(md5)s, adler32 = %(adler32)s, stamp = %(stamp)s, lease = NULL,
                held_until = NULL,
                -- With all digests known already, nothing is read back soon.
                scrubbed = CASE WHEN num_nulls(%(sha512)s::text, %(md5)s::text,
                                               %(adler32)s::text) = 0 THEN now() END
 WHERE blob = %(blob)s AND state = 'receiving' AND holder = %(me)s
RETURNING hypervisor, payer_id, reserved, uploader_id
"""

# Whoever suspends or deletes the uploader, or ends a membership of theirs, waits: what is read
# next is the truth until COMMIT.
HOLD = """
WITH account_held AS (SELECT FROM account WHERE account_id = %(user)s FOR NO KEY UPDATE),
memberships_held AS (SELECT FROM membership WHERE account_id = %(user)s FOR KEY SHARE)
SELECT (SELECT count(*) FROM account_held), (SELECT count(*) FROM memberships_held)
"""

POINT = """
WITH old AS (
    SELECT blob FROM image_file WHERE image_id = %(image)s AND hypervisor = %(hypervisor)s),
replaced AS (
    UPDATE blob SET state = 'deleting' WHERE blob IN (SELECT blob FROM old) RETURNING size),
pointed AS (
    INSERT INTO image_file (image_id, hypervisor, blob) VALUES (%(image)s, %(hypervisor)s, %(blob)s)
    ON CONFLICT (image_id, hypervisor) DO UPDATE
    SET blob = excluded.blob, version = image_file.version + 1,
        uploaded = now())
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


UPLOAD_OF = """
SELECT user_name || '/' || i.name
  FROM blob b JOIN image i USING (image_id) JOIN account ON account_id = owner_id
 WHERE blob = %s AND b.state = 'receiving' AND resumable
"""

# After the database was away for long all leases are over, of uploads that go on, too: when
# somebody has been elected anew, there is time for the other daemons to renew theirs.
OVER = """
CASE WHEN resumable THEN keep_until < now() AND coalesce(lease < now(), true)
     ELSE %(all)s OR lease < now() END
AND (%(all)s OR coalesce(
    (SELECT since < now() - interval '1 min' FROM chores WHERE held_until IS NOT NULL), true))
"""

LET_GO = """
UPDATE blob SET lease = NULL, held_until = NULL WHERE state = 'receiving' AND resumable
   AND {condition}
"""

DUE = "SELECT blob, size, sha256, scrubbed IS NULL FROM blob"

PAGE = 2000
"""Blobs spoken of in one statement: to write and read so many takes some milliseconds."""


def _pages(blobs: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(blobs), PAGE):
        yield list(blobs[start : start + PAGE])


class BlobRecords(UploadRecords):
    """The :class:`~repoman.interfaces.IBlobRecords` of PostgreSQL."""

    async def repository_id(self) -> str:
        """The random name of this repository."""
        return str((await self._pool.query("SELECT repository_id FROM repository"))[0][0])

    async def secret(self) -> bytes:
        """What seals the pages' forms, for every daemon of this repository the same."""
        return bytes((await self._pool.query("SELECT secret FROM repository"))[0][0])

    async def any_present(self) -> bool:
        """The repository has bytes in its store."""
        return bool(await self._pool.query("SELECT 1 FROM blob WHERE state = 'present' LIMIT 1"))

    async def finish(
        self,
        blob: str,
        committed: Committed,
        quota: int,
        precondition: Precondition | None = None,
    ) -> Image:
        """The bytes are durable: let the image point to them.

        :raises Conflict: the upload was given up, or the image deleted, meanwhile.
        :raises NotIdentified: the uploader was suspended or deleted meanwhile.
        :raises NotPermitted: the uploader may no longer upload to the image.
        :raises QuotaExceeded: it grew larger than there was room for.
        """
        size = committed.size
        known = {"blob": blob, "size": size, "stamp": committed.stamp, "me": self.holder}
        known |= asdict(committed.digests)

        async def work(transaction: Transaction) -> Image:
            # The image first, as a deletion does: a change of its owner or files waits.
            image = await transaction.run_one(LOCK, (blob,))
            await transaction.run(PAYERS.format(condition="blob = %s"), (blob,))
            row = await transaction.run_one(FINISH, known) if image is not None else None
            if image is None or row is None:
                raise Conflict("The image, or its file, was removed or given away meanwhile.")
            (image_id, owner), (hypervisor, payer, reserved, uploader) = image, row
            await transaction.run(
                "UPDATE account SET reserved = reserved - %s WHERE account_id = %s",
                (reserved, payer),
            )
            before = await load(transaction, image_id)
            check_still_permitted(await _uploader(transaction, uploader), before)
            if precondition is not None:
                precondition(before.files.get(hypervisor))
            await transaction.run(
                "UPDATE image SET uploaded = now(), modified = now(), version = version + 1"
                " WHERE image_id = %s",
                (image_id,),
            )
            place = {"image": image_id, "hypervisor": hypervisor, "blob": blob}
            replaced = await transaction.run_one(POINT, place)
            grown = size - int(replaced[0]) if replaced else size
            charged = await transaction.run_one(
                """
                UPDATE account SET used = used + %(grown)s WHERE account_id = %(owner)s
                   AND (%(promised)s OR used + reserved + %(grown)s <= coalesce(quota, %(quota)s))
                RETURNING account_id
                """,
                {
                    "owner": owner,
                    "grown": grown,
                    "promised": payer == owner and size <= reserved,
                    "quota": quota,
                },
            )
            if charged is None:
                raise QuotaExceeded("The owner's quota has no room for the file.")
            await transaction.run(
                "UPDATE blob SET payer_id = %s, reserved = 0 WHERE blob = %s",
                (owner, blob),
            )
            stored = await load(transaction, image_id)
            detail = {"hypervisor": hypervisor, "size": size, "sha256": committed.digests.sha256}
            transaction.record(Change("image.store", stored.path, detail))
            return stored

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

    async def release(self, blob: str, *, paused_elsewhere: bool = False) -> None:
        """Give up an upload of this process: its reservation ends, the sweeper may have its bytes.

        :param paused_elsewhere: also one that another process had last, and has no more.
        :raises Unavailable: another process has it.
        """
        condition = f"blob = %(blob)s AND {FREE if paused_elsewhere else 'holder = %(me)s'}"

        async def work(transaction: Transaction) -> None:
            row = await transaction.run_one(UPLOAD_OF, (blob,))
            known = {"blob": blob, "me": self.holder}
            ended = await _release(transaction, condition, known)
            if row is not None and not ended:
                raise goes_on_elsewhere()
            if row is not None:
                transaction.record(Change("upload.discard", row[0], {"upload": blob}))

        await self._pool.interact(work)

    async def expire_leases(self, *, all_of_them: bool = False) -> int:
        """Give up the uploads that nobody renews; answer how many."""
        if all_of_them:
            await self._run(LET_GO.format(condition="true"))
            await self._run("UPDATE chores SET held_until = NULL")
        known = {"all": all_of_them}
        return await self._pool.interact(lambda t: _release(t, OVER, known))

    async def expire_leases_of(self, holder: str) -> int:
        """Give up the uploads in one piece of a process that is dead; answer how many.

        Of the resumable ones it has let go.
        """
        await self._run(LET_GO.format(condition="holder = %s"), (holder,))
        await self._run("UPDATE chores SET held_until = NULL WHERE holder = %s", (holder,))
        condition, known = "NOT resumable AND holder = %(holder)s", {"holder": holder}
        return await self._pool.interact(lambda t: _release(t, condition, known))

    async def present(self) -> set[str]:
        """The blobs whose bytes must be in the store."""
        found: set[str] = set()
        last: str | None = ""
        while last is not None:
            rows = await self._pool.query(
                "SELECT blob FROM blob WHERE state = 'present' AND blob > %s"
                " ORDER BY blob LIMIT %s",
                (last, PAGE),
            )
            found.update(row[0] for row in rows)
            last = rows[-1][0] if rows else None
        return found

    async def unknown(self, blobs: Sequence[str]) -> list[str]:
        """Those of ``blobs`` that there is no record of."""
        found = []
        for page in _pages(blobs):
            found += await self._pool.query(
                "SELECT key FROM unnest(%s::text[]) AS key"
                " WHERE NOT EXISTS (SELECT FROM blob WHERE blob.blob = key)",
                (page,),
            )
        return [row[0] for row in found]

    async def mark_damaged(self, blobs: Sequence[str]) -> int:
        """Note those of ``blobs`` that are still present as lost; answer how many."""
        marked = 0
        for page in _pages(blobs):
            marked += await self._pool.interact(partial(_mark_damaged, page))
        return marked

    async def damaged(self) -> list[ScrubDue]:
        """The blobs noted as lost."""
        rows = await self._pool.query(DUE + " WHERE state = 'damaged'")
        return [ScrubDue(*row) for row in rows]

    async def due_for_scrub(self, again_after: float, but: Sequence[str]) -> ScrubDue | None:
        """The next blob to read again.

        :param again_after: seconds since the last time.
        :param but: blobs to pass over.
        """
        rows = await self._pool.query(
            DUE + " WHERE state = 'present'"
            " AND (scrubbed IS NULL OR scrubbed < now() - %s * interval '1 s')"
            " AND NOT blob = ANY(%s) ORDER BY scrubbed NULLS FIRST LIMIT 1",
            (again_after, list(but)),
        )
        return ScrubDue(*rows[0]) if rows else None

    async def scrubbed(self, blob: str, digests: Digests, stamp: str) -> None:
        """A blob was read and is what was stored; also one that had been noted as lost."""
        await self._run(
            "UPDATE blob SET state = 'present', scrubbed = now(), stamp = %s,"
            " sha512 = %s, md5 = %s, adler32 = %s"
            " WHERE blob = %s AND state IN ('present', 'damaged')",
            (stamp, digests.sha512, digests.md5, digests.adler32, blob),
        )

    async def stamp(self, blob: str) -> str | None:
        """The last stamp under which the bytes were right; empty, or ``None`` if it is gone."""
        rows = await self._pool.query(
            "SELECT coalesce(stamp, '') FROM blob WHERE blob = %s", (blob,)
        )
        return rows[0][0] if rows else None

    async def is_copy(self, blob: str, stamp: str) -> bool:
        """A copy in another store was found right under this stamp."""
        rows = await self._pool.query(
            "SELECT 1 FROM copied WHERE blob = %s AND stamp = %s", (blob, stamp)
        )
        return bool(rows)

    async def restamp(self, blob: str, stamp: str) -> None:
        """A blob's bytes are right under this stamp."""
        await self._run(
            "UPDATE blob SET stamp = %s WHERE blob = %s AND state = 'present'", (stamp, blob)
        )

    async def to_delete(self, limit: int, grace: float) -> list[str]:
        """Blobs that nobody may get any more.

        :param grace: seconds since somebody last could.
        """
        rows = await self._pool.query(
            "SELECT blob FROM blob WHERE state = 'deleting'"  # noqa: S608 a constant
            " AND coalesce(gone_since, '-infinity') <= now() - %s * interval '1 s'"
            f" AND {NOBODY_SAVES} ORDER BY created LIMIT %s",
            (grace, limit),
        )
        return [row[0] for row in rows]

    async def forget(self, blob: str) -> None:
        """Their bytes are gone."""
        await self._run("DELETE FROM blob WHERE blob = %s AND state = 'deleting'", (blob,))


async def _release(transaction: Transaction, condition: str, known: Mapping[str, Any]) -> int:
    """Give up uploads, and pay back what they reserved; return how many."""
    await transaction.run(PAYERS.format(condition=condition), known)
    [(ended,)] = await transaction.run(RELEASE.format(condition=condition), known)
    return int(ended)


async def _uploader(transaction: Transaction, account_id: int | None) -> User | None:
    """Who uploads, as they are now and until this transaction has ended."""
    await transaction.run(HOLD, {"user": account_id})
    rows = await transaction.run(
        f"SELECT {COLUMNS} FROM account a WHERE account_id = %s",  # noqa: S608 a constant
        (account_id,),
    )
    user = user_from_row(rows[0]) if rows else None
    if user is not None and ORIGIN.get().user == OPERATOR:
        return evolve(user, suspended=False)  # the operator also stores for who is suspended
    return user


async def _mark_damaged(blobs: Sequence[str], transaction: Transaction) -> int:
    rows = await transaction.run(
        "UPDATE blob SET state = 'damaged' WHERE blob = ANY(%s) AND state = 'present'"
        " RETURNING blob",
        (list(blobs),),
    )
    if rows:
        # Not the doing of who happened to ask for them.
        ORIGIN.set(DAEMON)
        lost = [blob for (blob,) in rows]
        # One row for all of them: thousands would keep everybody else's changes waiting.
        subject = lost[0] if len(lost) == 1 else f"{len(lost)} files"
        transaction.record(Change("bytes.damaged", subject, {"blobs": lost}))
    return len(rows)
