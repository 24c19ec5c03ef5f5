"""One order to the object store and its answer: signed, watched, and repeated for a while."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote, urlencode

from attrs import field, frozen
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.iweb import IPolicyForHTTPS, IResponse

from repoman import __version__
from repoman.errors import StoreAbsent
from repoman.storage.s3.content import Collecting, Content, Sending, Silence
from repoman.storage.s3.lines import Lines
from repoman.storage.s3.replies import Answer
from repoman.storage.s3.signing import Signer

PATIENCE = 8.0
"""Seconds for which trouble is ridden out: who waits for us is told then."""

LONG_PATIENCE = 30.0
"""The same for the last step of an upload, which may be under way while nobody says so."""

STALL = 10.0
"""Seconds without a byte, in either direction, after which an order is given up.

More than :data:`PATIENCE`: who was silent for so long would be silent again.
"""

LONG_STALL = 30.0
"""Seconds of silence for work that the store does by itself before it says a word."""

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 2.0
"""Seconds between tries: doubled each time, and shortened at random, or all would come at once."""

IDLE_SECONDS = 20.0
"""How long an idle connection is kept: less than stores do, or orders would run into its end."""

MOST_CONNECTIONS = 100
"""How many idle connections are kept."""

LIMIT = 16 << 20
"""The longest answer that is taken as a whole, in bytes, unless the order knows better."""

REPEATED = {500, 502, 503, 504}
"""Statuses that pass, and nothing else does."""

REPEATED_CODES = {"RequestTimeout", "InternalError", "SlowDown", "ServiceUnavailable"}
"""The words of errors that pass, whatever the status says."""

_log = Logger()


@frozen
class Order:
    """What the store is to do.

    :ivar key: of the object; empty for the bucket.
    :ivar stall: seconds of silence that are borne.
    :ivar patience: seconds of trouble that are ridden out; 0: whoever asks looks into it.
    :ivar limit: of the answer's body, where it is taken as a whole, in bytes.
    :ivar once: not to be repeated unless it was certainly not done.
    """

    method: str
    key: str
    query: Mapping[str, str] = field(factory=dict)
    headers: Mapping[str, str] = field(factory=dict)
    content: Content = field(factory=Content)
    stall: float = STALL
    patience: float = PATIENCE
    limit: int = LIMIT
    once: bool = False


class _Trouble(Exception):
    """An attempt came to nothing.

    :ivar ago: for how many seconds already.
    :ivar pause: how long the store wants to be left alone, in seconds.
    :ivar undone: the store has certainly done nothing.
    """

    def __init__(
        self, why: str, *, ago: float = 0.0, pause: float = 0.0, undone: bool = False
    ) -> None:
        super().__init__(why)
        self.ago = ago
        self.pause = pause
        self.undone = undone


class Client:
    """Speaks with one bucket.

    :param base: scheme, host, port and bucket.
    """

    def __init__(
        self, reactor: Any, endpoint: str, bucket: str, signer: Signer, tls: IPolicyForHTTPS | None
    ) -> None:
        self.reactor = reactor
        self._base = f"{endpoint}/{bucket}"
        self._signer = signer
        self._pool = HTTPConnectionPool(reactor)
        self._pool.retryAutomatically = False  # we know better what may be repeated
        self._pool.cachedConnectionTimeout = int(IDLE_SECONDS)
        self._pool.maxPersistentPerHost = MOST_CONNECTIONS
        lines = Lines(reactor, endpoint, tls)
        # Not treq: it writes URLs anew, and what is signed must be what is sent.
        self._agent = Agent.usingEndpointFactory(reactor, lines, self._pool)

    async def close(self) -> None:
        """Let go of all connections."""
        await self._pool.closeCachedConnections()

    def link(self, key: str, query: Mapping[str, str], seconds: int) -> str:
        """A URL by which anybody may get an object for some time."""
        return self._signer.link(self._url(key, query), seconds)

    async def ask(self, order: Order) -> Answer:
        """Have an order done, and answer the whole answer, whatever it is.

        :raises StoreAbsent: there was none in time.
        """
        answer = await self._insist(order, whole=True)
        if not isinstance(answer, Answer):
            raise TypeError("an answer without its body")
        return answer

    async def fetch(self, order: Order) -> IResponse | Answer:
        """The same, but a body that was asked for is still to come."""
        return await self._insist(order, whole=False)

    async def _insist(self, order: Order, whole: bool) -> IResponse | Answer:
        until = 0.0
        for pause in pauses():
            try:
                return await self._attempt(order, whole)
            except _Trouble as trouble:
                now = self.reactor.seconds()
                until = until or now - trouble.ago + order.patience
                wait = max(pause, trouble.pause)
                if now + wait > until or (order.once and not trouble.undone):
                    raise _absent(order, trouble) from None
            await deferLater(self.reactor, wait)
        raise AssertionError("pauses end")

    async def _attempt(self, order: Order, whole: bool) -> IResponse | Answer:
        response = await self._send(order)
        if not whole and response.code in (200, 206):
            return response
        answer = Answer(response.code, response.headers, await self._body(order, response))
        code = answer.code if order.method in ("PUT", "POST") or answer.status >= 400 else ""
        if answer.status in REPEATED or code in REPEATED_CODES:
            pause = 0.0
            with suppress(ValueError):
                pause = max(pause, float(answer.header("Retry-After") or 0))  # NaN is no more
            why = f"{answer.status} {code}"
            raise _Trouble(why, pause=pause, undone=answer.status == 503)
        return answer

    async def _send(self, order: Order) -> IResponse:
        url = self._url(order.key, order.query)
        stated = {"User-Agent": f"repoman/{__version__}", **order.headers}
        headers = self._signer.headers(order.method, url, stated, order.content.sha256)
        sending = Sending(order.content) if order.content.size else None
        asked = self._agent.request(
            order.method.encode(),
            url.encode(),
            Headers({name: [value] for name, value in headers.items()}),
            sending,
        )
        silence = Silence(self.reactor, order.stall, asked.cancel)
        if sending is not None:
            sending.moved = silence.broken
        response: IResponse = await self._while(silence, order, asked)
        return response

    async def _body(self, order: Order, response: IResponse) -> bytes:
        collecting = Collecting(order.limit)
        silence = Silence(self.reactor, order.stall, collecting.hang_up)
        collecting.moved = silence.broken
        response.deliverBody(collecting)
        body: bytes = await self._while(silence, order, collecting.done)
        return body

    async def _while(self, silence: Silence, order: Order, done: Any) -> Any:
        """Wait for something, as long as it moves; what goes wrong with it is trouble."""
        try:
            return await done
        except Exception as error:
            causes = list(_causes(error))
            if silence.fallen:
                raise _Trouble("silence", ago=order.stall) from None
            if any(isinstance(cause, CancelledError) for cause in causes):
                raise CancelledError from None
            undone = any(isinstance(cause, ConnectError | DNSLookupError) for cause in causes)
            raise _Trouble(_innermost(causes), undone=undone) from None
        finally:
            silence.over()

    def _url(self, key: str, query: Mapping[str, str]) -> str:
        path = "/" + quote(key, safe="/-_.~") if key else ""
        asked = "?" + urlencode(query, quote_via=quote, safe="-_.~") if query else ""
        return self._base + path + asked


def pauses() -> Iterator[float]:
    """How long to wait before each new try, in seconds."""
    longest = FIRST_PAUSE
    while True:
        yield longest * random.uniform(0.5, 1.0)  # noqa: S311 no secret
        longest = min(2 * longest, LONGEST_PAUSE)


def _absent(order: Order, trouble: _Trouble) -> StoreAbsent:
    if order.patience:
        _log.error(
            "object store: {method} {key} came to nothing: {why}",
            method=order.method,
            key=order.key,
            why=trouble,
        )
    return StoreAbsent("The object store does not answer; try again later.")


def _causes(error: Any) -> Iterator[BaseException]:
    """``error`` and what it wraps: Twisted's HTTP client wraps lists of Failures."""
    yield error
    for reason in getattr(error, "reasons", ()):
        yield from _causes(getattr(reason, "value", reason))


def _innermost(causes: list[BaseException]) -> str:
    return str(causes[-1]) or type(causes[-1]).__name__
