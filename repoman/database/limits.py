"""How much one user can add to the records: asked in the transaction that adds it."""

from __future__ import annotations

from collections.abc import Collection

from repoman.database.pool import Transaction
from repoman.errors import LimitReached
from repoman.model import KNOWN_HYPERVISORS, Image
from repoman.records import ImageLimits

LOCK = "SELECT FROM account WHERE account_id = %s FOR NO KEY UPDATE"

COUNTS = """
SELECT user_name,
       (SELECT count(*) FROM image WHERE owner_id = %(owner)s),
       CASE WHEN %(words)s THEN (
           SELECT count(DISTINCT hypervisor)
             FROM image JOIN image_hypervisor USING (image_id) JOIN word ON word = hypervisor
            WHERE owner_id = %(owner)s AND NOT lasting) ELSE 0 END
  FROM account WHERE account_id = %(owner)s
"""

SHARES = """
SELECT (SELECT count(*) FROM image_shared_with_user WHERE image_id = %(image)s)
     + (SELECT count(*) FROM image_shared_with_group WHERE image_id = %(image)s)
"""


async def check_owner(
    transaction: Transaction, owner_id: int, added: Collection[str], limits: ImageLimits | None
) -> None:
    """Refuse the image, or the hypervisors, that an owner just got: there are too many.

    :param added: the hypervisors.
    :raises LimitReached: the transaction must end by it.
    """
    if limits is None:
        return
    # Who adds at the same time counts after us.  In the usual order: after locks on images.
    await transaction.run(LOCK, (owner_id,))
    words = bool(set(added) - set(KNOWN_HYPERVISORS))
    row = await transaction.run_one(COUNTS, {"owner": owner_id, "words": words})
    if row is None:
        return
    owner, images, named = row
    if images > limits.images:
        raise LimitReached(
            f"User {owner} has {limits.images} images, and nobody may have more; delete some, or "
            "ask the administrator ([limits] images)."
        )
    if named > limits.hypervisors:
        raise LimitReached(
            f"The images of user {owner} name {limits.hypervisors} hypervisors of their own, and "
            "nobody's may name more; ask the administrator ([limits] hypervisors).",
            field="hypervisor",
        )


async def check_shares(transaction: Transaction, image: Image, limits: ImageLimits | None) -> None:
    """Refuse the share that an image just got: there are too many.

    :raises LimitReached: the transaction must end by it.
    """
    if limits is None:
        return
    await transaction.run("SELECT FROM image WHERE image_id = %s FOR NO KEY UPDATE", (image.id,))
    row = await transaction.run_one(SHARES, {"image": image.id})
    if row is not None and row[0] > limits.shares:
        raise LimitReached(
            f"Image {image.path} is shared with {limits.shares} users and groups, and none may be "
            "with more; share it with a group, or ask the administrator ([limits] shares)."
        )
