"""Trying again: on the network's faults for a while, and until it is one's turn."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from twisted.internet.task import deferLater

from repoman.client.exchange import Exchange
from repoman.client.problems import is_passing
from repoman.client.progress import Progress
from repoman.errors import RepomanError, TooManyUploads

T = TypeVar("T")

SHORTEST_PAUSE = 1.0
"""Seconds between two questions for a turn at least, whatever a ``Retry-After`` says."""

LONGEST_PAUSE = 60.0
"""... and at most."""

SPREAD = 0.25
"""By which part a pause for a turn may be longer: those that wait must not all come at once."""


async def patiently(
    exchange: Exchange,
    attempt: Callable[[], Awaitable[T]],
    moved: Callable[[], int],
    progress: Progress,
    passing: Callable[[RepomanError], bool] = is_passing,
) -> T:
    """Attempt a transfer until it succeeds, with longer and longer breaks.

    Whom the server tells when to come again because others are under way waits for a turn
    without limit: uploads take hours, and nothing is wrong.

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
            stated = min(error.retry_after or 0.0, LONGEST_PAUSE)
            is_in_line = isinstance(error, TooManyUploads) and error.retry_after is not None
            if moved() > before or is_in_line:
                delays = [*exchange.transfer_delays]
            if is_in_line:
                pause = max(stated, SHORTEST_PAUSE) * random.uniform(1, 1 + SPREAD)  # noqa: S311 -- no secret
            elif delays and passing(error):
                pause = max(stated, delays.pop(0))
            else:
                raise
            progress.waiting(error, None if is_in_line else pause)
        await deferLater(exchange.reactor, pause)
