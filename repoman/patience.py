"""How long a peer lets us wait for bytes that it sends or takes."""

from __future__ import annotations

from typing import Any

from repoman.tls_flow import is_sending, unfetched

RATE_WINDOW = 60.0
"""Seconds over which a peer must keep the minimum rate."""


class Patience:
    """Follows one connection's bytes.

    :param transport: of the connection.
    """

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._waited = 0.0
        self._moved = 0
        self._total = 0
        self._seen = (0, 0)
        self._was_still = False

    def moved(self, count: int) -> None:
        """Bytes of a body or an answer have passed."""
        self._moved += count
        self._total += count

    @property
    def is_sending(self) -> bool:
        """Bytes wait for the peer, in this process."""
        return is_sending(self._transport)

    @property
    def is_stalled(self) -> bool:
        """Not one byte has passed between the last two looks, nor since."""
        return self._was_still and self._seen == self._progress()

    def look(self, held_up: bool) -> None:
        """Note how far the bytes are; to be called every few seconds.

        :param held_up: it is the peer that we wait for.
        """
        before, self._seen = self._seen, self._progress()
        self._was_still = held_up and self._seen == before

    def _progress(self) -> tuple[int, int]:
        # The kernel takes megabytes at once for a peer that is slow, but not still.
        return self._total, unfetched(self._transport)

    def is_too_slow(self, seconds: float, min_rate: int) -> bool:
        """Less than ``min_rate`` has come over RATE_WINDOW in which we waited for the peer.

        :param seconds: how long we have waited since the last time.
        :param min_rate: bytes per second.
        """
        self._waited += seconds
        if self._waited < RATE_WINDOW:
            return False
        slow = self._moved < min_rate * self._waited
        self._waited, self._moved = 0.0, 0
        return slow
