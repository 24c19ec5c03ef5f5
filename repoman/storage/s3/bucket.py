"""What is done with the objects of a bucket."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from attrs import frozen
from twisted.internet.task import deferLater
from twisted.web.iweb import IResponse

from repoman.errors import StoreAbsent, StoreUnavailable
from repoman.storage.s3.client import LIMIT, LONG_PATIENCE, LONG_STALL, Client, Order, pauses
from repoman.storage.s3.content import Content
from repoman.storage.s3.parts import Part
from repoman.storage.s3.replies import Answer, children, rejected, text

COPIED_AT_ONCE = 5 << 30
"""The largest object that one order copies, in bytes."""

GONE = ("NoSuchUpload", "NoSuchKey")
"""What stores say of a multipart upload that is complete, or aborted; Ceph's also the second."""

_MD5 = re.compile(r"[0-9a-f]{32}")


@frozen
class Found:
    """An object that is there.

    :ivar size: in bytes.
    """

    size: int
    etag: str

    @property
    def stamp(self) -> str:
        """Another one as soon as somebody has written the object anew."""
        return f"{self.etag}:{self.size}"


class Bucket:
    """Orders to one bucket, and their answers checked.

    Each method raises StoreAbsent where nobody answers, and StoreUnavailable where the answer
    is not to be expected.
    """

    def __init__(self, client: Client, name: str) -> None:
        self.client = client
        self.name = name

    async def head(self, key: str) -> Found | None:
        """What is known of an object; ``None``: it is not there, nor may the bucket be."""
        answer = await self.client.ask(Order("HEAD", key))
        if answer.status == 404:
            return None
        _check("HEAD", answer, 200)
        size = answer.number("HEAD", answer.header("Content-Length"))
        return Found(size, answer.known("HEAD", answer.etag))

    async def get(self, key: str, limit: int = LIMIT) -> bytes | None:
        """An object of ``limit`` bytes at most; ``None``: the bucket has none of that key."""
        answer = await self.client.ask(Order("GET", key, limit=limit))
        if answer.status == 404 and answer.code == "NoSuchKey":
            return None
        return _check("GET", answer, 200).body

    async def fetch(self, key: str, etag: str, start: int, end: int) -> IResponse | Answer:
        """Bytes of an object from ``start`` to before ``end``, still to come; or why not."""
        headers = {"Range": f"bytes={start}-{end - 1}", "If-Match": f'"{etag}"'}
        return await self.client.fetch(Order("GET", key, headers=headers))

    async def read(self, key: str, etag: str, start: int, end: int) -> bytes:
        """The same, if they are few."""
        headers = {"Range": f"bytes={start}-{end - 1}", "If-Match": f'"{etag}"'}
        return _check("GET", await self.client.ask(Order("GET", key, headers=headers)), 206).body

    async def put(self, key: str, content: Content) -> None:
        """Store an object in one piece."""
        _check("PUT", await self.client.ask(Order("PUT", key, content=content)), 200)

    async def delete(self, key: str) -> None:
        """Remove an object.  Harmless if it is not there."""
        _check("DELETE", await self.client.ask(Order("DELETE", key)), 200, 204, 404)

    async def copy(self, source: str, target: str, size: int) -> None:
        """Have the store copy an object of ``size`` bytes."""
        if size > COPIED_AT_ONCE:
            await self._copy_in_parts(source, target, size)
            return
        headers = {"x-amz-copy-source": self._source(source)}
        order = Order("PUT", target, headers=headers, stall=LONG_STALL)
        _check("copy", await self.client.ask(order), 200)

    async def _copy_in_parts(self, source: str, target: str, size: int) -> None:
        upload = await self.begin(target)
        parts: list[Part] = []
        for start in range(0, size, COPIED_AT_ONCE):
            end = min(size, start + COPIED_AT_ONCE)
            parts.append(await self.copy_part(target, upload, len(parts) + 1, source, start, end))
        await self.complete(target, upload, parts)

    # -- multipart uploads --

    async def begin(self, key: str) -> str:
        """Begin a multipart upload; answer its id."""
        order = Order("POST", key, {"uploads": ""}, once=True)
        answer = _check("POST uploads", await self.client.ask(order), 200)
        # Without one a part would be an object of its own.
        return answer.known("POST uploads", text(answer.xml(), "UploadId"))

    async def send_part(self, key: str, upload: str, number: int, content: Content) -> Part:
        """Store a part; one of the same number is replaced."""
        query = {"partNumber": str(number), "uploadId": upload}
        answer = await self.client.ask(Order("PUT", key, query, content=content))
        _check("PUT part", answer, 200)
        return Part(number, answer.known("PUT part", answer.etag), content.size)

    async def copy_part(
        self, key: str, upload: str, number: int, source: str, start: int, end: int
    ) -> Part:
        """Let bytes of another object, from ``start`` to before ``end``, be a part."""
        query = {"partNumber": str(number), "uploadId": upload}
        headers = {
            "x-amz-copy-source": self._source(source),
            "x-amz-copy-source-range": f"bytes={start}-{end - 1}",
        }
        order = Order("PUT", key, query, headers, stall=LONG_STALL)
        answer = _check("copy part", await self.client.ask(order), 200)
        etag = answer.known("copy part", text(answer.xml(), "ETag").strip('"'))
        return Part(number, etag, end - start)

    async def complete(self, key: str, upload: str, parts: Iterable[Part]) -> Found:
        """Make an object of the parts.

        A lost answer, or that there is no such upload any more, says nothing: the object does.

        :raises StoreUnavailable: it has not become one, or of other parts than these.
        """
        parts = list(parts)
        listed = "".join(
            f"<Part><PartNumber>{part.number}</PartNumber><ETag>{escape(part.etag)}</ETag></Part>"
            for part in parts
        )
        content = Content.of(
            f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()
        )
        order = Order("POST", key, {"uploadId": upload}, content=content, patience=0.0)
        wanted = Found(sum(part.size for part in parts), _etag_of(parts))
        until = self.client.reactor.seconds() + LONG_PATIENCE
        for pause in pauses():
            with suppress(StoreAbsent):  # nobody said that it was not done
                answer = await self.client.ask(order)
                if answer.status == 200 and not answer.code:
                    # Ceph's is empty.
                    etag = text(answer.xml(), "ETag").strip('"') or wanted.etag
                    return Found(wanted.size, etag)
                if answer.code in GONE:
                    return await self._look_for(key, wanted)
                raise rejected("complete", answer)
            if await self.parts(key, upload) is None:
                return await self._look_for(key, wanted)
            if self.client.reactor.seconds() + pause > until:
                break
            await deferLater(self.client.reactor, pause)
        raise StoreUnavailable("The object store did not finish the file; try again later.")

    async def _look_for(self, key: str, wanted: Found) -> Found:
        """The object, if it has become what it should."""
        if await self.head(key) != wanted:
            raise StoreUnavailable("Another daemon goes on with the upload, or ended it.")
        return wanted

    async def abort(self, key: str, upload: str) -> None:
        """Forget a multipart upload and its parts.  Harmless if it is not there."""
        answer = await self.client.ask(Order("DELETE", key, {"uploadId": upload}))
        _check("abort", answer, 200, 204, 404)

    async def parts(self, key: str, upload: str) -> list[Part] | None:
        """The parts that the store has acknowledged; ``None``: there is no such upload."""
        found: list[Part] = []
        query = {"uploadId": upload, "max-parts": "1000"}
        while True:
            answer = await self.client.ask(Order("GET", key, query))
            if answer.code in GONE:
                return None
            root = _check("list parts", answer, 200).xml()
            found += [_part(answer, element) for element in children(root, "Part")]
            if text(root, "IsTruncated") != "true":
                return found
            after = answer.number("list parts", text(root, "NextPartNumberMarker"))
            if after <= int(query.get("part-number-marker", "0")):
                raise rejected("list parts (the marker does not move)", answer)
            query["part-number-marker"] = str(after)

    # -- listings --

    async def keys(self, prefix: str) -> AsyncIterator[str]:
        """The keys of all objects that begin with ``prefix``."""
        query = {"list-type": "2", "prefix": prefix}
        async for root in self._pages(query, {"continuation-token": "NextContinuationToken"}):
            for one in children(root, "Contents"):
                yield text(one, "Key")

    async def uploads(self, prefix: str) -> AsyncIterator[tuple[str, str]]:
        """Key and id of each multipart upload of a key that begins with ``prefix``."""
        query = {"uploads": "", "prefix": prefix}
        markers = {"key-marker": "NextKeyMarker", "upload-id-marker": "NextUploadIdMarker"}
        async for root in self._pages(query, markers):
            for one in children(root, "Upload"):
                yield text(one, "Key"), text(one, "UploadId")

    async def _pages(
        self, query: dict[str, str], markers: Mapping[str, str]
    ) -> AsyncIterator[ElementTree.Element]:
        seen = {("",) * len(markers)}
        while True:
            answer = _check("list", await self.client.ask(Order("GET", "", query)), 200)
            yield (root := answer.xml())
            if text(root, "IsTruncated") != "true":
                return
            found = tuple(text(root, element) for element in markers.values())
            if found in seen:  # where it was before, so it would never end
                raise rejected("list (the marker does not move)", answer)
            seen.add(found)
            query.update(zip(markers, found, strict=True))

    def _source(self, key: str) -> str:
        return quote(f"/{self.name}/{key}", safe="/-_.~")


def _check(what: str, answer: Answer, *statuses: int) -> Answer:
    """Hold an answer against what may be expected; a 200 that speaks of an error may not."""
    if answer.status not in statuses or (what != "GET" and answer.status == 200 and answer.code):
        raise rejected(what, answer)
    return answer


def _part(answer: Answer, element: Any) -> Part:
    number, size = (
        answer.number("list parts", text(element, name)) for name in ("PartNumber", "Size")
    )
    return Part(number, answer.known("list parts", text(element, "ETag").strip('"')), size)


def _etag_of(parts: list[Part]) -> str:
    """The entity tag that an object of these parts has; where stores do otherwise, we ask again."""
    if not all(_MD5.fullmatch(part.etag) for part in parts):
        return ""
    whole = hashlib.md5(b"".join(bytes.fromhex(p.etag) for p in parts), usedforsecurity=False)
    return f"{whole.hexdigest()}-{len(parts)}"
