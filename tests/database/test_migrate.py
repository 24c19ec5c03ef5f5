"""The schema moves forward, once, and never from what it does not know."""

from __future__ import annotations

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from psycopg2.errors import SyntaxError as SqlSyntaxError
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from repoman.database.migrate import Applied, Migration, migrate, pending, shipped
from repoman.database.pool import Pool
from repoman.errors import Misconfigured
from tests.postgres import on_server

FIRST = Migration(1, "first", "CREATE TABLE one (n integer); INSERT INTO one VALUES (1)")
SECOND = Migration(2, "second", "CREATE TABLE two (t text DEFAULT '100 %')")
THIRD = Migration(3, "third", "ALTER TABLE two ADD COLUMN more integer")
ALL = [FIRST, SECOND, THIRD]


def record(migration: Migration) -> Applied:
    return Applied(migration.number, migration.name, migration.digest)


def versions(dsn: str) -> list[tuple[int, str]]:
    return on_server(dsn, "SELECT number, name FROM schema_version ORDER BY number")  # type: ignore[return-value]


@pytest_twisted.ensureDeferred
async def test_migrations_are_applied_in_order_and_once(pool: Pool, dsn: str) -> None:
    assert await migrate(pool, ALL[:1]) == 1
    assert await migrate(pool, ALL) == 3
    assert await migrate(pool, ALL) == 3
    assert versions(dsn) == [(1, "first"), (2, "second"), (3, "third")]
    assert on_server(dsn, "SELECT n FROM one") == [(1,)]


@pytest_twisted.ensureDeferred
async def test_several_processes_may_migrate_at_once(pool: Pool, dsn: str) -> None:
    runs = [Deferred.fromCoroutine(migrate(pool, ALL)) for _ in range(4)]
    assert [await run for run in runs] == [3] * 4
    assert on_server(dsn, "SELECT n FROM one") == [(1,)]


@pytest_twisted.ensureDeferred
async def test_a_failing_migration_leaves_the_one_before(pool: Pool, dsn: str) -> None:
    broken = Migration(2, "broken", "CREATE TABLE two (n integer); CREATE TABEL three ()")
    with pytest.raises(SqlSyntaxError):
        await migrate(pool, [FIRST, broken])
    assert versions(dsn) == [(1, "first")]
    assert on_server(dsn, "SELECT to_regclass('two')") == [(None,)]
    assert await migrate(pool, ALL) == 3


@pytest_twisted.ensureDeferred
async def test_a_migration_may_take_longer_than_other_statements(dsn: str) -> None:
    pool = Pool(reactor, dsn, size=1, statement_timeout=0.1)
    await pool.start()
    assert await migrate(pool, [Migration(1, "slow", "SELECT pg_sleep(0.3)")]) == 1
    await pool.stop()


@pytest_twisted.ensureDeferred
async def test_a_newer_database_is_refused_with_both_versions_and_the_remedy(pool: Pool) -> None:
    await migrate(pool, ALL)
    with pytest.raises(Misconfigured) as caught:
        await migrate(pool, ALL[:2])
    (line,) = caught.value.mistakes
    assert line.startswith("[database] dsn: ")
    assert "version 3 (third)" in line
    assert "up to 2 (second)" in line
    assert "run the newer Repoman" in line


@pytest_twisted.ensureDeferred
async def test_a_changed_old_migration_is_refused(pool: Pool) -> None:
    await migrate(pool, ALL[:2])
    changed = Migration(2, "second", "CREATE TABLE two (t text)")
    with pytest.raises(Misconfigured, match=r"migration 2 \(second\) is not the one"):
        await migrate(pool, [FIRST, changed, THIRD])


def test_a_gap_in_the_records_is_refused() -> None:
    with pytest.raises(Misconfigured, match="is not the one"):
        pending([record(FIRST), record(THIRD)], ALL)


def test_a_gap_in_the_files_is_refused() -> None:
    with pytest.raises(Misconfigured, match="gap"):
        pending([], [FIRST, THIRD])


@given(st.integers(0, 9), st.integers(0, 9))
def test_what_is_pending_is_exactly_what_is_missing(done: int, known: int) -> None:
    migrations = [Migration(n, f"m{n}", f"SELECT {n}") for n in range(1, 10)]
    applied = [record(migration) for migration in migrations[:done]]
    if done > known:
        with pytest.raises(Misconfigured):
            pending(applied, migrations[:known])
    else:
        assert pending(applied, migrations[:known]) == migrations[done:known]


@pytest_twisted.ensureDeferred
async def test_those_that_are_shipped_work(pool: Pool) -> None:
    assert shipped()
    assert await migrate(pool) == len(shipped())


@pytest_twisted.ensureDeferred
async def test_words_that_no_image_names_are_free_after_the_migration(pool: Pool, dsn: str) -> None:
    before = [one for one in shipped() if one.number < 9]
    await migrate(pool, before)
    on_server(
        dsn,
        """
        INSERT INTO word VALUES ('alice', 'user'), ('used', 'hypervisor'), ('free', 'hypervisor');
        INSERT INTO account (user_name) VALUES ('alice');
        INSERT INTO image (owner_id, name, description)
        SELECT account_id, 'one', repeat('long ', 20000) FROM account;
        INSERT INTO image_hypervisor (image_id, position, hypervisor)
        SELECT image_id, 1, 'used' FROM image;
        INSERT INTO blob (blob, resumable, durable, keep_until)
        SELECT key, true, durable, now() + interval '7 d'
          FROM (VALUES ('empty', 0), ('begun', 9)) AS found (key, durable)
        """,
    )
    await migrate(pool, shipped())
    words = {word for (word,) in on_server(dsn, "SELECT word FROM word")}
    assert {"alice", "used", "xen", "kvm", "raw"} <= words
    assert "free" not in words
    assert on_server(dsn, "SELECT length(description) FROM image") == [(100_000,)]
    kept = "SELECT blob FROM blob WHERE keep_until > now() + interval '2 h'"
    assert on_server(dsn, kept) == [("begun",)]
    on_server(dsn, "DELETE FROM image")
    assert on_server(dsn, "SELECT word FROM word WHERE word IN ('used', 'xen')") == [("xen",)]
