"""The running transfers, under the policy."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from repoman.model import Caller
from repoman.policy import authorize
from repoman.transfers import Transfer


class Transfers:
    """What is on its way now, for administrators.

    :param running: answers what is, through this process.
    :param elsewhere: the same of the others, a little late.
    """

    def __init__(
        self,
        running: Callable[[], Iterable[Transfer]],
        elsewhere: Callable[[], Awaitable[Iterable[Transfer]]],
    ) -> None:
        self._running = running
        self._elsewhere = elsewhere

    def here(self) -> list[Transfer]:
        """Those through this process."""
        return list(self._running())

    async def listing(self, caller: Caller) -> list[Transfer]:
        """All running transfers, the longest running one first."""
        authorize("transfers.read", caller)
        others = await self._elsewhere()
        return sorted([*self.here(), *others], key=lambda transfer: -transfer.seconds)
