"""A worker, as its foreman sees it: a child process that reports."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import count
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from repoman.workers import journal
from repoman.workers.orders import Orders, Report, Word, decode, encode, environment

START_SECONDS = 120.0
"""How long a worker may take to its first report."""

SILENCE_SECONDS = 10.0
"""How long after each."""

LONGEST_LINE = 1 << 24
"""Bytes of a line from a worker."""


class Worker(ProcessProtocol):
    """A running worker.

    :param heard: told of each of its reports.
    :ivar report: its latest.
    :ivar failed: why it did not start, a line each.
    :ivar served: it has been ready for requests once.
    """

    _log = Logger()

    def __init__(self, reactor: Any, orders: Orders, heard: Callable[[Worker], object]) -> None:
        self.number = orders.number
        self.holder = orders.holder
        self.report = Report()
        self.failed: list[str] = []
        self.served = False
        self.ended: Deferred[str] = Deferred()
        self._reactor = reactor
        self._orders = orders
        self._heard = heard
        self._patience = reactor.seconds() + START_SECONDS
        self._tails: dict[int, bytes] = {}

    @property
    def pid(self) -> int | None:
        """Its process id, while it runs."""
        return None if self.transport is None else self.transport.pid

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Read reports and events, a line each."""
        *lines, tail = (self._tails.get(childFD, b"") + data).split(b"\n")
        self._tails[childFD] = tail[-LONGEST_LINE:]
        for line in lines:
            if childFD == self._orders.journal:
                journal.publish(line)
            else:
                self._take(decode(line, Report))

    def _take(self, report: Report) -> None:
        self.report = report
        self.served = self.served or report.serves
        self.failed = self.failed or report.failed
        self._patience = self._reactor.seconds() + SILENCE_SECONDS
        self._heard(self)

    def tell(self, word: Word) -> None:
        """Tell it something."""
        transport: Any = self.transport
        if transport is not None and self._orders.hears in transport.pipes:
            transport.writeToChild(self._orders.hears, encode(word) + b"\n")

    def signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        transport: Any = self.transport
        if transport is not None:
            with suppress(ProcessExitedAlready):
                transport.signalProcess(number)

    def excuse(self) -> None:
        """Give it time anew: nobody has listened."""
        self._patience = max(self._patience, self._reactor.seconds() + SILENCE_SECONDS)

    def look(self) -> None:
        """Kill it if it is silent."""
        if self._reactor.seconds() > self._patience:
            self._log.error("Worker {number} was silent and is killed", number=self.number)
            self._patience += START_SECONDS
            self.signal(signal.SIGKILL)

    def processEnded(self, reason: Failure) -> None:
        """Tell who waits for the end."""
        self.ended.callback(reason.getErrorMessage())


def spawn(
    reactor: Any,
    command: Sequence[str],
    orders: Orders,
    heard: Callable[[Worker], object],
    lent: Sequence[int] = (),
) -> Worker:
    """Start a worker; what the orders say of its own descriptors is chosen here.

    :param command: the program, and what it is told.
    :param lent: descriptors of ours that it gets under the same numbers.
    """
    kept = {0, 1, 2, orders.loads, *lent, *(place for place, _ in orders.ports.values())}
    place = -1
    try:
        free = (number for number in count(3) if number not in kept)
        hears, tells, events, written = (next(free) for _ in range(4))
        orders = evolve(orders, hears=hears, tells=tells, journal=events)
        place = orders.write()
        files: Mapping[int, int | str] = {
            **{number: number for number in kept},
            hears: "w", tells: "r", events: "r", written: place,
        }  # fmt: skip
        worker = Worker(reactor, orders, heard)
        reactor.spawnProcess(
            worker, command[0], list(command), env=environment(written), childFDs=files
        )
    finally:
        if place >= 0:
            os.close(place)
    return worker
