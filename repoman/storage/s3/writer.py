"""A blob on its way into an object store."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IConsumer
from twisted.logger import Logger
from zope.interface import implementer

from repoman.errors import NoRoom, RepomanError, StoreUnavailable
from repoman.storage.paced import Paced, lost
from repoman.storage.s3.arriving import Arriving
from repoman.storage.s3.parts import Gathering, part_size

_log = Logger()


@implementer(IConsumer)
class S3Writer(Paced):
    """See :class:`repoman.interfaces.IBlobWriter`.

    One part is sent while the next one gathers, and the producer waits when both are full: so two
    parts of memory are enough, and the object store's pace is the client's.

    :param usual: the size of a part, in bytes.
    :param size: of the whole, in bytes; ``None`` if unknown.
    :param forget: removes the blob from the store.
    :ivar key: of the blob.
    """

    def __init__(
        self,
        arriving: Arriving,
        usual: int,
        size: int | None,
        forget: Callable[[str], Awaitable[None]],
    ) -> None:
        super().__init__()
        self.key = arriving.blob
        self._arriving = arriving
        self._usual = usual
        self._size = size
        self._forget = forget
        self._durable = arriving.size + len(arriving.rest)
        self._waiting = deque([arriving.rest] if arriving.rest else [])
        self._gathering = self._next(1 + len(arriving.parts), arriving.size)
        self._sending: Deferred[None] | None = None
        self._idle: list[Deferred[None]] = []
        self._committed = False
        self._fill()

    def write(self, data: bytes) -> None:
        """Take some bytes; see :class:`repoman.interfaces.IBlobWriter`."""
        self._check()
        self._waiting.append(data)
        self._fill()

    @property
    def durable(self) -> int:
        """How many bytes survive a power cut by now: those that the store has acknowledged."""
        return self._durable

    async def keep(self) -> int:
        """Stop for now; see :class:`repoman.interfaces.IBlobWriter`."""
        await self._end_with(self._keep)
        return self._durable

    async def commit(self) -> str:
        """Make the blob visible; see :class:`repoman.interfaces.IBlobWriter`."""
        stamp = await self._end_with(self._commit)
        self._committed = True
        try:
            await self._arriving.drop_partial()
        except StoreUnavailable as error:
            _log.warn("blob {key} left to the sweeper: {error}", key=self.key, error=error)
        return str(stamp)

    async def discard(self) -> None:
        """Forget the bytes; without effect on a committed blob."""
        self._end()
        if self._committed:
            return
        if self._sending is not None:
            self._sending.cancel()
        try:
            await self._forget(self.key)
        except StoreUnavailable as error:
            _log.warn("blob {key} left to the sweeper: {error}", key=self.key, error=error)

    async def _keep(self) -> None:
        await self._arriving.keep(self._gathering.content())
        self._durable = self._arriving.size + self._gathering.size

    async def _commit(self) -> str:
        if self._gathering.size or not self._arriving.parts:  # also an empty blob has a part
            await self._arriving.send(self._gathering.content())
        self._durable = self._arriving.size
        return (await self._arriving.complete()).stamp

    async def _end_with(self, last: Callable[[], Awaitable[Any]]) -> Any:
        try:
            self._check()
            while self._sending is not None:
                done: Deferred[None] = Deferred()
                self._idle.append(done)
                await done
            self._check()
            return await last()
        except RepomanError as error:
            raise self._break(error) from None
        finally:
            self._end()

    def _fill(self) -> None:
        """Let what waits gather; send what is full, one part at a time; else the producer waits."""
        while self._broken is None:
            if self._gathering.is_full and self._sending is None:
                self._send()
            elif self._gathering.is_full or not self._waiting:
                break
            else:
                self._gather()
        if self._gathering.is_full and self._broken is None:
            self._pause()
        else:
            self._resume()

    def _gather(self) -> None:
        try:
            rest = self._gathering.add(self._waiting.popleft())
        except NoRoom as error:
            self._break(error)
            return
        if rest:
            self._waiting.appendleft(rest)

    def _send(self) -> None:
        part = self._gathering
        begin = self._arriving.size + part.size
        self._sending = Deferred()  # if it fails at once
        self._gathering = self._next(2 + len(self._arriving.parts), begin)
        sending = Deferred.fromCoroutine(self._arriving.send(part.content()))
        self._sending = sending
        sending.addCallbacks(self._sent, self._not_sent)

    def _next(self, number: int, begin: int) -> Gathering:
        try:
            return Gathering(part_size(self._usual, number, begin, self._size))
        except NoRoom:  # which matters only when one more byte comes
            return Gathering(0)

    def _sent(self, _: None) -> None:
        self._sending = None
        self._durable = max(self._durable, self._arriving.size)
        self._fill()
        self._tell()

    def _not_sent(self, failure: Any) -> None:
        self._sending = None
        if isinstance(failure.value, RepomanError):
            self._break(failure.value)
        else:
            self._break(lost())
            if not failure.check(CancelledError):
                _log.failure("blob {key} was not sent", failure, key=self.key)
        self._tell()

    def _tell(self) -> None:
        idle, self._idle = self._idle, []
        for one in idle:
            one.callback(None)

    def _break(self, error: RepomanError) -> RepomanError:
        if self._broken is None:
            self._waiting.clear()
        return super()._break(error)

    def _end(self) -> None:
        self._break(lost())
