"""A worker itself: the service on ports, a database and a store that its foreman looks after."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from socket import AF_UNIX
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.stdio import StandardIO
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from repoman.assembly import Store, make_store
from repoman.config import Config
from repoman.database.blobs import BlobRecords
from repoman.database.pool import Pool
from repoman.errors import DatabaseUnavailable, RepomanError
from repoman.inspection import tls_settings
from repoman.service import RepomanService, now
from repoman.tls import ServerTLS
from repoman.workers.orders import Orders, Report, Word, decode, encode
from repoman.workers.turns import Loads, take_turns
from repoman.workers.worker import LONGEST_LINE

REPORT_SECONDS = 1.0
"""Seconds between two reports."""

log = Logger()

_CLOSED = Failure(ConnectionDone())


def work(reactor: Any, orders: Orders, lines_of: Callable[[RepomanError], list[str]]) -> Any:
    """The service of a worker, not started yet.

    What keeps it from starting, the foreman is told.

    :param lines_of: tells an error to people.
    """
    die_with_parent()
    line = Line(orders)
    tls = ServerTLS(tls_settings(orders.config), now)
    try:
        tls.load()
    except RepomanError as error:
        os.write(orders.tells, encode(Report(failed=lines_of(error))) + b"\n")
        sys.exit(1)
    premises = partial(Lent, orders, line)
    service = RepomanService(reactor, orders.config, tls, lambda: orders.config, premises)
    line.begin(reactor, service)

    def failed(failure: Failure) -> None:
        if failure.check(CancelledError):
            return
        if isinstance(failure.value, RepomanError):
            line.tell(Report(failed=lines_of(failure.value)))
        else:
            log.failure("Not started", failure)
        reactor.callWhenRunning(reactor.stop)

    service.started.addErrback(failed)
    return service


def die_with_parent() -> None:
    """Let the kernel kill this process with its foreman, and keep a terminal's Ctrl-C to that."""
    os.setsid()
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Line(LineOnlyReceiver):
    """The worker's end of what foreman and worker say to each other."""

    delimiter = b"\n"
    MAX_LENGTH = LONGEST_LINE

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._loads = Loads(orders.loads)
        self._service: RepomanService | None = None
        self._ending: Deferred[None] | None = None
        self._word = Word()
        self._waiting: list[Deferred[None]] = []

    def begin(self, reactor: Any, service: RepomanService) -> None:
        """Speak for ``service`` from now on."""
        self._service = service
        service.history.add(self._orders.past)
        stdio: Any = StandardIO
        stdio(self, stdin=self._orders.hears, stdout=self._orders.tells, reactor=reactor)
        reporting = LoopingCall(self.report)
        reporting.clock = reactor
        reporting.start(REPORT_SECONDS)
        service.started.addCallback(lambda _: self.report())

    def lineReceived(self, line: bytes) -> None:
        """Hear a word."""
        word: Word = decode(line, Word)
        if word.go or word.wait:
            self._word = word
            while self._waiting:
                self._waiting.pop().callback(None)
        if self._service is not None:
            self._service.history.add(word.news)

    async def leave(self) -> None:
        """Wait for leave to serve.

        :raises DatabaseUnavailable: that will take longer.
        """
        if not (self._word.go or self._word.wait):
            heard: Deferred[None] = Deferred()
            self._waiting.append(heard)
            await heard
        if not self._word.go:
            raise DatabaseUnavailable(self._word.wait)

    def note_load(self) -> bool:
        """Say how many connections we have; answer whether the next one is ours."""
        if self._service is not None:
            self._loads.note(self._orders.number, self._service.open_connections)
        return self._loads.is_turn_of(self._orders.number)

    def report(self) -> None:
        """Tell how we are."""
        if self._service is None:
            return
        self.note_load()
        service = self._service
        self.tell(
            Report(
                serves=service.serves,
                metrics=service.metrics.exposition().decode(),
                troubles=service.troubles(),
                news=service.history.news(),
            )
        )

    def tell(self, report: Report) -> None:
        """Tell something."""
        if self.transport is not None and self.connected:
            self.sendLine(encode(report))

    async def end(self) -> None:
        """Report for the last time."""
        if self.transport is not None and self.connected:
            self._ending = Deferred()
            self.report()
            self.transport.loseConnection()
            await self._ending

    def connectionLost(self, reason: Failure = _CLOSED) -> None:
        """Nothing may be left of us when the foreman is dead."""
        self.connected = 0
        if self._ending is None:
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            self._ending.callback(None)


class Lent:
    """Premises that are the foreman's."""

    is_alone = False

    def __init__(
        self, orders: Orders, line: Line, reactor: Any, config: Config, running: AsyncExitStack
    ) -> None:
        self._orders = orders
        self._line = line
        self._reactor = reactor
        self._config = config
        self._running = running
        self.holder = orders.holder
        self.links = links_of_each(config.server.workers)

    async def database(self) -> str:
        """The database that the foreman told of."""
        self._running.push_async_callback(self._line.end)
        return self._orders.dsn

    async def listen(self, endpoint: str, factory: Any) -> Any:
        """Accept on the foreman's socket, in turn with the others."""
        place, family = self._orders.ports[endpoint]
        port = self._reactor.adoptStreamPort(place, family, factory)
        os.close(place)  # the port has one of its own, which it closes in time
        take_turns(self._reactor, port, self._line.note_load)
        if family == AF_UNIX:
            # Twisted would remove the socket's file, which is the others', too.
            port.stopListening = lambda: succeed(port.stopReading())
        return port

    async def store(self, pool: Pool) -> Store:
        """The store, which the foreman has made ready and keeps others off."""
        await self._line.leave()
        blobs = BlobRecords(pool)
        for holder in self._orders.dead:
            await blobs.expire_leases_of(holder)
        store = await make_store(self._reactor, self._config, blobs)
        await store.start()
        self._running.push_async_callback(store.stop)
        return store


def links_of_each(workers: int) -> int:
    """How many connections to PostgreSQL each may have: two generations shall have room in 50."""
    return max(2, min(8, 20 // workers))
