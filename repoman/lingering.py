"""What a refused peer still sends is read and dropped, within bounds.

A client that writes its whole body before it reads finds its refusal only if it may go on
writing: closed at once, the connection is reset under it, and what we said is lost with it
(RFC 9112 section 9.6).  So we read on for as long as the peer sends.  What that may cost is
bounded three times over: each peer in bytes and in seconds, all peers together in bytes per
second, and whoever lingers is the first to make room where places are short.

Nor is a peer cut that is silent because it still reads: what it is told may be long, where nobody
wanted the body of its GET.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall

LINGER_SECONDS = 5.0
"""How long a refused peer may be silent before it is cut."""

LONGEST_LINGER = 600.0
"""Seconds for which a refused peer may go on sending."""

LINGER_BYTES = 2**33
"""How much of what it sends is read and dropped: whoever is cut before the end of an image does not
hear why, and sends it again."""

UNMEASURED_BYTES = 2**30
"""The same of a body that does not say its length, and was refused before it was read."""

OUTGROWN_BYTES = 2**26
"""The same of one that was read until there was no more room for it, and of what is no request: it
need not have an end."""

LINGER_RATE = 32 * 2**20
"""Bytes per second that all refused peers together may send: a tenth of a processor over TLS."""

SHORTEST_PAUSE = 0.02
"""Seconds; less than this is let pass, for timers cost more than they save."""


def most_of(length: int | None, count: int) -> int:
    """How much of a body is read and dropped.

    :param length: as announced; ``None``: it comes in chunks.
    :param count: how many bytes of it were read before it was refused.
    """
    if length is not None:
        return LINGER_BYTES
    return OUTGROWN_BYTES if count else UNMEASURED_BYTES


class Allowance:
    """Bytes per second that several peers share.  Pure: the caller says what time it is.

    :param rate: in bytes per second.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._free_at = 0.0

    def take(self, now: float, count: int) -> float:
        """Note ``count`` bytes that have come; return the seconds until the next may."""
        self._free_at = max(self._free_at, now) + count / self._rate
        return self._free_at - now


class Lingering:
    """One refused peer that may still send.

    :param producer: of its bytes: is paused and resumed.
    :param allowance: shared with all others that linger.
    :param cut: ends the connection.
    :param untaken: says how many bytes the peer has not taken of what it was told.
    :param most: how many bytes it may send.
    :ivar is_held_up: it is we who let the peer wait.
    """

    def __init__(
        self,
        reactor: Any,
        producer: Any,
        allowance: Allowance,
        cut: Callable[[], object],
        untaken: Callable[[], int],
        most: int,
    ) -> None:
        self._reactor = reactor
        self._producer = producer
        self._allowance = allowance
        self._cut = cut
        self._untaken = untaken
        self._left = untaken()
        self._left_to_drop = most
        self._end = reactor.seconds() + LONGEST_LINGER
        self.is_held_up = False
        self._timer: IDelayedCall
        self._wait()

    def drop(self, count: int) -> None:
        """So many bytes have come, and are forgotten."""
        now = self._reactor.seconds()
        self._left_to_drop -= count
        if self._left_to_drop < 0 or now > self._end:
            self._cut()
            return
        self.stop()
        pause = self._allowance.take(now, count)
        if pause < SHORTEST_PAUSE:
            self._wait()
            return
        self.is_held_up = True
        self._producer.pauseProducing()
        self._timer = self._reactor.callLater(pause, self._go_on)

    def _go_on(self) -> None:
        self.is_held_up = False
        self._wait()
        self._producer.resumeProducing()

    def _wait(self) -> None:
        self._timer = self._reactor.callLater(LINGER_SECONDS, self._silent)

    def _silent(self) -> None:
        """Cut the peer, unless it has taken some of its answer meanwhile."""
        before, self._left = self._left, self._untaken()
        if self._left < before and self._reactor.seconds() < self._end:
            self._wait()
        else:
            self._cut()

    def stop(self) -> None:
        """The connection has ended, or is about to."""
        if self._timer.active():
            self._timer.cancel()
