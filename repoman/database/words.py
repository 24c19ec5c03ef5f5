"""The words that users and hypervisors share: what takes one, and when it is free again."""

from __future__ import annotations

from collections.abc import Sequence

from repoman.database.locks import OWNER, WORDS
from repoman.database.pool import Transaction
from repoman.errors import AlreadyExists

IMAGES_OF = """
SELECT user_name, count(*)
  FROM word JOIN image_hypervisor ON hypervisor = word JOIN image USING (image_id)
       JOIN account ON account_id = owner_id
 WHERE word = %s AND NOT lasting GROUP BY user_name ORDER BY count(*) DESC, user_name LIMIT 1
"""
"""Whose images have most use for a word that was not known from the start; and how many."""

KEPT = "SELECT word FROM word WHERE word = ANY(%s) ORDER BY word FOR KEY SHARE"
"""The words that are there already, and stay until the transaction ends."""

# Whatever the conflict: named, one index alone would be looked into, and of two that add the same
# word at the same moment one would fail by the other index.
ADD = """
INSERT INTO word SELECT name, 'hypervisor' FROM unnest(%s::text[]) AS name ORDER BY name
ON CONFLICT DO NOTHING
"""


def taken_by_images(name: str, owner: str, images: int) -> AlreadyExists:
    """The refusal of a name that is a word of somebody's images."""
    return AlreadyExists(
        f"The name {name} is a hypervisor of images: {images} of user {owner} name it.  "
        "It is free as soon as no image does.",
        field="user_name",
    )


async def set_hypervisors(
    transaction: Transaction, image_id: int, hypervisors: Sequence[str]
) -> None:
    """Let an image be for these, in this order; what only the others named is free again."""
    await transaction.run(OWNER, (image_id,))
    await transaction.run(WORDS, {"image": image_id, "added": list(hypervisors)})
    while len(await transaction.run(KEPT, (list(hypervisors),))) < len(set(hypervisors)):
        # One is new, or its last user has just taken it away.
        await transaction.run(ADD, (list(hypervisors),))
    # The images' files hang on these rows: drop only what is no longer listed.
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
