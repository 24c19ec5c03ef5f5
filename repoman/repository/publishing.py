"""The last step of every upload: from durable bytes to an image that points to them."""

from __future__ import annotations

from repoman.errors import DatabaseUnavailable, OutcomeUnknown
from repoman.interfaces import Committed, IBlobRecords, Precondition
from repoman.model import Image


async def publish(
    records: IBlobRecords,
    key: str,
    committed: Committed,
    quota: int,
    precondition: Precondition | None = None,
) -> Image:
    """Let the image point to a committed blob; settle the outcome if the link breaks.

    :param quota: of owners without one of their own, in bytes.
    :raises OutcomeUnknown: nobody can say now; the blob must be left alone.
    :raises Conflict: the image was deleted meanwhile.
    :raises NotIdentified: the uploader was suspended or deleted meanwhile.
    :raises NotPermitted: the uploader may no longer upload to the image.
    :raises QuotaExceeded: the owner has no room for it.
    :raises PreconditionFailed: the file that it would replace is another by now.
    """
    try:
        return await records.finish(key, committed, quota, precondition)
    except OutcomeUnknown:
        # COMMIT was on its way when the line broke: ask what became of it.
        state = await _ask(records, key)
    if state == "receiving":
        return await records.finish(key, committed, quota, precondition)
    image = await records.image_of(key) if state == "present" else None
    if image is None:
        raise OutcomeUnknown("The upload's fate is not known yet; look at the image again.")
    return image


async def _ask(records: IBlobRecords, key: str) -> str | None:
    try:
        return await records.state(key)
    except DatabaseUnavailable:
        raise OutcomeUnknown(
            "The database went away at the very end; look at the image again before "
            "you repeat the upload."
        ) from None
