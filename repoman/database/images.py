"""Images: their rows, and who they are shared with."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime, timezone
from types import MappingProxyType
from typing import Any

from attrs import asdict

from repoman.audit import Change
from repoman.database.constraints import translated
from repoman.database.listings import BY_NAME, EITHER, NAMES, image_query, reached
from repoman.database.pool import Pool, Transaction
from repoman.errors import Conflict, Invalid, Missing, QuotaExceeded
from repoman.model import NAME_LIMIT, Digests, Image, ImageFile
from repoman.policy import protected
from repoman.reach import Reach
from repoman.records import Listing, NewImage

SELECT = """
SELECT i.image_id, i.uuid, i.name, i.owner_id, o.user_name, i.modified, i.uploaded, i.expires,
       i.description, i.os_variant, i.os_type, i.os_arch, i.read_only,
       i.unauthenticated_access, i.version,
       ARRAY(SELECT hypervisor FROM image_hypervisor h
              WHERE h.image_id = i.image_id ORDER BY position),
       (SELECT json_agg(json_build_array(
                   f.hypervisor, b.blob, b.size, b.sha256, b.sha512, b.md5, b.adler32,
                   extract(epoch FROM f.uploaded), f.version, b.state = 'damaged'))
          FROM image_file f JOIN blob b USING (blob) WHERE f.image_id = i.image_id),
       ARRAY(SELECT user_name FROM image_shared_with_user s JOIN account USING (account_id)
              WHERE s.image_id = i.image_id ORDER BY 1),
       ARRAY(SELECT g.name FROM image_shared_with_group s JOIN user_group g USING (group_id)
              WHERE s.image_id = i.image_id ORDER BY 1),
       ARRAY(SELECT g.name FROM membership m JOIN user_group g USING (group_id)
              WHERE m.account_id = i.owner_id ORDER BY 1)
  FROM image i JOIN account o ON o.account_id = i.owner_id
"""

EXPIRED = """
SELECT image_id, (SELECT user_name FROM account WHERE account_id = owner_id) || '/' || name
  FROM image i
 WHERE expires < now() - %(kept)s * interval '1 s' AND NOT read_only AND NOT keeps_files
   AND uploaded < now() - %(kept)s * interval '1 s'
   AND EXISTS (SELECT FROM image_file f WHERE f.image_id = i.image_id)
   AND NOT EXISTS (SELECT FROM blob b WHERE b.image_id = i.image_id AND b.state = 'receiving')
 ORDER BY image_id LIMIT 100 FOR UPDATE SKIP LOCKED
