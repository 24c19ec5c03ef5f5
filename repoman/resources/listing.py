"""Lists of images: filters, order, and one page after the other."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import urlencode

from attrs import evolve

from repoman.errors import Invalid
from repoman.model import Image
from repoman.policy import may
from repoman.records import Listing, Place
from repoman.repository import Repository
from repoman.resources.asking import Ask, check_text
from repoman.resources.forms import read_flag
from repoman.resources.long_lists import Fetch, send_list
from repoman.wire import Urls, image_json

FULL_PAGE = 1000
"""How many images a page has at most, where paging is asked for."""

BATCH, URLS = 100, 1000
"""How many images, or names of images, are read at one go, at most."""

SORTS = ("name", "modified", "size")
"""What a listing can be sorted by."""

EXACT = ("os_type", "os_arch", "os_variant")
"""Fields that a listing can be narrowed to one value of."""


def wants_full(ask: Ask) -> bool:
    """The client asked for objects rather than URLs."""
    return ask.query("view") == "full"


def wants_public(ask: Ask) -> bool:
    """The client asked for what everybody may fetch, whoever it is.

    :raises Invalid: it said neither yes nor no.
    """
    return read_flag("public", ask.query("public") or "false")


def shown(ask: Ask, image: Image, *, full: bool) -> dict[str, Any]:
    """An image's record, without whom it is shared with for those who only look at it."""
    sees = may("image.see", ask.caller, image)
    return image_json(image, ask.urls, full=full, shares=sees)


def _here(ask: Ask) -> Urls:
    """The URLs of records on the endpoint that was asked."""
    place = ask.urls.https if ask.request.isSecure() else ask.urls.http
    return evolve(ask.urls, https=place or ask.urls.https)


async def list_images(ask: Ask, repository: Repository, scope: Listing) -> None:
    """The images within ``scope`` that the query asks for and the caller may see.

    Or look at, where ``scope`` is what is public.
    """
    wanted, images, here = refined(ask, scope), repository.images, _here(ask)
    if scope.public:
        read, read_places = images.public, images.public_places
    else:
        read = partial(images.listing, ask.caller)
        read_places = partial(images.places, ask.caller)
    wanted, headers = await _one_page(ask, wanted, read_places, here)

    async def names(place: Any, count: int) -> list[tuple[Any, Place]]:
        found = await read_places(evolve(wanted, limit=count, after=place or wanted.after))
        return [(p.at, p) for p in found]

    if wants_full(ask):
        await send_list(
            ask.request, images_from(read, wanted), lambda image: shown(ask, image, full=True),
            most=BATCH, headers=headers,
        )  # fmt: skip
    else:
        await send_list(
            ask.request, names, lambda p: here.image(p.owner, p.name),
            most=URLS, headers=headers,
        )  # fmt: skip


def images_from(read: Callable[[Listing], Awaitable[list[Image]]], wanted: Listing) -> Fetch[Image]:
    """What reads the images wanted, as a list of them is written."""

    async def fetch(place: Any, count: int) -> list[tuple[Any, Image]]:
        found = await read(evolve(wanted, limit=count, after=place or wanted.after))
        return [(place_of(image, wanted), image) for image in found]

    return fetch


async def _one_page(
    ask: Ask,
    wanted: Listing,
    read_places: Callable[[Listing], Awaitable[list[Place]]],
    here: Urls,
) -> tuple[Listing, dict[str, str]]:
    """The part of a list that is one page, if the client asked for pages; and the next's link."""
    if wanted.limit is None:
        return wanted, {}
    # One more than asked for shows whether there is a next page.
    places = await read_places(evolve(wanted, limit=wanted.limit + 1))
    if len(places) <= wanted.limit:
        return wanted, {}
    last = places[wanted.limit - 1].at
    path = f"{here.https}{ask.request.path.decode('ascii')}"
    link = f'<{path}?{urlencode(query_after(ask, last))}>; rel="next"'
    return evolve(wanted, until=last), {"Link": link}


def refined(ask: Ask, scope: Listing) -> Listing:
    """``scope``, narrowed and ordered as the query says.

    :raises Invalid: with the parameter's name.
    """
    if scope.public and ask.query("shared_with") is not None:
        raise Invalid(
            "shared_with: nobody is told whom public images are shared with.", field="shared_with"
        )
    sort = ask.query("sort") or "name"
    column = sort.removeprefix("-")
    if column not in SORTS:
        raise Invalid("sort: must be name, modified or size, with - for descending.", field="sort")
    return evolve(
        scope,
        owner=scope.owner or ask.query("owner"),
        shared_with_user=scope.shared_with_user or ask.query("shared_with"),
        text=ask.query("q"),
        exact={name: value for name in EXACT if (value := ask.query(name)) is not None},
        hypervisor=ask.query("hypervisor"),
        sort=column,
        descending=sort.startswith("-"),
        limit=read_limit(ask.query("limit")),
        after=_after(ask.query("after"), column),
    )


def read_limit(text: str | None) -> int | None:
    """How many a page shall have; ``None`` if the query does not say.

    :raises Invalid: nothing that it could have.
    """
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and 0 < int(text[:9]) <= FULL_PAGE):
        raise Invalid(f"limit: must be a number from 1 to {FULL_PAGE}.", field="limit")
    return int(text[:9])


def _after(token: str | None, column: str) -> tuple[Any, int] | None:
    if token is None:
        return None
    try:
        value, key = json.loads(base64.urlsafe_b64decode(token.encode()))
        if type(key) is int and 0 <= key < 2**63:
            return _place(value, column), key
    except (ValueError, TypeError, RecursionError):
        pass
    raise Invalid("after: must be what an earlier page's Link had.", field="after")


def _place(value: Any, column: str) -> Any:
    """What a token says of the last image.

    :raises ValueError: nothing that ``column`` could be.
    :raises TypeError: the same.
    """
    if column == "modified":
        moment = datetime.fromisoformat(value)
        if moment.utcoffset() != timedelta(0) or not 1970 <= moment.year < 9999:
            raise ValueError
        return moment
    if column == "size" and type(value) is int:
        return min(max(value, -1), 2**63 - 1)
    if column == "name" and isinstance(value, str):
        return check_text("after", value)
    raise TypeError


def place_of(image: Image, wanted: Listing) -> tuple[Any, int]:
    """Where an image stands in a list."""
    size = image.default_file.size if image.default_file else -1
    return {"name": image.name, "modified": image.modified, "size": size}[wanted.sort], image.id


def query_after(ask: Ask, place: tuple[Any, int]) -> dict[str, str]:
    """The query of the page that follows the one that ends at ``place``."""
    value, key = place
    told = value.isoformat() if isinstance(value, datetime) else value
    token = base64.urlsafe_b64encode(json.dumps([told, key]).encode()).decode()
    query = {name: values[-1] for name, values in ask.request.args.items() if name != "after"}
    return {**query, "after": token}
