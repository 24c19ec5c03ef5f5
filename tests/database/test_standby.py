"""The primary dies, the standby is promoted, and requests go on."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import pytest_twisted
from psycopg2.extensions import make_dsn, parse_dsn
from twisted.internet import reactor
from twisted.internet.task import deferLater

from repoman.database.pool import Pool
from repoman.errors import RepomanError
from tests.postgres import Listening
from tests.server import free_ports


@pytest.fixture
def servers() -> Iterator[tuple[Listening, Listening]]:
    """A primary, and its standby."""
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv")
    first, second = free_ports(2)
    with ExitStack() as stack:
        primary = stack.enter_context(Listening.running("127.0.0.1", first))
        primary.stop()
        standby = Listening("127.0.0.1", second)
        stack.callback(standby.end)
        standby.follow(primary)
        for server in (primary, standby):
            server.start()
        yield primary, standby


@pytest_twisted.ensureDeferred
async def test_a_promoted_standby_is_found_by_itself(
    servers: tuple[Listening, Listening], logged: list[dict[str, Any]]
) -> None:
    primary, standby = servers
    # The standby is named first: it is not taken as long as it is one.
    ports = [parse_dsn(server.dsn)["port"] for server in (standby, primary)]
    listed = {"host": "127.0.0.1,127.0.0.1", "port": ",".join(ports)}
    dsn = make_dsn(primary.dsn, **listed, target_session_attrs="read-write")
    pool = Pool(reactor, dsn, size=2)
    await pool.start()
    await pool.interact(lambda t: t.run("CREATE TABLE kept AS SELECT 1 AS number"))
    asked = "SELECT count(*) FROM pg_class WHERE relname = 'kept'"
    watching = Pool(reactor, standby.dsn, size=1)
    await watching.start()
    while await watching.query(asked) != [(1,)]:
        await deferLater(reactor, 0.1)
    await watching.stop()
    primary.stop(signal.SIGKILL)
    with pytest.raises(RepomanError):
        await pool.interact(lambda t: t.run("INSERT INTO kept VALUES (2)"))
    standby.do("pg_ctl", "promote", "-w", "-D", "data")
    end = reactor.seconds() + 20
    while True:
        try:
            await pool.interact(lambda t: t.run("INSERT INTO kept VALUES (3)"))
        except RepomanError:
            assert reactor.seconds() < end
            await deferLater(reactor, 0.1)
        else:
            break
    assert await pool.query("SELECT number FROM kept ORDER BY 1") == [(1,), (3,)]
    await pool.stop()
    assert logged.pop()["why"]
