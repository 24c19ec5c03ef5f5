"""The audit as records: read, pruned, verified."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timezone
from typing import Any

from repoman.audit import AuditQuery, Change, End, Entry, Origin, first_fault
from repoman.database.pool import Pool, Transaction

BATCH = 5000
"""Rows that are read or removed in one go."""

SELECT = """
SELECT number, moment, user_name, dn, address, request_id, action, subject, outcome, detail, digest
  FROM audit
"""

_CONDITIONS = {
    "user": "user_name = %(user)s",
    "action": "action = %(action)s",
    "subject": "subject = %(subject)s",
    "outcome": "outcome = %(outcome)s",
    "since": "moment >= %(since)s",
    "until": "moment < %(until)s",
    "after": "number < %(after)s",
}
"""What each part of an AuditQuery means."""

_OLD = """
SELECT number, digest FROM audit
 WHERE number = (SELECT max(number) FROM (
           SELECT number, moment FROM audit ORDER BY number LIMIT %s) AS oldest
        WHERE moment < now() - %s * interval '1 s')
"""


def entry_from_row(row: Sequence[Any]) -> Entry:
    """The entry that a row of SELECT stands for."""
    number, moment, user, dn, address, request_id, action, subject, outcome, detail, digest = row
    return Entry(
        number,
        moment.astimezone(timezone.utc),
        Origin(user, dn, address, request_id),
        Change(action, subject, detail, outcome),
        digest,
    )


class AuditRecords:
    """The :class:`~repoman.records.IAuditRecords` of PostgreSQL."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def add(self, change: Change) -> None:
        """Note something that no transaction of its own has noted: a refusal."""

        async def work(transaction: Transaction) -> None:
            transaction.record(change)

        await self._pool.interact(work)

    async def listing(self, wanted: AuditQuery) -> list[Entry]:
        """The rows wanted, the newest first."""
        return [entry_from_row(row) for row in await self._rows(SELECT, wanted)]

    async def numbers(self, wanted: AuditQuery) -> list[int]:
        """The numbers of the rows wanted, the newest first."""
        return [number for (number,) in await self._rows("SELECT number FROM audit", wanted)]

    async def _rows(self, head: str, wanted: AuditQuery) -> list[tuple[Any, ...]]:
        given = {name: getattr(wanted, name) for name in _CONDITIONS}
        given = {name: value for name, value in given.items() if value is not None}
        conditions = " AND ".join(_CONDITIONS[name] for name in given) or "true"
        return await self._pool.query(
            f"{head} WHERE {conditions} ORDER BY number DESC LIMIT %(limit)s",
            {**given, "limit": wanted.limit},
        )

    async def ends(self) -> tuple[End, End]:
        """The last row that was pruned, and the newest one."""
        rows = await self._pool.query(
            "SELECT pruned, pruned_digest, newest, newest_digest FROM audit_chain"
        )
        pruned, pruned_digest, newest, newest_digest = rows[0]
        return End(pruned, pruned_digest), End(newest, newest_digest)

    async def digest_of(self, number: int) -> str:
        """The digest of a row; empty if there is none of that number."""
        pruned, _ = await self.ends()
        if number == pruned.number:
            return pruned.digest
        rows = await self._pool.query("SELECT digest FROM audit WHERE number = %s", (number,))
        return str(rows[0][0]) if rows else ""

    async def fault(self) -> str:
        """Where the chain is broken, in words; empty if nowhere."""
        before, newest = await self.ends()
        pruned = before
        while True:
            rows = await self._pool.query(
                f"{SELECT} WHERE number > %s AND number <= %s ORDER BY number LIMIT %s",
                (before.number, newest.number, BATCH),
            )
            entries = [entry_from_row(row) for row in rows]
            if fault := first_fault(before, entries):
                # Old rows may have been pruned meanwhile.
                return fault if (await self.ends())[0] == pruned else await self.fault()
            if not entries:
                break
            before = End(entries[-1].number, entries[-1].digest)
        if before != newest:
            return f"rows {before.number + 1} to {newest.number}, the newest, are missing"
        rows = await self._pool.query(
            "SELECT count(*) FROM audit WHERE number <= %s", (pruned.number,)
        )
        return f"there are {rows[0][0]} rows before the pruned end" if rows[0][0] else ""

    async def prune(self, kept: float) -> int:
        """Remove rows older than ``kept`` seconds; answer how many.

        The digest of the last one stays, as what the chain begins with.
        """

        async def work(transaction: Transaction) -> int:
            await transaction.run("SELECT FROM audit_chain FOR UPDATE")
            row = await transaction.run_one(_OLD, (BATCH, kept))
            if row is None:
                return 0
            number, digest = row
            removed = await transaction.execute("DELETE FROM audit WHERE number <= %s", (number,))
            await transaction.run(
                "UPDATE audit_chain SET pruned = %s, pruned_digest = %s", (number, digest)
            )
            transaction.record(Change("audit.prune", f"up to {number}", {"digest": digest}))
            return removed

        total = 0
        while removed := await self._pool.interact(work):
            total += removed
            if removed < BATCH:
                break
        return total
