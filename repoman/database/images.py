"""Images: their rows, and who they are shared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from types import MappingProxyType
from typing import Any

from attrs import asdict

from repoman.audit import Change
from repoman.database.constraints import translated
from repoman.database.giving import fence_uploads, give, offer_to
from repoman.database.limits import check_owner, check_shares
from repoman.database.listings import (
    BY_NAME,
    EITHER,
    PLACES,
    PUBLISHERS,
    SORTS,
    image_query,
    reached,
)
from repoman.database.locks import ACCOUNTS, OWNER
from repoman.database.pool import Pool, Transaction
from repoman.database.words import set_hypervisors
from repoman.errors import Invalid, Missing
from repoman.model import NAME_LIMIT, Digests, Image, ImageFile
from repoman.policy import protected
from repoman.reach import Reach
from repoman.records import ImageLimits, Listing, NewImage, Place

SELECTED = """
       i.image_id, i.uuid, i.name, i.owner_id, o.user_name, i.modified, i.uploaded, i.expires,
       i.description, i.os_variant, i.os_type, i.os_arch, i.read_only,
       i.unauthenticated_access, i.version,
       ARRAY(SELECT hypervisor FROM image_hypervisor h
              WHERE h.image_id = i.image_id ORDER BY position),
       (SELECT json_agg(json_build_array(
                   f.hypervisor, b.blob, b.size, b.sha256, b.sha512, b.md5, b.adler32,
                   extract(epoch FROM f.uploaded), f.version,
                   extract(epoch FROM greatest(coalesce(f.bound, f.uploaded), i.bound, o.bound)),
                   b.state = 'damaged'))
          FROM image_file f JOIN blob b USING (blob) WHERE f.image_id = i.image_id),
       ARRAY(SELECT user_name FROM image_shared_with_user s JOIN account USING (account_id)
              WHERE s.image_id = i.image_id ORDER BY 1),
       ARRAY(SELECT g.name FROM image_shared_with_group s JOIN user_group g USING (group_id)
              WHERE s.image_id = i.image_id ORDER BY 1),
       ARRAY(SELECT g.name FROM membership m JOIN user_group g USING (group_id)
              WHERE m.account_id = i.owner_id ORDER BY 1)
"""
"""What an image is made of, for a query of ``image i`` and its owner, ``account o``."""

SELECT = f"SELECT {SELECTED} FROM image i JOIN account o ON o.account_id = i.owner_id"  # noqa: S608 a constant

EXPIRED = """
SELECT image_id, (SELECT user_name FROM account WHERE account_id = owner_id) || '/' || name
  FROM image i
 WHERE expires < now() - %(kept)s * interval '1 s' AND NOT read_only AND NOT keeps_files
   AND uploaded < now() - %(kept)s * interval '1 s'
   AND EXISTS (SELECT FROM image_file f WHERE f.image_id = i.image_id)
   AND NOT EXISTS (SELECT FROM blob b WHERE b.image_id = i.image_id AND b.state = 'receiving')
 ORDER BY owner_id, image_id LIMIT 100 FOR UPDATE SKIP LOCKED
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
                datetime.fromtimestamp(uploaded, timezone.utc), version,
                datetime.fromtimestamp(bound, timezone.utc), damaged,
            )
            for hypervisor, blob, size, *digests, uploaded, version, bound, damaged in rows
        }
    )  # fmt: skip


async def load(transaction: Transaction, image_id: int) -> Image:
    """An image by its key, within a transaction."""
    row = await transaction.run_one(SELECT + " WHERE i.image_id = %s", (image_id,))
    if row is None:
        raise Missing("The image was deleted meanwhile.")
    return image_from_row(row)


async def drop_files(transaction: Transaction, image_id: int, kept: Sequence[str] = ()) -> None:
    """Let go of an image's files but those of the hypervisors ``kept``.

    The image's row must be locked, so that no upload to it ends meanwhile.
    Their bytes no longer count on the owner's quota and are the sweeper's;
    uploads on their way to them are fenced off.
    """
    await transaction.run(OWNER, (image_id,))
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


async def lock(transaction: Transaction, image: Image) -> None:
    """Keep others from changing an image; it may be read-only, or another's, since it was loaded.

    :raises Missing: it is another's.
    """
    row = await transaction.run_one(
        "SELECT read_only, owner_id FROM image WHERE image_id = %s FOR UPDATE", (image.id,)
    )
    if row is not None and row[1] != image.owner_id:
        raise _given_away(image)
    if row is not None and row[0] and not image.read_only:
        raise protected("image.read_only")


