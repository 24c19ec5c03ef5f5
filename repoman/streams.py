"""Bytes in motion: what producers and consumers at both ends share."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Collection, Iterable
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IDelayedCall, IPushProducer, IReactorTime
from zope.interface import implementer

from repoman.errors import ClientGone, TooLarge
from repoman.interfaces import IConsuming

CHUNK = 256 * 1024
"""How many bytes a flow moves in one turn of the reactor.

Less costs calls, more falls out of the processor's cache and keeps other
flows waiting.
"""

RETRY_AFTER = 0.004
"""Seconds until a source that had nothing yet is asked again."""


class _Hash(Protocol):
    """The part of :mod:`hashlib`'s objects that :class:`Digesting` uses."""

    def update(self, data: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


class _Adler32:
    """Adler-32 (RFC 1950, section 8.2) in the shape of :mod:`hashlib`."""

    def __init__(self) -> None:
        self._sum = zlib.adler32(b"")

    def update(self, data: bytes, /) -> None:
        self._sum = zlib.adler32(data, self._sum)

    def hexdigest(self) -> str:
        return f"{self._sum:08x}"


_ALGORITHMS: dict[str, Callable[[], _Hash]] = {
    "sha256": hashlib.sha256,
    "sha512": hashlib.sha512,
    # Grid tools compare MD5; nobody's safety rests on it.
    "md5": lambda: hashlib.md5(usedforsecurity=False),
    "adler32": _Adler32,
}

ALGORITHMS = frozenset(_ALGORITHMS)
"""The digests that can be computed, by name."""


def digests(data: bytes, names: Iterable[str]) -> dict[str, str]:
    """The digests of ``data``, in lower-case hex.

    :param names: from :data:`ALGORITHMS`.
    """
    found = {}
    for name in names:
        running = _ALGORITHMS[name]()
        running.update(data)
        found[name] = running.hexdigest()
    return found


@implementer(IConsumer)
class Digesting:
    """A consumer that counts and digests the bytes that it passes on.

    :param consumer: where the bytes go.
    :param limit: of the count, in bytes; ``None`` for no limit.
    :param algorithms: names from :data:`ALGORITHMS`.
    :param start: the count to begin at.
    :param previous: has digested the bytes before; this one goes on, and that no more.
    :ivar count: how many bytes have passed, and those before.
    """

    def __init__(
        self,
        consumer: IConsuming,
        *,
        limit: int | None = None,
        algorithms: Iterable[str] = ("sha256",),
        start: int = 0,
        previous: Digesting | None = None,
    ) -> None:
        self.count = start
        self._consumer = consumer
        self._limit = limit
        self._hashes = {name: _ALGORITHMS[name]() for name in algorithms}
        if previous is not None:
            self._hashes = previous.running

    @property
    def running(self) -> dict[str, _Hash]:
        """The digests as they are now, to go on with."""
        return self._hashes

    @property
    def algorithms(self) -> Collection[str]:
        """The names of the digests that are computed."""
        return self._hashes.keys()

    def write(self, data: bytes) -> None:
        """Count, digest and pass on.

        :raises TooLarge: ``data`` crosses the limit; none of it is passed on.
        """
        if self._limit is not None and self.count + len(data) > self._limit:
            raise TooLarge(f"More than the {self._limit} bytes that may come.")
        for running in self._hashes.values():
            running.update(data)
        self.count += len(data)
        self._consumer.write(data)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Let the consumer behind pause and resume ``producer``."""
        self._consumer.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """Tell the consumer behind that no more bytes come."""
        self._consumer.unregisterProducer()

    def hexdigest(self, name: str) -> str:
        """The digest so far, in lower-case hex.

        :param name: one of the algorithms given at the start.
        """
        return self._hashes[name].hexdigest()


@implementer(IPushProducer)
class Flow:
    """Bytes from a source into a consumer, one :data:`CHUNK` per turn of the reactor.

    Many flows share the reactor fairly: each waits for its next turn, and
    writes nothing while its consumer pauses it.

    :param read: given an offset and a count, answers 1 to count bytes.  Raises
        BlockingIOError for "not yet"; anything else ends the flow.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        read: Callable[[int, int], bytes],
        consumer: IConsuming,
        start: int,
        length: int,
    ) -> None:
        self._reactor = reactor
        self._read = read
        self._consumer = consumer
        self._offset = start
        self._end = start + length
        self._paused = False
        self._turn: IDelayedCall | None = None
        self._done: Deferred[None] | None = None

    def run(self) -> Deferred[None]:
        """Let the bytes flow; once.

        :return: fires when all have been written, or fails with what
            ``read`` or the consumer's ``write`` raised, or with ClientGone
            when the consumer stopped the flow or the Deferred was cancelled.
        """
        done = self._done = Deferred(lambda _: self._finish(_gone()))
        self._consumer.registerProducer(self, True)
        self._plan(0)
        return done

    def pauseProducing(self) -> None:
        """Write nothing until resumed."""
        self._paused = True
        self._unplan()

    def resumeProducing(self) -> None:
        """Go on, in the reactor's next turn."""
        self._paused = False
        self._plan(0)

    def stopProducing(self) -> None:
        """The consumer wants no more: the flow fails with ClientGone."""
        # No unregisterProducer: a consumer that stops us has forgotten us,
        # and the web's request has no channel left to unregister from.
        self._settle(_gone())

    def _plan(self, delay: float) -> None:
        if self._turn is None and self._done is not None and not self._paused:
            self._turn = self._reactor.callLater(delay, self._take_turn)

    def _unplan(self) -> None:
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.cancel()

    def _take_turn(self) -> None:
        self._turn = None
        try:
            waited = 0.0 if self._move() else RETRY_AFTER
        except Exception as error:
            self._finish(error)
            return
        if self._offset == self._end:
            self._finish(None)
        else:
            self._plan(waited)

    def _move(self) -> bool:
        count = min(CHUNK, self._end - self._offset)
        if count:
            try:
                data = self._read(self._offset, count)
            except BlockingIOError:
                return False
            self._offset += len(data)
            self._consumer.write(data)
        return True

    def _finish(self, error: Exception | None) -> None:
        if self._done is not None:
            self._consumer.unregisterProducer()
            self._settle(error)

    def _settle(self, error: Exception | None) -> None:
        self._unplan()
        done, self._done = self._done, None
        if done is None:
            return
        if error is None:
            done.callback(None)
        else:
            done.errback(error)


def _gone() -> ClientGone:
    return ClientGone("The other side went away before the last byte.")
