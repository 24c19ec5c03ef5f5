"""In whose hands an upload is, of all the processes that serve one repository."""

from __future__ import annotations

from typing import Protocol

from attrs import frozen


@frozen
class Resumption:
    """Leave to go on with an upload.

    :ivar room: the most that may still come, in bytes.
    :ivar was_mine: nobody else has added to it since this process did.
    """

    room: int
    was_mine: bool


class IHolders(Protocol):
    """The part of :class:`~repoman.interfaces.IBlobRecords` by which processes pass uploads on.

    An upload has one holder at most.  Who has not renewed its claim for some seconds, by the
    database's clock, is no holder any more: nothing that it says of the upload is recorded.
    """

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
