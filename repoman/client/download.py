"""Fetching an image's file: resumed, counted, verified, and only then named."""

from __future__ import annotations

import base64
import binascii
import re
from email.utils import parsedate_to_datetime
from typing import NoReturn

from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.web.iweb import IResponse

from repoman.client.exchange import Exchange
from repoman.client.partfile import ISink
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


@frozen
class RemoteFile:
    """What a reply's headers say about the whole file.

    :ivar size: in bytes.
    :ivar sha256: lower-case hex.
    :ivar etag: as it stands in the header.
    :ivar modified: seconds since 1970; 0 if unknown.
    """

    size: int
    sha256: str
    etag: str
    modified: float = 0.0


@frozen
class Download:
    """One image's file on its way to a sink.

    :ivar route: to its bytes.
    :ivar streams: over how many connections at once.
    """

    route: Route
    sink: ISink
    progress: Progress = field(factory=Progress)
    streams: int = 1

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
            resumed = self.sink.size > 0
            try:
                return await self._fetch()
            except DigestMismatch:
                # What went through a pipe cannot be taken back.
                if self.sink.size or not (resumed or self.route.strayed):
                    raise
                if self.route.strayed:
                    self.route.stay()
            except PreconditionFailed:
                self.sink.restart()
            # The image was replaced meanwhile, or a store has others: once more, from its start.
            return await self._fetch()
        finally:
            self.sink.close()
            self.progress.end()

    async def _fetch(self) -> RemoteFile:
        sink = self.sink
        for _ in sink.hash_what_is_there():
            await deferLater(self.exchange.reactor, 0)
        remote = await patiently(self.exchange, self._attempt, lambda: sink.size, self.progress)
        sink.finish(remote.sha256)
        return remote

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
        sink, headers = self.sink, dict[str, str]()
        if sink.size or self.streams > 1:
            reply = await self._head()
            remote = describe(reply)
            if sink.size > remote.size or (sink.size and remote.modified > sink.modified()):
                sink.restart()
            if sink.size == remote.size:
                return remote
            if self.streams > 1 and header(reply, "Accept-Ranges") == "bytes":
                self.progress.begin(remote.size, sink.size)
                rest = Ranges(self.route, remote.etag, remote.size, sink, self.progress)
                await rest.fetch(self.streams)
                return remote
            if sink.size:
                headers = {"Range": f"bytes={sink.size}-", "If-Range": remote.etag}
        return await self._stream(headers)

    async def _stream(self, headers: dict[str, str]) -> RemoteFile:
        coming = await self.route.get(headers)
        reply = coming.reply
        if reply.code not in ((200, 206) if headers else (200,)):
            await self._refuse(reply)
        try:
            remote, length = describe(coming.about, reply), known_length(reply)
            if reply.code == 200:
                self.sink.restart()
            if self.sink.size + length != remote.size:
                raise BadReply(f"The server sends {length} bytes; others are missing.")
        except RepomanError:
            coming.line.abandon(reply)
            raise
        self.progress.begin(remote.size, self.sink.size)
        await coming.line.receive(reply, self._take, length)
        return remote

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

    :param reply: tells its size, if it is another.
    :raises BadReply: they do not say how long it is, or not its SHA-256.
    """
    etag = header(about, "ETag")
    sha256 = repr_digest(header(about, "Repr-Digest")) or _hex64(etag)
    if not sha256:
        raise BadReply("The server does not say which SHA-256 the file has.")
    modified = _seconds(header(about, "Last-Modified"))
    return RemoteFile(_whole_size(reply or about), sha256, etag, modified)


def _whole_size(reply: IResponse) -> int:
    if reply.code == 206:
        span = re.fullmatch(f"bytes {COUNT}-{COUNT}/{COUNT}", header(reply, "Content-Range"))
        if not span or int(span[2]) + 1 != int(span[3]):
            raise UnsatisfiableRange("The server sends another part of the file than we asked for.")
        return int(span[3])
    # The length of a reply to HEAD is a header, not a body's length.
    stated = header(reply, "Content-Length")
    if stated and not re.fullmatch(COUNT, stated):
        raise BadReply("The server does not say how long the file is.")
    return int(stated) if stated else known_length(reply)


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


def _seconds(text: str) -> float:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError):
        return 0.0
