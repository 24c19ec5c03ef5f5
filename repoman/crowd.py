"""Which connection makes room where all places are taken.  Pure functions.

Work that runs is never cut for somebody else's sake.  What goes is a connection that lets us wait:
for a handshake, for headers, for a small body, for its next request, or for taking what it has
asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Any, Generic, TypeVar

from attrs import frozen

LATE_SECONDS = 2.0
"""After so long without complete headers a connection goes before those that are merely idle."""

SUBSCRIBER = 64
"""Bits of an IPv6 address that one subscriber is given, and can choose addresses below."""

_Connection = TypeVar("_Connection")


class Standing(IntEnum):
    """Why a connection may go, those first that go first."""

    REFUSED = 0
    """It has its answer, and still sends what nobody wants."""

    LATE = 1
    """It has begun to ask and does not end, for longer than LATE_SECONDS."""

    IDLE = 2
    """We wait for what it will ask."""

    KNOWN_IDLE = 3
    """The same, of a peer with a good certificate: strangers do not push it out, while such peers
    have no more than half of the places."""

    STALLED = 4
    """It takes nothing of its answer, or sends nothing of its body."""


def standing(is_known: bool, has_begun: bool, seconds: float) -> Standing:
    """The standing of a connection that has let us wait for a request for so long.

    :param is_known: its peer has a good certificate.
    :param has_begun: the request, or the first handshake, is under way.
    """
    if is_known:
        return Standing.KNOWN_IDLE
    return Standing.LATE if has_begun and seconds > LATE_SECONDS else Standing.IDLE


@frozen
class Waiting(Generic[_Connection]):
    """A connection that may go.

    :ivar source: where it comes from, see :func:`source_of`.
    :ivar since: when it began to let us wait, in seconds of whatever clock.
    """

    connection: _Connection
    source: str
    standing: Standing
    since: float


@lru_cache(maxsize=1024)  # its keys are addresses as the kernel writes them
def _of_ip(host: str) -> str:
    address = ip_address(host)
    if not isinstance(address, IPv6Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    kept = int(address) >> (128 - SUBSCRIBER) << (128 - SUBSCRIBER)
    return f"{IPv6Address(kept)}/{SUBSCRIBER}"


def source_of(peer: Any) -> str:
    """What counts as one address: an IPv4 address, or the /64 of an IPv6 one.

    :param peer: a transport's; one without an address (a UNIX socket) has the empty source.
    """
    host = str(getattr(peer, "host", ""))
    try:
        return _of_ip(host)
    except ValueError:
        return host


def share(limit: int) -> int:
    """How many of ``limit`` places one source may have: a tenth is left for others."""
    return limit - limit // 10


def crowds(count: int, limit: int) -> bool:
    """A source with ``count`` of ``limit`` places has more than half of them."""
    return 2 * count > limit


def first_to_go(
    waiting: Sequence[Waiting[_Connection]], counts: dict[str, int], limit: int
) -> Waiting[_Connection] | None:
    """Which of them goes first: of a source that crowds the others, by standing, the oldest.

    A good certificate counts for nothing where those who have one and are idle take more than
    half of the places: anybody may have one, and newcomers would have to share what is left.

    :param counts: how many connections each source has.
    """
    known = sum(one.standing is Standing.KNOWN_IDLE for one in waiting)

    def rank(one: Waiting[_Connection]) -> tuple[bool, Standing, float]:
        why = one.standing
        if why is Standing.KNOWN_IDLE and crowds(known, limit):
            why = Standing.IDLE
        return not crowds(counts[one.source], limit), why, one.since

    return min(waiting, key=rank, default=None)
