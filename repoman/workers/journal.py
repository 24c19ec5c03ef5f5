"""A worker's log: each event goes to the foreman, and is one of its log, as if it were its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from twisted.logger import (
    ILogObserver,
    LogEvent,
    eventAsJSON,
    eventFromJSON,
    globalLogPublisher,
)
from zope.interface import provider

from repoman.workers.orders import read_orders


def observer() -> Callable[[LogEvent], None]:
    """An observer for twistd's ``--logger``, in a worker."""
    orders = read_orders()
    if orders is None:
        raise RuntimeError("This process is no worker of Repoman's")
    place = orders.journal

    @provider(ILogObserver)
    def observe(event: LogEvent) -> None:
        line = eventAsJSON(event).encode("utf-8", "replace") + b"\n"
        with suppress(OSError):  # the foreman is gone, and so are we
            while line:
                line = line[os.write(place, line) :]

    return observe  # type: ignore[no-any-return]  # of zope's decorator


def publish(line: bytes) -> None:
    """Let an event of a worker's be one of our log."""
    with suppress(ValueError):
        globalLogPublisher(eventFromJSON(line.decode()))
