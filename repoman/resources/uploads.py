"""Resumable uploads, after draft-ietf-httpbis-resumable-upload."""

from __future__ import annotations

from typing import Any

from repoman.errors import Invalid, UnsupportedMedia
from repoman.model import Upload
from repoman.repository import Repository
from repoman.repository.images import FileRef
from repoman.repository.uploads import Part
from repoman.resources.asking import Ask, Routes
from repoman.resources.files import PATHS, announced
from repoman.resources.replies import Reply
from repoman.wire import UPLOAD_MEDIA, Urls, ctime, image_json

FLAGS = {"?1": True, "?0": False}
"""Booleans in header fields (RFC 8941 section 3.3.6)."""


def add_routes(routes: Routes, repository: Repository) -> None:
    """``/api/uploads``, and POST on the raw URLs."""
    uploads = repository.uploads
    one = "/api/uploads/<upload_id>"

    @routes.add("POST", *PATHS)
    async def create(ask: Ask, **names: str) -> Reply:
        request = ask.request
        last, length = _flag(request, "Upload-Complete"), _number(request, "Upload-Length")
        if last and length is None:
            length = request.body.length
        upload = await uploads.create(ask.caller, FileRef(**names), length)
        if not request.body.announced or (request.body.length == 0 and not last):
            return Reply(status=201, headers=_headers(upload))
        return await _append(ask, upload.id, Part(0, last, length, announced(request)), 201)

    @routes.add("GET", "/api/uploads")
    async def listing(ask: Ask) -> Reply:
        return Reply([upload_json(u, ask.urls) for u in await uploads.listing(ask.caller)])

    @routes.add("GET", one)
    async def state(ask: Ask, upload_id: str) -> Reply:
        upload = await uploads.find(ask.caller, upload_id)
        headers = {**_headers(upload), "Cache-Control": "no-store"}
        if ask.request.method == b"HEAD":
            return Reply(status=200, headers=headers)
        return Reply(upload_json(upload, ask.urls), headers=headers)

    @routes.add("PATCH", one)
    async def append(ask: Ask, upload_id: str) -> Reply:
        request = ask.request
        media = (request.getHeader("content-type") or "").partition(";")[0].strip().lower()
        if media != UPLOAD_MEDIA:
            raise UnsupportedMedia(f"A part of an upload is sent as {UPLOAD_MEDIA}.")
        offset = _number(request, "Upload-Offset")
        if offset is None:
            raise Invalid("Upload-Offset is missing.", field="Upload-Offset")
        last, length = _flag(request, "Upload-Complete"), _number(request, "Upload-Length")
        return await _append(ask, upload_id, Part(offset, last, length, announced(request)), 204)

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
        return Reply(image_json(done, ask.urls), headers={"Upload-Complete": "?1"})


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
