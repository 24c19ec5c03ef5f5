"""Uploads under way: what they reserve, how far they are, and those that pause."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import evolve
from twisted.internet.task import deferLater

from repoman.audit import Change
from repoman.database.holding import (
    FREE,
    HELD,
    LOOK_SECONDS,
    PATIENCE,
    PROGRESS,
    WANT,
    Claims,
    goes_on_elsewhere,
    why_not,
)
from repoman.database.locks import PAYERS, TARGET
from repoman.database.pool import Pool, Transaction
from repoman.errors import (
    Conflict,
    LengthMismatch,
    Missing,
    QuotaExceeded,
    TookTooLong,
    TooManyUploads,
)
from repoman.holders import Resumption, UploadTerms
from repoman.interfaces import Reservation, new_key
from repoman.model import Image, Upload, User

RESERVE = """
UPDATE account SET reserved = reserved + %(size)s
 WHERE account_id = %(payer)s
   AND (%(nothing)s OR used + reserved + %(size)s <= coalesce(quota, %(quota)s))
RETURNING greatest(coalesce(quota, %(quota)s) - used - reserved, 0) + %(size)s
"""

INSERT = """
INSERT INTO blob (blob, payer_id, uploader_id, image_id, hypervisor, reserved, announced,
                  resumable, lease, keep_until, holder, held_until)
SELECT %(blob)s, owner_id, %(uploader)s, image_id, hypervisor, coalesce(%(size)s, 0), %(size)s,
       %(resumable)s, now() + %(lease)s * interval '1 s', CASE WHEN %(resumable)s THEN now() END,
       %(me)s, now() + %(held)s * interval '1 s'
  FROM image JOIN image_hypervisor USING (image_id)
 WHERE image_id = %(image)s AND hypervisor = %(hypervisor)s AND owner_id = %(owner)s
RETURNING blob
"""

UPLOADS = """
SELECT blob, user_name, i.name, hypervisor, announced, durable, keep_until
  FROM blob b JOIN image i USING (image_id) JOIN account o ON o.account_id = i.owner_id
 WHERE b.state = 'receiving' AND b.resumable AND b.uploader_id = %s
"""

RESUME = f"""
WITH before AS (SELECT holder FROM blob WHERE blob = %(blob)s FOR UPDATE)
UPDATE blob SET lease = now() + %(lease)s * interval '1 s', wanted = false,
                holder = %(me)s, held_until = now() + %(held)s * interval '1 s',
                announced = coalesce(announced, %(size)s)
  FROM before
 WHERE blob = %(blob)s AND state = 'receiving' AND resumable AND durable = %(offset)s AND {FREE}
RETURNING payer_id, announced, durable, reserved, coalesce(before.holder = %(me)s, false),
          created < now() - %(longest)s * interval '1 s'
"""  # noqa: S608 a constant

PAUSE = """
UPDATE blob SET durable = %(durable)s, lease = NULL, held_until = NULL, wanted = false,
                keep_until = CASE WHEN %(durable)s > durable THEN now() + %(keep)s * interval '1 s'
                                  WHEN %(durable)s = 0 THEN created + %(empty)s * interval '1 s'
                                  ELSE keep_until END
 WHERE blob = %(blob)s AND state = 'receiving' AND holder = %(me)s
