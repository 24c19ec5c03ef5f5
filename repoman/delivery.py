"""Which answers have reached their peer: one is logged when that is known, not when it is written.

The kernel takes megabytes at once, and this process keeps what the kernel does not take.  Were an
answer logged when its last byte was handed on, the log would call complete what a peer left in
the middle of.  An answer is complete when the peer's kernel has acknowledged its last byte, or,
where we close the connection after it, when the kernel has taken that byte; before, it is cut.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from repoman.tls_flow import unfetched, unsent

SMALL = 16 * 1024
"""Bytes of an answer that any peer's window takes: nobody waits for their acknowledgement."""

FIRST_LOOK = 0.02
"""Seconds until the first look at what a peer has acknowledged."""

LONGEST_PAUSE = 1.0
"""Seconds between two looks; each waits twice as long as the one before."""


class Delivery:
    """The answers of one connection that are written, and are not known to have arrived.

    :param transport: of the connection.
    :param log: is told of an answer, once.
    """

    def __init__(self, reactor: IReactorTime, transport: Any, log: Callable[[Any], object]) -> None:
        self._reactor = reactor
        self._transport = transport
        self._log = log
        self._written: list[Any] = []
        self._outstanding = 0
        self._pause = FIRST_LOOK
        self._next: IDelayedCall | None = None

    def look(self) -> int:
        """Return how many bytes the peer has not acknowledged; log what has arrived."""
        self._outstanding = unsent(self._transport) + unfetched(self._transport)
        if not self._outstanding:
            self._tell()
        return self._outstanding

    def answered(self, request: Any) -> None:
        """An answer is written."""
        self._written.append(request)
        if self.look() <= SMALL and len(self._written) == 1 and request.sentLength <= SMALL:
            self._tell()
        elif self._next is None and self._written:
            self._pause = FIRST_LOOK
            self._next = self._reactor.callLater(self._pause, self._look_again)

    def _look_again(self) -> None:
        self._next = None
        self.look()
        if self._written:
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            self._next = self._reactor.callLater(self._pause, self._look_again)

    def lost(self, *, is_ours: bool) -> int:
        """The connection is no more; return how many bytes were lost with it.

        :param is_ours: we closed it, in order.
        """
        held = unsent(self._transport)
        left = lost = held if is_ours else max(held, self._outstanding)
        for request in reversed(self._written):
            if left:
                gone = min(left, request.sentLength)
                request.was_cut, left = True, left - gone
                request.sentLength -= gone
        self._tell()
        return lost

    def _tell(self) -> None:
        written, self._written = self._written, []
        for request in written:
            self._log(request)
        if self._next is not None and self._next.active():
            self._next.cancel()
        self._next = None
