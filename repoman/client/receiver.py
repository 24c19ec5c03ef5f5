"""Taking a body as it comes, with an eye on its length and on the clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone

from repoman.errors import BadReply, ConnectionProblem


class Receiver(Protocol):
    """Takes a body, with an eye on the clock.

    :ivar done: fires with ``None`` when there is no more to wait for.
    :ivar fault: what went wrong on our side.
    :ivar busy: fires when the last bytes have been taken care of.
    """

    fault: BaseException | None = None
    busy: Deferred[None] | None = None

    def __init__(
        self,
        reactor: Any,
        take: Callable[[bytes], Deferred[None] | None],
        limit: int,
        stall_seconds: float,
        server: str,
    ) -> None:
        self.done: Deferred[None] = Deferred(lambda _: self._hang_up())
        self._reactor, self._take, self._left = reactor, take, limit
        self._stall_seconds, self._server = stall_seconds, server
        self._watch = reactor.callLater(stall_seconds, self._stalled)

    def dataReceived(self, data: bytes) -> None:
        """Pass some bytes on."""
        if self.done.called:
            return
        if self._watch.active():
            self._watch.reset(self._stall_seconds)
        self._left -= len(data)
        try:
            if self._left < 0:
                raise BadReply(f"{self._server} sends more than it announced.")
            busy = self._take(data)
            if busy is not None and not busy.called:
                self._pause(busy)
        except Exception as error:
            self.fault = error
            self._end(None, lose=True)

    def connectionLost(self, reason: Failure = Failure(ResponseDone())) -> None:  # noqa: B008
        """The body is over, one way or the other."""
        self._end(None if reason.check(ResponseDone) else reason)

    def _pause(self, busy: Deferred[None]) -> None:
        """Receive nothing, and expect nothing, until there is room for it."""
        if busy is self.busy:
            return
        self.busy = busy
        if self._watch.active():
            self._watch.cancel()
        transport: Any = self.transport
        transport.pauseProducing()
        busy.addCallbacks(lambda _: self._resume(), self._refused)

    def _resume(self) -> None:
        if not self.done.called:
            if not self._watch.active():
                self._watch = self._reactor.callLater(self._stall_seconds, self._stalled)
            transport: Any = self.transport
            transport.resumeProducing()

    def _refused(self, failure: Failure) -> None:
        self.fault = failure.value
        self._end(None, lose=True)

    def _stalled(self) -> None:
        self._end(Failure(silence(self._server, self._stall_seconds)))

    def _end(self, failure: Failure | None, *, lose: bool = False) -> None:
        if self.done.called:
            return
        self._hang_up(lose=lose or failure is not None)
        if failure is None:
            self.done.callback(None)
        else:
            self.done.errback(failure)

    def _hang_up(self, lose: bool = True) -> None:
        if self._watch.active():
            self._watch.cancel()
        if lose and self.transport is not None:
            self.transport.loseConnection()


class Abandoning(Protocol):
    """Takes no body: it hangs up."""

    def connectionMade(self) -> None:
        """Lose the connection, with all that would still come."""
        if self.transport is not None:
            self.transport.loseConnection()


def silence(server: str, seconds: float) -> ConnectionProblem:
    """The error for a server that says nothing when it is its turn."""
    return ConnectionProblem(f"{server} said nothing for {seconds:.0f} seconds.")
