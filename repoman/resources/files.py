"""The bytes of images: the raw URLs of both generations of clients."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any

from attrs import asdict, evolve

from repoman.errors import Invalid, Missing, PreconditionFailed
from repoman.model import DEFAULT_FILE_WORDS, Digests, Image, ImageFile
from repoman.policy import identified
from repoman.records import Listing
from repoman.repository import Repository
from repoman.repository.files import Files
from repoman.repository.images import FileRef, Images
from repoman.resources import headers
from repoman.resources.asking import Ask, Routes
from repoman.resources.checksums import SUMS, image_lines, line, split_name
from repoman.resources.listing import BATCH, images_from
from repoman.resources.long_lists import Shape, send_pieces
from repoman.resources.media_types import check_is_whole_file
from repoman.resources.replies import Reply
from repoman.wire import (
    KEPT_BY_ALL,
    KEPT_BY_CALLER,
    KEPT_BY_NOBODY,
    STORED_SIZE,
    image_json,
)

DIGEST_FIELDS = ("Repr-Digest", "Content-Digest", "Digest", "Content-MD5")
"""Where an upload may carry the digest of its bytes."""

PART_FIELDS = ("Content-Digest", "Content-MD5")
"""Those that are about a message's content, which may be a part of the whole."""

WHOLE_FIELDS = ("Repr-Digest", "Digest")
"""Those that are about the whole."""

ELSEWHERE = b"The bytes are at the address in Location: curl follows with --location.\n"
"""What somebody reads who asked for an image, and whose client does not follow."""

CONDITIONS = ("If-Match", "If-None-Match", "If-Unmodified-Since")
"""What may bind an upload to the file that it replaces."""

PATHS = (
    "/api/images/raw/<name>",
    "/api/images/raw/<word>/<name>",
    "/api/images/raw/<owner:owner>/<hypervisor>/<name>",
)
"""The raw URLs, by the number of names in them."""


def add_routes(routes: Routes, repository: Repository) -> None:
    """``/api/images/raw``."""
    files = repository.files

    @routes.add("GET", *PATHS)
    async def fetch(ask: Ask, **names: str) -> None:
        ref = FileRef(**names)
        name, algorithm = split_name(ref.name)
        if name == ref.name != SUMS or await repository.images.names_image(ask.caller, ref):
            await _send_bytes(ask, files, ref)
        elif algorithm:
            await _send_checksum(ask, files, evolve(ref, name=name), algorithm)
        else:
            await _send_sums(ask, repository.images, ref)

    @routes.add("PUT", *PATHS)
    async def store(ask: Ask, **names: str) -> Reply:
        identified(ask.caller)
        request = ask.request
        check_is_whole_file(request, ask.urls.https)
        if request.getHeader("upload-complete") == "?0":
            raise Invalid(
                "An upload that is to go on begins with POST; PUT takes the whole file.",
                field="Upload-Complete",
            )
        body, expected = request.body, announced(request)
        conditional = any(request.getHeader(name) is not None for name in CONDITIONS)
        image = await files.store(
            ask.caller,
            FileRef(**names),
            body,
            body.announced,
            expected,
            partial(_check_replacing, request) if conditional else None,
        )
        note_stored(request, image)
        return Reply(image_json(image, ask.urls))


async def _send_bytes(ask: Ask, files: Files, ref: FileRef) -> None:
    """Write a file, or where else it is to be had."""
    request = ask.request
    image, stored, reader = await files.open(ask.caller, ref)
    try:
        span = _describe(ask, files, ref, image, stored)
        if files.redirects:
            request.setHeader("Vary", "Prefer")
        if reader.room < stored.size:
            request.setHeader(STORED_SIZE, str(reader.room))
        if request.method == b"HEAD" or span is None:
            request.write(b"")
        elif _may_be_sent_on(request) and (
            url := files.link(image, stored, takes_redirect(request), over_tls=_is_over_tls(ask))
        ):
            _redirect(request, url)
        else:
            await reader.write_to(request, *span)
    finally:
        reader.close()


