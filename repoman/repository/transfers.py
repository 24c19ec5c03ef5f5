"""The running transfers, under the policy."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from repoman.model import Caller
from repoman.policy import authorize
from repoman.transfers import Transfer


class Transfers:
    """What is on its way now, for administrators.

    :param running: answers what is.
    """

    def __init__(self, running: Callable[[], Iterable[Transfer]]) -> None:
        self._running = running

    def listing(self, caller: Caller) -> list[Transfer]:
        """All running transfers, the longest running one first."""
        authorize("transfers.read", caller)
        return sorted(self._running(), key=lambda transfer: -transfer.seconds)