RETURNING payer_id, greatest(durable - reserved, 0)
"""

KEPT = 100
"""How many unfinished uploads one user may have."""

EMPTY_KEPT = 3600.0
"""For how many seconds at most one of them is kept that has no durable byte yet."""


async def _admit(
    transaction: Transaction, uploader: User, terms: UploadTerms, but: str = ""
) -> None:
    """Count the user's uploads ``but`` this one, under the lock on their account's row."""
    # Not FOR UPDATE: uploads that end share the row by their foreign keys, and want it next.
    await transaction.run(
        "SELECT 1 FROM account WHERE account_id = %s FOR NO KEY UPDATE", (uploader.id,)
    )
    row = await transaction.run_one(
        """
        SELECT count(*) FILTER (WHERE lease > now()), count(*) FILTER (WHERE resumable)
          FROM blob WHERE uploader_id = %s AND state = 'receiving' AND blob <> %s
        """,
        (uploader.id, but),
    )
    running, kept = row or (0, 0)
    if running >= terms.uploads:
        raise TooManyUploads(
            f"User {uploader.user_name} already runs {running} uploads at once; "
            "wait until one has ended."
        )
    if terms.keep is not None and kept >= KEPT:
        refusal = TooManyUploads(
            f"User {uploader.user_name} has {kept} unfinished uploads; "
            "finish or delete one of those that GET /api/uploads lists."
        )
        if not running:  # then none of them ends by itself
            refusal.retry_after = None
        raise refusal


class UploadRecords:
    """The part of :class:`~repoman.interfaces.IBlobRecords` that is about uploads.

    :param holder: the name of this process, if somebody must know it; random otherwise.
    """

    def __init__(self, pool: Pool, holder: str = "") -> None:
        self._pool = pool
        self.holder = holder or new_key()
        self._claims = Claims(pool.clock.seconds)

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
            known = {"image": image.id, "owner": image.owner_id, "uploader": uploader.id}
            await transaction.run(TARGET, known)
            room = await self._reserve(transaction, image.owner_id, terms)
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
                    "resumable": terms.keep is not None,
                    "me": self.holder,
                    "held": HELD,
                },
            )
            if row is None:
                raise Missing("The image was deleted or changed meanwhile.")
            if terms.keep is not None:
                detail = {"upload": key, "hypervisor": hypervisor, "size": terms.size}
                transaction.record(Change("upload.begin", image.path, detail))
            return Reservation(key, room)

        return await self._pool.interact(work)

    async def _reserve(self, transaction: Transaction, payer: int, terms: UploadTerms) -> int:
        # Who needs no room gets none, but is not refused: their quota may have shrunk meanwhile.
        needed = {"size": terms.size or 0, "nothing": terms.size == 0}
        params = {"payer": payer, "quota": terms.quota, **needed}
        row = await transaction.run_one(RESERVE, params)
        if row is not None:
            return int(row[0])
        left = await transaction.run_one(
            "SELECT user_name, greatest(coalesce(quota, %s) - used - reserved, 0) FROM account"
            " WHERE account_id = %s",
            (terms.quota, payer),
        )
        if left is None:
            raise Missing("The owner of the image is gone.")
        wanted = f", and {terms.size} are needed" if terms.size else ""
        raise QuotaExceeded(
            f"The quota of user {left[0]} has room for {left[1]} more bytes{wanted}; "
            "delete something or ask for more."
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

    async def resume(
        self, blob: str, uploader: User, terms: UploadTerms, offset: int
    ) -> Resumption:
        """Let an upload run again, in the hands of this process.

        :param terms: their size is that of the whole, if it is known only now.
        :param offset: how many bytes of it are durable.
        :raises Missing: it is no more.
        :raises TookTooLong: it began too long ago.
        :raises WrongOffset: more are durable by now.
        :raises Unavailable: another process has it.
        :raises QuotaExceeded: no room for the size that was not announced before.
        :raises TooManyUploads: the uploader runs as many as they may.
        """
        known = {"blob": blob, "lease": terms.lease, "size": terms.size, "offset": offset}

        async def work(transaction: Transaction) -> Resumption:
            await transaction.run(PAYERS.format(condition="blob = %s"), (blob,))
            # Its own lease may be left over from a daemon that was killed.  What has all its bytes
            # only ends: it would be a pity if it waited behind those that begin.
            if terms.size is None or terms.size > offset:
                await _admit(transaction, uploader, terms, blob)
            params = {**known, "me": self.holder, "held": HELD, "longest": terms.longest}
            row = await transaction.run_one(RESUME, params)
            if row is None:
                raise await why_not(transaction, blob)
            payer, announced, durable, reserved, was_mine, is_too_old = row
            if is_too_old:
                raise TookTooLong("This upload has taken longer than any may; begin it anew.")
            if announced is not None and announced < durable:
                raise LengthMismatch(f"{durable} bytes are stored already, of {announced}.")
            more = evolve(terms, size=max((announced or 0) - reserved, 0))
            room = await self._reserve(transaction, payer, more)
            await transaction.run(
                "UPDATE blob SET reserved = reserved + %s WHERE blob = %s", (more.size, blob)
            )
            if announced is not None:
                return Resumption(int(announced) - int(durable), was_mine)
            return Resumption(int(room) + int(reserved) - int(durable), was_mine)

        with self._claims.making(blob):
            return await self._pool.interact(work)

    async def hand_over(self, blob: str) -> None:
        """Ask the process that has an upload, if another has it, to let go; wait until it did.

        :raises Unavailable: it does not.
        """
        if self._pool.is_alone:
            return
        clock = self._pool.clock
        end = clock.seconds() + PATIENCE
        while await self._run(WANT, (blob, self.holder)):
            if clock.seconds() > end:
                raise goes_on_elsewhere()
            await deferLater(clock, LOOK_SECONDS)

    async def progress(self, durable: Mapping[str, int], keep: float) -> Mapping[str, bool]:
        """How many bytes of running uploads are durable by now, and that they are ours.

        Answers those that still are, and whether another process wants them.

        :param keep: for how many seconds those are kept that have more bytes than before.
        """
        known = {"held": HELD, "keep": keep, "me": self.holder}
        known |= {"blobs": list(durable), "durable": list(durable.values())}
        with self._claims.renewing(durable) as renewed:
            rows = await self._run(PROGRESS, known)
            renewed.update(blob for blob, _ in rows)
        return dict(rows)

    def overdue(self) -> list[str]:
        """The running uploads that another process may take any moment, as far as we know."""
        return [] if self._pool.is_alone else self._claims.overdue()

    async def pause(self, blob: str, durable: int, terms: UploadTerms) -> None:
        """An upload has stopped for now; bytes that nobody announced count from here on.

        Only new bytes let it be kept for longer.

        :param terms: how long it is kept, and the payer's quota.
        :raises QuotaExceeded: there is no room for the durable bytes; nothing is changed.
        :raises Conflict: it was given up meanwhile, or another process has it.
        """
        keep = terms.keep or 0.0
        known = {"blob": blob, "durable": durable, "me": self.holder}
        known |= {"keep": keep, "empty": min(keep, EMPTY_KEPT)}

        async def work(transaction: Transaction) -> None:
            await transaction.run(PAYERS.format(condition="blob = %s"), (blob,))
            row = await transaction.run_one(PAUSE, known)
            if row is None:
                raise Conflict("The upload was given up, or goes on elsewhere, meanwhile.")
            if row[1]:
                payer, more = row
                await self._reserve(transaction, payer, evolve(terms, size=more))
                await transaction.run(
                    "UPDATE blob SET reserved = reserved + %s WHERE blob = %s", (more, blob)
                )

        await self._pool.interact(work)
        self._claims.end(blob)

    async def renew(self, blobs: Sequence[str], lease: float) -> None:
        """The uploads still live, for ``lease`` more seconds."""
        await self._run(
            "UPDATE blob SET lease = now() + %s * interval '1 s'"
            " WHERE blob = ANY(%s) AND state = 'receiving' AND holder = %s",
            (lease, list(blobs), self.holder),
        )

    async def multipart(self, blob: str) -> str | None:
        """The multipart upload that a blob arrives in, if there is one."""
        rows = await self._pool.query("SELECT multipart FROM blob WHERE blob = %s", (blob,))
        return rows[0][0] if rows else None

    async def note_multipart(self, blob: str, upload: str, before: str | None) -> bool:
        """Store it, if the one ``before`` is still there."""
        rows = await self._run(
            "UPDATE blob SET multipart = %s WHERE blob = %s"
            " AND multipart IS NOT DISTINCT FROM %s RETURNING blob",
            (upload, blob, before),
        )
        return bool(rows)

    async def _run(
        self, sql: str, params: Sequence[Any] | Mapping[str, Any] = ()
    ) -> list[tuple[Any, ...]]:
        return await self._pool.interact(lambda transaction: transaction.run(sql, params))
