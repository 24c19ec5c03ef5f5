"""In whose hands an upload is, of all the processes that serve one repository."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from attrs import frozen

from repoman.model import User


@frozen
class Resumption:
    """Leave to go on with an upload.

    :ivar room: the most that may still come, in bytes.
    :ivar was_mine: nobody else has added to it since this process did.
    """

    room: int
    was_mine: bool


LONGEST = 14 * 86400.0
"""Seconds that an upload may take, unless somebody says otherwise."""


@frozen
class UploadTerms:
    """What an upload asks for and is bound to.

    :ivar size: announced, in bytes; ``None`` if unknown.
    :ivar quota: the payer's, in bytes, unless their account has its own.
    :ivar uploads: how many one user may run at once.
    :ivar lease: for how many seconds the upload lives without a renewal.
    :ivar keep: for how many seconds a resumable one is kept, paused;
        ``None`` for one that is not resumable.
    :ivar longest: seconds after its beginning from which on it is not resumed any more.
    """

    size: int | None
    quota: int
    uploads: int
    lease: float
    keep: float | None = None
    longest: float = LONGEST


class IHolders(Protocol):
    """The part of :class:`~repoman.interfaces.IBlobRecords` by which processes pass uploads on.

    An upload has one holder at most.  Who has not renewed its claim for some seconds, by the
    database's clock, is no holder any more: nothing that it says of the upload is recorded.
    """

    async def resume(
        self, blob: str, uploader: User, terms: UploadTerms, offset: int
    ) -> Resumption:
        """Let an upload run again, in the hands of this process.

        :param terms: their size is that of the whole, if it is known only now.
        :param offset: how many bytes of it are durable.
        :raises Missing: it is no more.
        :raises WrongOffset: more are durable by now.
        :raises Unavailable: another process has it.
        :raises QuotaExceeded: no room for the size that was not announced before.
        :raises TooManyUploads: the uploader runs as many as they may.
        """

    async def progress(self, durable: Mapping[str, int], keep: float) -> Mapping[str, bool]:
        """How many bytes of running uploads are durable by now, and that they are ours.

        Answers those that still are, and whether another process wants them.

        :param keep: for how many seconds those are kept that have more bytes than before.
        """

    async def pause(self, blob: str, durable: int, terms: UploadTerms) -> None:
        """An upload has stopped for now; bytes that nobody announced count from here on.

        Only new bytes let it be kept for longer.

        :param terms: how long it is kept, and the payer's quota.
        :raises QuotaExceeded: there is no room for the durable bytes; nothing is changed.
        :raises Conflict: it was given up meanwhile, or another process has it.
        """

    async def renew(self, blobs: Sequence[str], lease: float) -> None:
        """The uploads still live, for ``lease`` more seconds."""

    async def hand_over(self, blob: str) -> None:
        """Ask the process that has an upload, if another has it, to let go; wait until it did.

        :raises Unavailable: it does not.
        """

    def overdue(self) -> list[str]:
        """The running uploads that another process may take any moment, as far as we know.

        To be asked every second: who can no longer reach the records stops writing.
        """

    async def expire_leases_of(self, holder: str) -> int:
        """Give up the uploads in one piece of a process that is dead; answer how many.

        Of the resumable ones it has let go.
        """
