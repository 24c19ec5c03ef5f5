"""The audit, under the policy."""

from __future__ import annotations

from twisted.logger import Logger

from repoman.audit import REFUSED, AuditQuery, Change, Entry
from repoman.errors import RepomanError
from repoman.model import Caller
from repoman.policy import authorize
from repoman.records import IAuditRecords

_log = Logger()


class Audit:
    """Who changed what, for administrators.

    :ivar kept: how long rows are kept, in seconds.
    """

    def __init__(self, records: IAuditRecords, kept: float) -> None:
        self._records = records
        self.kept = kept

    async def listing(self, caller: Caller, wanted: AuditQuery) -> list[Entry]:
        """The rows wanted, the newest first."""
        authorize("audit.read", caller)
        return await self._records.listing(wanted)

    async def refused(self, action: str, subject: str, error: RepomanError) -> None:
        """Note that a change was refused; if that cannot be, say so in the log."""
        detail = {"error": type(error).__name__, "rule": error.rule, "reason": error.message}
        try:
            await self._records.add(Change(action, subject, detail, REFUSED))
        except RepomanError as trouble:
            _log.warn("A refusal is not in the audit: {reason}", reason=trouble.message)

    async def prune(self) -> int:
        """Forget rows that are too old; answer how many."""
        removed = await self._records.prune(self.kept)
        _, newest = await self._records.ends()
        _log.info("Audit: row {n} has the digest {digest}", n=newest.number, digest=newest.digest)
        return removed
