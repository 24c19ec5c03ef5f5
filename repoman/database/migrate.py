"""Bring a database's tables to the form that this version of Repoman knows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from importlib.resources import files

from attrs import frozen

from repoman.database.pool import Pool, Transaction
from repoman.errors import Misconfigured

_LOCK = int.from_bytes(b"repoman", "big")
"""The advisory lock that lets one process migrate at a time."""

_LONGEST = 3600.0
"""Seconds that one migration may take."""

_FILE_NAME = re.compile(r"(?P<number>\d{4})_(?P<name>\w+)\.sql", re.ASCII)

_TABLE = """
CREATE TABLE IF NOT EXISTS schema_version (
    number integer PRIMARY KEY CHECK (number > 0),
    name text NOT NULL,
    sha256 text NOT NULL,
    applied timestamptz NOT NULL DEFAULT now()
)
"""


@frozen
class Migration:
    """One step of the schema: ``NNNN_name.sql``.

    :ivar number: counts from 1 without gaps.
    :ivar sql: statements without transaction control.
    """

    number: int
    name: str
    sql: str

    @property
    def digest(self) -> str:
        """The SHA-256 of the statements, which shows a change after the fact."""
        return sha256(self.sql.encode()).hexdigest()

    def __str__(self) -> str:
        return f"{self.number} ({self.name})"


@frozen
class Applied:
    """The record that a database keeps of a migration."""

    number: int
    name: str
    sha256: str


def shipped() -> list[Migration]:
    """The migrations of this version of Repoman, in order."""
    found = []
    for file in files("repoman.database").joinpath("migrations").iterdir():
        if match := _FILE_NAME.fullmatch(file.name):
            text = file.read_text(encoding="utf-8")
            found.append(Migration(int(match["number"]), match["name"], text))
    return sorted(found, key=lambda migration: migration.number)


def pending(applied: Sequence[Applied], known: Sequence[Migration]) -> list[Migration]:
    """What has still to be done to a database.

    :raises Misconfigured: this version of Repoman and the database do not
        belong together.
    """
    if [m.number for m in known] != list(range(1, len(known) + 1)):
        raise _refusal("this installation of Repoman has a gap in its migrations: reinstall it")
    if len(applied) > len(known):
        newest = known[-1] if known else "0"
        raise _refusal(
            f"the tables are of version {applied[-1].number} ({applied[-1].name}), this Repoman"
            f" knows versions up to {newest}: run the newer Repoman again, or restore a backup"
            " from before its first start"
        )
    for done, migration in zip(applied, known, strict=False):
        if (done.number, done.sha256) != (migration.number, migration.digest):
            raise _refusal(
                f"migration {migration} is not the one that made these tables, {done.number}"
                f" ({done.name}): install the release of Repoman that made them, or a later one"
            )
    return list(known[len(applied) :])


async def migrate(pool: Pool, migrations: Sequence[Migration] | None = None) -> int:
    """Apply what is missing, each migration in a transaction with its record.

    Any number of processes may do so at once.

    :param migrations: those of this version of Repoman, if not given.
    :returns: the version that the database has now.
    :raises Misconfigured: the database is newer than the code, or was made
        by other migrations.
    :raises DatabaseUnavailable: try again.
    """
    known = shipped() if migrations is None else migrations
    while await pool.interact(partial(_step, known)):
        pass
    return len(known)


async def _step(known: Sequence[Migration], transaction: Transaction) -> bool:
    """Apply the first pending migration; answer whether there was one."""
    await transaction.allow(_LONGEST)
    await transaction.run("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
    await transaction.run(_TABLE)
    rows = await transaction.run("SELECT number, name, sha256 FROM schema_version ORDER BY number")
    todo = pending([Applied(*row) for row in rows], known)
    if not todo:
        return False
    migration = todo[0]
    await transaction.run(migration.sql)
    await transaction.run(
        "INSERT INTO schema_version (number, name, sha256) VALUES (%s, %s, %s)",
        [migration.number, migration.name, migration.digest],
    )
    return True


def _refusal(line: str) -> Misconfigured:
    return Misconfigured([f"[database] dsn: {line}"])
