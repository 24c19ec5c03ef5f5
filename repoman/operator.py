"""``repoman-server``: what an operator does beside running the daemon."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from datetime import datetime, timezone
from importlib.resources import files
from pathlib import Path
from typing import Any

from attrs import frozen
from psycopg2.extensions import make_dsn
from twisted.internet.defer import Deferred
from twisted.internet.task import react

from repoman import config
from repoman.database.accounts import AccountRecords
from repoman.database.cluster import NAME
from repoman.database.embedded import EmbeddedPostgres
from repoman.database.lock import hold
from repoman.database.migrate import migrate
from repoman.database.pool import Pool
from repoman.errors import AlreadyExists, Misconfigured, RepomanError
from repoman.gridmap import read_gridmap
from repoman.inspection import inspect_trust, remark_on_clock


@frozen
class Command:
    """One of the operator's commands.

    :ivar run: takes the arguments, answers the exit status, raises RepomanErrors.
    :ivar arguments: what stands after the command: (name, what it is).
    """

    run: Callable[[Namespace], int]
    summary: str
    arguments: tuple[tuple[str, str], ...] = ()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; answer the exit status: 0 done, 1 not done, 2 not understood."""
    parsed = _parser().parse_args(arguments)
    try:
        return COMMANDS[parsed.command].run(parsed)
    except RepomanError as error:
        _complain(error)
        return 1


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="repoman-server", description="Look after a Repoman server.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        one = commands.add_parser(name, help=command.summary, description=command.summary)
        one.add_argument(
            "-c", "--config", type=Path, help=f"the configuration ({config.DEFAULT_PATH})"
        )
        for argument, meaning in command.arguments:
            one.add_argument(argument, type=Path, metavar=argument.upper(), help=meaning)
    return parser


def _complain(error: RepomanError) -> None:
    lines = error.mistakes if isinstance(error, Misconfigured) else [error.message]
    print(*lines, sep="\n", file=sys.stderr)


def check_config(arguments: Namespace) -> int:
    """Say what is wrong with the configuration, certificate, key, CAs, CRLs and clock."""
    now = datetime.now(timezone.utc)
    faults, starts = inspect_trust(config.load(arguments.config), now)
    if faults:
        print(*faults, sep="\n", file=sys.stderr)
    if remark := remark_on_clock():
        print(f"Note: {remark}", file=sys.stderr)
    if faults:
        print(f"The daemon would {'start all the same' if starts else 'not start'}.")
        return 1
    print("The configuration is good.")
    return 0


def sample_config(arguments: Namespace) -> int:
    """Print a configuration with every setting."""
    sys.stdout.write(files("repoman").joinpath("repoman.conf").read_text("utf-8"))
    return 0


def import_gridmap(arguments: Namespace) -> int:
    """Let everybody in a grid-mapfile log in."""
    settings, logins = config.load(arguments.config), read_gridmap(arguments.file)

    async def work(pool: Pool) -> int:
        records, news, refused = AccountRecords(pool), 0, 0
        for login in logins:
            try:
                is_news = await records.admit(login)
            except AlreadyExists as error:
                refused += 1
                print(f"{login.user_name}, {login.dn}: {error.message}", file=sys.stderr)
            else:
                news += is_news
                if is_news:
                    print(f"{login.user_name}: {login.dn}")
        print(f"{news} of {len(logins)} logins are new; {refused} could not be.")
        return 1 if refused else 0

    return _with_database(settings, work)


def _with_database(settings: config.Config, work: Callable[[Pool], Any]) -> int:
    """Run ``work`` on a reactor of its own, with the daemon's database."""
    status = 1

    async def run(reactor: Any) -> None:
        nonlocal status
        async with AsyncExitStack() as stack:
            pool = Pool(reactor, await _reach_database(reactor, settings, stack), size=1)
            await pool.start()
            stack.push_async_callback(pool.stop)
            await migrate(pool)
            status = await work(pool)

    async def run_or_complain(reactor: Any) -> None:
        try:
            await run(reactor)
        except RepomanError as error:
            _complain(error)

    try:
        react(lambda reactor: Deferred.fromCoroutine(run_or_complain(reactor)))
    except SystemExit as end:
        return int(end.code or 0) or status
    return status


async def _reach_database(reactor: Any, settings: config.Config, stack: AsyncExitStack) -> str:
    """The database's DSN; one of our own is started, unless the daemon runs it."""
    if settings.database.dsn is not None:
        return settings.database.dsn
    state = settings.server.state
    if not await _daemon_runs(reactor, state):
        embedded = EmbeddedPostgres(reactor, state)
        dsn = await embedded.start()
        stack.push_async_callback(embedded.stop)
        return dsn
    # By a short name: a socket's path must not be long.
    directory = os.open(state / "database" / "data", os.O_PATH | os.O_CLOEXEC)
    stack.callback(os.close, directory)
    return make_dsn(host=f"/proc/self/fd/{directory}", port=5432, user=NAME, dbname=NAME)


async def _daemon_runs(reactor: Any, state: Path) -> bool:
    if not state.exists():
        return False
    try:
        os.close(await hold(reactor, state))
    except Misconfigured:
        return True
    return False


COMMANDS = {
    "check-config": Command(
        check_config,
        "Say what is wrong with the configuration, host certificate, key, CA directory, CRLs and "
        "clock.",
    ),
    "sample-config": Command(sample_config, "Print a configuration with every setting."),
    "import-gridmap": Command(
        import_gridmap,
        "Let everybody in a grid-mapfile log in: make the users that do not exist, and add DNs "
        "to those that do.  The daemon may run or not.",
        (("file", 'the grid-mapfile: lines of "DN" user'),),
    ),
}
"""The commands by name."""

if __name__ == "__main__":
    sys.exit(main())
