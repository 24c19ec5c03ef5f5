"""The audit, under the policy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from twisted.logger import Logger

from repoman.audit import REFUSED, AuditQuery, Change, Entry
from repoman.errors import RepomanError
from repoman.model import Caller, User
from repoman.policy import authorize
from repoman.records import IAuditRecords

_log = Logger()


HOUR = 3600.0
"""Seconds over which refusals are counted."""


class Audit:
    """Who changed what, for administrators.

    :ivar kept: how long rows are kept, in seconds.
    :ivar refusals: of one user, in an hour, that are noted.
    :param seconds: the time, monotonic.
    """

    def __init__(
        self,
        records: IAuditRecords,
        kept: float,
        refusals: int,
        seconds: Callable[[], float],
    ) -> None:
        self._records = records
        self.kept = kept
        self.refusals = refusals
        self._seconds = seconds
        self._hour = 0.0
        self._counted: Counter[int] = Counter()

    async def listing(self, caller: Caller, wanted: AuditQuery) -> list[Entry]:
        """The rows wanted, the newest first."""
        authorize("audit.read", caller)
        return await self._records.listing(wanted)

    async def numbers(self, caller: Caller, wanted: AuditQuery) -> list[int]:
        """The numbers of the rows wanted, the newest first."""
        authorize("audit.read", caller)
        return await self._records.numbers(wanted)

    async def refused(self, user: User, action: str, subject: str, error: RepomanError) -> None:
        """Note that a user was refused a change; if that cannot be, say so in the log.

        After so many in an hour it is noted once that more are not.
        """
        count = self._count(user)
        if count > self.refusals + 1:
            return
        detail = {"error": type(error).__name__, "rule": error.rule, "reason": error.message}
        if count > self.refusals:
            detail["more"] = "further refusals of this user are not noted for up to an hour"
        try:
            await self._records.add(Change(action, subject, detail, REFUSED))
        except RepomanError as trouble:
            _log.warn("A refusal is not in the audit: {reason}", reason=trouble.message)

    def _count(self, user: User) -> int:
        """How many of a user's refusals there were in this hour, with this one."""
        if (hour := self._seconds() // HOUR) != self._hour:
            self._hour, self._counted = hour, Counter()
        self._counted[user.id] += 1
        return self._counted[user.id]

    async def prune(self) -> int:
        """Forget rows that are too old; answer how many."""
        removed = await self._records.prune(self.kept)
        _, newest = await self._records.ends()
        _log.info("Audit: row {n} has the digest {digest}", n=newest.number, digest=newest.digest)
        return removed
