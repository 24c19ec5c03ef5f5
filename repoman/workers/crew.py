"""A number of workers that is kept up: who dies is replaced."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.logger import Logger

from repoman.errors import Misconfigured
from repoman.workers.orders import Word
from repoman.workers.worker import Worker

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds until a worker that died is replaced: doubled with each death."""

DEATHS = 5
"""How often one may die before it has served once."""

STEADY_SECONDS = 60.0
"""Seconds after which an earlier death no longer counts."""


class Crew:
    """So many workers of one configuration.

    :param hire: starts worker number N.
    :param buried: told of each that has ended.
    :ivar gone: fires when it has been retired and all have ended.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        size: int,
        hire: Callable[[int], Worker],
        buried: Callable[[Worker], object],
    ) -> None:
        self._reactor = reactor
        self._hire = hire
        self._buried = buried
        self._retired = False
        self._pauses: dict[int, Deferred[None]] = {}
        self._workers: dict[int, Worker] = {}
        self._size = size
        self._has_served = False
        self._waiting: list[Deferred[None]] = []
        self.gone: Deferred[Any] = Deferred()

    def begin(self) -> None:
        """Start them."""
        keeping = [Deferred.fromCoroutine(self._keep(number)) for number in range(self._size)]
        gatherResults(keeping).chainDeferred(self.gone)

    @property
    def workers(self) -> list[Worker]:
        """Those that live."""
        return list(self._workers.values())

    def heard(self) -> None:
        """One of them has reported."""
        served = [worker for worker in self._workers.values() if worker.served]
        if len(served) == self._size:
            self._has_served = True
            while self._waiting:
                self._waiting.pop().callback(None)

    def until_served(self) -> Deferred[None]:
        """Fires when each has been ready for requests; fails if they cannot be."""
        waiting: Deferred[None] = Deferred()
        if self._has_served:
            waiting.callback(None)
        else:
            self._waiting.append(waiting)
        return waiting

    def _give_up(self, error: Exception) -> None:
        self.retire()
        while self._waiting:
            self._waiting.pop().errback(error)

    def tell(self, word: Word) -> None:
        """Tell all of them something."""
        for worker in self.workers:
            worker.tell(word)

    def retire(self) -> Deferred[Any]:
        """Let them end what they do, and go; answer when all are gone."""
        self._retired = True
        for pause in list(self._pauses.values()):
            pause.cancel()
        self.signal(signal.SIGTERM)
        gone: Deferred[None] = Deferred()
        self.gone.addBoth(gone.callback)
        return gone

    def signal(self, number: int) -> None:
        """Send a signal to all of them."""
        for worker in self.workers:
            worker.signal(number)

    async def _keep(self, number: int) -> None:
        deaths = 0
        while not self._retired:
            begun = self._reactor.seconds()
            why, failed = await self._employ(number)
            if self._retired:
                break
            deaths = 1 if self._reactor.seconds() - begun > STEADY_SECONDS else deaths + 1
            if not self._has_served and (failed or deaths == DEATHS):
                self._give_up(_not_started(number, failed, why))
                break
            pause = min(FIRST_PAUSE * 2 ** min(deaths - 1, 10), LONGEST_PAUSE)
            await self._pause(number, pause, why)

    async def _employ(self, number: int) -> tuple[str, list[str]]:
        """Start one and wait for its end; answer why it came, and why it could not start."""
        try:
            worker = self._hire(number)
        except Exception as error:  # no process, memory or descriptor is to be had: for now
            return f"not started ({getattr(error, 'strerror', '') or type(error).__name__})", []
        self._workers[number] = worker
        why = await worker.ended
        del self._workers[number]
        self._buried(worker)
        return why, worker.failed

    async def _pause(self, number: int, seconds: float, why: str) -> None:
        self._log.error(
            "Worker {number} ended: {why}; another one begins in {seconds} s",
            number=number, why=why, seconds=seconds,
        )  # fmt: skip
        self._pauses[number] = deferLater(self._reactor, seconds)
        with suppress(CancelledError):
            await self._pauses[number]
        del self._pauses[number]


def _not_started(number: int, failed: list[str], why: str) -> Exception:
    if failed:
        return Misconfigured(failed)
    return RuntimeError(f"worker {number} ended before it served: {why}")
