"""A real PostgreSQL for tests, run as the daemon runs its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2.extensions import make_dsn, parse_dsn
from pytest_twisted import blockon
from twisted.internet.defer import Deferred

from repoman.database.embedded import EmbeddedPostgres

_numbers = itertools.count(1)


async def running_postgres(reactor: Any, state: Path) -> tuple[EmbeddedPostgres, str]:
    """Start a server under ``state``; whoever asked for it stops it."""
    server = EmbeddedPostgres(reactor, state)
    return server, await server.start()


@contextmanager
def postgres_for_session(reactor: Any, state: Path) -> Iterator[str]:
    """The DSN of a server for a fixture of session scope, which cannot be asynchronous."""
    server, dsn = blockon(Deferred.fromCoroutine(running_postgres(reactor, state)))
    try:
        yield dsn
    finally:
        blockon(Deferred.fromCoroutine(server.stop()))


def on_server(dsn: str, statement: str) -> list[tuple[Any, ...]]:
    """Run one statement outside any pool, and wait for it: for a test's own arrangements."""
    with closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []


def fresh_database(dsn: str, *, template: str = "template0") -> str:
    """The DSN of a new database: empty, or a copy of one that nobody is connected to.

    The copy of a migrated one takes some 30 ms.
    """
    name = f"test_{next(_numbers)}"
    on_server(dsn, f"CREATE DATABASE {name} TEMPLATE {template}")
    return make_dsn(dsn, dbname=name)


def drop_database(dsn: str) -> None:
    """Remove what :func:`fresh_database` made, and whoever is connected to it."""
    name = parse_dsn(dsn)["dbname"]
    on_server(make_dsn(dsn, dbname="repoman"), f"DROP DATABASE {name} WITH (FORCE)")
