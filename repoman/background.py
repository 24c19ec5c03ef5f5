"""Work that nobody waits for: once, or again and again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from repoman.audit import DAEMON, ORIGIN
from repoman.errors import RepomanError

Work = Callable[[], Awaitable[Any]]


class Background:
    """Runs work; a failure is one line in the log and costs nothing else.

    :param failed: told of each, by the name of the work.
    """

    log = Logger()

    def __init__(self, reactor: Any, failed: Callable[[str], object] = lambda name: None) -> None:
        self._reactor = reactor
        self._failed = failed
        self._loops: list[LoopingCall] = []
        self._parts: list[Background] = []

    def part(self) -> Background:
        """Another one, that can be stopped by itself, and is with this one."""
        self._parts.append(part := Background(self._reactor, self._failed))
        return part

    def once(self, name: str, work: Work) -> Deferred[Any]:
        """Run ``work``; the Deferred fires at its end and never fails."""
        running = Deferred.fromCoroutine(_run(work))

        def failed(failure: Any) -> None:
            self._failed(name)
            if failure.check(RepomanError):
                reason = "; ".join(failure.value.message.splitlines())
                self.log.warn("{name}: {reason}", name=name, reason=reason)
            else:
                self.log.failure("{name} failed", failure, name=name)

        return running.addErrback(failed)

    def every(self, seconds: float, name: str, work: Work, *, at_once: bool = False) -> None:
        """Run ``work`` every so many seconds, never twice at the same time.

        :param at_once: the first time now.
        """
        loop = LoopingCall(self.once, name, work)
        loop.clock = self._reactor
        loop.start(seconds, now=at_once)
        self._loops.append(loop)

    def stop(self) -> None:
        """Begin nothing more."""
        while self._loops:
            self._loops.pop().stop()
        for part in self._parts:
            part.stop()


async def _run(work: Work) -> Any:
    # Also when a request has set it off: what it changes is not that caller's doing.
    ORIGIN.set(DAEMON)
    return await work()
