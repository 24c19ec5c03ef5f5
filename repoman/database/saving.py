"""What a backup and its restoration ask of the database."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import field, frozen
from attrs.validators import ge, instance_of, lt, matches_re
from psycopg2.extensions import make_dsn, parse_dsn

from repoman.audit import Change
from repoman.database.child import ChildFailed, run
from repoman.database.pool import Pool, Transaction
from repoman.database.programs import Programs, find_programs
from repoman.errors import DatabaseUnavailable, Misconfigured

LOCK = 0x7265706F, 0x6D616E00
"""The advisory lock of a running backup: while it is held, no file is removed."""

NOBODY_SAVES = f"""NOT EXISTS (
    SELECT FROM pg_locks JOIN pg_database d ON d.oid = database AND datname = current_database()
     WHERE locktype = 'advisory' AND classid = {LOCK[0]} AND objid = {LOCK[1]} AND granted)"""
"""A condition: no backup runs."""


BIND_ALL = """
WITH latest AS (
    UPDATE repository SET freed = greatest(freed, clock_timestamp(),
        (SELECT max(date) FROM file_date), (SELECT max(freed) FROM account))
    RETURNING freed)
UPDATE account SET bound = date_trunc('second', latest.freed) + interval '1 s' FROM latest
"""
"""Dates every address anew: after the backup was made, it may have had other bytes."""

KEY, SHA256 = "[0-9a-f]{32}", "[0-9a-f]{64}"
"""The form of a blob's key and of a digest, as patterns."""


@frozen
class SavedBlob:
    """A file of a backup.

    :ivar size: in bytes.
    :ivar needed: its image is not deleted or replaced.
    :raises ValueError: the key could lead out of the store, or a digest is none.
    :raises TypeError: something is of another type.
    """

    blob: str = field(validator=matches_re(KEY))
    size: int = field(validator=[instance_of(int), ge(0), lt(2**63)])
    sha256: str = field(validator=matches_re(SHA256))
    needed: bool = field(default=True, validator=instance_of(bool))


async def keep_files(transaction: Transaction) -> None:
    """Let no file be removed until this transaction, which may take hours, is over."""
    await transaction.run("SET LOCAL idle_in_transaction_session_timeout = 0")
    await transaction.run("SELECT pg_advisory_xact_lock_shared(%s, %s)", LOCK)


async def saved_blobs(transaction: Transaction) -> list[SavedBlob]:
    """All files that a dump made a moment ago can name as present, in order, and a few more."""
    rows = await transaction.run(
        "SELECT blob, size, sha256, state = 'present' FROM blob"
        " WHERE state IN ('present', 'deleting') AND sha256 IS NOT NULL ORDER BY blob"
    )
    return [SavedBlob(*row) for row in rows]


async def is_empty(pool: Pool) -> bool:
    """The database has no tables yet."""
    rows = await pool.query(
        "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
        " WHERE relkind IN ('r', 'p', 'v') AND nspname NOT IN ('pg_catalog', 'information_schema')"
        " AND nspname NOT LIKE 'pg\\_%' LIMIT 1"
    )
    return not rows


async def settle(pool: Pool, stamps: dict[str, str], backup: str) -> None:
    """After a restoration: the files' stamps are these, and no upload is under way any more.

    :param stamps: by blob.
    :param backup: what the audit shall call it.
    """

    async def work(transaction: Transaction) -> None:
        await transaction.allow(3600)
        await transaction.run(
            "UPDATE blob SET stamp = known.stamp"
            " FROM unnest(%s::text[], %s::text[]) AS known (key, stamp) WHERE blob = key",
            (list(stamps), list(stamps.values())),
        )
        # Their bytes are in no backup.
        await transaction.run(
            "UPDATE blob SET keep_until = now() - interval '1 s', lease = now() - interval '1 s'"
            " WHERE state = 'receiving'"
        )
        await transaction.run(BIND_ALL)
        transaction.record(Change("repository.restore", backup, {"files": len(stamps)}))

    await pool.interact(work)


async def dump(reactor: Any, pool: Pool | Transaction, dsn: str, file: Path) -> None:
    """Write a consistent copy of the database, in pg_dump's custom format.

    :raises DatabaseUnavailable: with pg_dump's reason.
    """
    programs = await _programs(reactor, pool)
    options = ["--format=custom", "--no-owner", "--no-privileges", f"--file={file}"]
    await _run(reactor, programs, "pg_dump", dsn, options)


async def load(reactor: Any, pool: Pool, dsn: str, file: Path) -> None:
    """Read a dump into an empty database: all of it or nothing.

    :raises DatabaseUnavailable: with pg_restore's reason.
    """
    programs = await _programs(reactor, pool)
    options = ["--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges"]
    await _run(reactor, programs, "pg_restore", dsn, [*options, str(file)])


async def _programs(reactor: Any, pool: Pool | Transaction) -> Programs:
    """The programs of the server's own version, or else the newest."""
    ask = pool.query if isinstance(pool, Pool) else pool.run
    [(number,)] = await ask("SHOW server_version_num")
    try:
        return await find_programs(reactor, str(int(number) // 10000))
    except Misconfigured:
        return await find_programs(reactor, None)


async def _run(
    reactor: Any, programs: Programs, name: str, dsn: str, options: Sequence[str]
) -> None:
    given = parse_dsn(dsn.replace("/proc/self/", f"/proc/{os.getpid()}/"))
    # Not on the command line, which everybody can read.
    secrets = {"PGPASSWORD": given.pop("password")} if "password" in given else {}
    program = str(programs.directory / name)
    try:
        command = [program, f"--dbname={make_dsn(**given)}", *options]
        await run(reactor, command, environment=secrets)
    except (ChildFailed, OSError) as error:
        raise DatabaseUnavailable(f"{name} did not succeed: {error}") from None
