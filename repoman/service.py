"""Puts everything together: the one place that knows everyone."""

from __future__ import annotations

import secrets
import signal
from collections.abc import Iterable
from contextlib import AsyncExitStack
from datetime import datetime, timezone
from functools import partial
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.task import deferLater
from twisted.logger import Logger

from repoman.accesslog import AccessLog
from repoman.admins import read_admins
from repoman.background import Background
from repoman.config import Config
from repoman.database.accounts import AccountRecords
from repoman.database.blobs import BlobRecords
from repoman.database.embedded import EmbeddedPostgres
from repoman.database.groups import GroupRecords
from repoman.database.images import ImageRecords
from repoman.database.migrate import migrate
from repoman.database.pool import Pool
from repoman.database.users import UserRecords
from repoman.errors import DatabaseUnavailable, Misconfigured, TrustUnreadable
from repoman.interfaces import IConsuming
from repoman.metrics import Metrics, Monitoring, MonitoringSite
from repoman.pages import Pages
from repoman.repository import Repository
from repoman.repository.accounts import Accounts
from repoman.repository.files import Files, UploadLimits
from repoman.repository.groups import Groups
from repoman.repository.images import Images
from repoman.repository.scrubber import Scrubber
from repoman.repository.sweeper import Sweeper
from repoman.repository.uploads import Uploads
from repoman.repository.users import Users
from repoman.resources import Gate, Root
from repoman.settings import Share
from repoman.site import RepositorySite
from repoman.storage.directory import DirectoryStore
from repoman.streams import Digesting
from repoman.tls import ServerTLS, TlsSettings
from repoman.tls_flow import tls_factory
from repoman.wire import Urls

DRAIN_SECONDS = 600.0
"""How long a stop waits for running transfers."""

SETTLE_SECONDS = 30.0
"""How long it waits then for what goes on without a client."""

SWEEP_SECONDS = 60.0
"""Seconds between two looks of the sweeper."""

SCRUB_SECONDS = 5.0
"""Seconds between two looks for files to read again."""

STOCK_SECONDS = 6 * 3600.0
"""Seconds between two comparisons of the store with the records."""

RENEWAL_SECONDS = 60.0
"""Seconds between two signs of life of running uploads."""

PROGRESS_SECONDS = 2.0
"""Seconds between two notes of how far resumable uploads are durable."""

LAG_SECONDS = 0.1
"""Seconds between two looks at how late the event loop is."""

WATCH_SECONDS = 5.0
"""Seconds between two looks at the running transfers."""

RETRY_SECONDS = 1.0
"""Seconds between two attempts to reach an absent database."""

log = Logger()


def now() -> datetime:
    """The time."""
    return datetime.now(timezone.utc)


def make_service(reactor: Any, config: Config) -> RepomanService:
    """A service that is not started yet.

    :raises Misconfigured: files that the configuration names are unusable.
    :raises TrustUnreadable: so are certificates or keys.
    """
    tls = ServerTLS(
        TlsSettings(
            certificate=config.tls.certificate,
            key=config.tls.key,
            ca_directory=config.tls.ca_directory,
            crl=config.tls.crl,
            signing_policy=config.tls.signing_policy,
            legacy_proxies=config.tls.legacy_proxies,
        ),
        now,
    )
    _warn(tls.load())
    return RepomanService(reactor, config, tls)


