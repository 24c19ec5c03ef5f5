"""The REST API: thin Klein resources that decode, call the repository, and encode."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Protocol

from klein import Klein
from twisted.internet.defer import Deferred, TimeoutError, gatherResults
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from werkzeug.routing import BaseConverter

from repoman.errors import MethodNotAllowed, NoSuchRoute, NotIdentified, RepomanError, Unavailable
from repoman.repository import Repository
from repoman.resources import (
    audit,
    autoindex,
    description,
    files,
    groups,
    images,
    offers,
    transfers,
    uploads,
    users,
    whoami,
)
from repoman.resources.asking import READING, Routes
from repoman.resources.origin import check_origin
from repoman.resources.replies import refuse
from repoman.wire import Urls

PLAIN_ENDPOINT = (
    "This is the plain HTTP endpoint: it serves public images only, in the directory "
    "/api/images/raw/; for all else use https."
)
"""Why the plain endpoint knows nobody."""


class Owner(BaseConverter):
    """A user in a raw URL.

    No user is called ``share``: ``/api/images/raw/share/user/bob`` is about an image called "raw".
    """

    regex = r"(?!share\Z)[^/]+"
    part_isolating = True


HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
"""What every answer over TLS tells a browser: show it as what it is, nowhere but here."""


class IPages(Protocol):
    """What people see in a browser."""

    def render(self, request: Any) -> Any:
        """Answer a request."""

    def refuse(self, request: Any, error: RepomanError) -> None:
        """Write a refusal, but do not finish the request."""

    def settled(self) -> Deferred[Any]:
        """Fires when all that is under way now has ended."""


class Root(Resource):
    """Everything below ``/``; refuses paths with more than one reading before routing.

    :param pages: answer all that is not below ``/api``.
    """

    isLeaf = True

    def __init__(self, repository: Repository, urls: Urls, pages: IPages) -> None:
        super().__init__()
        app = Klein()
        # A doubled or final slash is another path: no redirects, no second spelling.
        app.url_map.strict_slashes = False
        app.url_map.merge_slashes = False
        app.url_map.converters["owner"] = Owner
        app.url_map.converters["end"] = End
        routes = Routes(app, repository.accounts, urls, repository.audit)
        nouns = (
            description, whoami, users, groups, images, offers, files, autoindex, uploads, audit,
            transfers,
        )  # fmt: skip
        for noun in nouns:
            noun.add_routes(routes, repository)
        self.app = app
        self._routes = routes
        self._pages = pages
        self._api = app.resource()

    def render(self, request: Any) -> Any:
        """Answer a request."""
        is_page = request.isSecure() and request.postpath[:1] != [b"api"]
        if request.isSecure():
            for name, value in HEADERS.items():
                request.setHeader(name, value)
        try:
            _check_path(request)
            if request.isSecure():
                check_origin(request)
        except RepomanError as error:
            (self._pages.refuse if is_page else refuse)(request, error)
            return b""
        return (self._pages if is_page else self._api).render(request)

    def settled(self) -> Deferred[Any]:
        """Fires when all that is under way now has ended, with or without its client."""
        return gatherResults([self._routes.settled(), self._pages.settled()])


class End(BaseConverter):
    """The nothing behind a final slash: the address of a list of what lies below."""

    regex = ""
    part_isolating = True


def _check_path(request: Any) -> None:
    segments = request.postpath
    # The root is a directory, and so is, for readers, all above the bytes.
    named = segments[:-1] if segments == [b""] or _is_index(request) else segments
    plain = all(map(_is_plain, segments)) and b"" not in named
    if not request.isSecure() and not (plain and _is_public_path(request)):
        raise NotIdentified(PLAIN_ENDPOINT)
    if not plain:
        raise NoSuchRoute("There is nothing at this address.")
    if not (request.method.isalpha() and request.method.isupper()):
        raise MethodNotAllowed("There is no such method here; methods are in capitals.")


def _is_plain(segment: bytes) -> bool:
    # An escaped slash would become a new segment, and so another user's image.
    try:
        text = segment.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return "/" not in text and text.isprintable() and text not in (".", "..")


def _is_index(request: Any) -> bool:
    path = request.postpath
    above = path[:3] == [b"api", b"images", b"raw"] and 4 <= len(path) <= 6
    return above and path[-1] == b"" and request.method in READING


def _is_public_path(request: Any) -> bool:
    path = request.postpath
    if request.method not in READING or path[:2] != [b"api", b"images"]:
        return False
    if path[2:3] == [b"raw"]:
        return 4 <= len(path) <= 6
    return len(path) == 4 or (len(path) == 2 and "public" in request.args)


class Gate(Resource):
    """Stands where the API will be: lets requests wait for it, or says "not yet".

    :ivar behind: the API; ``None`` until it is there.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.behind: Root | None = None
        self._holds = True
        self._held: list[Any] = []

    def render(self, request: Any) -> Any:
        """Pass a request on, hold it, or refuse it for now."""
        if self.behind is not None:
            return self.behind.render(request)
        if self._holds:
            self._held.append(request)
            return NOT_DONE_YET
        refuse(request, Unavailable("The server waits for its database or store; try again soon."))
        return b""

    def open(self, root: Root) -> None:
        """The API is there."""
        self.behind = root
        self.give_up()

    def give_up(self) -> None:
        """Hold nobody any more: it will take longer."""
        self._holds = False
        held, self._held = self._held, []
        for request in held:
            request.render(self)

    async def settle(self, reactor: Any, seconds: float) -> None:
        """Wait for all that is under way, also for what goes on without its client.

        :param seconds: the longest to wait.
        """
        if self.behind is not None:
            with suppress(TimeoutError):
                await self.behind.settled().addTimeout(seconds, reactor)
