"""Lists of images: filters, order, and one page after the other."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from attrs import evolve
from twisted.internet.task import deferLater

from repoman.errors import ClientGone, Invalid
from repoman.model import Image
from repoman.records import Listing
from repoman.repository import Repository
from repoman.resources.asking import Ask, check_text
from repoman.resources.replies import Reply
from repoman.wire import image_json

FULL_PAGE = 1000
"""How many images a page has at most, where paging is asked for."""

BATCH, URLS = 250, 5000
"""How many images, or URLs of images, are made into JSON at one go."""

SORTS = ("name", "modified", "size")
"""What a listing can be sorted by."""

EXACT = ("os_type", "os_arch", "os_variant")
"""Fields that a listing can be narrowed to one value of."""


def wants_full(ask: Ask) -> bool:
    """The client asked for objects rather than URLs."""
    return ask.query("view") == "full"


async def list_images(ask: Ask, repository: Repository, scope: Listing) -> Reply | None:
    """The images within ``scope`` that the query asks for and the caller may see."""
    wanted = refined(ask, scope)
    if wanted.limit is None:
        batches = _images if wants_full(ask) else _urls
        async with aclosing(batches(ask, repository, wanted)) as all_of_them:
            return await _in_batches(ask, all_of_them)
    # One more than asked for shows whether there is a next page.
    more = evolve(wanted, limit=wanted.limit + 1)
    found = await repository.images.listing(ask.caller, more)
    page, headers = found[: wanted.limit], {}
    if len(found) > len(page):
        headers["Link"] = f'<{_next_page(ask, wanted, page[-1])}>; rel="next"'
    if wants_full(ask):
        return Reply([image_json(i, ask.urls, full=True) for i in page], headers=headers)
    return Reply([ask.urls.image(i.owner, i.name) for i in page], headers=headers)


async def _urls(ask: Ask, repository: Repository, wanted: Listing) -> AsyncGenerator[list[Any]]:
    names = await repository.images.names(ask.caller, wanted)
    for start in range(0, len(names), URLS):
        yield [ask.urls.image(owner, name) for owner, name in names[start : start + URLS]]
        await deferLater(ask.request.site.reactor, 0)


async def _images(ask: Ask, repository: Repository, wanted: Listing) -> AsyncGenerator[list[Any]]:
    async with aclosing(repository.images.batches(ask.caller, wanted, BATCH)) as batches:
        async for batch in batches:
            yield [image_json(image, ask.urls, full=True) for image in batch]


async def _in_batches(ask: Ask, batches: AsyncGenerator[list[Any]]) -> Reply | None:
    """Answer with a list that may be long, and let others have their turn between its batches."""
    first: list[Any] = await anext(batches, [])
    second = await anext(batches, None)
    if second is None:
        return Reply(first)
    ask.request.setHeader("Content-Type", "application/json")
    ask.request.write(b"[" + _members(first) + _members(second, b", "))
    async for batch in batches:
        if ask.request.channel is None:
            raise ClientGone("The client went away before the end of a list.")
        ask.request.write(_members(batch, b", "))
    ask.request.write(b"]")
    return None


def _members(batch: list[Any], before: bytes = b"") -> bytes:
    return before + json.dumps(batch)[1:-1].encode() if batch else b""


def refined(ask: Ask, scope: Listing) -> Listing:
    """``scope``, narrowed and ordered as the query says.

    :raises Invalid: with the parameter's name.
    """
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


def _next_page(ask: Ask, wanted: Listing, last: Image) -> str:
    path = ask.request.path.decode("ascii")
    return f"{ask.urls.https}{path}?{urlencode(query_after(ask, wanted, last))}"


def query_after(ask: Ask, wanted: Listing, last: Image) -> dict[str, str]:
    """The query of the page that follows the one that ends with ``last``."""
    value: Any = {
        "name": last.name,
        "modified": last.modified.isoformat(),
        "size": last.default_file.size if last.default_file else -1,
    }[wanted.sort]
    token = base64.urlsafe_b64encode(json.dumps([value, last.id]).encode()).decode()
    query = {name: values[-1] for name, values in ask.request.args.items() if name != "after"}
    return {**query, "after": token}
