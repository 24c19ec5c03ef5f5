"""The process that twistd starts, where there are several workers: it serves nothing itself.

It binds the ports, runs the database if that is ours, makes tables and store ready, keeps its
workers up, and answers the monitoring for all of them.
"""

from __future__ import annotations

import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

from attrs import evolve
from twisted.application.service import Service
from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.logger import Logger

from repoman.background import Background
from repoman.config import Config, waiting_for_restart
from repoman.database.pool import Pool
from repoman.errors import DatabaseUnavailable, StoreAbsent
from repoman.interfaces import new_key
from repoman.metrics import open_monitoring
from repoman.premises import Own, what_is_absent
from repoman.service import RETRY_SECONDS
from repoman.settings import PROXIED
from repoman.stopping import heed_stops, hurry_when_told
from repoman.supervisor import Supervisor
from repoman.workers.collected import Collected
from repoman.workers.crew import Crew
from repoman.workers.orders import Orders, Word
from repoman.workers.turns import Loads
from repoman.workers.worker import Worker, spawn

REMEMBERED = 50
"""Of so many dead workers the next one is told: the first that starts frees what they had."""

WATCH_SECONDS = 1.0
"""Seconds between two looks for silent workers."""

MOST_LATE = 2.0
"""Seconds that a look may come late before it says more of the foreman than of the workers."""

log = Logger()


class _Unused(Factory):
    noisy = False


