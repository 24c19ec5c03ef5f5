"""A small stock of connections to PostgreSQL that heals itself."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from repoman.database.address import servers, with_addresses
from repoman.database.link import Link
from repoman.errors import DatabaseUnavailable

FIRST_DELAY, LONGEST_DELAY = 0.05, 1.0
"""Seconds between attempts to connect: doubled from the first up to the longest."""

_log = Logger()


class Links:
    """Connections to one database, at most ``size``, each used by one at a time.

    A link goes back only if it is outside any transaction; any other is
    closed and replaced.  The missing ones are connected in the background,
    one after the other, so that an absent server is asked by one only.

    :param parameters: for libpq.
    :param wait: seconds to wait for a free one.
    """

    def __init__(
        self, reactor: Any, parameters: Mapping[str, str], *, size: int, wait: float
    ) -> None:
        self._reactor = reactor
        self._parameters = parameters
        self._size = size
        self._wait = wait
        self._all: set[Link] = set()
        self._idle: list[Link] = []
        self._waiting: deque[Deferred[Link]] = deque()
        self._running = False
        self._healing: Deferred[None] | None = None
        self._empty: Deferred[None] | None = None

    def __len__(self) -> int:
        """How many there are, free or in use."""
        return len(self._all)

    @property
    def free(self) -> int:
        """How many nobody uses."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """How many callers wait for one."""
        return len(self._waiting)

    def open(self) -> None:
        """Begin to connect."""
        self._running = True
        self._heal()

    async def close(self, limit: float) -> None:
        """Close those that are free, and the others when they are given back.

        :param limit: seconds until those in use are closed too.
        """
        self._running = False
        while self._waiting:
            self._waiting.popleft().errback(_stopping())
        if self._healing is not None:
            self._healing.cancel()
        self.discard_idle()
        if self._all:
            self._empty = Deferred()
            timer = self._reactor.callLater(limit, self._abandon)
            await self._empty
            if timer.active():
                timer.cancel()

    async def take(self) -> Link:
        """A link that nobody else uses until it is given back.

        :raises DatabaseUnavailable: none became free in time.
        """
        if self._idle:
            return self._idle.pop()
        if not self._running:
            raise _stopping()
        turn: Deferred[Link] = Deferred()
        self._waiting.append(turn)
        timer = self._reactor.callLater(self._wait, self._give_up, turn)
        try:
            return await turn
        finally:
            if timer.active():
                timer.cancel()

    def give_back(self, link: Link) -> None:
        """Let the next one have ``link``, if it is still good."""
        if not link.is_idle or not self._running:
            self._discard(link)
        elif self._waiting:
            self._waiting.popleft().callback(link)
        else:
            self._idle.append(link)

    def discard_idle(self) -> None:
        """Close those that are free."""
        for link in self._idle[:]:
            self._discard(link)

    def _give_up(self, turn: Deferred[Link]) -> None:
        self._waiting.remove(turn)
        why = "is busy" if self._all else "does not answer"
        turn.errback(DatabaseUnavailable(f"The database {why}; try again in a moment."))

    def _lost(self, link: Link) -> None:
        # One in use stays in the books until its user gives it back.
        if link in self._idle:
            self._discard(link)

    def _discard(self, link: Link) -> None:
        with suppress(ValueError):
            self._idle.remove(link)
        self._all.discard(link)
        link.shut()
        self._heal()
        if self._empty is not None and not self._all:
            # After whoever gave the last one back has told of their result.
            self._reactor.callLater(0, self._empty.callback, None)
            self._empty = None

    def _abandon(self) -> None:
        for link in list(self._all):
            link.shut()

    def _heal(self) -> None:
        if self._running and self._healing is None:
            self._healing = Deferred.fromCoroutine(self._connect_missing())

    async def _connect_missing(self) -> None:
        try:
            await deferLater(self._reactor, 0)  # not in the middle of a caller's statement
            while len(self._all) < self._size:
                link = await self._connected()
                self._all.add(link)
                self.give_back(link)
        except CancelledError:
            pass  # by close()
        finally:
            self._healing = None

    async def _connected(self) -> Link:
        """A new link, after as many attempts as it takes."""
        delay, reported = FIRST_DELAY, False
        while True:
            try:
                link = await self._open_any()
            except CancelledError:
                raise
            except Exception as error:  # whatever it is, the next attempt may do better
                if not reported:
                    _log.warn("The database cannot be reached: {why}", why=_one_line(error))
                    reported = True
                await deferLater(self._reactor, random.uniform(delay / 2, delay))  # noqa: S311  # no secret
                delay = min(2 * delay, LONGEST_DELAY)
            else:
                if reported:
                    _log.info("The database is reached again")
                return link

    async def _open_any(self) -> Link:
        """A link to the first of the servers that lets us in, at the first address that does."""
        refused: Exception = DatabaseUnavailable("there is no server")
        for server in servers(self._parameters):
            try:
                addresses = await with_addresses(self._reactor, server)
            except DatabaseUnavailable as error:
                refused = error
                continue
            for address in addresses:
                link = Link(self._reactor, self._lost)
                try:
                    await link.open(address)
                except CancelledError:
                    raise
                except Exception as error:
                    refused = error
                else:
                    return link
        raise refused


def _stopping() -> DatabaseUnavailable:
    return DatabaseUnavailable("The server is stopping.")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
