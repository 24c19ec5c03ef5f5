"""A migrated database for each test, and the records in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from psycopg2.extensions import parse_dsn
from twisted.internet import reactor

from repoman.database.accounts import AccountRecords
from repoman.database.blobs import BlobRecords
from repoman.database.groups import GroupRecords
from repoman.database.images import ImageRecords
from repoman.database.migrate import migrate
from repoman.database.pool import Pool
from repoman.database.users import UserRecords
from tests.postgres import drop_database, fresh_database, postgres_for_session
from tests.records import Records, wait_for


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The DSN of a migrated database that nobody is connected to."""
    with postgres_for_session(reactor, tmp_path_factory.mktemp("records") / "state") as dsn:
        migrated = fresh_database(dsn)
        pool = Pool(reactor, migrated, size=1)

        async def prepare() -> None:
            await pool.start()
            await migrate(pool)
            await pool.stop()

        wait_for(prepare())
        yield migrated


@contextmanager
def records_of(template: str, *, size: int = 4, wait: float = 3.0) -> Iterator[Records]:
    """The records in a new database.

    :param size: how many connections there are.
    :param wait: seconds for which one is waited for.
    """
    dsn = fresh_database(template, template=parse_dsn(template)["dbname"])
    pool = Pool(reactor, dsn, size=size, wait=wait)
    wait_for(pool.start())
    users = UserRecords(pool)
    yield Records(
        pool, AccountRecords(pool), users, GroupRecords(pool), ImageRecords(pool),
        BlobRecords(pool),
    )  # fmt: skip
    wait_for(pool.stop())
    drop_database(dsn)


@pytest.fixture
def records(template: str) -> Iterator[Records]:
    with records_of(template) as made:
        yield made
