"""Bodies of requests and answers, at the pace of the line, and never in silence."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from repoman.storage.s3.signing import NOTHING
from repoman.streams import CHUNK


@frozen
class Content:
    """The body of a request, which may be sent again.

    :ivar size: in bytes.
    :ivar sha256: of all of it, in hex.
    """

    pieces: Sequence[bytes] = ()
    size: int = 0
    sha256: str = NOTHING

    @classmethod
    def of(cls, data: bytes) -> Content:
        """A few bytes."""
        return cls((data,), len(data), hashlib.sha256(data).hexdigest())

    def slices(self) -> Iterator[bytes]:
        """The bytes, none of the slices too large for one turn."""
        for piece in self.pieces:
            view = memoryview(piece)
            for start in range(0, len(piece), CHUNK):
                yield piece if len(piece) <= CHUNK else bytes(view[start : start + CHUNK])


class Silence:
    """Ends what has not moved for some seconds.

    :ivar fallen: it has.
    """

    def __init__(self, reactor: Any, seconds: float, end: Callable[[], object]) -> None:
        self.fallen = False
        self._seconds = seconds
        self._end = end
        self._call = reactor.callLater(seconds, self._fall)

    def broken(self) -> None:
        """Something moved."""
        if self._call.active():
            self._call.reset(self._seconds)

    def over(self) -> None:
        """Nobody listens any more."""
        if self._call.active():
            self._call.cancel()

    def _fall(self) -> None:
        self.fallen = True
        self._end()


@implementer(IBodyProducer, IPushProducer)
class Sending:
    """Sends a content once.

    :ivar moved: called whenever the line takes some.
    """

    def __init__(self, content: Content) -> None:
        self.length = content.size
        self.moved: Callable[[], object] = lambda: None
        self._slices = content.slices()
        self._paused = False
        self._consumer: Any = None
        self._done: Deferred[None] = Deferred()

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Begin; the Deferred fires when the line has taken the last byte."""
        self._consumer = consumer
        self._produce()
        return self._done

    def pauseProducing(self) -> None:
        """The line has enough."""
        self._paused = True

    def resumeProducing(self) -> None:
        """The line takes more."""
        self._paused = False
        self.moved()
        self._produce()

    def stopProducing(self) -> None:
        """Nobody wants it any more."""
        self._consumer = None

    def _produce(self) -> None:
        while self._consumer is not None and not self._paused:
            piece = next(self._slices, None)
            if piece is None:
                self._consumer = None
                self._done.callback(None)
            else:
                self._consumer.write(piece)


class Collecting(Protocol):
    """Takes an answer's small body as a whole.

    :param limit: in bytes.
    :ivar done: fires with it; fails when the line does, or with ValueError over the limit.
    """

    def __init__(self, limit: int) -> None:
        self.done: Deferred[bytes] = Deferred()
        self.moved: Callable[[], object] = lambda: None
        self._left = limit
        self._pieces: list[bytes] = []

    def dataReceived(self, data: bytes) -> None:
        """Keep some bytes."""
        self._left -= len(data)
        self.moved()
        if self._left >= 0:
            self._pieces.append(data)
        else:
            self.hang_up()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """That was all."""
        if self._left < 0:
            self.done.errback(ValueError("an answer that is too long"))
        elif reason.check(ResponseDone):
            self.done.callback(b"".join(self._pieces))
        else:
            self.done.errback(reason)

    def hang_up(self) -> None:
        """Wait no longer."""
        if self.transport is not None:
            self.transport.loseConnection()
