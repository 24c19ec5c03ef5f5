"""Statements planned once: the same answers, also when links and tables change."""

from __future__ import annotations

import pytest
import pytest_twisted
from psycopg2 import connect
from psycopg2.errors import UndefinedTable
from twisted.internet import reactor

from repoman.database.pool import Pool
from repoman.database.prepared import prepared
from repoman.errors import DatabaseUnavailable


def test_placeholders_become_numbers_and_names_keep_one() -> None:
    statement = prepared("SELECT %(a)s, %(b)s, %(a)s, '100%%'")
    assert statement.text == "SELECT $1, $2, $1, '100%'"
    assert statement.values({"a": 1, "b": 2}) == [1, 2]
    positional = prepared("SELECT %s || %s")
    assert positional.text == "SELECT $1 || $2"
    assert positional.values(("x", "y")) == ["x", "y"]
    assert prepared("SELECT 1").call.endswith(prepared("SELECT 1").name)


def test_the_same_statement_has_one_name_and_others_have_others() -> None:
    assert prepared("SELECT 1") is prepared("SELECT 1")
    assert prepared("SELECT 1").name != prepared("SELECT 2").name


@pytest_twisted.ensureDeferred
async def test_it_answers_as_a_query_does_again_and_again(pool: Pool) -> None:
    sql = "SELECT %(word)s::text, %(number)s::int + 1, '5%%'"
    for number in range(20):  # beyond the five after which the server keeps a plan
        rows = await pool.ask(sql, {"word": "it's %s; --", "number": number})
        assert rows == [("it's %s; --", number + 1, "5%")]


@pytest_twisted.ensureDeferred
async def test_it_heals_when_every_link_is_gone(pool: Pool, dsn: str) -> None:
    assert await pool.ask("SELECT 7", ()) == [(7,)]
    with connect(dsn) as other, other.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )
    other.close()
    assert await pool.ask("SELECT 7", ()) == [(7,)]


@pytest_twisted.ensureDeferred
async def test_a_changed_table_costs_nobody_an_error(pool: Pool, dsn: str) -> None:
    await pool.interact(lambda t: t.run("CREATE TABLE shape (a int)"))
    await pool.interact(lambda t: t.run("INSERT INTO shape VALUES (1)"))
    for _ in range(20):
        assert await pool.ask("SELECT * FROM shape", ()) == [(1,)]
    await pool.interact(lambda t: t.run("ALTER TABLE shape ADD b int DEFAULT 2"))
    for _ in range(20):
        assert await pool.ask("SELECT * FROM shape", ()) == [(1, 2)]


@pytest_twisted.ensureDeferred
async def test_a_first_time_that_takes_too_long_does_not_spoil_the_next(dsn: str) -> None:
    pool = Pool(reactor, dsn, size=1, statement_timeout=0.3)
    await pool.start()
    try:
        with pytest.raises(DatabaseUnavailable):
            await pool.ask("SELECT 5 FROM pg_sleep(%s)", (2,))
        for _ in range(2):
            assert await pool.ask("SELECT 5 FROM pg_sleep(%s)", (0,)) == [(5,)]
    finally:
        await pool.stop()


@pytest_twisted.ensureDeferred
async def test_an_error_of_the_statement_is_that_error(pool: Pool) -> None:
    with pytest.raises(UndefinedTable):
        await pool.ask("SELECT * FROM there_is_none", ())
    assert await pool.ask("SELECT 1", ()) == [(1,)]
