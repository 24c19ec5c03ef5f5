"""``import-gridmap``: let everybody in a grid-mapfile log in."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from repoman import config
from repoman.database.accounts import AccountRecords
from repoman.errors import AlreadyExists
from repoman.gridmap import read_gridmap
from repoman.operator.command import Command
from repoman.operator.database import Reached, with_database


def import_gridmap(arguments: Namespace) -> int:
    """Let everybody in a grid-mapfile log in."""
    settings = config.load(arguments.config)
    logins, mistakes = read_gridmap(arguments.file)
    for mistake in mistakes:
        print(mistake, file=sys.stderr)

    async def work(reached: Reached) -> int:
        records, news, refused = AccountRecords(reached.pool), 0, len(mistakes)
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
        print(f"{news} of {len(logins) + len(mistakes)} logins are new; {refused} could not be.")
        return 1 if refused else 0

    return with_database(settings, work)


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "file", type=Path, metavar="FILE", help='the grid-mapfile: lines of "DN" user'
    )


IMPORT = Command(
    import_gridmap,
    "Let everybody in a grid-mapfile log in: make the users that do not exist, and add DNs "
    "to those that do.  The daemon may run or not.",
    _arguments,
)
