"""``init``: make what a first start would make."""

from __future__ import annotations

import sys
from argparse import Namespace

from repoman import config
from repoman.admins import read_admins
from repoman.assembly import make_store
from repoman.database.accounts import AccountRecords
from repoman.database.blobs import BlobRecords
from repoman.operator.command import Command
from repoman.operator.database import Reached, with_database
from repoman.repository.accounts import Accounts


def init(arguments: Namespace) -> int:
    """Make the state directory, the database, the store and the administrators."""
    settings = config.load(arguments.config)
    admins = read_admins(settings.accounts.admins)

    async def work(reached: Reached) -> int:
        store = await make_store(reached.reactor, settings, BlobRecords(reached.pool))
        await store.start()
        await store.stop()
        accounts = Accounts(AccountRecords(reached.pool), settings.tls.limited_proxies)
        founded = await accounts.ensure_admins(admins)
        for name in founded.created:
            print(f"Administrator {name} created.")
        for why in founded.refused:
            print(f"[accounts] admins: {why}", file=sys.stderr)
        if not admins:
            print("[accounts] admins names nobody: nobody can add users yet.")
        print(f"The repository is ready: {settings.server.state}, {settings.storage.directory}.")
        return 1 if founded.refused else 0

    return with_database(settings, work)


INIT = Command(
    init,
    "Make the state directory, the database and the store, and create the administrators of "
    "[accounts] admins.  What is there already stays.",
)
