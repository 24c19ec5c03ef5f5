"""Fetching an image's file: resumed, counted, verified, and only then named."""

from __future__ import annotations

import base64
import binascii
import re
from typing import NoReturn

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.web.iweb import IResponse

from repoman.client.exchange import Exchange
from repoman.client.partfile import ISink, Touched
from repoman.client.patience import patiently
from repoman.client.progress import Progress
from repoman.client.ranges import Ranges
from repoman.client.replies import COUNT, header, known_length
from repoman.client.route import Route
from repoman.errors import (
    BadReply,
    ConnectionProblem,
    DigestMismatch,
    PreconditionFailed,
    RepomanError,
    UnsatisfiableRange,
)
from repoman.wire import STORED_SIZE


@frozen
class RemoteFile:
    """What a reply's headers say about the whole file.

    :ivar size: in bytes.
    :ivar sha256: lower-case hex.
    :ivar etag: as it stands in the header.
    :ivar room: how many bytes it takes on a disk, where zeros are holes; 0 if nobody knows.
    """

    size: int
    sha256: str
    etag: str
    room: int = 0


@define
class Download:
    """One image's file on its way to a sink.

    :ivar route: to its bytes.
    :ivar streams: over how many connections at once.
    """

    route: Route
    sink: ISink
    progress: Progress = field(factory=Progress)
    streams: int = 1
    _resumed: bool = field(default=False, init=False)

    @property
    def exchange(self) -> Exchange:
        """The line to the repository."""
        return self.route.exchange

    async def run(self) -> RemoteFile:
        """Fetch the file, going on where an earlier run stopped.

        :raises DigestMismatch: the bytes are not those of the image.
        :raises RepomanError: whatever else was in the way; what came stays for
            the next run.
        :raises OSError: the file cannot be written.
        """
        try:
            try:
                return await self._fetch()
            except DigestMismatch:
                # What went through a pipe cannot be taken back.
                if self.sink.size or not (self._resumed or self.route.strayed):
                    raise
                if self.route.strayed:
                    self.route.stay()
            except (PreconditionFailed, Touched):
                pass
            # The image was replaced meanwhile, a store has others, or what came
            # has to be read again: once more.
            return await self._fetch()
        finally:
            self.sink.close()
            self.progress.end()

    async def _fetch(self) -> RemoteFile:
        remote = await patiently(
            self.exchange, self._attempt, lambda: self.sink.size, self.progress
        )
        await self._digest()
        self.sink.finish()
        return remote

    async def _digest(self) -> None:
        for _ in self.sink.hash_what_is_there():
            await deferLater(self.exchange.reactor, 0)

    async def _attempt(self) -> RemoteFile:
        before = self.sink.size
        try:
            return await self._try()
        except ConnectionProblem:
            if self.sink.size == before:
                self.route.stay()
            raise
        except BadReply:
            if not self.route.strayed:
                raise
            self.route.stay()
            return await self._try()

    async def _try(self) -> RemoteFile:
        """Ask which bytes the file has, then fetch what is missing of these."""
        reply, sink = await self._head(), self.sink
        remote = describe(reply)
        sink.begin(remote.sha256, remote.size, remote.room)
        await self._digest()
        self._resumed = self._resumed or sink.size > 0
        if sink.size == remote.size:
            return remote
        if self.streams > 1 and header(reply, "Accept-Ranges") == "bytes":
            self.progress.begin(remote.size, sink.size)
            rest = Ranges(self.route, remote.etag, remote.size, sink, self.progress)
            await rest.fetch(self.streams)
        else:
            await self._stream(remote)
        return remote

    async def _stream(self, remote: RemoteFile) -> None:
        headers = dict[str, str]()
        if self.sink.size:
            headers = {"Range": f"bytes={self.sink.size}-", "If-Range": remote.etag}
        coming = await self.route.get(headers)
        reply = coming.reply
        if reply.code not in ((200, 206) if headers else (200,)):
            await self._refuse(reply)
        try:
            length = known_length(reply)
            if describe(coming.about, reply).sha256 != remote.sha256:
                raise PreconditionFailed("The image was replaced while it was being fetched.")
            if reply.code == 200:
                self.sink.restart()
            if self.sink.size + length != remote.size:
                raise BadReply(f"The server sends {length} bytes; others are missing.")
        except RepomanError:
            coming.line.abandon(reply)
            raise
        self.progress.begin(remote.size, self.sink.size)
        await coming.line.receive(reply, self._take, length)

    def _take(self, data: bytes) -> Deferred[None] | None:
        waiting = self.sink.write(data)
        self.progress.advance(len(data))
        return waiting

    async def _head(self) -> IResponse:
        reply = await self.exchange.request("HEAD", self.route.path)
        if reply.code != 200:
            # It has no body that says why: ask again in a way that has one.
            first = {"Range": "bytes=0-0"}
            await self._refuse(await self.exchange.request("GET", self.route.path, headers=first))
        return reply

    async def _refuse(self, reply: IResponse) -> NoReturn:
        if reply.code in (200, 206):
            raise BadReply("The server answers HEAD and GET of the same URL differently.")
        await self.exchange.refuse(reply)


def describe(about: IResponse, reply: IResponse | None = None) -> RemoteFile:
    """What the headers of a 200 or 206 say about the whole file.

    :param about: of the repository: to a HEAD, if there is no other.
    :param reply: with the body, which tells the file's size.
    :raises BadReply: they do not say how long it is, or not its SHA-256.
    """
    etag = header(about, "ETag")
    sha256 = repr_digest(header(about, "Repr-Digest")) or _hex64(etag)
    if not sha256:
        raise BadReply("The server does not say which SHA-256 the file has.")
    size, room = _whole_size(reply) if reply else _announced_size(about), header(about, STORED_SIZE)
    return RemoteFile(size, sha256, etag, int(room) if re.fullmatch(COUNT, room) else 0)


def _whole_size(reply: IResponse) -> int:
    if reply.code != 206:
        return known_length(reply)
    span = re.fullmatch(f"bytes {COUNT}-{COUNT}/{COUNT}", header(reply, "Content-Range"))
    if not span or int(span[2]) + 1 != int(span[3]):
        raise UnsatisfiableRange("The server sends another part of the file than we asked for.")
    return int(span[3])


def _announced_size(reply: IResponse) -> int:
    """Of a reply to HEAD, the header: it has no body, and that is 0 bytes long."""
    stated = header(reply, "Content-Length")
    if not re.fullmatch(COUNT, stated):
        raise BadReply("The server does not say how long the file is.")
    return int(stated)


def repr_digest(text: str) -> str:
    """The SHA-256 in a ``Repr-Digest`` header (RFC 9530 section 3), as hex; or empty."""
    found = re.search(r"(?:^|[\s,])sha-256=:([A-Za-z0-9+/=]+):", text)
    try:
        digest = base64.b64decode(found[1], validate=True) if found else b""
    except binascii.Error:
        return ""
    return digest.hex() if len(digest) == 32 else ""


def _hex64(etag: str) -> str:
    found = re.fullmatch(r'"([0-9a-f]{64})"', etag)
    return found[1] if found else ""
