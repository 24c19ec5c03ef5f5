"""Sending an image's file: once, in spite of broken lines, ended runs and renewed proxies.

What is small goes in one PUT.  The rest goes as a resumable upload, after
draft-ietf-httpbis-resumable-upload: the server says how far it is, and the
last request, which has no body, names the digest of the whole, so that wrong
bytes never become the image's file.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from urllib.parse import urlsplit

from attrs import define, field
from twisted.internet.task import deferLater

from repoman.client.exchange import Exchange
from repoman.client.patience import patiently
from repoman.client.pending import Pending
from repoman.client.problems import is_passing
from repoman.client.progress import Progress
from repoman.client.replies import COUNT, header
from repoman.client.sending import Order, send
from repoman.client.source import ISource
from repoman.errors import (
    BadReply,
    DigestMismatch,
    MethodNotAllowed,
    Missing,
    RepomanError,
    TooManyUploads,
    UnsupportedMedia,
    WrongOffset,
)
from repoman.wire import UPLOAD_MEDIA

WHOLE = 8 * 2**20
"""Up to how many bytes go in one request: they are sent faster than resumed."""

_OCTETS = "application/octet-stream"


async def begin(exchange: Exchange, path: str, size: int | None) -> str:
    """Begin a resumable upload, and return where it goes on.

    :param path: of the raw URL.
    :param size: in bytes; ``None`` if nobody knows yet.
    :raises RepomanError: the server's refusal, or what broke the line.
    """
    headers = {"Upload-Complete": "?0"}
    if size is not None:
        headers["Upload-Length"] = str(size)
    reply = await exchange.request("POST", path, headers=headers)
    if reply.code != 201:
        await exchange.refuse(reply)
    await exchange.body(reply, 2**20)
    place = urlsplit(header(reply, "Location")).path
    if not place.startswith("/api/uploads/"):
        raise BadReply("The server does not say where the upload goes on.")
    return place


async def rehearse(exchange: Exchange, path: str, sizes: Sequence[int]) -> None:
    """Begin uploads of these sizes beside each other, and give them up before the first byte.

    So the server judges by its own rules, and nothing is left of it.

    :raises RepomanError: the server's refusal of one of them, or what broke the line.
    """
    places = []
    try:
        for size in sizes:
            places.append(await begin(exchange, path, size))
    except (Missing, MethodNotAllowed, TooManyUploads):
        return  # an older server, or one where it is a matter of waiting
    finally:
        for place in places:
            with suppress(RepomanError):  # the server forgets it within the hour
                await exchange.json("DELETE", place)


@define
class Upload:
    """One file on its way to the server.

    :ivar path: of the raw URL.
    :ivar pending: what an earlier run left.
    :ivar stored: asks the server for the SHA-256 (hex) of the file that it has.
    """

    exchange: Exchange
    path: str
    source: ISource
    pending: Pending
    stored: Callable[[], Awaitable[str | None]]
    progress: Progress = field(factory=Progress)
    _place: str = ""
    _offset: int | None = None
    _confirmed: int = 0
    _done: bool = False
    _resumed: bool = False

    async def run(self) -> str:
        """Send all of it and answer the SHA-256 (hex) of what was sent.

        :raises RepomanError: the server's refusal, or what broke the line.
        :raises OSError: the file cannot be read.
        """
        try:
            try:
                await self._send_all()
            except DigestMismatch:
                if not self._resumed:
                    raise
                # Not what an earlier run sent, then: once more, from the start.
                self._place, self._offset, self._resumed = "", None, False
                self.pending.forget()
                await self._send_all()
            self.pending.forget()
            return self.source.sha256()
        finally:
            self.progress.end()

    async def _send_all(self) -> None:
        async for end in self.source.ends():
            if self._is_small() or not await self._begun():
                return await self._patiently(self._put)
            await self._patiently(partial(self._send_up_to, end))
        await self._patiently(self._complete)

    def _is_small(self) -> bool:
        return not self._place and self.source.size is not None and self.source.size <= WHOLE

    async def _patiently(self, attempt: Callable[[], Awaitable[None]]) -> None:
        await patiently(
            self.exchange, attempt, lambda: self._confirmed, self.progress,
            lambda error: is_passing(error) or isinstance(error, WrongOffset),
        )  # fmt: skip

    # In one request

    async def _put(self) -> None:
        size = self.source.size
        if size is None:
            raise UnsupportedMedia(
                "This server takes only files whose length is known: save what you send to a"
                " file, and send that."
            )
        headers = {"Content-Type": _OCTETS}
        if size <= WHOLE:
            await self._hash(size)
            headers["Repr-Digest"] = _digest(self.source.sha256())
        self.progress.begin(size, 0)
        await send(self.exchange, Order("PUT", self.path, self._read, 0, size, headers))

    # In several

    async def _begun(self) -> bool:
        """There is an upload at the server; false if it cannot have one."""
        if self._place:
            return True
        known, place = self.pending.recall()
        if place and known == self.source.identity:
            self._place, self._resumed = place, True
            return True
        if place:
            # The file has changed since, or is another one.
            with suppress(RepomanError):
                await self.exchange.json("DELETE", place)
            self.pending.forget()
        try:
            await self._patiently(self._create)
        except (Missing, MethodNotAllowed):
            # An older server; or the image is missing, as it will then say itself.
            return False
        return True

    async def _create(self) -> None:
        place = await begin(self.exchange, self.path, self.source.size)
        self._place, self._offset = place, 0
        self.pending.remember(self.source.identity, place)

    async def _send_up_to(self, end: int) -> None:
        if self._done or not await self._find_offset() or self._offset is None:
            return
        if self._offset > end:
            raise BadReply("The server has more of the file than was sent.")
        await self._hash(self._offset)
        self.progress.begin(self.source.size, self._offset)
        offset, self._offset = self._offset, None
        if offset < end:
            await self._patch(offset, end - offset, {"Upload-Complete": "?0"})
        self._offset = self._confirmed = end

    async def _complete(self) -> None:
        """Say that this was all, and what it hashes to."""
        size = self.source.size or 0
        if self._done or not await self._find_offset():
            return
        if self._offset != size:
            # Lost at the server since it confirmed them.
            await self._send_up_to(size)
            if self._done:
                return
        sha256 = self.source.sha256()
        self._offset = None
        headers = {
            "Upload-Complete": "?1", "Upload-Length": str(size), "Repr-Digest": _digest(sha256)
        }  # fmt: skip
        await self._patch(size, 0, headers)
        self._done = True

    async def _patch(self, offset: int, length: int, headers: dict[str, str]) -> None:
        headers = {"Content-Type": UPLOAD_MEDIA, "Upload-Offset": str(offset), **headers}
        order = Order("PATCH", self._place, self._read, offset, length, headers)
        await send(self.exchange, order)

    async def _find_offset(self) -> bool:
        """Know where to go on; false if there is nothing left to do."""
        if self._offset is not None:
            return True
        try:
            self._offset = await self._ask_offset()
            self._confirmed = max(self._confirmed, self._offset)
        except Missing:
            if await self._is_there():
                self._done = True
                return False
            self.pending.forget()
            await self._create()
        return True

    async def _ask_offset(self) -> int:
        reply = await self.exchange.request("HEAD", self._place)
        if reply.code not in (200, 204):
            # A reply to HEAD has no body that says why.
            reply = await self.exchange.request("GET", self._place)
            if reply.code not in (200, 204):
                await self.exchange.refuse(reply)
        await self.exchange.body(reply, 2**20)
        offset = header(reply, "Upload-Offset")
        if not re.fullmatch(COUNT, offset):
            raise BadReply("The server does not say how far the upload is.")
        return int(offset)

    async def _is_there(self) -> bool:
        """The upload is no more because it was completed, and only the answer got lost."""
        stored = await self.stored()
        if stored is None or self.source.size is None:
            return False
        await self._hash(self.source.size)
        return stored == self.source.sha256()

    # Bytes

    def _read(self, offset: int, count: int) -> bytes:
        data = self.source.read(offset, count)
        self.progress.advance(len(data))
        return data

    async def _hash(self, offset: int) -> None:
        for _ in self.source.hash_up_to(offset):
            await deferLater(self.exchange.reactor, 0)


def _digest(sha256: str) -> str:
    """A ``Repr-Digest`` (RFC 9530 section 3)."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode('ascii')}:"