async def _send_checksum(ask: Ask, files: Files, ref: FileRef, algorithm: str) -> None:
    """Write a file's checksum as if that were a file itself, for whom the file is."""
    request = ask.request
    image, stored, reader = await files.open(ask.caller, ref)
    reader.close()
    digest = getattr(stored.digests, algorithm)
    if digest is None:
        raise Missing(f"The {algorithm} of {image.path} is not known; its sha256 is.")
    text = line(digest, image.name).encode()
    digests = Digests(hashlib.sha256(text).hexdigest())
    span = _describe(ask, files, ref, image, evolve(stored, size=len(text), digests=digests))
    if span is None:
        request.write(b"")
        return
    request.setHeader("Content-Type", "text/plain; charset=utf-8")
    request.setHeader("Content-Disposition", f'inline; filename="{image.name}.{algorithm}"')
    request.write(text[span[0] : sum(span)])


async def _send_sums(ask: Ask, images: Images, ref: FileRef) -> None:
    """Write the checksums of all public images of a user that can be fetched now."""
    owner = ref.owner or (ref.word if ref.word not in DEFAULT_FILE_WORDS else None)
    wanted = Listing(owner=owner or identified(ask.caller).user_name, public=True, fetchable=True)
    if ref.hypervisor not in (None, *DEFAULT_FILE_WORDS):
        raise Missing(f"There is one {SUMS} for all images of a user: beside the default files.")
    await images.check_publishes(ask.caller, wanted)
    if owner:
        ask.request.setHeader("Cache-Control", KEPT_BY_ALL)
    fetch, shape = images_from(images.public, wanted), Shape("text/plain; charset=utf-8")
    await send_pieces(ask.request, fetch, lambda i: image_lines(i).encode(), shape, most=BATCH)


def _kept(image: Image, ref: FileRef) -> str:
    """Who may keep a file, to ask us before each use.

    Without an owner in it an address means another file to another caller, also where all are
    public.
    """
    names_owner = image.owner in (ref.owner, ref.word)
    return KEPT_BY_ALL if image.unauthenticated_access and names_owner else KEPT_BY_CALLER


def _may_be_sent_on(request: Any) -> bool:
    """The store would not understand the request otherwise than we do.

    Clients say there again what they said here, and the store knows when bytes came, not when
    an address was bound to them: it would say 304 of what is new at the address.
    """
    return request.getHeader("if-modified-since") is None


def _is_over_tls(ask: Ask) -> bool:
    """Whether a client came over TLS: to us, or to a proxy before the plain endpoint."""
    return ask.request.peer is not None or ask.urls.http.startswith("https:")


def takes_redirect(request: Any) -> bool | None:
    """Whether a client says that it follows to the store, or not; ``None``: it says neither."""
    return headers.takes_redirect(request.getHeader("prefer"))


def _redirect(request: Any, url: str) -> None:
    """Say where the bytes are; which they are is said already."""
    for name in ("Content-Disposition", "Content-Range"):
        request.responseHeaders.removeHeader(name)
    if takes_redirect(request):
        request.setHeader("Preference-Applied", "redirect")
    request.setHeader("Location", url)
    request.setHeader("Cache-Control", f"private, {KEPT_BY_NOBODY}")
    request.setHeader("Content-Type", "text/plain; charset=utf-8")
    request.setHeader("Content-Length", str(len(ELSEWHERE)))
    request.setResponseCode(307)
    request.write(ELSEWHERE)


def note_stored(request: Any, image: Image) -> None:
    """Let the access log have the digest of what a request has stored a moment ago."""
    stored = max(image.files.values(), key=lambda one: one.uploaded)
    request.stored_digest = headers.repr_digest({"sha256": stored.digests.sha256})


