"""Puts everything together: the one place that knows everyone."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import datetime, timezone
from functools import partial
from typing import Any

from attrs import evolve
from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.logger import Logger

from repoman.accesslog import AccessLog
from repoman.assembly import Assembly, apply_limits, assemble, check_store
from repoman.background import Background
from repoman.chores import Chores
from repoman.config import Config, waiting_for_restart
from repoman.database.blobs import BlobRecords
from repoman.database.pool import Pool
from repoman.errors import DatabaseUnavailable, Misconfigured, StoreAbsent, TrustUnreadable
from repoman.gauges import watch_database, watch_store, watch_traffic, watch_trust
from repoman.history import History
from repoman.inspection import tls_settings
from repoman.metrics import Metrics, open_monitoring
from repoman.pages import Pages
from repoman.premises import IPremises, Own, what_is_absent
from repoman.proxied import AnnouncedFactory
from repoman.resources import Gate, Root
from repoman.settings import PROXIED
from repoman.site import RepositorySite, accept_few
from repoman.stopping import heed_stops, hurry_when_told
from repoman.supervisor import Supervisor
from repoman.tls import ServerTLS
from repoman.tls_flow import tls_factory
from repoman.transfers import Transfer
from repoman.wire import Urls

DRAIN_SECONDS = 600.0
"""How long a stop waits for running transfers."""

SETTLE_SECONDS = 30.0
"""How long it waits then for what goes on without a client."""

LAG_SECONDS = 0.1
"""Seconds between two looks at how late the event loop is."""

WATCH_SECONDS = 5.0
"""Seconds between two looks at the running transfers."""

RETRY_SECONDS = 1.0
"""Seconds between two attempts to reach an absent database or object store."""

log = Logger()


def now() -> datetime:
    """The time."""
    return datetime.now(timezone.utc)


def make_service(
    reactor: Any, config: Config, reread: Callable[[], Config] | None = None
) -> RepomanService:
    """A service that is not started yet.

    :param reread: reads the configuration again, for SIGHUP.

    :raises Misconfigured: files that the configuration names are unusable.
    :raises TrustUnreadable: so are certificates or keys.
    """
    check_store(config)
    tls = ServerTLS(tls_settings(config), now)
    tls.load()
    return RepomanService(reactor, config, tls, reread or (lambda: config))


class RepomanService(Service):
    """The daemon.

    :param place: makes the premises that it stands on.
    :ivar started: fires when requests are served; fails with what keeps the
        service from starting.  An absent database of somebody else's does
        not: requests get 503 until it is there.
    """

    def __init__(
        self,
        reactor: Any,
        config: Config,
        tls: ServerTLS,
        reread: Callable[[], Config],
        place: Callable[[Any, Config, AsyncExitStack], IPremises] = Own,
    ) -> None:
        self._reactor = reactor
        self._config = config
        self._tls = tls
        self._running = AsyncExitStack()
        self._premises = place(reactor, config, self._running)
        self._gate = Gate()
        self.metrics = Metrics()
        self.history = History(reactor.seconds, now)
        self._faults: list[str] = []
        self._background = Background(reactor, self.metrics.failed)
        self._reread = reread
        self._supervisor = Supervisor(reactor)
        self._troubles_of: dict[str, str] = {}
        self._sites: list[RepositorySite] = []
        self._pool: Pool | None = None
        self._assembly: Assembly | None = None
        self._chores: Chores | None = None
        self._access = AccessLog(None, "text", now)
        self._starting: Deferred[None] | None = None
        self.started: Deferred[None] = Deferred()
        self.ports: list[Any] = []

    def startService(self) -> None:
        """Begin to start; :attr:`started` tells the end of it."""
        super().startService()
        heed_stops(self._reactor, self._cut)
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addCallbacks(self.started.callback, self.started.errback)

    def stopService(self) -> Deferred[None]:
        """Let running transfers end, then stop everything in the reverse order."""
        super().stopService()
        self._supervisor.stopping()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._starting is not None and not self._starting.called:
            self._starting.cancel()
        self._gate.give_up()
        for port in self.ports:
            await port.stopListening()
        hurry_when_told(self._reactor, self._cut)
        await gatherResults(
            [Deferred.fromCoroutine(site.drain(DRAIN_SECONDS)) for site in self._sites]
        )
        await self._gate.settle(self._reactor, SETTLE_SECONDS)
        self._background.stop()
        await self._running.aclose()

    def _cut(self) -> None:
        log.warn("Told to stop again: running transfers are cut")
        for site in self._sites:
            site.cut()

    async def _start(self) -> None:
        self._keep_trust_fresh()  # first of all: without it SIGHUP ends a process
        dsn = await self._premises.database()
        pool = self._pool = Pool(
            self._reactor, dsn, is_alone=self._premises.is_alone, size=self._premises.links
        )
        await pool.start()
        self._running.push_async_callback(pool.stop)
        watch_database(self.metrics, pool)
        urls = await self._listen()
        await self._monitor()
        if self._supervisor.patience:
            self._background.every(
                self._supervisor.patience / 3, "watchdog", self._supervisor.alive
            )
        await self._open_when_possible(pool, urls)
        self._supervisor.ready()

    async def _listen(self) -> Urls:
        """Open the endpoints, behind a closed gate; answer how clients reach them."""
        server = self._config.server
        self._access.reopen(self._config.log.access, self._config.log.format)
        tls_port = await self._open_port(server.https, self._tls)
        plain_port = await self._open_port(server.http, None) if server.http else None
        host = next(iter(self._tls.host_names), "localhost")
        plain = server.http_url or (_origin("http", host, plain_port, 80) if plain_port else "")
        return Urls(server.url or _origin("https", host, tls_port, 443), plain)

    async def _open_port(self, endpoint: str, tls: ServerTLS | None) -> Any:
        site = RepositorySite(
            self._reactor,
            self._gate,
            tls,
            connections=self._config.limits.connections,
            min_rate=self._config.limits.min_rate,
            upload_time=self._config.limits.upload_time,
            log_request=self._note,
        )
        factory: Any = site if tls is None else tls_factory(tls, site, self._reactor)
        if endpoint.startswith(PROXIED):
            factory = AnnouncedFactory(factory, site.unannounced, site.announced)
        port = await self._premises.listen(endpoint.removeprefix(PROXIED), factory)
        accept_few(port)
        self.ports.append(port)
        self._sites.append(site)
        self._background.every(WATCH_SECONDS, "watch", partial(site.watch, WATCH_SECONDS))
        return port

    def _note(self, request: Any) -> None:
        seconds = self._reactor.seconds() - request.begun
        self._access.log(request, seconds)
        self.metrics.count(request, seconds)
        self.history.count(request)

    async def _monitor(self) -> None:
        """Show how we are, at the endpoint for that."""
        self._repeat_watch_of_loop()
        watch_traffic(self.metrics, self._sites)
        watch_trust(self.metrics, self._tls, now)
        self.metrics.show("repoman_workers", "Processes that serve", lambda: {"": self.serves})
        await open_monitoring(
            self._reactor,
            self._config.metrics.endpoint,
            self.metrics,
            self.troubles,
            self._running,
        )

    def _repeat_watch_of_loop(self) -> None:
        due = self._reactor.seconds() + LAG_SECONDS

        async def look() -> None:
            nonlocal due
            late = self._reactor.seconds() - due
            self.metrics.stalled(max(late, 0.0))
            self.history.stalled(max(late, 0.0))
            due = self._reactor.seconds() + LAG_SECONDS

        self._background.every(LAG_SECONDS, "watch the loop", look)

    def troubles(self) -> list[str]:
        """Why requests cannot be served now, a line each."""
        found = [] if self._gate.behind else ["The database, or the store, is not there yet."]
        if self._pool is not None and not self._pool.is_ready:
            found.append("The database does not answer.")
        return found + list(self._troubles_of.values())

    async def _open(self, pool: Pool, urls: Urls) -> None:
        """Make the repository ready, and open the gate to it."""
        store = await self._premises.store(pool)
        assembly = assemble(
            self._config, pool, store, now, self._sweep_soon, self._transfers, self._premises.holder
        )
        self._assembly = assembly
        watch_store(self.metrics, assembly)
        chores = self._chores = Chores(self._background, assembly, self._reactor.seconds)
        self._running.push_async_callback(chores.resign)
        pages = Pages(assembly.repository, urls, await self._secret(pool), now, self.history)
        self._gate.open(Root(assembly.repository, urls, pages))

    async def _secret(self, pool: Pool) -> bytes:
        """What seals the pages' forms, as soon as the database tells: the store runs already."""
        while True:
            try:
                return await BlobRecords(pool).secret()
            except DatabaseUnavailable:
                await deferLater(self._reactor, RETRY_SECONDS)

    @property
    def serves(self) -> bool:
        """The repository is there, and requests are welcome."""
        return self._gate.behind is not None and bool(self.running)

    @property
    def open_connections(self) -> int:
        """How many there are now, on all endpoints."""
        return sum(site.open_connections for site in self._sites)

    def _transfers(self) -> list[Transfer]:
        return [transfer for site in self._sites for transfer in site.transfers()]

    def _sweep_soon(self) -> None:
        if self._chores is not None:
            self._chores.sweep_soon()

    async def _open_when_possible(self, pool: Pool, urls: Urls) -> None:
        waiting = ""
        while True:
            try:
                await self._open(pool, urls)
            except (DatabaseUnavailable, StoreAbsent) as error:
                absent = what_is_absent(error)
                if waiting != absent:
                    log.warn("Waiting for the {what}: {why}", what=absent, why=error.message)
                    self._supervisor.ready(f"Waiting for the {absent}")
                waiting = absent
                self._gate.give_up()
                await deferLater(self._reactor, RETRY_SECONDS)
            else:
                return

    def _keep_trust_fresh(self) -> None:
        self._warn_anew()
        self._background.every(self._config.tls.reload, "trust", self._look_at_trust)
        signal.signal(
            signal.SIGHUP,
            lambda *_: self._reactor.callFromThread(self._background.once, "reload", self._reload),
        )

    async def _reload(self) -> None:
        """Read again what can change while we run."""
        self._supervisor.reloading()
        await self._background.once("reload trust", self._reload_trust)
        await self._background.once("reload configuration", self._reload_configuration)
        self._supervisor.ready()
        log.info("Certificates, limits and log files were looked at again")

    async def _look_at_trust(self) -> None:
        if self._tls.changed():
            await self._reload_trust()
        else:
            self._warn_anew()

    async def _reload_trust(self) -> None:
        try:
            await self._tls.reload(self._reactor)
        except Exception as error:
            why = error.message if isinstance(error, TrustUnreadable) else "a fault of ours"
            trouble = f"Trust was not reloaded, the old one stays in use: {why}"
            self._troubles_of["trust"] = trouble
            log.error("{trouble}", trouble=trouble)
            self.metrics.failed("reload trust")
            if not isinstance(error, TrustUnreadable):
                raise
        else:
            self._troubles_of.pop("trust", None)
            log.info("Trust was reloaded: CAs, CRLs, policies and the host certificate")
            self._warn_anew()

    def _warn_anew(self) -> None:
        """Say what is to be mended, unless it was said at the last look."""
        faults = self._tls.faults()
        _warn([fault for fault in faults if fault not in self._faults])
        self._faults = faults

    async def _reload_configuration(self) -> None:
        try:
            fresh = self._reread()
            self._access.reopen(fresh.log.access, fresh.log.format)
        except Misconfigured as error:
            reasons = "; ".join(error.mistakes)
            self._troubles_of["configuration"] = f"The configuration was not reloaded: {reasons}"
            raise
        self._troubles_of.pop("configuration", None)
        for name in waiting_for_restart(self._config, fresh):
            log.warn("{name} has changed: that needs a restart", name=name)
        self._config = evolve(self._config, limits=fresh.limits, log=fresh.log)
        for site in self._sites:
            site.connections, site.min_rate = fresh.limits.connections, fresh.limits.min_rate
            site.upload_time = fresh.limits.upload_time
        if self._assembly is not None:
            apply_limits(self._assembly, self._config)


def _origin(scheme: str, host: str, port: Any, usual: int) -> str:
    number = getattr(port.getHost(), "port", usual)
    return f"{scheme}://{host}" + ("" if number == usual else f":{number}")


def _warn(warnings: list[str]) -> None:
    for warning in warnings:
        log.warn("{warning}", warning=warning)
