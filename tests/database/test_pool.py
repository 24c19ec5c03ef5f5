"""Transactions in a real PostgreSQL that is well."""

from __future__ import annotations

import re
from typing import Any

import psycopg2.errors
import pytest
import pytest_twisted
from psycopg2.errors import (
    CheckViolation,
    ForeignKeyViolation,
    InFailedSqlTransaction,
    ReadOnlySqlTransaction,
    UniqueViolation,
)
from pytest_twisted import blockon
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.task import deferLater
from twisted.logger import formatEvent

from repoman.database.pool import ATTEMPTS, Pool, Transaction
from repoman.errors import Conflict, DatabaseUnavailable

TABLE = "CREATE TABLE thing (name text CONSTRAINT thing_name_taken UNIQUE, n integer DEFAULT 0)"


@pytest.fixture
def things(pool: Pool) -> Pool:
    """A pool whose database has a table."""
    blockon(pool.interact(lambda t: t.run(TABLE)))
    return pool


def insert(name: str) -> Any:
    async def work(transaction: Transaction) -> None:
        await transaction.run("INSERT INTO thing VALUES (%s)", [name])

    return work


async def names(pool: Pool) -> list[str]:
    return [name for (name,) in await pool.query("SELECT name FROM thing ORDER BY name")]


@pytest_twisted.ensureDeferred
async def test_work_is_committed_and_its_value_returned(things: Pool) -> None:
    async def work(transaction: Transaction) -> str:
        assert await transaction.execute("INSERT INTO thing VALUES ('a'), ('b')") == 2
        assert await transaction.run("SELECT 1 WHERE false") == []
        assert await transaction.run_one("SELECT 1 WHERE false") is None
        assert await transaction.run_one("SELECT %(x)s, %(y)s", {"x": 1, "y": "z"}) == (1, "z")
        return "value"

    assert await things.interact(work) == "value"
    assert await names(things) == ["a", "b"]


@pytest_twisted.ensureDeferred
async def test_a_failure_of_work_undoes_all_and_comes_out_as_it_is(things: Pool) -> None:
    async def work(transaction: Transaction) -> None:
        await transaction.run("INSERT INTO thing VALUES ('a')")
        raise Conflict("no")

    with pytest.raises(Conflict, match="no"):
        await things.interact(work)
    assert await names(things) == []


@pytest_twisted.ensureDeferred
async def test_violations_come_out_unchanged_with_their_constraint(pool: Pool) -> None:
    await pool.interact(
        lambda t: t.run(
            "CREATE TABLE parent (id integer CONSTRAINT parent_pkey PRIMARY KEY);"
            "CREATE TABLE child (id integer CONSTRAINT child_parent REFERENCES parent,"
            " n integer CONSTRAINT child_positive CHECK (n > 0));"
            "INSERT INTO parent VALUES (1)"
        )
    )
    for statement, expected, constraint in (
        ("INSERT INTO parent VALUES (1)", UniqueViolation, "parent_pkey"),
        ("INSERT INTO child VALUES (2, 1)", ForeignKeyViolation, "child_parent"),
        ("INSERT INTO child VALUES (1, 0)", CheckViolation, "child_positive"),
    ):
        with pytest.raises(expected) as caught:
            await pool.interact(lambda t, statement=statement: t.run(statement))  # type: ignore[misc]
        assert caught.value.diag.constraint_name == constraint


