"""Fetching a file over several connections at once.

The ranges are put together in memory, in order: the sink always holds the
file's beginning and nothing else, so that a sudden end, of whatever kind,
leaves something to go on from.
"""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred, FirstError, gatherResults

from repoman.client.partfile import ISink
from repoman.client.progress import Progress
from repoman.client.replies import header
from repoman.client.route import Route
from repoman.errors import BadReply
from repoman.streams import CHUNK

RANGE = 4 * 2**20
"""How many bytes are asked for at a time."""

AHEAD = 2
"""How many ranges, for each connection, may wait in memory for their turn."""


@define
class Ranges:
    """The rest of a file, from where the sink ends.

    :ivar etag: of the version that is wanted.
    """

    route: Route
    etag: str
    size: int
    sink: ISink
    progress: Progress
    _next: int = field(init=False)
    _coming: dict[int, list[bytes]] = field(factory=dict, init=False)
    _ready: dict[int, bytes] = field(factory=dict, init=False)
    _waiting: list[Deferred[None]] = field(factory=list, init=False)
    _writing: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._next = self.sink.size

    async def fetch(self, streams: int) -> None:
        """Fetch all of it.

        :raises PreconditionFailed: the image was replaced meanwhile.
        :raises RepomanError: the first trouble that any connection had.
        """
        working = [Deferred.fromCoroutine(self._work(streams)) for _ in range(streams)]
        try:
            await gatherResults(working, consumeErrors=True)
            return
        except FirstError as error:
            broken = error.subFailure
        finally:
            for one in working:
                one.addErrback(lambda failure: None)
                one.cancel()
        await self._keep_beginning()
        broken.raiseException()

    async def _work(self, streams: int) -> None:
        while self._next < self.size:
            start = self._next
            if start - self.sink.size >= streams * AHEAD * RANGE:
                await self._until_written()
                continue
            self._next = min(start + RANGE, self.size)
            self._ready[start] = await self._get(start, self._next)
            await self._write()

    async def _get(self, start: int, end: int) -> bytes:
        headers = {"Range": f"bytes={start}-{end - 1}", "If-Match": self.etag}
        coming = await self.route.get(headers)
        reply = coming.reply
        if reply.code not in (200, 206):
            await coming.line.refuse(reply)
        if header(reply, "Content-Range") != f"bytes {start}-{end - 1}/{self.size}":
            coming.line.abandon(reply)
            raise BadReply("The server sends another part of the file than we asked for.")
        chunks = self._coming[start] = []

        def take(data: bytes) -> None:
            chunks.append(data)
            self.progress.advance(len(data))

        await coming.line.receive(reply, take, end - start)
        data = b"".join(chunks)
        if len(data) != end - start:
            raise BadReply("The server sent less than it announced.")
        del self._coming[start]
        return data

    async def _keep_beginning(self) -> None:
        """Write what came of the next range: a line that breaks within each makes way, too."""
        start = self.sink.size
        if chunks := self._coming.get(start):
            self._ready[start] = b"".join(chunks)
            await self._write()

    async def _write(self) -> None:
        """Write what is next; one connection does it for all."""
        if self._writing:
            return
        self._writing = True
        try:
            while (data := self._ready.pop(self.sink.size, None)) is not None:
                for at in range(0, len(data), CHUNK):
                    if (room := self.sink.write(data[at : at + CHUNK])) is not None:
                        await room
                waiting, self._waiting = self._waiting, []
                for one in waiting:
                    one.callback(None)
        finally:
            self._writing = False

    async def _until_written(self) -> None:
        written: Deferred[None] = Deferred()
        self._waiting.append(written)
        try:
            await written
        finally:
            if written in self._waiting:
                self._waiting.remove(written)
