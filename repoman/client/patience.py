"""Trying again, on the network's faults only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from twisted.internet.task import deferLater

from repoman.client.exchange import Exchange
from repoman.client.problems import is_passing
from repoman.client.progress import Progress
from repoman.errors import RepomanError

T = TypeVar("T")


async def patiently(
    exchange: Exchange,
    attempt: Callable[[], Awaitable[T]],
    moved: Callable[[], int],
    progress: Progress,
    passing: Callable[[RepomanError], bool] = is_passing,
) -> T:
    """Attempt a transfer until it succeeds, with longer and longer breaks.

    :param moved: how many bytes have arrived so far for certain; each time that
        some did, patience begins anew.
    :param passing: whether the same attempt may well succeed in a moment.
    :raises RepomanError: what does not pass, or has not passed in time.
    """
    delays = [*exchange.transfer_delays]
    while True:
        before = moved()
        try:
            return await attempt()
        except RepomanError as error:
            if moved() > before:
                delays = [*exchange.transfer_delays]
            if not delays or not passing(error):
                raise
            progress.waiting(error, delays[0])
        await deferLater(exchange.reactor, delays.pop(0))