class Foreman(Service):
    """The daemon, as several processes.

    :param command: starts a worker.
    :param reread: reads the configuration again, for SIGHUP.
    :ivar started: fires when all workers serve; fails with what keeps them from it.
    """

    def __init__(
        self, reactor: Any, config: Config, reread: Callable[[], Config], command: Sequence[str]
    ) -> None:
        self._reactor = reactor
        self._config = config
        self._reread = reread
        self._command = command
        self._running = AsyncExitStack()
        self._premises = Own(reactor, config, self._running)
        self._collected = Collected(reactor, self._crews)
        self._background = Background(reactor, self._collected.metrics.failed)
        self._supervisor = Supervisor(reactor)
        self._sockets: dict[str, socket.socket] = {}
        self._dsn = ""
        self._word = Word()
        self._dead: deque[str] = deque(maxlen=REMEMBERED)
        self._crew: Crew | None = None
        self._leaving: list[Crew] = []
        self._watched = reactor.seconds()
        self._stopping = False
        self._starting: Deferred[None] | None = None
        self.started: Deferred[None] = Deferred()

    def startService(self) -> None:
        """Begin to start; :attr:`started` tells the end of it."""
        super().startService()
        heed_stops(self._reactor, self._hurry)
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addCallbacks(self.started.callback, self.started.errback)

    def stopService(self) -> Deferred[None]:
        """Let the workers end what they do, then stop everything else."""
        super().stopService()
        self._supervisor.stopping()
        return Deferred.fromCoroutine(self._stop())

    async def _start(self) -> None:
        self._reload_when_told()
        self._dsn = await self._premises.database()
        for endpoint in filter(None, [self._config.server.https, self._config.server.http]):
            await self._bind(endpoint.removeprefix(PROXIED))
        self._crew = self._hire_crew(self._config)
        self._background.every(WATCH_SECONDS, "watch the workers", self._watch)
        await open_monitoring(
            self._reactor,
            self._config.metrics.endpoint,
            self._collected,
            self._collected.troubles,
            self._running,
        )
        if self._supervisor.patience:
            self._background.every(
                self._supervisor.patience / 3, "watchdog", self._supervisor.alive
            )
        serving = self._crew.until_served()
        try:
            await gatherResults([Deferred.fromCoroutine(self._prepare()), serving])
        except FirstError as error:
            error.subFailure.raiseException()
        self._supervisor.ready()

    async def _bind(self, endpoint: str) -> None:
        port = await self._premises.listen(endpoint, _Unused())
        port.stopReading()  # the workers accept
        # At its end a port shuts its socket down, which would end the workers' as well.
        self._sockets[endpoint], port.socket = port.socket, socket.socket(port.socket.family)
        self._running.callback(self._sockets[endpoint].close)
        self._running.push_async_callback(port.stopListening)

    async def _prepare(self) -> None:
        pool = Pool(self._reactor, self._dsn, size=2, is_alone=False)
        await pool.start()
        self._running.push_async_callback(pool.stop)
        while not self._word.go:
            try:
                await self._premises.store(pool)
                self._tell(Word(go=True))
            except (DatabaseUnavailable, StoreAbsent) as error:
                if self._word.wait != error.message:
                    absent = what_is_absent(error)
                    log.warn("Waiting for the {what}: {why}", what=absent, why=error.message)
                    self._supervisor.ready(f"Waiting for the {absent}")
                    self._tell(Word(wait=error.message))
                await deferLater(self._reactor, RETRY_SECONDS)

    def _tell(self, word: Word) -> None:
        self._word = word
        for crew in self._crews():
            crew.tell(word)

    # -- workers --

    def _crews(self) -> list[Crew]:
        return [crew for crew in (self._crew, *self._leaving) if crew is not None]

    def _hire_crew(self, config: Config) -> Crew:
        """Start workers that know ``config``, less what is the foreman's own."""
        size = config.server.workers
        connections = -(-config.limits.connections // size)
        theirs = evolve(
            config,
            limits=evolve(config.limits, connections=connections),
            metrics=evolve(config.metrics, endpoint=None),
        )
        loads = Loads.make(size)
        crew: Crew

        def hire(number: int) -> Worker:
            orders = Orders(
                theirs, self._dsn, number, self._lent_ports(), -1, -1, -1, loads,
                self._collected.history.past(), new_key(), tuple(self._dead),
            )  # fmt: skip
            Loads(loads).leave(number)
            worker = spawn(
                self._reactor, self._command, orders, lambda w: self._heard(crew, w),
                self._premises.lent,
            )  # fmt: skip
            worker.tell(self._word)
            return worker

        def buried(worker: Worker) -> None:
            Loads(loads).leave(worker.number)
            self._dead.append(worker.holder)
            self._collected.bury(worker)

        crew = Crew(self._reactor, size, hire, buried)
        crew.begin()
        crew.gone.addBoth(lambda _: os.close(loads))
        return crew

    def _lent_ports(self) -> dict[str, tuple[int, int]]:
        return {
            endpoint: (one.fileno(), int(one.family)) for endpoint, one in self._sockets.items()
        }

    def _heard(self, crew: Crew, worker: Worker) -> None:
        crew.heard()
        self._collected.add(worker)
        news = worker.report.news
        if news.spans or news.refusals:
            for other in (one for crew in self._crews() for one in crew.workers):
                if other is not worker:
                    other.tell(Word(news=news))

    async def _watch(self) -> None:
        now, before = self._reactor.seconds(), self._watched
        self._watched = now
        late = now - before > WATCH_SECONDS + MOST_LATE
        for worker in (one for crew in self._crews() for one in crew.workers):
            if late:  # so were we in reading their reports
                worker.excuse()
            worker.look()

    # -- reloading --

    def _reload_when_told(self) -> None:
        signal.signal(
            signal.SIGHUP,
            lambda *_: self._reactor.callFromThread(
                self._background.once, "reload configuration", self._reload
            ),
        )

    async def _reload(self) -> None:
        """Let new workers, with the new configuration, take the place of the old ones."""
        if self._stopping or self._crew is None:
            return
        await self._crew.until_served()
        self._supervisor.reloading()
        try:
            await self._replace(self._reread())
        except Exception as error:
            reasons = "; ".join(str(error).splitlines())
            self._collected.trouble = f"The configuration was not reloaded: {reasons}"
            raise
        finally:
            self._supervisor.ready()
            log.info("Certificates, limits and log files were looked at again")

    async def _replace(self, fresh: Config) -> None:
        for name in waiting_for_restart(self._config, fresh):
            log.warn("{name} has changed: that needs a restart", name=name)
        config = evolve(self._config, limits=fresh.limits, log=fresh.log)
        crew = self._hire_crew(config)
        self._leaving.append(crew)  # until it serves
        try:
            await crew.until_served()
        except Exception:
            self._dismiss(crew)
            raise
        self._collected.trouble = ""
        old, self._crew, self._config = self._crew, crew, config
        self._leaving.remove(crew)
        if old is not None:
            self._leaving.append(old)
            self._dismiss(old)

    def _dismiss(self, crew: Crew) -> None:
        """Let a crew end that is among the leaving ones."""
        crew.retire().addBoth(lambda _: self._leaving.remove(crew))

    # -- stopping --

    async def _stop(self) -> None:
        self._stopping = True
        if self._starting is not None and not self._starting.called:
            self._starting.cancel()
        for one in self._sockets.values():
            one.close()
        hurry_when_told(self._reactor, self._hurry)
        await gatherResults([crew.retire() for crew in self._crews()])
        self._background.stop()
        await self._running.aclose()

    def _hurry(self) -> None:
        for crew in self._crews():
            crew.signal(signal.SIGTERM)
