"""A committed blob in an object store, on its way out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IResponse
from zope.interface import implementer

from repoman.errors import BlobDamaged, ClientGone, StoreAbsent, StoreUnavailable
from repoman.interfaces import IConsuming
from repoman.storage.s3.bucket import Bucket, Found
from repoman.storage.s3.client import STALL
from repoman.storage.s3.content import Silence
from repoman.storage.s3.replies import Answer, rejected

CUTS = 5
"""How often in a row a connection may break before it has brought a byte."""

_log = Logger()


def damaged(key: str, why: str) -> BlobDamaged:
    """A blob that cannot be served: the log gets the details."""
    _log.error("blob {key} is damaged: {why}", key=key, why=why)
    return BlobDamaged("The stored file is damaged; the administrator of the repository must look.")


class S3Reader:
    """See :class:`repoman.interfaces.IBlobReader`.

    :ivar size: in bytes.
    :ivar stamp: see :class:`repoman.interfaces.IBlobReader`.
    """

    def __init__(
        self, bucket: Bucket, blob: str, key: str, found: Found, closed: Callable[[str], object]
    ) -> None:
        self.size = found.size
        self.stamp = found.stamp
        self.room = self.size
        self._bucket = bucket
        self._blob = blob
        self._key = key
        self._etag = found.etag
        self._closed: Callable[[str], object] | None = closed

    async def write_to(self, consumer: IConsuming, start: int, length: int) -> None:
        """Let bytes flow out; see :class:`repoman.interfaces.IBlobReader`."""
        flow = Outflow(self._bucket.client.reactor, consumer)
        await flow.run(self._pour(flow, start, start + length))

    def close(self) -> None:
        """Let go of the blob."""
        closed, self._closed = self._closed, None
        if closed is not None:
            closed(self._blob)

    async def _pour(self, flow: Outflow, start: int, end: int) -> None:
        offset, cuts = start, 0
        while offset < min(end, self.size):
            reply = await self._bucket.fetch(self._key, self._etag, offset, min(end, self.size))
            came = await flow.take(self._checked(reply, offset))
            offset += came
            cuts = 0 if came else cuts + 1
            if cuts == CUTS:
                raise StoreUnavailable("The object store breaks off again and again.")
        if offset < end:
            raise damaged(self._blob, f"ends at {self.size}, before {end}")

    def _checked(self, reply: IResponse | Answer, offset: int) -> IResponse:
        if isinstance(reply, Answer):
            if reply.status in (404, 412):
                raise damaged(self._blob, f"was replaced or removed ({reply.status} {reply.code})")
            raise rejected("GET", reply)
        began = reply.headers.getRawHeaders(b"Content-Range") or [b""]
        if reply.code == 206 and not began[-1].startswith(b"bytes %d-" % offset):
            reply.deliverBody(_Unwanted())
            raise StoreUnavailable("The object store sends other bytes than it was asked for.")
        if reply.code == 200 and (offset or reply.length != self.size):
            reply.deliverBody(_Unwanted())
            raise StoreUnavailable("The object store sends other bytes than it was asked for.")
        return reply


class _Unwanted(Protocol):
    def connectionMade(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()


@implementer(IPushProducer)
class Outflow:
    """Bytes from the answers of the object store into a consumer, at the consumer's pace.

    A paused one reads no more from its connection, so the store waits in turn.
    """

    def __init__(self, reactor: Any, consumer: IConsuming) -> None:
        self._reactor = reactor
        self._consumer = consumer
        self._body: _Body | None = None
        self._work: Deferred[None] | None = None
        self._done: Deferred[None] | None = None
        self.paused = False

    def run(self, work: Any) -> Deferred[None]:
        """Let a coroutine :meth:`take` answers.

        :return: fires at its end, or fails as it does, or with ClientGone when the consumer
            stopped the flow or the Deferred was cancelled.
        """
        done = self._done = Deferred(lambda _: self._finish(_gone()))
        self._consumer.registerProducer(self, True)
        if self._done is None:  # it stopped us at once, as a request does whose client has left
            work.close()
            return done
        self._work = Deferred.fromCoroutine(work)
        self._work.addCallbacks(
            lambda _: self._finish(None), lambda failure: self._finish(failure.value)
        )
        return done

    async def take(self, response: IResponse) -> int:
        """Let an answer's body flow; answer how many bytes came before it ended or broke off."""
        body = self._body = _Body(self._reactor, self)
        response.deliverBody(body)
        if self.paused:
            body.pause()  # again: Twisted lets it run when it has made the connection
        try:
            return await body.done
        finally:
            self._body = None

    def write(self, data: bytes) -> None:
        """Hand some bytes on."""
        if self._done is not None:
            self._consumer.write(data)

    def pauseProducing(self) -> None:
        """Write nothing until resumed."""
        self.paused = True
        if self._body is not None:
            self._body.pause()

    def resumeProducing(self) -> None:
        """Go on."""
        self.paused = False
        if self._body is not None:
            self._body.resume()

    def stopProducing(self) -> None:
        """The consumer wants no more: the flow fails with ClientGone."""
        # No unregisterProducer: a consumer that stops us has forgotten us.
        self._settle(_gone())

    def _finish(self, error: BaseException | None) -> None:
        if self._done is not None:
            self._consumer.unregisterProducer()
            self._settle(error)

    def _settle(self, error: BaseException | None) -> None:
        done, self._done = self._done, None
        if done is None:
            return
        if error is None:
            done.callback(None)
            return
        done.errback(error)
        if self._body is not None:
            self._body.hang_up()
        if self._work is not None:
            self._work.cancel()


