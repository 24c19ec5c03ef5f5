"""A new owner for an image: what is offered, what counts on whom then, and what ends."""

from __future__ import annotations

from collections.abc import Sequence

from repoman.audit import Change
from repoman.database.limits import check_owner
from repoman.database.locks import ACCOUNTS
from repoman.database.pool import Transaction
from repoman.errors import Conflict, Invalid, Missing, QuotaExceeded
from repoman.model import MOST_OFFERS, MOST_OFFERS_TO_ONE, OFFER_SECONDS, Image
from repoman.records import ImageLimits

STANDS = f"(f.made > now() - {OFFER_SECONDS} * interval '1 s')"
"""A condition on ``offer f``: it has not ended by itself."""

COUNT = f"""
SELECT count(*), count(*) FILTER (WHERE f.recipient_id = %(recipient)s)
  FROM offer f JOIN image i USING (image_id)
 WHERE i.owner_id = %(owner)s AND i.image_id <> %(image)s AND {STANDS}
"""  # noqa: S608 a constant

OFFER = """
INSERT INTO offer (image_id, recipient_id) VALUES (%(image)s, %(recipient)s)
ON CONFLICT (image_id) DO UPDATE SET recipient_id = excluded.recipient_id, made = excluded.made
"""

SIZE = """
SELECT coalesce(sum(b.size), 0) FROM image_file f JOIN blob b USING (blob) WHERE f.image_id = %s
"""

CHARGE = """
UPDATE account SET used = used + %(size)s
 WHERE account_id = %(recipient)s
   AND (%(size)s = 0 OR used + reserved + %(size)s <= coalesce(quota, %(quota)s))
RETURNING account_id
"""

# The name with the owner, in one statement: under the old owner nobody has to be free of it.
HAND_OVER = """
UPDATE image SET owner_id = %(recipient)s, name = coalesce(%(name)s, name),
                 unauthenticated_access = false, modified = now()
 WHERE image_id = %(image)s
"""

ENDS = (
    "DELETE FROM image_shared_with_user WHERE image_id = %(image)s",
    "DELETE FROM image_shared_with_group WHERE image_id = %(image)s",
    "DELETE FROM offer WHERE image_id = %(image)s",
    # What is damaged counts, too, until it is whole again or replaced.
    "UPDATE blob SET payer_id = %(recipient)s"
    " WHERE image_id = %(image)s AND state IN ('present', 'damaged')",
)
"""What follows a change of owner."""


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


async def lock_accounts(
    transaction: Transaction, owner_id: int, recipient: str, *, field: str = "owner"
) -> int:
    """Lock the accounts of both, always in one order, so that two gifts do not meet; return whose.

    :return: the key of the recipient's account.
    :raises Invalid: there is no such recipient.
    :raises Missing: the owner is gone.
    """
    rows = await transaction.run(ACCOUNTS, ([owner_id], [recipient]))
    keys = {name: key for key, name in rows}
    if recipient not in keys:
        raise Invalid(f"There is no user {recipient}.", field=field)
    if owner_id not in keys.values():
        raise Missing("The owner of the image is gone.")
    return int(keys[recipient])


async def give(
    transaction: Transaction,
    image: Image,
    recipient: str,
    quota: int,
    limits: ImageLimits | None,
    name: str | None = None,
) -> None:
    """Let an image, whose row is locked, be another user's.

    It is shared with nobody then, and not public: whom the giver let read it would go on reading
    what the new owner stores.

    :param quota: of the recipient, in bytes, unless they have one of their own.
    :param name: another one, which the image gets at the same moment.
    :raises Invalid: there is no such recipient.
    :raises QuotaExceeded: the recipient has no room for the image's bytes.
    :raises LimitReached: the recipient has as many images, or words, as may be.
    """
    recipient_id = await lock_accounts(transaction, image.owner_id, recipient)
    row = await transaction.run_one(SIZE, (image.id,))
    size = int(row[0]) if row else 0
    known = {
        "image": image.id, "recipient": recipient_id, "size": size, "quota": quota, "name": name,
    }  # fmt: skip
    if await transaction.run_one(CHARGE, known) is None:
        raise QuotaExceeded(
            f"The quota of user {recipient} has no room for the image's {size} bytes; "
            "delete something or ask for more."
        )
    await transaction.run(
        "UPDATE account SET used = used - %s WHERE account_id = %s", (size, image.owner_id)
    )
    # Who uploads may no longer, and the new owner did not promise the room.
    await fence_uploads(transaction, image.id)
    # What others add meanwhile under the old owner waits for this, and then sees the new one.
    await transaction.run(HAND_OVER, known)
    for statement in ENDS:
        await transaction.run(statement, known)
    await check_owner(transaction, recipient_id, image.hypervisors, limits)


async def offer_to(
    transaction: Transaction, image: Image, recipient: str, *, field: str = "owner"
) -> None:
    """Offer an image, whose row is locked, to a user; to its owner: to nobody any more.

    Nothing that the recipient has counts here, so nothing of it can show.

    :param field: the input that names the recipient.
    :raises Invalid: there is no such recipient.
    :raises Conflict: the owner offers as many images as one may.
    """
    recipient_id = await lock_accounts(transaction, image.owner_id, recipient, field=field)
    known = {"image": image.id, "owner": image.owner_id, "recipient": recipient_id}
    if recipient_id == image.owner_id:
        if await transaction.execute("DELETE FROM offer WHERE image_id = %(image)s", known):
            transaction.record(Change("image.withdraw", image.path))
        return
    made, made_to_one = await transaction.run_one(COUNT, known) or (0, 0)
    if made >= MOST_OFFERS or made_to_one >= MOST_OFFERS_TO_ONE:
        raise Conflict(
            f"User {image.owner} offers {made} images already, {made_to_one} of them to "
            f"{recipient}, and may offer {MOST_OFFERS}, {MOST_OFFERS_TO_ONE} to one user; "
            "withdraw an offer, or wait until one has ended."
        )
    await transaction.run(OFFER, known)
    transaction.record(Change("image.offer", image.path, {"recipient": recipient}))
