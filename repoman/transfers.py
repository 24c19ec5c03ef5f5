"""Bytes that are on their way now: whose, how fast, how long to go."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

Direction = Literal["upload", "download"]
"""As the client sees it."""


@frozen
class Transfer:
    """One request whose bytes are on their way.

    :ivar user: by name; empty for nobody in particular.
    :ivar path: what the client asked for.
    :ivar moved: bytes so far.
    :ivar total: bytes in all; ``None`` if the client has not said.
    :ivar seconds: since it began.
    :ivar rate: bytes per second, lately.
    :ivar daemon: through which it runs; empty for the one that is asked.
    """

    request_id: str
    user: str
    dn: str
    address: str
    direction: Direction
    path: str
    moved: int
    total: int | None
    seconds: float
    rate: float
    daemon: str = ""

    @property
    def remaining(self) -> float | None:
        """Seconds to go at this rate; ``None`` if nobody can say."""
        if self.total is None or not self.rate:
            return None
        return max(self.total - self.moved, 0) / self.rate


class Pace:
    """How fast a count has grown lately.

    :param begun: in seconds of whatever clock.
    """

    def __init__(self, begun: float) -> None:
        self._last = (begun, 0)
        self._rate: float | None = None

    def note(self, now: float, count: int) -> None:
        """Look at the count; to be called every few seconds."""
        rate = self._since(now, count)
        # Half of what was before: a moment's pause is not yet a standstill.
        self._rate = rate if self._rate is None else (self._rate + rate) / 2
        self._last = now, count

    def rate(self, now: float, count: int) -> float:
        """Per second, lately; before the first look, since the beginning."""
        return self._since(now, count) if self._rate is None else self._rate

    def _since(self, now: float, count: int) -> float:
        time, before = self._last
        return (count - before) / (now - time) if now > time else 0.0