class _Body(Protocol):
    """One answer's body.

    :ivar done: fires with how many bytes were written; fails if the consumer did.
    """

    def __init__(self, reactor: Any, flow: Outflow) -> None:
        self.done: Deferred[int] = Deferred()
        self._reactor = reactor
        self._flow = flow
        self._queue: deque[bytes] = deque()
        self._came = 0
        self._ended = False
        self._silence: Silence | None = None

    def connectionMade(self) -> None:
        """The first bytes may be there already."""
        self._listen()

    def dataReceived(self, data: bytes) -> None:
        """Pass some bytes on."""
        if self._silence is not None:
            self._silence.broken()
        self._queue.append(data)
        self._drain()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The body is over, or broken; whoever counts the bytes knows."""
        self._ended = True
        self._hush()
        self._drain()

    def pause(self) -> None:
        """Read no more."""
        self._hush()
        transport: Any = self.transport
        if not self._ended and transport is not None:
            transport.pauseProducing()

    def resume(self) -> None:
        """Write what is there, and read on."""
        self._drain()
        transport: Any = self.transport
        if not self._flow.paused and not self._ended and transport is not None:
            self._listen()
            transport.resumeProducing()

    def hang_up(self) -> None:
        """Nobody wants the rest."""
        self._queue.clear()
        self._hush()
        if self.transport is not None and not self._ended:
            self.transport.loseConnection()

    def _listen(self) -> None:
        self._hush()
        self._silence = Silence(self._reactor, STALL, self._fall)

    def _fall(self) -> None:
        # Not to be tried again: who is silent for so long would be silent again.
        if not self.done.called:
            self.done.errback(StoreAbsent("The object store fell silent."))
        self.hang_up()

    def _hush(self) -> None:
        if self._silence is not None:
            self._silence.over()
            self._silence = None

    def _drain(self) -> None:
        while self._queue and not self._flow.paused and not self.done.called:
            data = self._queue.popleft()
            self._came += len(data)
            try:
                self._flow.write(data)
            except Exception:
                self.hang_up()
                if not self.done.called:
                    self.done.errback()
        if self._ended and not self._queue and not self.done.called:
            self.done.callback(self._came)


def _gone() -> ClientGone:
    return ClientGone("The other side went away before the last byte.")
