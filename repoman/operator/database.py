"""Work on the daemon's database from beside it, whether it runs or not."""

from __future__ import annotations

import os
import pwd
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from attrs import frozen
from psycopg2.extensions import make_dsn
from twisted.internet.defer import Deferred
from twisted.internet.task import react

from repoman.audit import OPERATOR, ORIGIN, Origin
from repoman.config import Config
from repoman.database.cluster import NAME
from repoman.database.dsn import ignore_environment
from repoman.database.embedded import EmbeddedPostgres
from repoman.database.lock import hold
from repoman.database.migrate import migrate
from repoman.database.pool import Pool
from repoman.errors import Misconfigured, RepomanError
from repoman.operator.command import complain


@frozen
class Reached:
    """A database that can be worked on.

    :ivar dsn: how other programs reach it.
    :ivar stack: what is to be let go at the end.
    """

    reactor: Any
    config: Config
    dsn: str
    pool: Pool
    stack: AsyncExitStack


Work = Callable[[Reached], Awaitable[int]]


def with_database(config: Config, work: Work, *, bare: bool = False) -> int:
    """Run ``work`` on a reactor of its own, with the daemon's database; answer its exit status.

    :param bare: leave the tables as they are, or as they are not.
    """
    status = 1

    async def run(reactor: Any) -> None:
        nonlocal status
        ORIGIN.set(_operator())
        async with AsyncExitStack() as stack:
            dsn = await _reach(reactor, config, stack)
            pool = Pool(reactor, dsn, size=1)
            await pool.start()
            stack.push_async_callback(pool.stop)
            if not bare:
                await migrate(pool)
            status = await work(Reached(reactor, config, dsn, pool, stack))

    async def run_or_complain(reactor: Any) -> None:
        nonlocal status
        try:
            await run(reactor)
        except RepomanError as error:
            status = 1
            complain(error)

    try:
        react(lambda reactor: Deferred.fromCoroutine(run_or_complain(reactor)))
    except SystemExit as end:
        return int(end.code or 0) or status
    return status


def _operator() -> Origin:
    """Who gives the command: nobody who is known by a certificate."""
    # Under sudo the account is root's, but somebody else logged in.
    login = os.environ.get("SUDO_USER") or pwd.getpwuid(os.getuid()).pw_name
    return Origin(OPERATOR, request_id=f"repoman-server by {login}")


async def _reach(reactor: Any, config: Config, stack: AsyncExitStack) -> str:
    """The database's DSN; one of our own is started, unless the daemon runs it."""
    state = config.server.state
    _check_account(state)
    if config.database.dsn is not None:
        return config.database.dsn
    if not await daemon_runs(reactor, state):
        embedded = EmbeddedPostgres(reactor, state)
        dsn = await embedded.start()
        stack.push_async_callback(embedded.stop)
        return dsn
    ignore_environment()
    # By a short name: a socket's path must not be long.
    directory = os.open(state / "database" / "data", os.O_PATH | os.O_CLOEXEC)
    stack.callback(os.close, directory)
    return make_dsn(host=f"/proc/{os.getpid()}/fd/{directory}", port=5432, user=NAME, dbname=NAME)


def _check_account(state: Path) -> None:
    """Refuse to leave files that the daemon's account cannot use."""
    owner = state.stat().st_uid if state.exists() else os.geteuid()
    if owner != os.geteuid():
        try:
            name = pwd.getpwuid(owner).pw_name
        except KeyError:
            name = f"#{owner}"
        raise Misconfigured(
            [f"[server] state: {state} belongs to {name}: run this by runuser -u {name}"]
        )


async def daemon_runs(reactor: Any, state: Path) -> bool:
    """Whether a daemon, or another command, has taken the state directory."""
    if not state.exists():
        return False
    try:
        os.close(await hold(reactor, state))
    except Misconfigured:
        return True
    return False