@pytest_twisted.ensureDeferred
async def test_a_constraint_checked_at_commit_comes_out_too(pool: Pool) -> None:
    await pool.interact(
        lambda t: t.run("CREATE TABLE late (n integer UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    )
    with pytest.raises(UniqueViolation):
        await pool.interact(lambda t: t.run("INSERT INTO late VALUES (1), (1)"))
    assert await pool.query("SELECT * FROM late") == []


@pytest_twisted.ensureDeferred
async def test_a_failed_statement_that_work_swallows_is_not_taken_for_success(
    things: Pool,
) -> None:
    await things.interact(insert("a"))

    async def work(transaction: Transaction) -> None:
        await transaction.run("INSERT INTO thing VALUES ('b')")
        with pytest.raises(UniqueViolation):
            await transaction.run("INSERT INTO thing VALUES ('a')")

    with pytest.raises(InFailedSqlTransaction):
        await things.interact(work)
    assert await names(things) == ["a"]


@pytest_twisted.ensureDeferred
async def test_a_transaction_can_be_used_in_its_work_only(things: Pool) -> None:
    async def work(transaction: Transaction) -> Transaction:
        return transaction

    over = await things.interact(work)
    with pytest.raises(RuntimeError, match="over"):
        await over.run("INSERT INTO thing VALUES ('a')")


@pytest_twisted.ensureDeferred
async def test_a_percent_sign_without_parameters_is_just_that(pool: Pool) -> None:
    assert await pool.query("SELECT 'ab' LIKE 'a%'") == [(True,)]
    assert await pool.query("SELECT 'ab' LIKE %s", ["a%"]) == [(True,)]


@pytest_twisted.ensureDeferred
async def test_a_query_cannot_write_so_that_it_may_be_sent_twice(things: Pool) -> None:
    with pytest.raises(ReadOnlySqlTransaction):
        await things.query("INSERT INTO thing VALUES ('a') RETURNING name")


@pytest_twisted.ensureDeferred
async def test_every_connection_has_our_settings(pool: Pool) -> None:
    wanted = {
        "statement_timeout": "30s",
        "lock_timeout": "15s",
        "idle_in_transaction_session_timeout": "30s",
        "application_name": "repoman",
        "client_encoding": "UTF8",
        "TimeZone": "UTC",
    }

    async def work(transaction: Transaction) -> dict[str, str]:
        await transaction.run("SELECT pg_sleep(0.05)")  # so that each gets a link of its own
        rows = await transaction.run(
            "SELECT name, current_setting(name) FROM unnest(%s) AS name", [list(wanted)]
        )
        return dict(rows)

    works = [pool.interact(work) for _ in range(4)]
    assert [await settings for settings in works] == [wanted] * 4


@pytest_twisted.ensureDeferred
async def test_no_more_connections_than_agreed(pool: Pool) -> None:
    async def work(transaction: Transaction) -> int:
        await transaction.run("SELECT pg_sleep(0.02)")
        row = await transaction.run_one("SELECT pg_backend_pid()")
        assert row is not None
        return int(row[0])

    works = [pool.interact(work) for _ in range(30)]
    assert len({await pid for pid in works}) == 4


@pytest_twisted.ensureDeferred
async def test_an_exhausted_pool_says_so_in_time(pool: Pool) -> None:
    sleepers = [pool.interact(lambda t: t.run("SELECT pg_sleep(1.5)")) for _ in range(4)]
    begun = reactor.seconds()
    with pytest.raises(DatabaseUnavailable, match="busy"):
        await pool.interact(lambda t: t.run("SELECT 1"))
    assert 0.9 < reactor.seconds() - begun < 1.4
    await DeferredList(sleepers)
    assert await pool.query("SELECT 1") == [(1,)]


@pytest_twisted.ensureDeferred
async def test_a_statement_that_takes_too_long_is_unavailable_in_plain_words(dsn: str) -> None:
    pool = Pool(reactor, dsn, size=1, statement_timeout=0.2)
    await pool.start()
    for attempt in (pool.query, lambda sql: pool.interact(lambda t: t.run(sql))):
        with pytest.raises(DatabaseUnavailable, match="took too long"):
            await attempt("SELECT pg_sleep(5)")
    assert await pool.query("SELECT 1") == [(1,)]
    await pool.stop()


@pytest_twisted.ensureDeferred
async def test_a_transaction_may_be_allowed_more_time(dsn: str) -> None:
    pool = Pool(reactor, dsn, size=1, statement_timeout=0.2)
    await pool.start()

    async def work(transaction: Transaction) -> None:
        await transaction.allow(10)
        await transaction.run("SELECT pg_sleep(0.5)")

    await pool.interact(work)
    with pytest.raises(DatabaseUnavailable):
        await pool.query("SELECT pg_sleep(0.5)")
    await pool.stop()


@pytest_twisted.ensureDeferred
async def test_a_cancelled_caller_leaves_its_transaction_to_its_end(things: Pool) -> None:
    async def work(transaction: Transaction) -> None:
        await transaction.run("SELECT pg_sleep(0.3)")
        await transaction.run("INSERT INTO thing VALUES ('a')")

    caller = things.interact(work)
    await deferLater(reactor, 0.1)
    caller.cancel()
    with pytest.raises(CancelledError):
        await caller
    await deferLater(reactor, 0.5)
    assert await names(things) == ["a"]


@pytest_twisted.ensureDeferred
async def test_a_failure_after_its_caller_has_gone_is_logged_once(
    pool: Pool, logged: list[dict[str, Any]]
) -> None:
    caller = pool.interact(lambda t: t.run("SELECT pg_sleep(0.2), 1 / 0 FROM pg_sleep(0.1)"))
    caller.addErrback(lambda failure: failure.trap(CancelledError))
    caller.cancel()
    await deferLater(reactor, 0.5)
    assert len(logged) == 1
    event = logged.pop()
    assert event["log_format"] == "A transaction failed after its caller had gone"
    assert event["log_failure"].check(psycopg2.errors.DivisionByZero)


@pytest_twisted.ensureDeferred
async def test_a_refusal_after_its_caller_has_gone_is_one_line(
    pool: Pool, logged: list[dict[str, Any]]
) -> None:
    async def work(transaction: Transaction) -> None:
        await transaction.run("SELECT pg_sleep(0.1)")
        raise Conflict("no")

    caller = pool.interact(work)
    caller.addErrback(lambda failure: failure.trap(CancelledError))
    caller.cancel()
    await deferLater(reactor, 0.3)
    assert len(logged) == 1
    event = logged.pop()
    assert formatEvent(event) == "A transaction failed after its caller had gone: no"
    assert "log_failure" not in event


@pytest_twisted.ensureDeferred
async def test_lost_serializable_races_are_run_again_as_a_whole(things: Pool) -> None:
    await things.interact(insert("a"))
    runs = 0

    async def increment(transaction: Transaction) -> None:
        nonlocal runs
        runs += 1
        await transaction.run("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        row = await transaction.run_one("SELECT n FROM thing")
        assert row is not None
        await transaction.run("SELECT pg_sleep(0.05)")
        await transaction.run("UPDATE thing SET n = %s", [row[0] + 1])

    for increments in [things.interact(increment) for _ in range(3)]:
        await increments
    assert runs > 3
    assert await things.query("SELECT n FROM thing") == [(3,)]


@pytest_twisted.ensureDeferred
async def test_a_deadlock_is_run_again(things: Pool) -> None:
    await things.interact(insert("a"))
    await things.interact(insert("b"))
    runs = 0

    def touching(*order: str) -> Any:
        async def work(transaction: Transaction) -> None:
            nonlocal runs
            runs += 1
            for name in order:
                await transaction.run("UPDATE thing SET n = n + 1 WHERE name = %s", [name])
                await transaction.run("SELECT pg_sleep(0.1)")

        return work

    one, two = things.interact(touching("a", "b")), things.interact(touching("b", "a"))
    await one
    await two
    assert runs > 2
    assert await things.query("SELECT n FROM thing") == [(2,), (2,)]


@pytest_twisted.ensureDeferred
async def test_a_race_that_is_always_lost_ends(pool: Pool) -> None:
    runs = 0

    async def work(transaction: Transaction) -> None:
        nonlocal runs
        runs += 1
        await transaction.run("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$")

    with pytest.raises(DatabaseUnavailable, match="too busy"):
        await pool.interact(work)
    assert runs == ATTEMPTS


@pytest_twisted.ensureDeferred
async def test_what_the_server_cannot_do_now_is_unavailable(things: Pool) -> None:
    await things.interact(insert("a"))
    locked: Deferred[None] = Deferred()
    release: Deferred[None] = Deferred()

    async def hold(transaction: Transaction) -> None:
        await transaction.run("SELECT * FROM thing FOR UPDATE")
        locked.callback(None)
        await release

    holder = things.interact(hold)
    await locked
    with pytest.raises(DatabaseUnavailable, match="cannot do this now") as caught:
        await things.interact(lambda t: t.run("SELECT * FROM thing FOR UPDATE NOWAIT"))
    assert not re.search("lock|thing|row", caught.value.message)
    release.callback(None)
    await holder


@pytest_twisted.ensureDeferred
async def test_stopping_lets_transactions_end_and_leaves_nothing(dsn: str) -> None:
    pool = Pool(reactor, dsn, size=3, wait=5)
    before = set(reactor.getReaders() + reactor.getWriters() + reactor.getDelayedCalls())
    await pool.start()
    assert await pool.query("SELECT 1") == [(1,)]
    running = [pool.interact(lambda t: t.run("SELECT pg_sleep(0.3)")) for _ in range(3)]
    waiting = pool.query("SELECT 1")
    await deferLater(reactor, 0.1)
    await pool.stop()
    assert all(work.called for work in running)
    for work in running:
        assert await work == [("",)]
    with pytest.raises(DatabaseUnavailable, match="stopping"):
        await waiting
    with pytest.raises(DatabaseUnavailable, match="stopping"):
        await pool.query("SELECT 1")
    after = set(reactor.getReaders() + reactor.getWriters() + reactor.getDelayedCalls())
    assert after <= before
    assert not pool.is_ready


@pytest_twisted.ensureDeferred
async def test_stopping_does_not_wait_for_ever(dsn: str) -> None:
    pool = Pool(reactor, dsn, size=1)
    await pool.start()
    endless = pool.interact(lambda t: t.run("SELECT pg_sleep(20)"))
    await deferLater(reactor, 0.2)
    await pool._links.close(0.2)
    with pytest.raises(DatabaseUnavailable):
        await endless