class RepomanService(Service):
    """The daemon.

    :ivar started: fires when requests are served; fails with what keeps the
        service from starting.  An absent database of somebody else's does
        not: requests get 503 until it is there.
    """

    def __init__(self, reactor: Any, config: Config, tls: ServerTLS) -> None:
        self._reactor = reactor
        self._config = config
        self._tls = tls
        self._admins = read_admins(config.accounts.admins)
        self._running = AsyncExitStack()
        self._background = Background(reactor)
        self._gate = Gate()
        self._metrics = Metrics()
        self._trouble_with_trust = ""
        self._sites: list[RepositorySite] = []
        self._pool: Pool | None = None
        self._starting: Deferred[None] | None = None
        self.started: Deferred[None] = Deferred()
        self.ports: list[Any] = []

    def startService(self) -> None:
        """Begin to start; :attr:`started` tells the end of it."""
        super().startService()
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addCallbacks(self.started.callback, self.started.errback)

    def stopService(self) -> Deferred[None]:
        """Let running transfers end, then stop everything in the reverse order."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._starting is not None and not self._starting.called:
            self._starting.cancel()
        for port in self.ports:
            await port.stopListening()
        self._hurry_when_told_again()
        await gatherResults(
            [Deferred.fromCoroutine(site.drain(DRAIN_SECONDS)) for site in self._sites]
        )
        await self._gate.settle(self._reactor, SETTLE_SECONDS)
        self._background.stop()
        await self._running.aclose()

    def _hurry_when_told_again(self) -> None:
        def hurry(*_: object) -> None:
            self._reactor.callFromThread(self._cut)

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, hurry)

    def _cut(self) -> None:
        log.warn("Told to stop again: running transfers are cut")
        for site in self._sites:
            site.cut()

    async def _start(self) -> None:
        dsn = self._config.database.dsn or await self._start_postgres()
        pool = self._pool = Pool(self._reactor, dsn)
        await pool.start()
        self._running.push_async_callback(pool.stop)
        urls = await self._listen()
        self._keep_trust_fresh()
        await self._monitor()
        await self._open_when_possible(pool, urls)

    async def _start_postgres(self) -> str:
        embedded = EmbeddedPostgres(self._reactor, self._config.server.state)
        self._running.push_async_callback(embedded.stop)
        return await embedded.start()

    async def _listen(self) -> Urls:
        """Open the endpoints, behind a closed gate; answer how clients reach them."""
        server = self._config.server
        access = AccessLog(self._config.log.access, self._config.log.format, now)
        tls_port = await self._open_port(server.https, self._tls, access)
        plain_port = await self._open_port(server.http, None, access) if server.http else None
        host = next(iter(self._tls.host_names), "localhost")
        plain = server.http_url or (_origin("http", host, plain_port, 80) if plain_port else "")
        return Urls(server.url or _origin("https", host, tls_port, 443), plain)

    async def _open_port(self, endpoint: str, tls: ServerTLS | None, access: AccessLog) -> Any:
        site = RepositorySite(
            self._reactor,
            self._gate,
            tls,
            connections=self._config.limits.connections,
            min_rate=self._config.limits.min_rate,
            log_request=partial(self._note, access),
        )
        listening = serverFromString(self._reactor, endpoint)
        factory = site if tls is None else tls_factory(tls, site, self._reactor)
        try:
            port = await listening.listen(factory)
        except CannotListenError as error:
            raise Misconfigured(
                [f"[server] cannot listen on {endpoint}: {error.socketError}"]
            ) from None
        self.ports.append(port)
        self._sites.append(site)
        self._background.every(WATCH_SECONDS, "watch", partial(site.watch, WATCH_SECONDS))
        return port

    def _note(self, access: AccessLog, request: Any) -> None:
        seconds = self._reactor.seconds() - request.begun
        access.log(request, seconds)
        self._metrics.count(request, seconds)

    async def _monitor(self) -> None:
        """Open the endpoint for monitoring; a service without it is better than none."""
        endpoint = self._config.metrics.endpoint
        self._repeat_watch_of_loop()
        if endpoint is None:
            return
        monitoring = MonitoringSite(Monitoring(self._metrics, self._troubles))
        try:
            port = await serverFromString(self._reactor, endpoint).listen(monitoring)
        except CannotListenError as error:
            log.error(
                "[metrics] cannot listen on {endpoint}: {why}; going on without",
                endpoint=endpoint,
                why=error.socketError,
            )
            return
        self._running.push_async_callback(_stopped, port)

    def _repeat_watch_of_loop(self) -> None:
        due = self._reactor.seconds() + LAG_SECONDS

        async def look() -> None:
            nonlocal due
            late = self._reactor.seconds() - due
            self._metrics.stalled(max(late, 0.0))
            due = self._reactor.seconds() + LAG_SECONDS

        self._background.every(LAG_SECONDS, "watch the loop", look)

    def _troubles(self) -> list[str]:
        found = [] if self._gate.behind else ["The database is not there yet."]
        if self._pool is not None and not self._pool.is_ready:
            found.append("The database does not answer.")
        return found + ([self._trouble_with_trust] if self._trouble_with_trust else [])

    async def _open(self, pool: Pool, urls: Urls) -> None:
        """Make the repository ready, and open the gate to it."""
        await migrate(pool)
        config, blobs = self._config, BlobRecords(pool)
        accounts = Accounts(AccountRecords(pool), config.tls.limited_proxies)
        for name in await accounts.ensure_admins(self._admins):
            log.info("Administrator {name} created", name=name)
        if config.database.dsn is None:
            # Nobody else uses this database: whatever was on its way in, is not any more.
            await blobs.expire_leases(all_of_them=True)
        reserve = config.limits.disk_reserve
        store = DirectoryStore(
            self._reactor,
            config.storage.directory,
            repository_id=await blobs.repository_id(),
            reserve=reserve.percent / 100 if isinstance(reserve, Share) else reserve.size,
            may_create=not await blobs.any_present(),
        )
        # From here on the database is not asked: this may be tried again only before.
        await store.start()
        self._running.push_async_callback(store.stop)
        repository = self._repository(pool, blobs, accounts, store)
        pages = Pages(repository, urls, secrets.token_bytes(32), now)
        self._gate.behind = Root(repository, urls, pages)

    def _repository(
        self, pool: Pool, blobs: BlobRecords, accounts: Accounts, store: DirectoryStore
    ) -> Repository:
        limits = self._config.limits
        records = ImageRecords(pool)
        sweeper = Sweeper(records, blobs, store, float(limits.expired_kept))
        scrubber = Scrubber(blobs, store)
        sweep = partial(self._background.once, "sweep", sweeper.sweep)
        images = Images(records, limits.quota, sweep)
        bounds = UploadLimits(
            limits.max_upload, limits.quota, limits.uploads, float(limits.partial_uploads)
        )
        files = Files(images, blobs, store, _digesting, bounds, now, sweep)
        uploads = Uploads(images, blobs, store, _digesting, bounds, sweep)
        self._background.every(SWEEP_SECONDS, "sweep", sweeper.sweep, at_once=True)
        self._background.every(SCRUB_SECONDS, "scrub", partial(_scrub, scrubber))
        stock = partial(_take_stock, sweeper, scrubber)
        self._background.every(STOCK_SECONDS, "take stock", stock, at_once=True)
        self._background.every(RENEWAL_SECONDS, "renew leases", files.renew_leases)
        self._background.every(RENEWAL_SECONDS, "renew leases", uploads.renew_leases)
        self._background.every(PROGRESS_SECONDS, "record progress", uploads.record_progress)
        users = UserRecords(pool)
        return Repository(
            accounts,
            Users(users),
            Groups(GroupRecords(pool), users),
            images,
            files,
            uploads,
        )

    async def _open_when_possible(self, pool: Pool, urls: Urls) -> None:
        waiting = False
        while True:
            try:
                await self._open(pool, urls)
            except DatabaseUnavailable as error:
                if not waiting:
                    log.warn("Waiting for the database: {reason}", reason=error.message)
                waiting = True
                await deferLater(self._reactor, RETRY_SECONDS)
            else:
                return

    def _keep_trust_fresh(self) -> None:
        self._background.every(self._config.tls.reload, "reload trust", self._reload)
        signal.signal(
            signal.SIGHUP,
            lambda *_: self._reactor.callFromThread(
                self._background.once, "reload trust", self._reload
            ),
        )

    async def _reload(self) -> None:
        try:
            _warn(self._tls.load())
        except TrustUnreadable as error:
            self._trouble_with_trust = f"Trust was not reloaded: {error.message}"
            raise
        self._trouble_with_trust = ""


def _digesting(
    consumer: IConsuming, limit: int, names: Iterable[str], start: int, previous: Digesting | None
) -> Digesting:
    return Digesting(consumer, limit=limit, algorithms=names, start=start, previous=previous)


async def _scrub(scrubber: Scrubber) -> None:
    if damaged := await scrubber.scrub():
        log.critical("{count} files in the store are not what was stored", count=damaged)


async def _take_stock(sweeper: Sweeper, scrubber: Scrubber) -> None:
    if healed := await scrubber.heal():
        log.warn("{count} damaged files are whole again", count=healed)
    found = await sweeper.take_stock()
    if found.suspicious:
        log.critical(
            "{count} files in the store have no record: is this the right database? "
            "Nothing was touched.",
            count=found.suspicious,
        )
    if found.quarantined:
        log.warn("{count} files without a record: see quarantine/", count=found.quarantined)
    if found.damaged:
        log.critical("{count} files are missing from the store", count=found.damaged)


async def _stopped(port: Any) -> None:
    await port.stopListening()


def _origin(scheme: str, host: str, port: Any, usual: int) -> str:
    number = getattr(port.getHost(), "port", usual)
    return f"{scheme}://{host}" + ("" if number == usual else f":{number}")


def _warn(warnings: list[str]) -> None:
    for warning in warnings:
        log.warn("{warning}", warning=warning)