def announced(request: Any, fields: Sequence[str] = DIGEST_FIELDS) -> dict[str, str]:
    """The digests that an upload carries in ``fields``, in hex, by name."""
    return headers.announced_digests({name: request.getHeader(name) for name in fields})


def _check_replacing(request: Any, current: ImageFile | None) -> None:
    """The preconditions of an upload (RFC 9110 section 13.1).

    :raises PreconditionFailed: they do not hold for the file that is there.
    """
    tag = headers.etag(current.digests.sha256) if current else ""
    match, none_match = request.getHeader("if-match"), request.getHeader("if-none-match")
    unless = request.getHeader("if-unmodified-since")
    if match is not None:
        if not (tag and headers.tag_matches(match, tag, weak=False)):
            raise PreconditionFailed("The file is not the one that If-Match names.")
    elif unless and current and headers.not_after(unless, current.bound) is False:
        raise PreconditionFailed("The file was changed since the date given.")
    if none_match is not None and tag and headers.tag_matches(none_match, tag, weak=True):
        raise PreconditionFailed("There is such a file already.")


def _describe(
    ask: Ask, files: Files, ref: FileRef, image: Image, stored: ImageFile
) -> tuple[int, int] | None:
    """Set status and headers; answer which bytes to send, ``None`` for none."""
    request = ask.request
    _date(request, files.clock(), stored)
    tag = headers.etag(stored.digests.sha256)
    unmodified = _unmodified(request, stored, tag)
    span = None
    # RFC 9110 section 14.2: only GET has ranges.
    if request.method == b"GET" and headers.range_applies(
        request.getHeader("if-range"), tag, stored.bound
    ):
        span = None if unmodified else headers.byte_range(request.getHeader("range"), stored.size)
    # Only now: a refusal above is not about these bytes.
    _describe_bytes(request, stored, tag)
    request.setHeader("Cache-Control", _kept(image, ref))
    if unmodified:
        request.setResponseCode(304)
        return None
    request.setHeader("Content-Type", "application/octet-stream")
    request.setHeader("Content-Disposition", f'attachment; filename="{image.name}"')
    start, length = span or (0, stored.size)
    if span is not None:
        request.setResponseCode(206)
        last = start + length - 1
        request.setHeader("Content-Range", f"bytes {start}-{last}/{stored.size}")
    request.setHeader("Content-Length", str(length))
    return start, length


def _date(request: Any, now: datetime, stored: ImageFile) -> None:
    """Date an answer that may have waited, and the file."""
    request.setHeader("Date", headers.http_date(now))
    # Never later than the answer (RFC 9110 section 8.8.2.1).
    request.setHeader("Last-Modified", headers.http_date(min(stored.bound, now)))


def _describe_bytes(request: Any, stored: ImageFile, tag: str) -> None:
    known = {k: v for k, v in asdict(stored.digests).items() if v is not None}
    request.setHeader("ETag", tag)
    request.setHeader("Accept-Ranges", "bytes")
    request.setHeader("Repr-Digest", headers.repr_digest(known))
    wanted = request.getHeader("want-digest")
    if wanted and (digest := headers.old_digest(wanted, known)):
        request.setHeader("Digest", digest)


def _unmodified(request: Any, stored: ImageFile, tag: str) -> bool:
    """The preconditions of RFC 9110 section 13.2.2, in its order.

    :raises PreconditionFailed: If-Match or If-Unmodified-Since do not hold.
    """
    match, unless = request.getHeader("if-match"), request.getHeader("if-unmodified-since")
    if match is not None:
        if not headers.tag_matches(match, tag, weak=False):
            raise PreconditionFailed("The image is not the one that If-Match names.")
    elif unless is not None and headers.not_after(unless, stored.bound) is False:
        raise PreconditionFailed("The image was changed since the date given.")
    none_match, since = request.getHeader("if-none-match"), request.getHeader("if-modified-since")
    if none_match is not None:
        return headers.tag_matches(none_match, tag, weak=True)
    return since is not None and headers.unmodified_since(since, stored.bound)
