"""A signal stops the daemon in good order; another one hurries it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, Final

STOPS: Final = (signal.SIGTERM, signal.SIGINT)
"""The signals that stop."""


def heed_stops(reactor: Any, hurry: Callable[[], None]) -> None:
    """Let the first signal stop the reactor, as ever, and each further one call ``hurry``.

    Not only once the stop has begun: a second one may come before that, and Twisted
    would answer it by a traceback, and with no haste.
    """

    def heed() -> None:
        for number in STOPS:
            if callable(usual := signal.getsignal(number)):
                signal.signal(number, partial(first, usual))

    def first(usual: Callable[[int, Any], Any], number: int, frame: FrameType | None) -> None:
        hurry_when_told(reactor, hurry)
        usual(number, frame)

    reactor.callWhenRunning(heed)  # until then it has no handlers


def hurry_when_told(reactor: Any, hurry: Callable[[], None]) -> None:
    """The stop has begun: let each signal call ``hurry``."""
    for number in STOPS:
        signal.signal(number, lambda *_: reactor.callFromThread(hurry))
