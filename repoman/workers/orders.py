"""What a worker is given at its birth, and what it and its foreman say to each other."""

from __future__ import annotations

import os
import pickle  # from a parent to its own child, in memory that nobody else has
from collections.abc import Mapping
from typing import Any

from attrs import field, frozen
from cattrs.preconf.json import make_converter

from repoman.config import Config
from repoman.history import Part

VARIABLE = "REPOMAN_ORDERS"
"""The variable of the environment that names the descriptor of a worker's orders."""

_FOREMANS = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID",
             "LISTEN_FDNAMES", VARIABLE}  # fmt: skip
"""What systemd tells the foreman alone."""

_converter = make_converter()


@frozen
class Orders:
    """What a worker starts with.

    :ivar dsn: of the database.
    :ivar number: which of the workers it is, from 0.
    :ivar ports: descriptor and address family of each endpoint's listening socket.
    :ivar hears: the descriptor on which the foreman speaks.
    :ivar tells: the one on which the worker does.
    :ivar journal: the one for events of the log.
    :ivar loads: the one of the memory in which each worker notes how many connections it has.
    :ivar past: what the others did in the last day.
    :ivar holder: the name by which the records know it.
    :ivar dead: those of workers that have ended: what they had is free.
    """

    config: Config
    dsn: str
    number: int
    ports: Mapping[str, tuple[int, int]]
    hears: int
    tells: int
    journal: int
    loads: int
    past: Part
    holder: str
    dead: tuple[str, ...]

    def write(self) -> int:
        """Put them where a child finds them; answer the descriptor, to be closed by us."""
        place = os.memfd_create("orders")
        os.write(place, pickle.dumps(self))
        return place


def environment(place: int) -> dict[str, str]:
    """The environment of a worker whose orders are in the descriptor ``place``."""
    ours = {name: value for name, value in os.environ.items() if name not in _FOREMANS}
    return {**ours, VARIABLE: str(place)}


def read_orders() -> Orders | None:
    """The orders of this process, if it is a worker."""
    place = os.environ.get(VARIABLE)
    if place is None:
        return None
    content = os.pread(int(place), os.fstat(int(place)).st_size, 0)
    orders = pickle.loads(content)  # noqa: S301 # see above
    return orders if isinstance(orders, Orders) else None


@frozen
class Report:
    """What a worker tells, each second and when there is news.

    :ivar serves: the gate is open.
    :ivar metrics: all of its own, as Prometheus has them.
    :ivar troubles: why it cannot serve now.
    :ivar news: what it did since its last report.
    :ivar failed: why it does not start, a line each; none: it does.
    """

    serves: bool = False
    metrics: str = ""
    troubles: list[str] = field(factory=list)
    news: Part = field(factory=Part)
    failed: list[str] = field(factory=list)


@frozen
class Word:
    """What a foreman says.

    :ivar go: tables and store are ready.
    :ivar wait: they are not, and why.
    :ivar news: what another worker did.
    """

    go: bool = False
    wait: str = ""
    news: Part = field(factory=Part)


def encode(message: Report | Word) -> bytes:
    """A message as a line, without its end."""
    return _converter.dumps(message).encode()


def decode(line: bytes, kind: Any) -> Any:
    """The message of a line."""
    return _converter.loads(line.decode(), kind)