"""

COLUMNS = frozenset(
    {
        "name", "description", "os_variant", "os_type", "os_arch", "expires",
        "read_only", "unauthenticated_access", "keeps_files",
    }
)  # fmt: skip
"""The columns that a change may set as they are."""


def image_from_row(row: Sequence[Any]) -> Image:
    """The image that a row of SELECT stands for."""
    return Image(
        id=row[0], uuid=row[1], name=row[2], owner_id=row[3], owner=row[4], modified=row[5],
        uploaded=row[6], expires=row[7], description=row[8], os_variant=row[9], os_type=row[10],
        os_arch=row[11], read_only=row[12], unauthenticated_access=row[13], version=row[14],
        hypervisors=tuple(row[15]), files=_files(row[16] or ()), shared_users=tuple(row[17]),
        shared_groups=tuple(row[18]), owner_groups=tuple(row[19]),
    )  # fmt: skip


def _files(rows: Sequence[Sequence[Any]]) -> Mapping[str, ImageFile]:
    return MappingProxyType(
        {
            hypervisor: ImageFile(
                hypervisor, blob, size, Digests(*digests),
                datetime.fromtimestamp(uploaded, timezone.utc), version, damaged,
            )
            for hypervisor, blob, size, *digests, uploaded, version, damaged in rows
        }
    )  # fmt: skip


async def load(transaction: Transaction, image_id: int) -> Image:
    """An image by its key, within a transaction."""
    row = await transaction.run_one(SELECT + " WHERE i.image_id = %s", (image_id,))
    if row is None:
        raise Missing("The image was deleted meanwhile.")
    return image_from_row(row)


async def _set_hypervisors(
    transaction: Transaction, image_id: int, hypervisors: Sequence[str]
) -> None:
    # The images' files hang on these rows: drop only what is no longer listed.
    await transaction.run(
        """
        INSERT INTO word SELECT unnest(%s::text[]), 'hypervisor' ON CONFLICT DO NOTHING
        """,
        (list(hypervisors),),
    )
    await transaction.run(
        "DELETE FROM image_hypervisor WHERE image_id = %s AND NOT hypervisor = ANY(%s)",
        (image_id, list(hypervisors)),
    )
    await transaction.run(
        """
        INSERT INTO image_hypervisor (image_id, position, hypervisor)
        SELECT %s, place, name FROM unnest(%s::text[]) WITH ORDINALITY AS listed(name, place)
        ON CONFLICT (image_id, hypervisor) DO UPDATE SET position = excluded.position
        """,
        (image_id, list(hypervisors)),
    )


async def drop_files(transaction: Transaction, image_id: int, kept: Sequence[str] = ()) -> None:
    """Let go of an image's files but those of the hypervisors ``kept``.

    The image's row must be locked, so that no upload to it ends meanwhile.
    Their bytes no longer count on the owner's quota and are the sweeper's;
    uploads on their way to them are fenced off.
    """
    await transaction.run(
        """
        WITH dropped AS (
            DELETE FROM image_file
             WHERE image_id = %(image)s AND NOT hypervisor = ANY(%(kept)s) RETURNING blob),
        freed AS (
            UPDATE blob SET state = 'deleting' WHERE blob IN (SELECT blob FROM dropped)
            RETURNING size)
        UPDATE account SET used = used - (SELECT coalesce(sum(size), 0) FROM freed)
         WHERE account_id = (SELECT owner_id FROM image WHERE image_id = %(image)s)
        """,
        {"image": image_id, "kept": list(kept)},
    )
    await fence_uploads(transaction, image_id, kept)


async def fence_uploads(transaction: Transaction, image_id: int, kept: Sequence[str] = ()) -> None:
    """Give up the uploads to an image but those for the hypervisors ``kept``; pay back."""
    await transaction.run(
        """
        WITH fenced AS (
            SELECT blob, payer_id, reserved FROM blob
             WHERE image_id = %(image)s AND state = 'receiving'
               AND NOT hypervisor = ANY(%(kept)s) FOR UPDATE),
        ended AS (
            UPDATE blob SET state = 'deleting', reserved = 0
             WHERE blob IN (SELECT blob FROM fenced)),
        owed AS (SELECT payer_id, sum(reserved) AS total FROM fenced GROUP BY payer_id)
        UPDATE account SET reserved = account.reserved - owed.total
          FROM owed WHERE account_id = owed.payer_id
        """,
        {"image": image_id, "kept": list(kept)},
    )


async def _lock(transaction: Transaction, image: Image, *, to_share: bool = False) -> None:
    """Keep others from changing an image; it may have changed hands, or be read-only, by now.

    :raises Conflict: it has another owner than the one whose rights were looked at.
    """
    row = await transaction.run_one(
        "SELECT owner_id, read_only FROM image WHERE image_id = %s FOR UPDATE", (image.id,)
    )
    if row is not None and row[0] != image.owner_id:
        raise Conflict(f"Image {image.path} was given away meanwhile.")
    if row is not None and row[1] and not (image.read_only or to_share):
        raise protected("image.read_only")


async def _give_away(transaction: Transaction, image_id: int, owner: str, quota: int) -> None:
    size_sql = """
        SELECT coalesce(sum(b.size), 0) FROM image_file f JOIN blob b USING (blob)
         WHERE f.image_id = %s
        """
    row = await transaction.run_one(size_sql, (image_id,))
    size = int(row[0]) if row else 0
    known = await transaction.run_one(
        "SELECT account_id FROM account WHERE user_name = %s", (owner,)
    )
    if known is None:
        raise Invalid(f"There is no user {owner}.", field="owner")
    taken = await transaction.run_one(
        """
        UPDATE account SET used = used + %(size)s
         WHERE account_id = %(owner)s
           AND (%(size)s = 0 OR used + reserved + %(size)s <= coalesce(quota, %(quota)s))
        RETURNING account_id
        """,
        {"owner": known[0], "size": size, "quota": quota},
    )
    if taken is None:
        raise QuotaExceeded(f"The quota of user {owner} has no room for the image's {size} bytes.")
    await transaction.run(
        """
        UPDATE account SET used = used - %s
         WHERE account_id = (SELECT owner_id FROM image WHERE image_id = %s)
        """,
        (size, image_id),
    )
    # Who uploads may no longer, and the new owner did not promise the room.
    await fence_uploads(transaction, image_id)
    await transaction.run(
        "UPDATE image SET owner_id = %s WHERE image_id = %s", (known[0], image_id)
    )
    await transaction.run(
        "UPDATE blob SET payer_id = %s WHERE image_id = %s AND state = 'present'",
        (known[0], image_id),
    )


class ImageRecords:
    """The :class:`~repoman.records.IImageRecords` of PostgreSQL."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def find(self, owner: str, name: str, within: Reach) -> Image | None:
        """An image by its owner's and its own name, if it lies within somebody's reach."""
        return await self._find(SELECT + BY_NAME, {"owner": owner, "name": name}, within)

    async def find_either(
        self, word: str, own: str | None, name: str, within: Reach
    ) -> Image | None:
        """The image of user ``word``; or that of user ``own``, if ``word`` is a hypervisor."""
        return await self._find(SELECT + EITHER, {"word": word, "own": own, "name": name}, within)

    async def _find(self, sql: str, names: Mapping[str, str | None], within: Reach) -> Image | None:
        if any(name and len(name) > NAME_LIMIT for name in names.values()):
            return None  # nothing has such a name, and what strangers ask for is remembered
        images = await self._pool.ask(sql, {**names, **reached(within)}, image_from_row)
        return images[0] if images else None

    async def create(self, new: NewImage) -> Image:
        """Make an image.

        :raises AlreadyExists: the owner has one of that name.
        :raises Invalid: there is no such owner.
        :raises Conflict: a hypervisor's name is a user's.
        """

        async def work(transaction: Transaction) -> Image:
            row = await transaction.run_one(
                """
                INSERT INTO image (owner_id, name, description, os_variant, os_type, os_arch,
                                   expires, read_only, unauthenticated_access, keeps_files)
                SELECT account_id, %s, %s, %s, %s, %s, %s, %s, %s, %s
                  FROM account WHERE user_name = %s
                RETURNING image_id
                """,
                (
                    new.name, new.description, new.os_variant, new.os_type, new.os_arch,
                    new.expires, new.read_only, new.unauthenticated_access, new.keeps_files,
                    new.owner,
                ),
            )  # fmt: skip
            if row is None:
                raise Invalid(f"There is no user {new.owner}.", field="user_name")
            await _set_hypervisors(transaction, row[0], new.hypervisors)
            subject = f"{new.owner}/{new.name}"
            transaction.record(Change("image.create", subject, asdict(new, recurse=False)))
            return await load(transaction, row[0])

        with translated(name=f"{new.owner}/{new.name}"):
            return await self._pool.interact(work)

    async def change(self, image: Image, changes: Mapping[str, Any], quota: int) -> Image:
        """Set fields: columns, ``owner`` and ``hypervisors``.

        :param quota: of the new owner, in bytes, unless they have their own.
        :raises Missing: it is gone meanwhile.
        """
        columns = {name: value for name, value in changes.items() if name in COLUMNS}

        async def work(transaction: Transaction) -> Image:
            await _lock(transaction, image)
            assignments = "".join(f", {name} = %({name})s" for name in columns)
            row = await transaction.run_one(
                f"UPDATE image SET modified = now(){assignments}"  # noqa: S608 names from COLUMNS
                " WHERE image_id = %(image_id)s RETURNING image_id",
                {**columns, "image_id": image.id},
            )
            if row is None:
                raise Missing("The image was deleted meanwhile.")
            if "hypervisors" in changes:
                await drop_files(transaction, image.id, changes["hypervisors"])
                await _set_hypervisors(transaction, image.id, changes["hypervisors"])
            if changes.get("owner", image.owner) != image.owner:
                await _give_away(transaction, image.id, changes["owner"], quota)
            transaction.record(Change("image.modify", image.path, changes))
            return await load(transaction, image.id)

        name = f"{changes.get('owner', image.owner)}/{changes.get('name', image.name)}"
        with translated(name=name):
            return await self._pool.interact(work)

    async def delete(self, image: Image) -> None:
        """Remove an image; its blobs are marked for the sweeper."""

        async def work(transaction: Transaction) -> None:
            await _lock(transaction, image)
            await drop_files(transaction, image.id)
            statement = "DELETE FROM image WHERE image_id = %s"
            if await transaction.execute(statement, (image.id,)):
                files = {f.hypervisor: f.digests.sha256 for f in image.files.values()}
                transaction.record(Change("image.delete", image.path, {"files": files}))

        await self._pool.interact(work)

    async def share(self, image: Image, *, user: str = "", group: str = "") -> None:
        """Share with a user or a group.  Harmless twice.

        :raises Invalid: no such user or group.
        """
        await self._sharing(
            "image.share",
            image,
            user,
            group,
            "INSERT INTO image_shared_with_user VALUES (%s, %s) ON CONFLICT DO NOTHING",
            "INSERT INTO image_shared_with_group VALUES (%s, %s) ON CONFLICT DO NOTHING",
        )

    async def unshare(self, image: Image, *, user: str = "", group: str = "") -> None:
        """End the sharing.  Harmless twice.

        :raises Invalid: no such user or group.
        """
        await self._sharing(
            "image.unshare",
            image,
            user,
            group,
            "DELETE FROM image_shared_with_user WHERE image_id = %s AND account_id = %s",
            "DELETE FROM image_shared_with_group WHERE image_id = %s AND group_id = %s",
        )

    async def _sharing(
        self, action: str, image: Image, user: str, group: str, with_user: str, with_group: str
    ) -> None:
        find, name, statement = (
            ("SELECT account_id FROM account WHERE user_name = %s", user, with_user)
            if user
            else ("SELECT group_id FROM user_group WHERE name = %s", group, with_group)
        )

        async def work(transaction: Transaction) -> None:
            await _lock(transaction, image, to_share=True)
            row = await transaction.run_one(find, (name,))
            if row is None:
                kind = "user" if user else "group"
                raise Invalid(f"There is no {kind} {name}.", field=kind)
            if await transaction.execute(statement, (image.id, row[0])):
                detail = {"user": user} if user else {"group": group}
                transaction.record(Change(action, image.path, detail))

        with translated(name=image.name):
            await self._pool.interact(work)

    async def require_group(self, name: str) -> None:
        """Do nothing, if there is such a group.

        :raises Invalid: there is none.
        """
        if not await self._pool.query("SELECT 1 FROM user_group WHERE name = %s", (name,)):
            raise Invalid(f"There is no group {name}.", field="group")

    async def listing(self, wanted: Listing) -> list[Image]:
        """The images wanted, in order; one query."""
        condition, params = image_query(wanted)
        return [image_from_row(r) for r in await self._pool.query(SELECT + condition, params)]

    async def batches(self, wanted: Listing, size: int) -> AsyncGenerator[list[Image]]:
        """The same, so many at a time; also one query."""
        condition, params = image_query(wanted)
        async with aclosing(self._pool.batches(SELECT + condition, params, size)) as batches:
            async for rows in batches:
                yield [image_from_row(row) for row in rows]

    async def names(self, wanted: Listing) -> list[tuple[str, str]]:
        """Their ``(owner, name)`` pairs only."""
        condition, params = image_query(wanted)
        return [(r[0], r[1]) for r in await self._pool.query(NAMES + condition, params)]

    async def expire_images(self, kept: float) -> int:
        """Let go of the files of images that expired ``kept`` seconds ago; answer how many images.

        Read-only images keep theirs, and so do those that got one since.
        """

        async def work(transaction: Transaction) -> int:
            expired = await transaction.run(EXPIRED, {"kept": kept})
            for image_id, path in expired:
                await drop_files(transaction, image_id)
                transaction.record(Change("image.expire", path))
            return len(expired)

        return await self._pool.interact(work)
