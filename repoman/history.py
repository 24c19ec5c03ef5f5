"""What the daemon did in the last day, in short: for people to look at."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Any

from attrs import define, evolve, field, frozen

SPAN_SECONDS = 600
"""How much time one span covers."""

SPANS = 24 * 3600 // SPAN_SECONDS
"""How many are kept: a day."""

REFUSALS = 50
"""How many refusals are kept."""


@define
class Span:
    """Some minutes.

    :ivar number: which ones, on the machine's monotonic clock.
    :ivar requests: how many were answered.
    :ivar received: bytes of their bodies.
    :ivar sent: bytes of the answers' bodies.
    :ivar stall: the longest time that the event loop came late, in seconds.
    """

    number: int = 0
    requests: int = 0
    received: int = 0
    sent: int = 0
    stall: float = 0.0

    def add(self, other: Span) -> None:
        """Count in what happened elsewhere in the same minutes."""
        self.requests += other.requests
        self.received += other.received
        self.sent += other.sent
        self.stall = max(self.stall, other.stall)


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


@frozen
class Part:
    """Some of a history, to be told to others."""

    spans: list[Span] = field(factory=list)
    refusals: list[Refusal] = field(factory=list)


class History:
    """Counts of the last day, since the daemon's start; a day's end forgets the day before.

    :param seconds: a monotonic clock, the same in all processes of the machine.
    :param now: the time of day.
    """

    def __init__(self, seconds: Callable[[], float], now: Callable[[], datetime]) -> None:
        self._seconds = seconds
        self._now = now
        self._spans: dict[int, Span] = {}
        self._refusals: deque[Refusal] = deque(maxlen=REFUSALS)
        self._new_spans: dict[int, Span] = {}
        self._new_refusals: deque[Refusal] = deque(maxlen=REFUSALS)

    def _current_number(self) -> int:
        return int(self._seconds() // SPAN_SECONDS)

    def _note(self, happened: Span) -> None:
        for spans in (self._spans, self._new_spans):
            self._add(spans, happened)

    def _add(self, spans: dict[int, Span], happened: Span) -> None:
        first = self._current_number() - SPANS + 1
        for old in [number for number in spans if number < first]:
            del spans[old]
        if happened.number >= first:
            spans.setdefault(happened.number, Span(happened.number)).add(happened)

    def count(self, request: Any) -> None:
        """Note an answered request."""
        self._note(Span(self._current_number(), 1, request.body.count, request.sentLength))
        if request.code in (401, 403):
            refusal = _refusal(request, self._now())
            self._refusals.appendleft(refusal)
            self._new_refusals.appendleft(refusal)

    def stalled(self, seconds: float) -> None:
        """The event loop came so much too late to a timer."""
        self._note(Span(self._current_number(), stall=seconds))

    def spans(self) -> list[Span]:
        """All of the last day, the oldest first; before the start there is nothing."""
        last = self._current_number()
        return [self._spans.get(n, Span(n)) for n in range(last - SPANS + 1, last + 1)]

    def refusals(self) -> list[Refusal]:
        """The latest ones, the newest first."""
        return list(self._refusals)

    def news(self) -> Part:
        """What was noted here since this was asked last."""
        part = Part(list(self._new_spans.values()), list(self._new_refusals))
        self._new_spans = {}
        self._new_refusals.clear()
        return part

    def past(self) -> Part:
        """All that is known."""
        return Part([evolve(span) for span in self._spans.values()], list(self._refusals))

    def add(self, part: Part) -> None:
        """Count in what happened in another process; it is no news of ours."""
        for span in part.spans:
            self._add(self._spans, span)
        if part.refusals:
            both = sorted([*part.refusals, *self._refusals], key=lambda r: r.time, reverse=True)
            self._refusals = deque(both[:REFUSALS], maxlen=REFUSALS)


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
        str(getattr(request, "refusal", ""))[:500],
    )
