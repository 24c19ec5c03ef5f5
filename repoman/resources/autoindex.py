"""Public images as a tree of directories, for what reads those: ``rclone``, ``wget --recursive``.

Directories lie right above the bytes, with a final slash, so that links in them are relative and
lead to the bytes' own addresses.  What they look like is what web servers make of a directory;
programs read no more of it than the links.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from html import escape
from typing import Any

from attrs import evolve, frozen

from repoman.model import Image, ImageFile
from repoman.records import Listing
from repoman.repository import Repository
from repoman.repository.images import Images
from repoman.resources.asking import Ask, Routes
from repoman.resources.checksums import SUMS, files_once, line
from repoman.resources.listing import BATCH, URLS, place_of
from repoman.resources.long_lists import Shape, send_pieces

WIDTH = 60
"""Characters of a name, before its date and size."""


def add_routes(routes: Routes, repository: Repository) -> None:
    """``/api/images/raw/``, and below it a directory per user, and per further hypervisor."""
    images = repository.images

    @routes.add("GET", "/api/images/raw/<end:end>")
    async def publishers(ask: Ask, end: str) -> None:
        async def fetch(place: Any, count: int) -> list[tuple[str, str]]:
            return [(name, name) for name in await images.publishers(place or "", count)]

        shape = _directory("Public images")
        await send_pieces(ask.request, fetch, lambda n: _entry(f"{n}/"), shape, most=URLS)

    # The converters are those of the bytes' addresses, or those would be found without the slash.
    @routes.add("GET", "/api/images/raw/<user>/<end:end>")
    async def user_images(ask: Ask, user: str, end: str) -> None:
        seen: set[str] = set()
        wanted = Listing(owner=user, public=True, fetchable=True)
        await images.check_publishes(ask.caller, wanted)
        sums = b"" if await _called(images, user, [SUMS]) else _entry(SUMS)
        await _send(ask, images, wanted, sums, lambda listed: _entries(listed, seen))

    @routes.add("GET", "/api/images/raw/<user>/<hypervisor>/<end:end>")
    async def further_images(ask: Ask, user: str, hypervisor: str, end: str) -> None:
        wanted = Listing(owner=user, hypervisor=hypervisor, public=True, fetchable=True)
        await images.check_publishes(ask.caller, wanted)
        await _send(ask, images, wanted, b"", lambda listed: _further(listed, hypervisor))


@frozen
class Listed:
    """An image in a directory.

    :ivar has_sum: the address of its checksum is that of no other image.
    """

    image: Image
    has_sum: bool


async def _called(images: Images, user: str, names: Sequence[str]) -> set[str]:
    """Those of some names that public images of a user have: they are served first."""
    wanted = Listing(owner=user, public=True, names=names)
    return {place.name for place in await images.public_places(wanted)}


async def _send(
    ask: Ask,
    images: Images,
    wanted: Listing,
    first: bytes,
    encode: Callable[[Listed], Iterator[bytes]],
) -> None:
    """Write a directory of a user's images.

    :param first: the entries before theirs.
    :param encode: makes the entries of an image.
    """
    user = wanted.owner or ""

    async def fetch(place: Any, count: int) -> list[tuple[Any, Listed]]:
        found = await images.public(evolve(wanted, limit=count, after=place))
        called = await _called(images, user, [_sum_of(image) for image in found])
        return [(place_of(i, wanted), Listed(i, _sum_of(i) not in called)) for i in found]

    below = f", {wanted.hypervisor}" if wanted.hypervisor else ""
    shape = _directory(f"Public images of {user}{below}", _entry("../") + first)
    await send_pieces(ask.request, fetch, lambda one: b"".join(encode(one)), shape, most=BATCH)


def _sum_of(image: Image) -> str:
    return f"{image.name}.sha256"


def _entries(listed: Listed, seen: set[str]) -> Iterator[bytes]:
    """The entries of an image among its owner's: the default file, and where others are.

    :param seen: hypervisors that have an entry already; it gets those of this image.
    """
    for path, stored in files_once(listed.image):
        if "/" not in path:
            yield from _file(listed, stored)
        elif stored.hypervisor not in seen:
            seen.add(stored.hypervisor)
            yield _entry(f"{stored.hypervisor}/")


def _further(listed: Listed, hypervisor: str) -> Iterator[bytes]:
    """The entries of an image among those of a further hypervisor."""
    for path, stored in files_once(listed.image):
        if path == f"{hypervisor}/{listed.image.name}":
            yield from _file(listed, stored)


def _file(listed: Listed, stored: ImageFile) -> Iterator[bytes]:
    """The entries of a file: its bytes, and their checksum."""
    name = listed.image.name
    yield _entry(name, stored.uploaded, stored.size)
    if listed.has_sum:
        checksum = line(stored.digests.sha256, name)
        yield _entry(_sum_of(listed.image), stored.uploaded, len(checksum))


def _entry(name: str, moment: datetime | None = None, size: int | None = None) -> bytes:
    """A line of a directory."""
    shown = escape(name)
    if moment is None:
        return f'<a href="{shown}">{shown}</a>\n'.encode()
    date = f"{moment.astimezone(timezone.utc):%Y-%m-%d %H:%M}"
    blanks = " " * (WIDTH - len(name))
    return f'<a href="{shown}">{shown}</a>{blanks} {date} {size:>16}\n'.encode()


def _directory(title: str, first: bytes = b"") -> Shape:
    """What is around the entries."""
    title = escape(title)
    head = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{title}</title></head>\n<body><h1>{title}</h1>\n<pre>\n"
    )
    return Shape("text/html; charset=utf-8", head.encode() + first, b"", b"</pre></body></html>\n")
