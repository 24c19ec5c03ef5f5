"""One connection to PostgreSQL, whose deadlines close its socket."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from psycopg2 import Error
from psycopg2.extensions import (
    TRANSACTION_STATUS_IDLE,
    TRANSACTION_STATUS_INTRANS,
    TRANSACTION_STATUS_UNKNOWN,
)
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from txpostgres.txpostgres import (  # type: ignore[import-untyped]  # it has no type hints
    Connection,
    Cursor,
    _PollingMixin,
)

from repoman.errors import DatabaseUnavailable

T = TypeVar("T")

Parameters = Mapping[str, Any] | Sequence[Any]
"""What fills a statement's placeholders, as psycopg2 takes it."""

CONNECT_LIMIT = 5.0
"""Seconds to connect and log in.  libpq ignores ``connect_timeout`` when asynchronous."""


class LinkLost(DatabaseUnavailable):
    """The connection broke under a statement."""

    def __init__(self) -> None:
        super().__init__("The connection to the database broke; try again in a moment.")


class Link(Connection):  # type: ignore[misc]  # txpostgres has no type hints
    """A txpostgres connection that says when it dies.

    No cancellation reaches a Deferred of txpostgres: it would call ``PQcancel``,
    which blocks the whole process while the database does not answer.

    :param lost: called once if the connection dies while nothing uses it.
    :ivar prepared: the names of the statements that the server has planned for it.
    """

    def __init__(self, reactor: Any, lost: Callable[[Link], None]) -> None:
        super().__init__(reactor)
        self._lost = lost
        self.prepared: set[str] = set()

    async def open(self, parameters: Mapping[str, str]) -> None:
        """Connect and log in.

        :raises psycopg2.Error: no such server, or it does not let us in.
        :raises DatabaseUnavailable: not done in :data:`CONNECT_LIMIT` seconds.
        """
        try:
            await self._by(CONNECT_LIMIT, self.connect(**parameters))
        except BaseException:
            self.shut()
            raise

    async def execute(self, sql: str, parameters: Parameters = (), *, limit: float) -> Cursor:
        """Run a statement.

        :param limit: in seconds; then the socket is closed.
        :raises LinkLost: the connection broke, now or before.
        :raises DatabaseUnavailable: no answer within ``limit``, or the server
            gave up after its ``statement_timeout``.
        :raises psycopg2.Error: any other refusal by the server.
        """
        try:
            cursor = self.cursor()
            # Without parameters a "%" in the statement is just that.
            await self._by(limit, cursor.execute(sql, parameters or None))
        except CancelledError:  # txpostgres says so for SQLSTATE 57014
            raise DatabaseUnavailable("The database took too long; try again later.") from None
        except (Error, ValueError) as error:  # ValueError: watching a closed socket
            if self.is_lost:
                raise LinkLost from error
            raise
        return cursor

    async def _by(self, limit: float, answer: Deferred[Any]) -> None:
        timer = self.reactor.callLater(limit, self.shut)
        try:
            await detached(answer, lambda late: None)
        except ConnectionDone:  # by shut(), the timer's or another's
            if timer.active():
                raise LinkLost from None
            raise DatabaseUnavailable("The database does not answer; try again later.") from None
        finally:
            if timer.active():
                timer.cancel()

    @property
    def is_lost(self) -> bool:
        """No statement will ever work again."""
        return self._status() == TRANSACTION_STATUS_UNKNOWN

    @property
    def is_in_transaction(self) -> bool:
        """Inside a transaction in which no statement has failed."""
        return self._status() == TRANSACTION_STATUS_INTRANS

    @property
    def is_idle(self) -> bool:
        """Connected, outside any transaction, and nothing under way."""
        return self._status() == TRANSACTION_STATUS_IDLE

    def _status(self) -> int:
        if self._connection is None or self._connection.closed:
            return TRANSACTION_STATUS_UNKNOWN
        return int(self._connection.info.transaction_status)

    def shut(self) -> None:
        """Close the socket.  Never blocks; harmless twice."""
        if self._connection is not None:
            self.close()

    def doRead(self) -> None:
        """Take what the server says between statements, its farewell above all."""
        # Not Connection.doRead, which goes on reading from a socket that libpq has closed.
        with suppress(Error):
            _PollingMixin.doRead(self)
        if not self.is_lost:
            self.reactor.addReader(self)
        elif self._pollingD is None:
            self.shut()
        # Else it connects, and polling watches the socket that libpq has now, if it has one.

    def connectionLost(self, reason: Failure) -> None:
        """The reactor found the socket dead, or :meth:`shut` closed it."""
        super().connectionLost(reason)
        if self.is_lost:
            self._lost(self)


def detached(work: Deferred[T], late: Callable[[Failure], object]) -> Deferred[T]:
    """An answer that can be cancelled without ``work`` noticing.

    :param late: told of a failure of ``work`` after that.
    """
    answer: Deferred[T] = Deferred()

    def settle(result: T | Failure) -> None:
        if not answer.called:
            answer.callback(result)  # a Failure goes to the errbacks
        elif isinstance(result, Failure):
            late(result)

    work.addBoth(settle)
    return answer
