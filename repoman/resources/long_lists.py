"""Lists of any length: read and written in bounded pieces, at the peer's pace.

Whoever does not read costs one piece and a place in the list: no connection to the
database, no rows.  The alternative, one query whose rows wait for the peer, would let
a few readers that stand still have all connections, or all memory.  The price is that
what is renamed while the list is written may be in it twice, or not at all.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from repoman.errors import ClientGone

T = TypeVar("T")

PIECE = 128 * 1024
"""How many bytes are gathered for one write; a row more, if it is long."""

FIRST = 32
"""How many rows are read at first; later as many as make about a piece."""

Fetch = Callable[[Any, int], Awaitable[Sequence[tuple[Any, T]]]]
"""Given the place of the last row, ``None`` at first, and a number: the rows after it.

So many, or fewer at the end of the list; each with its place.
"""


class RoundRobin:
    """Lets those who write lists go on in turn: one each time that the reactor goes round.

    If all went on in one round, it would take the longer the more of them there are, and whoever
    asks for something else would wait for all of them.
    """

    def __init__(self) -> None:
        self._waiting: deque[Deferred[None]] = deque()

    def next(self, reactor: Any) -> Deferred[None]:
        """Fires when others have had their turn."""
        turn: Deferred[None] = Deferred()
        if not self._waiting:
            reactor.callLater(0, self._go_on, reactor)
        self._waiting.append(turn)
        return turn

    def _go_on(self, reactor: Any) -> None:
        turn = self._waiting.popleft()
        if self._waiting:
            reactor.callLater(0, self._go_on, reactor)
        turn.callback(None)


ROUND_ROBIN = RoundRobin()
"""For all lists of this process, which has one reactor."""


@implementer(IPushProducer)
class Pacer:
    """Whoever writes an answer in pieces, as the peer's connection sees it.

    :param request: whose answer it is.
    """

    def __init__(self, request: Any) -> None:
        self._reactor = request.site.reactor
        self._is_paused = self._is_gone = False
        self._waiting: Deferred[None] | None = None
        request.registerProducer(self, True)

    async def turn(self) -> bool:
        """Let others have their turn, and the peer fetch what it was sent.

        :return: it took the peer some time.
        :raises ClientGone: it has left.
        """
        await ROUND_ROBIN.next(self._reactor)
        waits = self._is_paused
        while self._is_paused and not self._is_gone:
            self._waiting = Deferred()
            await self._waiting
        if self._is_gone:
            raise ClientGone("The client went away before the end of a list.")
        return waits

    def pauseProducing(self) -> None:
        """The peer has not fetched what there is."""
        self._is_paused = True

    def resumeProducing(self) -> None:
        """It has."""
        self._is_paused = False
        self._wake()

    def stopProducing(self) -> None:
        """It has left."""
        self._is_gone = True
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)


@frozen
class Shape:
    """What is around the members of a list, and what it is.

    :ivar media: the media type.
    :ivar between: stands between two members.
    """

    media: str
    opening: bytes = b""
    between: bytes = b""
    closing: bytes = b""


ARRAY = Shape("application/json", b"[", b", ", b"]")
"""A list in JSON."""


async def send_list(
    request: Any,
    fetch: Fetch[T],
    encode: Callable[[T], Any],
    *,
    most: int,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Write a JSON array, but do not finish the request.

    :param fetch: reads the list.
    :param encode: makes of a row what becomes its JSON.
    :param most: how many rows are read at once, at most; so many long ones, too, must be
        read and encoded without a stall.
    :raises ClientGone: the peer left before the end.
    """
    await send_pieces(
        request, fetch, lambda row: json.dumps(encode(row)).encode(), ARRAY,
        most=most, headers=headers,
    )  # fmt: skip


async def send_pieces(
    request: Any,
    fetch: Fetch[T],
    encode: Callable[[T], bytes],
    shape: Shape,
    *,
    most: int,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Write a list of any kind, but do not finish the request.

    :param encode: makes the member of a row; none, if that is empty.
    :param most: as in :func:`send_list`.
    :raises ClientGone: the peer left before the end.
    """
    text, pacer, is_first = bytearray(shape.opening), None, True
    place, count, more = None, min(FIRST, most), True
    while more:
        rows = await fetch(place, count)
        await ROUND_ROBIN.next(request.site.reactor)
        more = len(rows) == count
        used = size = 0
        for place, row in rows:  # noqa: B007 the last one counts
            member = encode(row)
            used, size = used + 1, size + len(member)
            if member:
                text += member if is_first else shape.between + member
                is_first = False
            if len(text) < PIECE:
                continue
            if pacer is None:
                _begin(request, shape, headers)
                if request.method == b"HEAD":
                    return
                pacer = Pacer(request)
            request.write(bytes(text))
            text.clear()
            if await pacer.turn():
                # Others must not pay for a peer that is slow: the rows are read again.
                more = more or used < len(rows)
                break
        del rows
        count = _next_count(count, used, size, most)
    text += shape.closing
    if pacer is None:
        _begin(request, shape, headers)
        request.setHeader("Content-Length", str(len(text)))
    request.write(bytes(text))
    if pacer is not None:
        request.unregisterProducer()


def _begin(request: Any, shape: Shape, headers: Mapping[str, str] | None) -> None:
    """Set the fields of the head: not before there is something to write, or a refusal has them."""
    for name, value in {"Content-Type": shape.media, **(headers or {})}.items():
        request.setHeader(name, value)


def _next_count(count: int, used: int, size: int, most: int) -> int:
    """How many rows to read next, so that they make about a piece; at most twice as many."""
    if not used:
        return count
    fitting = PIECE * used // max(size, 1)
    return max(1, min(fitting, 2 * count, most))
