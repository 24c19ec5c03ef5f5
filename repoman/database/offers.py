"""Offers of images: their rows, and what becomes of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from repoman.audit import Change
from repoman.database.constraints import translated
from repoman.database.giving import STANDS, give, lock_accounts, offer_to
from repoman.database.images import SELECTED, image_from_row, load, lock
from repoman.database.pool import Pool, Transaction
from repoman.errors import Conflict
from repoman.model import OFFER_SECONDS, Image, Offer, User
from repoman.policy import missing_offer, protected
from repoman.records import ImageLimits, OfferPlace

OFFERS = f"""
SELECT {SELECTED}, r.user_name, f.made
  FROM offer f JOIN image i USING (image_id)
  JOIN account o ON o.account_id = i.owner_id JOIN account r ON r.account_id = f.recipient_id
 WHERE NOT o.suspended AND {STANDS}
"""  # noqa: S608 constants

ONE = """
   AND o.user_name = %(owner)s AND i.name = %(name)s
   AND (%(all)s OR i.owner_id = %(viewer)s OR f.recipient_id = %(viewer)s)
"""

OWN = """
   AND f.image_id IN (
       (SELECT image_id FROM offer WHERE recipient_id = %(viewer)s
         ORDER BY made DESC LIMIT %(each)s)
       UNION (SELECT image_id FROM offer JOIN image USING (image_id) WHERE owner_id = %(viewer)s
               ORDER BY made DESC LIMIT %(each)s))
   AND (%(made)s::timestamptz IS NULL OR f.made < %(made)s
        OR (f.made = %(made)s AND f.image_id > %(image)s))
 ORDER BY f.made DESC, f.image_id LIMIT %(limit)s
"""

# Who withdrew, or was suspended, a moment ago has not offered it.
TAKE = f"""
DELETE FROM offer f USING image i, account o, account r
 WHERE f.image_id = %(image)s AND i.image_id = f.image_id AND {STANDS}
   AND o.account_id = i.owner_id AND o.account_id = %(owner)s AND NOT o.suspended
   AND r.account_id = f.recipient_id AND r.account_id = %(recipient)s AND NOT r.suspended
"""  # noqa: S608 a constant

LOCK = "SELECT read_only, version FROM image WHERE image_id = %s AND owner_id = %s FOR UPDATE"


def offer_from_row(row: Sequence[Any]) -> Offer:
    """The offer that a row of OFFERS stands for."""
    *image, recipient, made = row
    return Offer(image_from_row(image), recipient, made, made + timedelta(seconds=OFFER_SECONDS))


class OfferRecords:
    """The :class:`~repoman.records.IOfferRecords` of PostgreSQL.

    :param limits: ``None``: there are none.
    """

    def __init__(self, pool: Pool, limits: ImageLimits | None = None) -> None:
        self._pool = pool
        self._limits = limits

    async def find(self, viewer: User, owner: str, name: str) -> Offer | None:
        """The offer of an image, for the owner, the recipient and administrators."""
        known = {"owner": owner, "name": name, "viewer": viewer.id, "all": viewer.is_admin}
        rows = await self._pool.query(OFFERS + ONE, known)
        return offer_from_row(rows[0]) if rows else None

    async def listing(
        self,
        viewer: User,
        limit: int,
        after: OfferPlace | None = None,
        each: int | None = None,
    ) -> list[Offer]:
        """What ``viewer`` offers and is offered, the newest first.

        :param each: how many of the ones, and of the others, at most.
        """
        known = {
            "viewer": viewer.id, "limit": limit, "each": each,
            "made": after and after[0], "image": after and after[1],
        }  # fmt: skip
        return [offer_from_row(row) for row in await self._pool.query(OFFERS + OWN, known)]

    async def make(self, image: Image, recipient: str) -> None:
        """Offer an image; one that was offered before is offered to this user now.

        :raises Invalid: there is no such recipient.
        :raises Missing: the image is gone, or given away, meanwhile.
        :raises Conflict: the owner offers as many images as one may.
        """

        async def work(transaction: Transaction) -> None:
            await lock(transaction, image)
            await offer_to(transaction, image, recipient, field="recipient")

        with translated(name=image.path):
            await self._pool.interact(work)

    async def accept(
        self, offer: Offer, recipient: User, quota: int, name: str, version: int | None
    ) -> Image:
        """Let the image be the recipient's, called ``name``.

        :param quota: of the recipient, in bytes, unless they have one of their own.
        :param version: of the image, as the recipient knows it.
        :raises Missing: the offer does not stand any more.
        :raises Protected: the image has become read-only.
        :raises Conflict: the image has another version.
        :raises AlreadyExists: the recipient has an image of that name.
        :raises QuotaExceeded: the recipient has no room for it.
        """
        image = offer.image
        known = {"image": image.id, "owner": image.owner_id, "recipient": recipient.id}

        async def work(transaction: Transaction) -> Image:
            row = await transaction.run_one(LOCK, (image.id, image.owner_id))
            if row is None:
                raise missing_offer(image.owner, image.name)
            await lock_accounts(transaction, image.owner_id, recipient.user_name)
            if not await transaction.execute(TAKE, known):
                raise missing_offer(image.owner, image.name)
            is_read_only, present = row
            if is_read_only:
                raise protected("offer.read_only")
            if version not in (None, present):
                raise Conflict(
                    f"The image {image.path} has got other files since you looked: it was version "
                    f"{version}, and is {present} now.  Look at it again before you accept it."
                )
            await give(transaction, image, recipient.user_name, quota, self._limits, name)
            detail = {"owner": recipient.user_name, "name": name}
            transaction.record(Change("image.accept", image.path, detail))
            return await load(transaction, image.id)

        with translated(name=f"{recipient.user_name}/{name}"):
            return await self._pool.interact(work)

    async def end(self, offer: Offer, action: str) -> None:
        """Let an offer stand no more.  Harmless twice.

        :param action: how it ended, for the audit.
        """
        # The one that was seen: not what the owner has offered to somebody else since.
        statement = "DELETE FROM offer WHERE image_id = %s AND made = %s"

        async def work(transaction: Transaction) -> None:
            if await transaction.execute(statement, (offer.image.id, offer.made)):
                detail = {"recipient": offer.recipient}
                transaction.record(Change(action, offer.image.path, detail))

        await self._pool.interact(work)
