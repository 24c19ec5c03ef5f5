"""What a daemon stands on, a database, ports and a store, and how it makes them ready itself."""

from __future__ import annotations

import errno
from contextlib import AsyncExitStack, suppress
from typing import Any, Protocol

from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.logger import Logger

from repoman.admins import read_admins
from repoman.assembly import Store, make_accounts, make_store
from repoman.config import Config
from repoman.database.blobs import BlobRecords
from repoman.database.embedded import EmbeddedPostgres
from repoman.database.migrate import migrate
from repoman.database.pool import Pool
from repoman.errors import DatabaseUnavailable, Misconfigured, StoreAbsent

log = Logger()

REMEDIES = {
    errno.EACCES: "give the account CAP_NET_BIND_SERVICE, or name a port above 1023",
    errno.EADDRNOTAVAIL: "name an address of this host",
}
"""What helps when the kernel lets nobody listen; else somebody else does."""


class IPremises(Protocol):
    """What a daemon stands on.

    :ivar is_alone: no other process writes to the database.
    :ivar holder: the name of this process among those that do; empty: a random one.
    :ivar links: how many connections to it there may be.
    """

    is_alone: bool
    holder: str
    links: int

    async def database(self) -> str:
        """The DSN of a database that runs, if it is ours to run."""

    async def listen(self, endpoint: str, factory: Any) -> Any:
        """Open an endpoint; answer its port.

        :raises Misconfigured: that cannot be.
        """

    async def store(self, pool: Pool) -> Store:
        """Make tables and store ready; answer the store, started.

        :raises DatabaseUnavailable: nothing was started; try again.
        :raises RepomanError: the store is not to be used.
        """


def what_is_absent(error: DatabaseUnavailable | StoreAbsent) -> str:
    """What a start waits for, in a word."""
    return "object store" if isinstance(error, StoreAbsent) else "database"


class Own:
    """Premises of a daemon's own.

    :param running: closes what was opened here, in the reverse order.
    :ivar lent: descriptors that a child needs to reach the database.
    :raises Misconfigured: the file of administrators cannot be used.
    """

    holder = ""
    links = 8

    def __init__(self, reactor: Any, config: Config, running: AsyncExitStack) -> None:
        self.is_alone = config.database.dsn is None
        self.lent: list[int] = []
        self._reactor = reactor
        self._config = config
        self._running = running
        self._admins = read_admins(config.accounts.admins)

    async def database(self) -> str:
        """The database that is configured, or one of our own."""
        if self._config.database.dsn is not None:
            return self._config.database.dsn
        embedded = EmbeddedPostgres(self._reactor, self._config.server.state)
        self._running.push_async_callback(embedded.stop)
        dsn = await embedded.start()
        self.lent = embedded.named_in_dsn
        return dsn

    async def listen(self, endpoint: str, factory: Any) -> Any:
        """Open a port."""
        try:
            return await serverFromString(self._reactor, endpoint).listen(factory)
        except (IndexError, KeyError):
            raise Misconfigured(
                [
                    f"[server] {endpoint}: systemd has handed over no such socket: start"
                    " repoman.socket first, or name another endpoint"
                ]
            ) from None
        except CannotListenError as error:
            why = error.socketError
            remedy = REMEDIES.get(why.errno, "stop what listens there, or name another endpoint")
            raise Misconfigured(
                [f"[server] cannot listen on {endpoint}: {why.strerror}: {remedy}"]
            ) from None

    async def store(self, pool: Pool) -> Store:
        """Bring the tables to their form, and take the store for ourselves."""
        await migrate(pool)
        config, blobs = self._config, BlobRecords(pool)
        founded = await make_accounts(config, pool).ensure_admins(self._admins)
        for name in founded.created:
            log.info("Administrator {name} created", name=name)
        for why in founded.refused:
            log.warn("[accounts] admins: {why}", why=why)
        if self.is_alone:
            # Nobody else uses this database: whatever was on its way in, is not any more.
            await blobs.expire_leases(all_of_them=True)
        store = await make_store(self._reactor, config, blobs)
        # From here on the database is not asked: this may be tried again only before.
        await store.start()
        self._running.push_async_callback(store.stop)
        await store.hold()
        if not self.is_alone and config.storage.backend == "directory":
            with suppress(DatabaseUnavailable):  # else it runs out by itself
                # Nobody else uses this store: whoever was writing into it is dead.
                await blobs.expire_leases(all_of_them=True)
        return store
