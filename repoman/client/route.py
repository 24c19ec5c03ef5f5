"""Where the bytes of a file come from: the repository, or the store that it sends us to.

The repository may answer a download with an address in its store.  We go there
as nobody in particular: without the user's certificate, over TLS only, one
hop, and take what comes for no more than bytes; which file it is, and its
digest, the repository has said.  Whatever is wrong with the way, the
repository is asked again, for the bytes themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from attrs import define, field, frozen
from twisted.web.iweb import UNKNOWN_LENGTH, IPolicyForHTTPS, IResponse

from repoman.client.exchange import Exchange
from repoman.client.replies import header
from repoman.errors import RepomanError

REDIRECT = 307
"""The one status that sends us to the store (RFC 9110 section 15.4.8)."""

NOTE_LIMIT = 2**16
"""The longest text, in bytes, that may come with it."""


class Elsewhere:
    """Lines to stores, kept open between requests, on which we are nobody in particular.

    :param tls: makes the policy of a line; it must show no certificate.
    :param tuning: of each :class:`~repoman.client.exchange.Exchange`.
    """

    def __init__(
        self, reactor: Any, tls: Callable[[], IPolicyForHTTPS], tuning: Mapping[str, Any]
    ) -> None:
        self._reactor, self._tls, self._tuning = reactor, tls, tuning
        self._lines: dict[str, Exchange] = {}

    def line(self, origin: str) -> Exchange:
        """The line to ``https://host:port``."""
        if origin not in self._lines:
            self._lines[origin] = Exchange(self._reactor, origin, self._tls(), **self._tuning)
        return self._lines[origin]

    async def close(self) -> None:
        """Close all of them."""
        for line in self._lines.values():
            await line.close()


@frozen
class Coming:
    """Bytes that are about to come.

    :ivar line: over which they come.
    :ivar reply: whose body they are.
    :ivar about: the repository's reply, which says whose they are.
    """

    line: Exchange
    reply: IResponse
    about: IResponse


@frozen
class _Way:
    origin: str
    target: str
    about: IResponse


@define
class Route:
    """The way to the bytes of one file.

    :ivar path: of the raw URL in the repository.
    :ivar elsewhere: ``None``: only the repository is asked.
    :ivar strayed: some bytes have come from a store.
    """

    exchange: Exchange
    path: str
    elsewhere: Elsewhere | None = None
    strayed: bool = field(default=False, init=False)
    _stays: bool = field(default=False, init=False)
    _known: _Way | None = field(default=None, init=False)

    def stay(self) -> None:
        """From now on take the bytes from the repository itself."""
        self._stays, self._known = True, None

    async def get(self, headers: Mapping[str, str]) -> Coming:
        """Ask for bytes.

        With an ``If-Match`` the way that was found for the same file is taken
        again, until the store does not know it any more.

        :raises RepomanError: the repository did not reply.
        """
        known = self._known
        if known is not None and header(known.about, "ETag") == headers.get("If-Match"):
            if coming := await self._follow(known, headers):
                return coming
            self._known = None
        reply = await self._ask(headers)
        if reply.code != REDIRECT or self.elsewhere is None or self._stays:
            return Coming(self.exchange, reply, reply)
        await self.exchange.body(reply, NOTE_LIMIT)
        self._known = _way(reply)
        if coming := await self._follow(self._known, headers):
            return coming
        self.stay()
        reply = await self._ask(headers)
        return Coming(self.exchange, reply, reply)

    async def _ask(self, headers: Mapping[str, str]) -> IResponse:
        # A server may send somebody on who says nothing, if the image is public.
        takes = {"Prefer": "redirect=no" if self._stays else "redirect"} if self.elsewhere else {}
        return await self.exchange.request("GET", self.path, headers={**headers, **takes})

    async def _follow(self, way: _Way | None, headers: Mapping[str, str]) -> Coming | None:
        """The store's reply, if it has the bytes for us."""
        if way is None or self.elsewhere is None:
            return None
        tag, span = header(way.about, "ETag"), dict[str, str]()
        if "Range" in headers and headers.get("If-Range", tag) == tag:
            span = {"Range": headers["Range"]}
        try:
            line = self.elsewhere.line(way.origin)
            reply = await line.request("GET", way.target, headers=span)
        except RepomanError:
            return None
        wanted = span.get("Range", "").replace("=", " ")
        if (
            reply.code == (206 if span else 200)
            and header(reply, "Content-Range").startswith(wanted)
            and reply.length is not UNKNOWN_LENGTH
        ):
            self.strayed = True
            return Coming(line, reply, way.about)
        line.abandon(reply)
        return None


def _way(reply: IResponse) -> _Way | None:
    """Where a redirect leads to; ``None``: not to where we go."""
    location = header(reply, "Location")
    try:
        parts = urlsplit(location)
        usable = parts.scheme == "https" and parts.hostname and parts.port != 0
    except ValueError:
        return None
    if not usable or "@" in parts.netloc or not (location.isascii() and location.isprintable()):
        return None
    target = urlunsplit(("", "", parts.path or "/", parts.query, ""))
    return _Way(f"https://{parts.netloc}", target, reply)
