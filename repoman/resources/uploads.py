"""Resumable uploads, after draft-ietf-httpbis-resumable-upload."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from attrs import evolve

from repoman.errors import Invalid, LengthMismatch, Missing, RepomanError, UnsupportedMedia
from repoman.model import Upload
from repoman.policy import identified
from repoman.repository import Repository
from repoman.repository.images import FileRef
from repoman.repository.uploads import Part
from repoman.resources.asking import Ask, Routes
from repoman.resources.files import PART_FIELDS, PATHS, WHOLE_FIELDS, announced, note_stored
from repoman.resources.media_types import check_is_whole_file, check_not_encoded, curl_line
from repoman.resources.replies import Reply
from repoman.wire import KEPT_BY_NOBODY, UPLOAD_MEDIA, Urls, ctime, image_json

FLAGS = {"?1": True, "?0": False}
"""Booleans in header fields (RFC 8941 section 3.3.6)."""


def add_routes(routes: Routes, repository: Repository) -> None:
    """``/api/uploads``, and POST on the raw URLs."""
    uploads = repository.uploads
    one = "/api/uploads/<upload_id>"

    @routes.add("POST", *PATHS)
    async def create(ask: Ask, **names: str) -> Reply:
        identified(ask.caller)
        request, body = ask.request, ask.request.body
        check_is_whole_file(request, ask.urls.https)
        if request.getHeader("upload-complete") is None:
            raise Invalid(
                "POST begins a resumable upload, and has to say Upload-Complete; to send a file, "
                f"use PUT: {curl_line(request, ask.urls.https)}", field="Upload-Complete",
            )  # fmt: skip
        part = _part(request, 0)
        if part.last and part.length is None:
            part = evolve(part, length=body.length)
        if part.last and body.length is not None and body.length != part.length:
            raise LengthMismatch(f"{body.length} bytes are not the {part.length} announced.")
        upload = await uploads.create(ask.caller, FileRef(**names), part.length)
        if not body.announced or (body.length == 0 and not part.last):
            return Reply(status=201, headers=_headers(upload))
        try:
            return await _append(ask, upload.id, part, 201)
        except RepomanError:
            # Nobody has been told of it yet, so nobody could go on with it.
            with suppress(Missing):
                await uploads.delete(ask.caller, upload.id)
            raise

    @routes.add("GET", "/api/uploads")
    async def listing(ask: Ask) -> Reply:
        return Reply([upload_json(u, ask.urls) for u in await uploads.listing(ask.caller)])

    @routes.add("GET", one)
    async def state(ask: Ask, upload_id: str) -> Reply:
        is_head = ask.request.method == b"HEAD"
        upload = await uploads.find(ask.caller, upload_id, settle=is_head)
        headers = {**_headers(upload), "Cache-Control": KEPT_BY_NOBODY}
        if is_head:
            return Reply(status=200, headers=headers)
        return Reply(upload_json(upload, ask.urls), headers=headers)

    @routes.add("PATCH", one)
    async def append(ask: Ask, upload_id: str) -> Reply:
        identified(ask.caller)
        request = ask.request
        media = (request.getHeader("content-type") or "").partition(";")[0].strip().lower()
        if media != UPLOAD_MEDIA:
            request.setHeader("Accept-Patch", UPLOAD_MEDIA)  # RFC 5789 section 2.2
            raise UnsupportedMedia(
                f"A part of an upload is sent as {UPLOAD_MEDIA}.", field="Content-Type"
            )
        check_not_encoded(request, "send the part as it is.")
        offset = _number(request, "Upload-Offset")
        if offset is None:
            raise Invalid("Upload-Offset is missing.", field="Upload-Offset")
        return await _append(ask, upload_id, _part(request, offset), 204)

    @routes.add("DELETE", one)
    async def delete(ask: Ask, upload_id: str) -> Reply:
        await uploads.delete(ask.caller, upload_id)
        return Reply(status=204)

    async def _append(ask: Ask, upload_id: str, part: Part, unfinished: int) -> Reply:
        done = await uploads.append(ask.caller, upload_id, part, ask.request.body)
        if isinstance(done, int):
            place = {"Location": f"/api/uploads/{upload_id}"} if unfinished == 201 else {}
            offset = {"Upload-Offset": str(done), "Upload-Complete": "?0"}
            return Reply(status=unfinished, headers={**place, **offset})
        note_stored(ask.request, done)
        return Reply(image_json(done, ask.urls), headers={"Upload-Complete": "?1"})


def _part(request: Any, offset: int) -> Part:
    """The part that a request brings."""
    return Part(
        offset,
        _flag(request, "Upload-Complete"),
        _number(request, "Upload-Length"),
        announced(request, WHOLE_FIELDS),
        announced(request, PART_FIELDS),
    )


def upload_json(upload: Upload, urls: Urls) -> dict[str, Any]:
    """An unfinished upload."""
    return {
        "id": upload.id,
        "url": urls.upload(upload.id),
        "image": urls.image(upload.owner, upload.image),
        "hypervisor": upload.hypervisor,
        "offset": upload.offset,
        "length": upload.length,
        "expires": ctime(upload.keep_until),
    }


def _headers(upload: Upload) -> dict[str, str]:
    length = {} if upload.length is None else {"Upload-Length": str(upload.length)}
    return {
        "Location": f"/api/uploads/{upload.id}",
        "Upload-Offset": str(upload.offset),
        "Upload-Complete": "?0",
        **length,
    }


def _flag(request: Any, name: str) -> bool:
    text = request.getHeader(name)
    if text not in FLAGS:
        raise Invalid(f"{name} must be ?1 or ?0.", field=name)
    return FLAGS[text]


def _number(request: Any, name: str) -> int | None:
    text = request.getHeader(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise Invalid(f"{name} must be a number of bytes.", field=name)
    return int(text)