def _given_away(image: Image) -> Missing:
    return Missing(f"The image {image.path} was deleted or given away meanwhile.")


async def _change(transaction: Transaction, image: Image, changes: Mapping[str, Any]) -> None:
    """Set what belongs to the image itself, but not its name if it goes to another owner."""
    columns = {name: value for name, value in changes.items() if name in COLUMNS}
    if changes.get("owner", image.owner) != image.owner:
        columns.pop("name", None)
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
        await set_hypervisors(transaction, image.id, changes["hypervisors"])
    transaction.record(Change("image.modify", image.path, changes))


class ImageRecords:
    """The :class:`~repoman.records.IImageRecords` of PostgreSQL.

    :param limits: ``None``: there are none, as for the operator.
    """

    def __init__(self, pool: Pool, limits: ImageLimits | None = None) -> None:
        self._pool = pool
        self._limits = limits

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
                  FROM account WHERE user_name = %s FOR NO KEY UPDATE
                RETURNING image_id, owner_id
                """,
                (
                    new.name, new.description, new.os_variant, new.os_type, new.os_arch,
                    new.expires, new.read_only, new.unauthenticated_access, new.keeps_files,
                    new.owner,
                ),
            )  # fmt: skip
            if row is None:
                raise Invalid(f"There is no user {new.owner}.", field="user_name")
            await set_hypervisors(transaction, row[0], new.hypervisors)
            await check_owner(transaction, row[1], new.hypervisors, self._limits)
            subject = f"{new.owner}/{new.name}"
            transaction.record(Change("image.create", subject, asdict(new, recurse=False)))
            return await load(transaction, row[0])

        with translated(name=f"{new.owner}/{new.name}"):
            return await self._pool.interact(work)

    async def change(self, image: Image, changes: Mapping[str, Any], quota: int) -> Image:
        """Set fields: columns, ``owner``, ``hypervisors``; and ``recipient``, who gets an offer.

        :param quota: of the new owner, in bytes, unless they have their own.
        :raises Missing: it is gone, or given away, meanwhile.
        """
        changes = dict(changes)
        recipient, owner = changes.pop("recipient", None), changes.get("owner", image.owner)

        async def work(transaction: Transaction) -> Image:
            await lock(transaction, image)
            await transaction.run(ACCOUNTS, ([image.owner_id], [owner, recipient]))
            if changes or recipient is None:  # an offer alone leaves the record as it is
                await _change(transaction, image, changes)
            new = set(changes.get("hypervisors", ())) - set(image.hypervisors)
            if owner != image.owner:
                await give(transaction, image, owner, quota, self._limits, changes.get("name"))
                return await load(transaction, image.id)
            if new:
                await check_owner(transaction, image.owner_id, new, self._limits)
            if recipient or "owner" in changes:
                await offer_to(transaction, image, recipient or owner)
            return await load(transaction, image.id)

        with translated(name=f"{owner}/{changes.get('name', image.name)}"):
            return await self._pool.interact(work)

    async def delete(self, image: Image) -> None:
        """Remove an image; its blobs are marked for the sweeper."""

        async def work(transaction: Transaction) -> None:
            await lock(transaction, image)
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
            owned = "SELECT 1 FROM image WHERE image_id = %s AND owner_id = %s FOR KEY SHARE"
            if await transaction.run_one(owned, (image.id, image.owner_id)) is None:
                raise _given_away(image)
            row = await transaction.run_one(find, (name,))
            if row is None:
                kind = "user" if user else "group"
                raise Invalid(f"There is no {kind} {name}.", field=kind)
            if await transaction.execute(statement, (image.id, row[0])):
                if action == "image.share":
                    await check_shares(transaction, image, self._limits)
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

    async def places(self, wanted: Listing) -> list[Place]:
        """The same by name only: cheaper."""
        condition, params = image_query(wanted)
        head = PLACES.format(column=SORTS[wanted.sort])
        rows = await self._pool.query(head + condition, params)
        return [Place(owner, name, (value, key)) for owner, name, value, key in rows]

    async def publishers(self, after: str, limit: int) -> list[str]:
        """Users who have a public image that can be fetched, in order; those after a name."""
        rows = await self._pool.query(PUBLISHERS, {"after": after, "limit": limit})
        return [name for (name,) in rows]

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
