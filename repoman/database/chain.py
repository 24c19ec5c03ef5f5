"""How rows are added to the audit: at the very end of the transaction that they are about."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Protocol

from attrs import evolve

from repoman.audit import Change, Entry, Origin, bounded, chained, storable

# Whoever else is about to commit a change waits here, for a round trip or two.
_NEWEST = "SELECT newest, newest_digest, clock_timestamp() FROM audit_chain FOR UPDATE"
_ADD = """
WITH moved AS (UPDATE audit_chain SET newest = %s, newest_digest = %s)
INSERT INTO audit VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""


class IStatements(Protocol):
    """A transaction, as far as it is needed here."""

    async def run(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement; answer its rows."""


async def append(transaction: IStatements, origin: Origin, changes: Sequence[Change]) -> None:
    """Add a row for each change; nothing but COMMIT may follow, for others wait."""
    [(number, digest, time)] = await transaction.run(_NEWEST)
    who = Origin(*map(storable, (origin.user, origin.dn, origin.address, origin.request_id)))
    for change in changes:
        entry = Entry(number + 1, time, who, bounded(change))
        number, digest = entry.number, chained(digest, entry)
        await transaction.run(_ADD, (number, digest, *_row(evolve(entry, digest=digest))))


def _row(entry: Entry) -> tuple[Any, ...]:
    origin, change = entry.origin, entry.change
    return (
        entry.number, entry.time, origin.user, origin.dn, origin.address, origin.request_id,
        change.action, change.subject, change.outcome, json.dumps(change.detail), entry.digest,
    )  # fmt: skip
