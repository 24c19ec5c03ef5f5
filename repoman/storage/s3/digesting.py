"""Digests of what flows out of the store, at a bounded rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from repoman.streams import Digesting


class _Nowhere:
    """Where bytes end."""

    def write(self, data: bytes) -> None:
        pass

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        pass

    def unregisterProducer(self) -> None:
        pass


class Measured:
    """A consumer that digests, and lets its producer wait when it is too fast.

    :param rate: bytes per second; ``None``: as fast as they come.
    """

    def __init__(self, reactor: Any, names: tuple[str, ...], rate: int | None) -> None:
        self._reactor = reactor
        self._rate = rate
        self._digesting = Digesting(_Nowhere(), algorithms=names)
        self._began = reactor.seconds()
        self._producer: Any = None
        self._waiting: Any = None

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Let ``producer`` be paused and resumed."""
        self._producer = producer

    def unregisterProducer(self) -> None:
        """No more bytes come."""
        self._producer = None
        if self._waiting is not None and self._waiting.active():
            self._waiting.cancel()

    def write(self, data: bytes) -> None:
        """Digest some bytes."""
        self._digesting.write(data)
        if self._rate is None or self._producer is None:
            return
        early = self._began + self._digesting.count / self._rate - self._reactor.seconds()
        if early > 0:
            self._producer.pauseProducing()
            self._waiting = self._reactor.callLater(early, self._go_on)

    def _go_on(self) -> None:
        if self._producer is not None:
            self._producer.resumeProducing()

    def found(self) -> Mapping[str, str]:
        """The digests, in hex, by name."""
        return {name: self._digesting.hexdigest(name) for name in self._digesting.algorithms}
