"""What the daemon did in the last day, in short: for people to look at."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Any

from attrs import define, frozen

SPAN_SECONDS = 600
"""How much time one span covers."""

SPANS = 24 * 3600 // SPAN_SECONDS
"""How many are kept: a day."""

REFUSALS = 50
"""How many refusals are kept."""


@define
class Span:
    """Some minutes.

    :ivar requests: how many were answered.
    :ivar received: bytes of their bodies.
    :ivar sent: bytes of the answers' bodies.
    :ivar stall: the longest time that the event loop came late, in seconds.
    """

    requests: int = 0
    received: int = 0
    sent: int = 0
    stall: float = 0.0


@frozen
class Refusal:
    """A request that was refused.

    :ivar who: the user's name, else the DN; empty for who had none.
    :ivar reason: as it was said; empty if it was not said in words.
    """

    time: datetime
    who: str
    address: str
    asked: str
    status: int
    reason: str


class History:
    """Counts of the last day, since the daemon's start; a day's end forgets the day before.

    :param seconds: a monotonic clock.
    :param now: the time of day.
    """

    def __init__(self, seconds: Callable[[], float], now: Callable[[], datetime]) -> None:
        self._seconds = seconds
        self._now = now
        self._spans: deque[Span] = deque([Span()], maxlen=SPANS)
        self._number = self._current_number()
        self._refusals: deque[Refusal] = deque(maxlen=REFUSALS)

    def _current_number(self) -> int:
        return int(self._seconds() // SPAN_SECONDS)

    def _span(self) -> Span:
        number = self._current_number()
        for _ in range(min(number - self._number, SPANS)):
            self._spans.append(Span())
        self._number = number
        return self._spans[-1]

    def count(self, request: Any) -> None:
        """Note an answered request."""
        span = self._span()
        span.requests += 1
        span.received += request.body.count
        span.sent += request.sentLength
        if request.code in (401, 403):
            self._refusals.appendleft(_refusal(request, self._now()))

    def stalled(self, seconds: float) -> None:
        """The event loop came so much too late to a timer."""
        span = self._span()
        span.stall = max(span.stall, seconds)

    def spans(self) -> list[Span]:
        """All of the last day, the oldest first; before the start there is nothing."""
        self._span()
        return [*(Span() for _ in range(SPANS - len(self._spans))), *self._spans]

    def refusals(self) -> list[Refusal]:
        """The latest ones, the newest first."""
        return list(self._refusals)


def _refusal(request: Any, now: datetime) -> Refusal:
    caller = getattr(request, "caller", None)
    identity = request.peer.identity if request.peer else None
    user = caller.user.user_name if caller and caller.user else ""
    return Refusal(
        now,
        user or (identity.subject if identity else ""),
        str(getattr(request.client, "host", "")),
        f"{request.method.decode('latin-1')} {request.path.decode('latin-1')}"[:200],
        request.code,
        str(getattr(request, "refusal", "")),
    )
