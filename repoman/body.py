"""A request's body, still at the peer: bytes that flow only to who asks for them."""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from repoman.errors import ClientGone, TooLarge
from repoman.interfaces import IConsuming


class ISource(Protocol):
    """The connection that a body comes from."""

    def pause_body(self) -> None:
        """Read no more of the body."""

    def resume_body(self, send_continue: bool) -> None:
        """Read on; first tell a peer that waits for leave."""


@implementer(IPushProducer)
class Body:
    """A request's body (an :class:`~repoman.interfaces.IBody`), still at the peer.

    :ivar length: announced, in bytes; ``None`` for a chunked body.
    :ivar announced: the peer said that there is a body, if only an empty one.
    :ivar complete: every byte has arrived.
    :ivar is_small: it is read as a whole, and not complete.
    :ivar count: how many bytes were delivered.
    """

    def __init__(self, channel: ISource, length: int | None, announced: bool) -> None:
        self.length = length
        self.announced = announced
        self.complete = False
        self.is_small = False
        self.expects_continue = False
        self._channel = channel
        self._waiting: list[bytes] = []
        self._consumer: IConsuming | None = None
        self._done: Deferred[None] | None = None
        self._failure: Exception | None = None
        self.count = 0

    async def deliver_to(self, consumer: IConsuming) -> int:
        """Let the bytes flow into ``consumer``; answer how many came.

        :raises ClientGone: the peer left before the end.
        :raises Invalid: the peer broke the framing.
        """
        done = self._done = Deferred()
        self._consumer = consumer
        consumer.registerProducer(self, True)
        try:
            self._begin()
            await done
        finally:
            self._consumer = None
            if not self.complete:
                self._channel.pause_body()
            consumer.unregisterProducer()
        return self.count

    async def read(self, limit: int) -> bytes:
        """All bytes of a small body.

        :param limit: in bytes.
        :raises TooLarge: there are more.
        """
        if self.length is not None and self.length > limit:
            raise TooLarge(f"The body has {self.length} bytes; at most {limit} are read here.")
        collector = _Collector(limit)
        self.is_small = not self.complete
        await self.deliver_to(collector)
        return bytes(collector.data)

    def _begin(self) -> None:
        if self._failure is not None:
            self.fail(self._failure)
            return
        waiting, self._waiting = self._waiting, []
        for data in waiting:
            self.received(data)
        if self.complete:
            self._finish()
        elif self._consumer is not None:
            self._channel.resume_body(self.expects_continue)
            self.expects_continue = False

    def received(self, data: bytes) -> None:
        """Some bytes have come from the peer."""
        if self._consumer is None:
            if self._failure is None:
                self._waiting.append(data)
                self._channel.pause_body()
            return
        self.count += len(data)
        try:
            self._consumer.write(data)
        except Exception as error:  # whatever a consumer raises ends the flow, nothing else
            self.fail(error)

    def finished(self) -> None:
        """The peer has sent every byte."""
        self.complete = True
        self.is_small = False
        # Reading on is how we notice that the peer leaves while we work.
        self._channel.resume_body(False)
        if self._consumer is not None:
            self._finish()

    def fail(self, error: Exception) -> None:
        """No more bytes will be delivered."""
        self._failure = error
        self._waiting.clear()
        self._consumer = None
        done, self._done = self._done, None
        if done is not None:
            done.errback(Failure(error))

    def _finish(self) -> None:
        done, self._done = self._done, None
        if done is not None:
            done.callback(None)

    def pauseProducing(self) -> None:
        """The consumer cannot take more now."""
        self._channel.pause_body()

    def resumeProducing(self) -> None:
        """The consumer can take more."""
        if self._done is not None:
            self._channel.resume_body(False)

    def stopProducing(self) -> None:
        """The consumer wants no more."""
        self.interrupt()

    def interrupt(self) -> None:
        """End the flow: the client has come back on another connection."""
        self.fail(ClientGone("The transfer was stopped."))


class _Collector:
    """A consumer for small bodies."""

    def __init__(self, limit: int) -> None:
        self.data = bytearray()
        self._limit = limit

    def write(self, data: bytes) -> None:
        self.data += data
        if len(self.data) > self._limit:
            raise TooLarge(f"The body has more than the {self._limit} bytes that are read here.")

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Never pauses."""

    def unregisterProducer(self) -> None:
        """Nothing to let go."""
